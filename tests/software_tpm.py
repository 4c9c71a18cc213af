"""A TPM 2.0 of libtpms, run by swtpm on a socket of its own: its commands as bytes (TPM 2.0 Library, Part 3)."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.attesting import buffer

_RETRY = bytes.fromhex("00000922")
_CREATE_PRIMARY, _CERTIFY, _SIGN = 0x131, 0x148, 0x15D
_OWNER, _ENDORSEMENT, _NULL_HIERARCHY = 0x40000001, 0x4000000B, 0x40000007
_PASSWORD = bytes.fromhex("40000009 0000 00 0000")
"""An empty password for one handle."""
_SHA256, _NONE = b"\x00\x0b", b"\x00\x10"
_ATTESTATION_KEY, _PLAIN_KEY = 0x00050072, 0x00040072
_SCHEMES = {"ec": b"\x00\x18", "rsa": b"\x00\x14"}


@dataclass(frozen=True)
class LoadedKey:
    """A key in the TPM: its handle, its TPMT_PUBLIC, and its kind."""

    handle: int
    area: bytes = field(repr=False)
    kind: str


@dataclass(frozen=True)
class SoftwareTpm:
    """Sends commands and reads what comes back."""

    connection: socket.socket

    def attestation_key(self, kind: str = "ec") -> LoadedKey:
        """Make a restricted signing key below the endorsement hierarchy."""
        return self._create(_ENDORSEMENT, kind, _ATTESTATION_KEY, _SCHEMES[kind] + _SHA256)

    def key(self, kind: str = "ec", attributes: int = _PLAIN_KEY) -> LoadedKey:
        """Make a signing key below the owner hierarchy."""
        return self._create(_OWNER, kind, attributes, _NONE)

    def _create(self, hierarchy: int, kind: str, attributes: int, scheme: bytes) -> LoadedKey:
        details = b"\x00\x03" + _NONE + buffer(b"") * 2 if kind == "ec" else b"\x08\x00" + bytes(4) + buffer(b"")
        number = b"\x00\x23" if kind == "ec" else b"\x00\x01"
        template = number + _SHA256 + attributes.to_bytes(4) + buffer(b"") + _NONE + scheme + details
        sensitive = buffer(buffer(b"") * 2)
        answer = self._run(_CREATE_PRIMARY, (hierarchy,), 1, sensitive + buffer(template) + buffer(b"") + bytes(4))
        handle, area = answer[:4], answer[8:]
        return LoadedKey(int.from_bytes(handle), area[2 : 2 + int.from_bytes(area[:2])], kind)

    def certify(self, key: LoadedKey, by: LoadedKey, data: bytes) -> tuple[bytes, bytes]:
        """Return the TPMS_ATTEST and the TPMT_SIGNATURE of TPM2_Certify, `data` signed along."""
        answer = self._run(_CERTIFY, (key.handle, by.handle), 2, buffer(data) + _NONE)
        parameters = answer[4 : 4 + int.from_bytes(answer[:4])]
        size = int.from_bytes(parameters[:2])
        return parameters[2 : 2 + size], parameters[2 + size :]

    def sign(self, key: LoadedKey, digest: bytes) -> bytes:
        """Return the signature of a SHA-256 digest as X.509 has it."""
        ticket = b"\x80\x24" + _NULL_HIERARCHY.to_bytes(4) + buffer(b"")
        answer = self._run(_SIGN, (key.handle,), 1, buffer(digest) + _SCHEMES[key.kind] + _SHA256 + ticket)
        rest = answer[8 : 4 + int.from_bytes(answer[:4])]
        first = rest[2 : 2 + int.from_bytes(rest[:2])]
        if key.kind == "rsa":
            return first
        second = rest[2 + len(first) + 2 :]
        return encode_dss_signature(int.from_bytes(first), int.from_bytes(second))

    def _run(self, command: int, handles: tuple[int, ...], sessions: int, parameters: bytes) -> bytes:
        auth = _PASSWORD * sessions
        body = b"".join(h.to_bytes(4) for h in handles) + len(auth).to_bytes(4) + auth + parameters
        request = b"\x80\x02" + (10 + len(body)).to_bytes(4) + command.to_bytes(4) + body
        for _ in range(20):
            self.connection.sendall(request)
            head = self._receive(10)
            answer = self._receive(int.from_bytes(head[2:6]) - 10)
            if head[6:] == bytes(4):
                return answer
            assert head[6:] == _RETRY, f"TPM_RC {head[6:].hex()} of command {command:#x}"
        raise AssertionError("the TPM is always busy")

    def _receive(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.connection.recv(size - len(found))
            assert more, "swtpm has hung up"
            found += more
        return found


@contextmanager
def software_tpm(program: str, folder: Path) -> Iterator[SoftwareTpm]:
    """Run a TPM without a past in `folder`, whose path must be short enough for a socket."""
    state, path = folder / "state", folder / "s"
    state.mkdir(parents=True)
    arguments = ["socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments, "--server", f"type=unixio,path={path}"], stdout=log, stderr=log)
    try:
        with _connect(path) as connection:
            yield SoftwareTpm(connection)
    finally:
        process.terminate()
        process.wait(30)


def _connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            assert time.monotonic() < deadline, f"swtpm does not listen at {path}"
            time.sleep(0.02)
