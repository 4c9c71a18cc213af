"""Enrolls by ACME as a server does, and answers http-01 itself (RFC 8555 §7, §8.3)."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

from gateway.cli.enrollment import Enrolled, Server, Steps, Wanted, find_leaf, verified_chain
from gateway.cli.options import fail
from gateway.errors import MalformedMessage
from gateway.model import ChallengeType
from gateway.pki.csr import build_csr
from gateway.pki.identifiers import to_identifier
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import generate_private_key, public_key_der
from gateway.pki.names import format_name
from gateway.wire.acme.challenges import HTTP_PATH
from gateway.wire.acme.client import (
    AcmeAnswer,
    AcmeClient,
    AcmeRefusal,
    AcmeRequest,
    ExternalKey,
    Flow,
    OrderFailed,
    Trial,
    drive,
)
from gateway.wire.acme.objects import MEDIA_JSON

ACCOUNT_KEY = "ec-p256"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Account:
    """With what an account is made: an external account where the server asks for one, and the order's profile."""

    external: ExternalKey | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Responder:
    """Where http-01 is answered: `host` empty is every address of this machine."""

    host: str
    port: int
    answers: dict[str, bytes] = field(default_factory=dict)
    """By path."""

    def respond(self, trial: Trial) -> Mapping[str, object] | None:
        """Answer http-01, which is the only challenge that needs nothing but this machine; None for others."""
        if trial.type is not ChallengeType.HTTP_01:
            return None
        self.answers[f"{HTTP_PATH}{trial.token}"] = trial.authorization.encode("ascii")
        return {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer until the block ends; ends the command where the port cannot be had."""
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            """Answers what is expected, and nothing else."""

            timeout = 10.0

            def do_GET(self) -> None:  # the name is the standard library's
                body = answers.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: the steps do."""

        try:
            server = _HttpServer((self.host or "::", self.port), Handler)
        except OSError as error:
            fail(f"http-01 cannot be answered at port {self.port}: {error.strerror}; give another one, --http-port")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _HttpServer(ThreadingHTTPServer):
    """Listens on one address, or on all of them, IPv6 and IPv4."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking who we are in the DNS, which may take long."""
        if self.address_family == socket.AF_INET6:
            with suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def enroll(server: Server, steps: Steps, account: Account, wanted: Wanted, responder: Responder) -> Enrolled:
    """Order, prove and fetch one certificate; ends the command where the server refuses."""
    signer = Signer.of(generate_private_key(ACCOUNT_KEY))
    identifiers = tuple(found for san in wanted.sans if (found := to_identifier(san)) is not None)
    with closing(server.connect()) as connection, responder.running():
        walk = _Walk(AcmeClient(server.url.geturl(), signer), server, connection, monotonic() + wanted.wait)
        with steps.step("directory"):
            walk.run(walk.client.open())
        with steps.step("newAccount") as saw:
            walk.run(walk.client.register(external=account.external))
            saw(str(walk.client.kid))
        with steps.step("newOrder") as saw:
            order: AcmeAnswer = walk.run(walk.client.order(identifiers, profile=account.profile))
            saw(f"{order.document['status']}: {', '.join(each.value for each in identifiers)}")
        if order.document["status"] == "pending":
            for url in order.document["authorizations"]:
                with steps.step("authorization") as saw:
                    saw(_describe(walk.run(walk.client.authorize(url, responder.respond))))
        with steps.step("key"):
            key = generate_private_key(wanted.key.value)
        with steps.step("finalize") as saw:
            csr = build_csr(key, wanted.subject.der, wanted.sans)
            document = walk.run(walk.client.finalize(order, csr))
            saw(document["status"])
        with steps.step("certificate") as saw:
            sent: tuple[bytes, ...] = walk.run(walk.client.certificate(document["certificate"]))
            leaf = find_leaf(sent, public_key_der(key))
            chain = verified_chain(leaf, sent)
            named = format_name(leaf.subject) or ", ".join(san.value for san in leaf.sans)
            saw(f"{named}, serial {leaf.serial:x}, valid until {leaf.not_after:%Y-%m-%d %H:%M}Z")
    return Enrolled(key, leaf, chain)


def _describe(authorization: Mapping[str, Any]) -> str:
    """Say what was proved, and how."""
    proved = [each["type"] for each in authorization["challenges"] if each.get("status") == "valid"]
    return f"{authorization['identifier']['value']}: {authorization['status']} by {', '.join(proved) or 'nothing'}"


@dataclass(frozen=True, slots=True)
class _Walk:
    """One client on one connection, until it is time to give up."""

    client: AcmeClient
    server: Server
    connection: http.client.HTTPConnection
    give_up: float
    seen: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=1))
    """What the server said last."""

    def run(self, flow: Flow) -> Any:
        """Return what a flow comes to; ends the command where the server refuses."""
        try:
            return drive(flow, self._send, self._sleep)
        except AcmeRefusal as refusal:
            fail(f"The server refused: {refusal.status} {refusal.type}: {refusal.detail}{_names(refusal.problem)}")
        except OrderFailed as failed:
            fail(f"The server refused: {failed}")
        except MalformedMessage as error:
            fail(f"The server's answer is not understood: {error.cause}")

    def _send(self, request: AcmeRequest) -> AcmeAnswer:
        parts = urlsplit(request.url)
        if (parts.scheme, parts.netloc) != (self.server.url.scheme, self.server.url.netloc):
            fail(f"The server leads elsewhere: {request.url}")
        try:
            self.connection.request(request.method, parts.path or "/", request.body or None, dict(request.headers))
            reply = self.connection.getresponse()
            answer = AcmeAnswer.of(reply.status, reply.getheaders(), reply.read())
        except (OSError, http.client.HTTPException) as error:
            fail(f"{request.url} does not answer: {error}")
        if answer.headers.get("content-type") == MEDIA_JSON:
            self.seen.append(answer.document)
        return answer

    def _sleep(self, seconds: float) -> None:
        if monotonic() + seconds > self.give_up:
            tried = next((each["error"] for each in self.seen[-1].get("challenges", ()) if each.get("error")), None)
            if tried is not None:
                fail(f"The name is not proved, and is still tried: {tried.get('detail')}")
            fail("The order is still pending: give it more time, --wait, or see `pki-gateway requests list`.")
        sleep(seconds)


def _names(problem: Mapping[str, Any]) -> str:
    """Return what is said of single names."""
    told = problem.get("subproblems", ())
    details = [str(each.get("detail", "")) for each in told if isinstance(each, dict)]
    return f" ({'; '.join(details)})" if details else ""
