"""CMP devices in a process of their own: each enrolls by ir and confirms what it got, over kept connections.

`python -m bench.cmp_client URL REQUESTS ANSWERS CONNECTIONS (sign PAIR | mac REFERENCE SECRET)` works as `bench.client`: lines of
numbers in, one JSON object a line out. REQUESTS are CertReqMsgs, PAIR is a file with key and certificate, PEM. All messages of a
round are protected before the clock runs, certConf after the last certificate came: what is measured is the server alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.client import Round, Sender, read_frames, write_frames
from gateway.cmp import BodyType, CertAnswer
from gateway.pki.certificate import pem_to_ders
from gateway.pki.keys import load_private_key
from gateway.wire.cmp import requests
from gateway.wire.cmp.client import Identity, MacIdentity, Sent, encode_message
from gateway.wire.cmp.messages import Parts, decode_parts
from gateway.wire.cmp.protection import SignatureProtector
from gateway.wire.cmp.responses import decode_reply

MEDIA_TYPE = "application/pkixcmp"
ITERATIONS = 500
"""Of PasswordBasedMac, as OpenSSL has them unasked."""


def read_identity(kind: str, *arguments: str) -> Identity:
    """Return what protects messages, as the command line says."""
    if kind == "mac":
        reference, secret = arguments
        return MacIdentity(reference.encode(), secret.encode(), iterations=ITERATIONS)
    pem = Path(arguments[0]).read_bytes()
    return SignatureProtector.create(pem_to_ders(pem, "CERTIFICATE"), load_private_key(pem))


class Devices:
    """All devices and their connections to one server."""

    def __init__(self, url: str, messages: Sequence[bytes], connections: int, identity: Identity) -> None:
        self._sender = Sender(url, (), connections)
        self._messages = messages
        self._identity = identity

    def enroll(self, numbers: range) -> tuple[Round, list[bytes]]:
        """Have one certificate issued for each number and confirm it; latencies are those of the single messages."""
        now = datetime.now(UTC)
        sent = {n: self._protect(requests.enrollment(BodyType.IR, [self._messages[n]]), now) for n in numbers}
        first, answers = self._send(sent, numbers)
        parts = {number: decode_parts(answer) for number, answer in zip(numbers, answers, strict=True)}
        issued = {number: read_certificate(each) for number, each in parts.items()}
        confirming = {n: self._protect(requests.cert_conf(issued[n]), now, sent[n], parts[n]) for n in numbers}
        second, answers = self._send(confirming, numbers)
        confirmed = all(decode_parts(answer).type is BodyType.PKICONF for answer in answers)
        done = Round(first.seconds + second.seconds, first.cpu + second.cpu, (*first.latencies, *second.latencies))
        return done, list(issued.values()) if confirmed else []

    def close(self) -> None:
        """End the connections."""
        self._sender.close()

    def _protect(self, body: bytes, now: datetime, before: Sent | None = None, answer: Parts | None = None) -> Sent:
        return encode_message(
            body,
            self._identity,
            now=now,
            transaction_id=before.transaction_id if before else None,
            recipient_nonce=answer.header.sender_nonce if answer else None,
        )

    def _send(self, sent: Mapping[int, Sent], numbers: range) -> tuple[Round, list[bytes]]:
        self._sender.load({number: each.message for number, each in sent.items()}, MEDIA_TYPE)
        return self._sender.send(numbers)


def read_certificate(parts: Parts) -> bytes:
    """Return the certificate of an answer; RuntimeError where it has none."""
    reply = decode_reply(parts.type, parts.body)
    if not isinstance(reply.body, CertAnswer) or reply.body.certificate is None:
        raise RuntimeError(f"the server refused: {reply.body}")
    return reply.body.certificate


def main() -> None:
    """Serve the process that started this one, until standard input ends."""
    url, messages, answers, connections, *identity = sys.argv[1:]
    devices = Devices(url, read_frames(Path(messages)), int(connections), read_identity(*identity))
    for line in sys.stdin:
        first, last = map(int, line.split())
        seen, issued = devices.enroll(range(first, last))
        write_frames(Path(answers), issued)
        print(json.dumps({"seconds": seen.seconds, "cpu": seen.cpu, "latencies": seen.latencies}), flush=True)


if __name__ == "__main__":
    main()
