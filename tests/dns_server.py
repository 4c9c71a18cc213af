"""A DNS server of the tests on one loopback port, UDP and TCP, in threads of its own; records change while it runs."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

MAX_CNAMES = 8
UDP_BYTES = 1232


def _key(name: str) -> str:
    return name.rstrip(".").lower()


@dataclass
class DnsServer:
    """Answers for every name that it is told of; `folders` add TXT records from files that are named as their owner.

    A name that begins with `*.` answers for all names below it that have no records of their own.
    """

    folders: list[Path] = field(default_factory=list)
    port: int = 0
    queries: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, type and transport (`udp`, `tcp`) of all questions, in their order."""
    _records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _rcodes: dict[str, str] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)
    _truncated: set[str] = field(default_factory=set)
    _folded: set[str] = field(default_factory=set)
    follows: bool = True
    """Put what an alias leads to into the answer, as resolvers do."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _servers: list[socketserver.BaseServer] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add(self, name: str, rdtype: str, *texts: str) -> None:
        """Add records in the form of zone files: TXT as `"text"`, several strings of one record as `"a" "b"`."""
        with self._lock:
            self._records.setdefault((_key(name), rdtype), []).extend(texts)

    def add_txt(self, name: str, *values: str) -> None:
        """Add one TXT record for each value."""
        self.add(name, "TXT", *(f'"{value}"' for value in values))

    def remove(self, name: str, rdtype: str) -> None:
        with self._lock:
            self._records.pop((_key(name), rdtype), None)

    def fail(self, name: str, rcode: str | None = "SERVFAIL") -> None:
        """Answer every question about this name and those below it with this code; None: not any more."""
        with self._lock:
            if rcode is None:
                self._rcodes.pop(_key(name), None)
            else:
                self._rcodes[_key(name)] = rcode

    def ignore(self, name: str) -> None:
        """Answer no question about this name."""
        with self._lock:
            self._silent.add(_key(name))

    def truncate(self, name: str) -> None:
        """Answer questions about this name over UDP with nothing but the word to ask over TCP."""
        with self._lock:
            self._truncated.add(_key(name))

    def fold(self, name: str) -> None:
        """Answer questions about this name over UDP with the name in lower case, as forgers do who did not see the question."""
        with self._lock:
            self._folded.add(_key(name))

    def asked(self, name: str, rdtype: str | None = None) -> int:
        """How often it was asked for a name."""
        with self._lock:
            return sum(1 for asked, kind, _ in self.queries if asked == _key(name) and rdtype in (None, kind))

    def __enter__(self) -> DnsServer:
        for _ in range(20):  # the port must be free for both
            udp = _Udp(("127.0.0.1", 0), _UdpHandler)
            try:
                tcp = _Tcp(udp.server_address, _TcpHandler)
            except OSError:
                udp.server_close()
                continue
            self.port = udp.server_address[1]
            for server in (udp, tcp):
                server.dns = self
                thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
                thread.start()
                self._servers.append(server)
                self._threads.append(thread)
            return self
        raise OSError("no port is free for UDP and TCP")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join(5)

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """Return the answer to one message; None: silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, rdtype = _key(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        with self._lock:
            self.queries.append((name, rdtype, transport))
            if name in self._silent:
                return None
            reply = dns.message.make_response(query, our_payload=UDP_BYTES)
            reply.flags |= dns.flags.AA | dns.flags.RA
            rcode = next((code for failed, code in self._rcodes.items() if name == failed or name.endswith(f".{failed}")), None)
            if rcode is not None:
                reply.set_rcode(dns.rcode.from_text(rcode))
            elif transport == "udp" and name in self._truncated:
                reply.flags |= dns.flags.TC
            else:
                self._fill(reply, question.name, rdtype)
            if transport == "udp" and name in self._folded:
                reply.question[0].name = dns.name.from_text(name)
        return _encode(reply, query, transport)

    def _fill(self, reply: dns.message.Message, owner: dns.name.Name, rdtype: str) -> None:
        known = False
        for _ in range(MAX_CNAMES):
            name = _key(owner.to_text())
            found = self._find(name, rdtype)
            known = known or bool(found) or self._exists(name)
            if found:
                reply.answer.append(dns.rrset.from_text_list(owner, 5, dns.rdataclass.IN, rdtype, found))
                return
            alias = self._find(name, "CNAME")
            if not alias:
                break
            reply.answer.append(dns.rrset.from_text_list(owner, 5, dns.rdataclass.IN, "CNAME", alias))
            owner, known = dns.name.from_text(alias[0]), True
            if not self.follows:
                break
        if not known:
            reply.set_rcode(dns.rcode.NXDOMAIN)

    def _find(self, name: str, rdtype: str) -> list[str]:
        found = list(self._records.get((name, rdtype), ()))
        if rdtype == "TXT":
            for folder in self.folders:
                with suppress(OSError):
                    found += [f'"{line}"' for line in (folder / name).read_text().split()]
        if found or any(owner == name for owner, _ in self._records):
            return found
        return next((texts for above in _wildcards(name) if (texts := self._records.get((above, rdtype)))), [])

    def _exists(self, name: str) -> bool:
        """Whether it has records, or a name below it has, or a wildcard stands for it."""
        in_folder = any((folder / name).exists() for folder in self.folders)
        owners = {owner for owner, _ in self._records}
        return in_folder or any(o == name or o.endswith(f".{name}") for o in owners) or not owners.isdisjoint(_wildcards(name))


def _wildcards(name: str) -> Iterator[str]:
    labels = name.split(".")
    for at in range(1, len(labels)):
        yield "*." + ".".join(labels[at:])


def _encode(reply: dns.message.Message, query: dns.message.Message, transport: str) -> bytes:
    wire = reply.to_wire(max_size=65535)
    if transport == "udp" and len(wire) > (query.payload or 512):
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        wire = reply.to_wire()
    return wire


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    dns: DnsServer


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    dns: DnsServer


class _UdpHandler(socketserver.BaseRequestHandler):
    request: tuple[bytes, socket.socket]
    server: Any

    def handle(self) -> None:
        wire, sock = self.request
        answer = self.server.dns.answer(wire, "udp")
        if answer is not None:
            with suppress(OSError):
                sock.sendto(answer, self.client_address)


class _TcpHandler(socketserver.StreamRequestHandler):
    server: Any

    def handle(self) -> None:
        while len(head := self.rfile.read(2)) == 2:
            answer = self.server.dns.answer(self.rfile.read(struct.unpack("!H", head)[0]), "tcp")
            if answer is None:
                return
            with suppress(OSError):
                self.wfile.write(struct.pack("!H", len(answer)) + answer)


@contextmanager
def dns_server(*folders: Path) -> Iterator[DnsServer]:
    """Serve while the block runs; every name below `acme.test` is 127.0.0.1 unless it has records of its own."""
    with DnsServer(list(folders)) as server:
        server.add("*.acme.test", "A", "127.0.0.1")
        yield server
