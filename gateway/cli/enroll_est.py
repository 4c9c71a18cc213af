"""Enrolls by EST as a device does (RFC 7030 §4.1, §4.2, §4.5)."""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from urllib.parse import unquote

from gateway.cli.enrollment import POLL_SECONDS, Enrolled, Server, Steps, Wanted, find_leaf, verified_chain
from gateway.cli.options import fail
from gateway.pki.certificate import Certificate
from gateway.pki.csr import build_csr
from gateway.pki.keys import PrivateKey, generate_private_key, public_key_der
from gateway.pki.names import format_name
from gateway.wire.est import messages
from gateway.wire.est.client import ROOT, EstAnswer, EstRequest, decode_answer, get_request, post_request


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows who is asking, beside a certificate in TLS; `links` ties the request to its connection (RFC 7030 §3.5)."""

    challenge: Callable[[], str] | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)
    renews: Certificate | None = None
    links: bool = False


@dataclass(frozen=True, slots=True)
class EstServer:
    """One EST service as a client sees it."""

    server: Server
    label: str | None

    @classmethod
    def at(cls, server: Server) -> EstServer:
        """Take a URL with or without /.well-known/est and a label; raises ValueError for another one."""
        path = server.url.path.rstrip("/")
        if server.tls is None:
            raise ValueError("EST is spoken over https only")
        if path in {"", ROOT}:
            return cls(server, None)
        label = path.removeprefix(f"{ROOT}/")
        if label == path or "/" in label:
            raise ValueError(f"{server.url.geturl()} is no URL of an EST service, as https://HOST{ROOT}/LABEL is")
        return cls(server, unquote(label))

    def link(self, connection: http.client.HTTPConnection) -> str:
        """Open a connection and return what ties a request to it; ends the command where TLS 1.2 is not spoken."""
        if self.server.tls is not None:
            self.server.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            connection.connect()
        except OSError as error:
            fail(f"{self.server.url.geturl()} does not answer over TLS 1.2: {error}")
        opened = connection.sock
        unique = opened.get_channel_binding("tls-unique") if isinstance(opened, ssl.SSLSocket) else None
        if not unique:
            fail("this connection has nothing to tie a request to")
        return base64.b64encode(unique).decode("ascii")

    def send(self, connection: http.client.HTTPConnection, operation: str, request: EstRequest) -> EstAnswer:
        """Return the answer; ends the command when there is none."""
        try:
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            reply = connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            fail(f"{operation}: {self.server.url.geturl()} does not answer: {error}")
        return decode_answer(operation, reply.status, dict(reply.getheaders()), body)

    def get(self, operation: str) -> EstAnswer:
        """Return what everybody may have."""
        with closing(self.server.connect()) as connection:
            return self.send(connection, operation, get_request(operation, self.label))


def enroll(server: EstServer, steps: Steps, proof: Proof, wanted: Wanted) -> Enrolled:
    """Enroll one device, or renew its certificate; ends the command where the server refuses."""
    with steps.step(messages.CACERTS) as saw:
        authorities = server.get(messages.CACERTS).certificates
        saw(f"{len(authorities)} certificates")
        if not authorities:
            fail("The server gives out no CA certificates.")
    with steps.step(messages.CSRATTRS) as saw:
        attributes = server.get(messages.CSRATTRS).csrattrs
        saw(f"{len(attributes)} bytes" if attributes else "none")
    with steps.step("challenge"):
        challenge = proof.challenge() if proof.challenge is not None else None
    with steps.step("key"):
        key = generate_private_key(wanted.key.value)
    answer = _ask_until_answered(server, steps, proof, wanted, key, challenge)
    with steps.step("certificate") as saw:
        leaf = find_leaf(answer.certificates, public_key_der(key))
        chain = verified_chain(leaf, authorities)
        saw(f"{format_name(leaf.subject)}, serial {leaf.serial:x}, valid until {leaf.not_after:%Y-%m-%d %H:%M}Z")
    return Enrolled(key, leaf, chain)


def _ask_until_answered(
    server: EstServer, steps: Steps, proof: Proof, wanted: Wanted, key: PrivateKey, challenge: str | None
) -> EstAnswer:
    """Send the request until it does not wait any more (RFC 7030 §4.2.3); ends the command where there is no certificate."""
    operation = messages.SIMPLEENROLL if proof.renews is None else messages.SIMPLEREENROLL
    named = wanted if proof.renews is None else replace(wanted, subject=proof.renews.subject, sans=proof.renews.sans)
    give_up = monotonic() + wanted.wait
    while True:
        with steps.step(operation) as saw, closing(server.server.connect()) as connection:
            # A request that is tied to its connection is signed anew for each.
            secret = server.link(connection) if proof.links else challenge
            csr = build_csr(key, named.subject.der, named.sans, challenge_password=secret)
            answer = server.send(connection, operation, post_request(operation, csr, server.label, proof.authorization))
            saw(f"{answer.status} {http.client.responses.get(answer.status, '')}".strip())
        if answer.status == 200:
            return answer
        if answer.status != 202:
            fail(f"The server refused: {answer.status}: {answer.text}")
        pause = max(POLL_SECONDS, float(answer.retry_after or 0))
        if monotonic() + pause > give_up:
            fail("The request is still pending: see `pki-gateway requests list`.")
        sleep(pause)
