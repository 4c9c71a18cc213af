"""A primary DNS server that takes dynamic updates signed with TSIG (RFC 2136, RFC 8945), TCP on loopback."""

from __future__ import annotations

import base64
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

from tests.dns_server import DnsServer

KEY_NAME, SECRET = "gateway.", b"0123456789abcdef0123456789abcdef"


@dataclass
class UpdateServer:
    """Writes what it is told into the records of `shown`, where the CA asks; `zone` is its only one."""

    shown: DnsServer
    zone: str
    port: int = 0
    rcode: str | None = None
    """What it answers every update by instead of doing it."""
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    """`add` or `remove`, name and value, in their order."""
    _values: dict[str, list[str]] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, list[str]]:
        """The TXT records that are there."""
        return {name: values for name, values in self._values.items() if values}

    @property
    def secret(self) -> bytes:
        """The key as the configuration has it."""
        return base64.b64encode(SECRET)

    def answer(self, wire: bytes) -> bytes:
        keyring = {dns.name.from_text(KEY_NAME): dns.tsig.Key(KEY_NAME, SECRET, "hmac-sha256")}
        try:
            query = dns.message.from_wire(wire, keyring=keyring)
        except (dns.exception.DNSException, KeyError):
            unread = dns.message.from_wire(wire, keyring=False)
            unread.tsig = None
            refused = dns.message.make_response(unread)
            refused.set_rcode(dns.rcode.NOTAUTH)
            return refused.to_wire()
        reply = dns.message.make_response(query)
        if not query.had_tsig:
            reply.set_rcode(dns.rcode.REFUSED)
        elif query.opcode() == dns.opcode.UPDATE:
            self._update(query, reply)
        else:
            soa = dns.rrset.from_text(f"{self.zone}.", 60, dns.rdataclass.IN, dns.rdatatype.SOA, "ns. admin. 1 60 60 60 60")
            reply.authority.append(soa)
        return reply.to_wire()

    def _update(self, query: Any, reply: dns.message.Message) -> None:
        if self.rcode is not None:
            reply.set_rcode(dns.rcode.from_text(self.rcode))
            return
        if query.zone[0].name != dns.name.from_text(self.zone):
            reply.set_rcode(dns.rcode.NOTZONE)
            return
        for rrset in query.update:
            name, value = rrset.name.to_text(omit_final_dot=True), rrset[0].strings[0].decode()
            values = self._values.setdefault(name, [])
            removes = rrset.deleting == dns.rdataclass.NONE
            self.changes.append(("remove" if removes else "add", name, value))
            if removes:
                values[:] = [v for v in values if v != value]
            elif value not in values:
                values.append(value)
            self.shown.remove(name, "TXT")
            if values:
                self.shown.add_txt(name, *values)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while len(head := self.rfile.read(2)) == 2:
            answer = self.server.updates.answer(self.rfile.read(struct.unpack("!H", head)[0]))
            self.wfile.write(struct.pack("!H", len(answer)) + answer)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    updates: UpdateServer


@contextmanager
def update_server(shown: DnsServer, zone: str) -> Iterator[UpdateServer]:
    """Serve while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.updates = UpdateServer(shown, zone, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.updates
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
