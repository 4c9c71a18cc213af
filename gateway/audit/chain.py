"""The HMAC chain under `audit.key`, and signed heads that show a cut tail."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gateway.errors import ConfigurationError

_TAIL_BYTES = 1024
"""More than the longest line of a head."""
GENESIS = bytes(32)
"""What the first row of a chain follows."""


def parse_audit_key(data: bytes) -> bytes:
    """Read `audit.key`: 256 bits as 64 hexadecimal digits; raises ConfigurationError, which never repeats what the file holds."""
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigurationError(("audit key: 64 hexadecimal digits are expected; `pki-gateway init` writes such a file",))
    return key


def link(key: bytes, seq: int, previous: bytes, body: str) -> bytes:
    """Return the hash of row `seq` that follows `previous`."""
    return hmac.digest(key, seq.to_bytes(8, "big") + previous + body.encode("ascii"), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Where the chain had come to at a time, signed: kept outside the store, it shows a cut tail."""

    seq: int
    hash: bytes
    at: datetime
    mac: bytes

    def to_json(self) -> str:
        """Return one line: `{"seq":…,"hash":…,"at":…,"mac":…}`, digests in hex."""
        raw = {"seq": self.seq, "hash": self.hash.hex(), "at": self.at.isoformat(), "mac": self.mac.hex()}
        return json.dumps(raw, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> AuditHead:
        """Read what `to_json` wrote; raises ValueError for anything else."""
        try:
            raw = json.loads(line)
            head = cls(int(raw["seq"]), bytes.fromhex(raw["hash"]), datetime.fromisoformat(raw["at"]), bytes.fromhex(raw["mac"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError("not an audit head") from error
        if head.at.tzinfo is None or not 0 <= head.seq < 1 << 63:
            raise ValueError("not an audit head")
        return head


def sign_head(key: bytes, seq: int, row_hash: bytes, at: datetime) -> AuditHead:
    """Return the signed head of a chain whose last row is `seq` with this hash."""
    return AuditHead(seq, row_hash, at, _head_mac(key, seq, row_hash, at))


def verify_head(key: bytes, head: AuditHead) -> bool:
    """Whether `head` was signed under this key."""
    return hmac.compare_digest(head.mac, _head_mac(key, head.seq, head.hash, head.at))


def parse_heads(text: str) -> tuple[AuditHead, ...]:
    """Read heads, one JSON object a line; raises ValueError that names the line."""
    heads = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                heads.append(AuditHead.from_json(line))
            except ValueError as error:
                raise ValueError(f"line {number} is not an audit head") from error
    return tuple(heads)


def append_head(path: Path, head: AuditHead) -> bool:
    """Append one head to a file that several workers share, and sync it; False when the file already says more.

    It does when its last head is over a later row and no earlier: another worker was faster, and heads stay in order. A
    later row at an earlier time is none of this chain's past: the store came back from a backup, and the head is written.
    Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # closing the file gives it back
        size = os.fstat(fd).st_size
        last, whole = _last_head(fd, size)
        if last is not None and last.seq >= head.seq and last.at >= head.at:
            return False
        line = head.to_json().encode("ascii") + b"\n"
        data = line if whole else b"\n" + line  # whoever wrote the last line may have died over it
        if os.write(fd, data) != len(data):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
        return True
    finally:
        os.close(fd)


def _last_head(fd: int, size: int) -> tuple[AuditHead | None, bool]:
    """Return the last head of a file if its last line is one, and whether that line is ended."""
    tail = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    try:
        return AuditHead.from_json(tail.splitlines()[-1].decode("ascii", "replace")), tail.endswith(b"\n")
    except (ValueError, IndexError):
        return None, not tail or tail.endswith(b"\n")


class ChainRow(Protocol):
    """One stored link; `store.interfaces.AuditRow` is one."""

    @property
    def seq(self) -> int:
        """Sequence number, from 1."""

    @property
    def previous(self) -> bytes:
        """Hash of the row before."""

    @property
    def hash(self) -> bytes:
        """Hash of this row."""

    @property
    def body(self) -> str:
        """Canonical JSON."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `verify_chain` found; `problems` are whole sentences, at most MAX_PROBLEMS of them, and empty when all is well."""

    rows: int
    last_seq: int
    heads: int
    problems: tuple[str, ...]


MAX_PROBLEMS = 50


def verify_chain(rows: Iterable[ChainRow], key: bytes, heads: Iterable[AuditHead] = ()) -> AuditReport:
    """Walk the chain from its first row and find every changed, missing or reordered row, and against `heads` a cut tail.

    `rows` come in the order in which they are stored; memory does not grow with them.
    """
    finder = _Finder()
    expected = _good_heads(key, heads, finder)
    seen, last_seq, previous = 0, 0, GENESIS
    for row in rows:
        seen += 1
        _verify_row(key, row, last_seq, previous, finder)
        for head in expected.pop(row.seq, ()):
            if not hmac.compare_digest(head.hash, row.hash):
                finder.add(
                    f"row {row.seq} is not the one that the head of {head.at.isoformat()} was signed over: rows were rewritten"
                )
        last_seq, previous = row.seq, row.hash
    for seq in sorted(expected):
        missing = f"the chain ends at row {last_seq}" if seq > last_seq else "it is missing"
        finder.add(f"a head of {expected[seq][0].at.isoformat()} was signed over row {seq}, but {missing}: rows were cut off")
    return AuditReport(seen, last_seq, finder.heads, tuple(finder.problems))


class _Finder:
    """Collects problems, and stops at a number that a person can read."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.heads = 0

    def add(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append("there are more problems than are listed")


def _good_heads(key: bytes, heads: Iterable[AuditHead], finder: _Finder) -> dict[int, list[AuditHead]]:
    expected: dict[int, list[AuditHead]] = {}
    for head in heads:
        finder.heads += 1
        if verify_head(key, head):
            expected.setdefault(head.seq, []).append(head)
        else:
            finder.add(f"the head of {head.at.isoformat()} over row {head.seq} is not signed under this audit key")
    return expected


def _verify_row(key: bytes, row: ChainRow, last_seq: int, previous: bytes, finder: _Finder) -> None:
    if row.seq <= last_seq:
        finder.add(f"row {row.seq} comes after row {last_seq}: rows were reordered")
    elif row.seq == last_seq + 2:
        finder.add(f"row {last_seq + 1} is missing")
    elif row.seq > last_seq + 2:
        finder.add(f"rows {last_seq + 1} to {row.seq - 1} are missing")
    elif not hmac.compare_digest(row.previous, previous):
        finder.add(f"row {row.seq} does not follow row {last_seq}: one of them was put in another's place")
    if not row.body.isascii() or not hmac.compare_digest(row.hash, link(key, row.seq, row.previous, row.body)):
        finder.add(f"row {row.seq} was changed, or written under another audit key")


def _head_mac(key: bytes, seq: int, row_hash: bytes, at: datetime) -> bytes:
    message = b"pki-gateway audit head\0" + seq.to_bytes(8, "big") + row_hash + at.isoformat().encode("ascii")
    return hmac.digest(key, message, hashlib.sha256)
