"""A proxy between ACME clients and the server that spoils 15 % of the nonces (RFC 8555 §6.5).

certbot repeats a request once, and with a nonce that it asks for then, not with that of the refusal: after each spoilt one the
next three are spared.
"""

from __future__ import annotations

import http.client
import random
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SPARED = 3
CHANCE = 0.15 / (1 - 0.15 * SPARED)
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server", "content-length"}


@dataclass
class Spoiler:
    """Draws which nonces are spoilt: the same ones in each run."""

    spoilt: set[str] = field(default_factory=set)
    refused: int = 0
    """How often the server said badNonce."""
    _random: random.Random = field(default_factory=lambda: random.Random(6))
    _spare: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_on(self, nonce: str) -> str:
        """Return this nonce, or one that the server never gave."""
        with self._lock:
            self._spare -= 1
            if self._spare >= 0 or self._random.random() >= CHANCE:
                return nonce
            self._spare = SPARED
            other = secrets.token_urlsafe(len(nonce) * 3 // 4)
            self.spoilt.add(other)
            return other


class _Server(ThreadingHTTPServer):
    spoiler: Spoiler
    upstream: int
    context: ssl.SSLContext
    tls: ssl.SSLContext

    def finish_request(self, request: object, client_address: object) -> None:
        """Speak TLS in the connection's own thread."""
        with self.tls.wrap_socket(request, server_side=True) as wrapped:  # type: ignore[arg-type]
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may leave as they like."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 60

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPSConnection("localhost", self.server.upstream, context=self.server.context, timeout=120)
        with closing(upstream):
            upstream.request(self.command, self.path, body or None, {k: v for k, v in self.headers.items() if k != "Connection"})
            answer = upstream.getresponse()
            content = answer.read()
        if answer.status == 400 and b"badNonce" in content:
            self.server.spoiler.refused += 1
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "replay-nonce":
                self.send_header(name, self.server.spoiler.pass_on(value))
            elif name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def do_POST(self) -> None:
        self._forward()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def spoiling(port: int, upstream: int, state: Path) -> Iterator[Spoiler]:
    """Listen on `port` with the server's own certificate; what clients see must be this port."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.spoiler, server.upstream = Spoiler(), upstream
    server.context = ssl.create_default_context(cafile=state / "ca" / "root.pem")
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(state / "tls" / "server.pem", state / "secrets" / "tls.key")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.spoiler
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
