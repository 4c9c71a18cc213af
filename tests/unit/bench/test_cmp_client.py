"""The devices of the CMP benchmark enroll and confirm, under either protection."""

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cmp import make_requests
from bench.cmp_client import ITERATIONS, Devices, read_identity
from gateway.cmp import (
    AnswerBody,
    BodyType,
    CertAnswer,
    Enrollment,
    ErrorAnswer,
    MacSender,
    Message,
    PkiConf,
    PkiStatus,
    StatusInfo,
)
from gateway.errors import Reason
from gateway.pki.certificate import der_to_pem
from gateway.pki.keys import serialize_private_key
from gateway.pki.password_mac import is_mac, read_mac
from gateway.wire.cmp.answers import encode_answer
from gateway.wire.cmp.client import MacIdentity
from gateway.wire.cmp.messages import decode_message
from tests.unit.wire.cmp.parties import DEVICE, NOW, SIGNED, answer, mac_sender, protector


def reply(message: Message) -> AnswerBody:
    """Grant what is asked, but for one name."""
    if not isinstance(message.body, Enrollment):
        return PkiConf()
    if message.body.requests[0].request.subject.rdns[0][0].value == "device-2":
        return ErrorAnswer(StatusInfo(PkiStatus.REJECTION, Reason.DENIED, "no"))
    return CertAnswer(BodyType.IP, 0, StatusInfo(PkiStatus.ACCEPTED), DEVICE.certificate)


class Cmp(socketserver.StreamRequestHandler):
    """Answers messages of any protection."""

    seen: list[tuple[BodyType, bool]] = []  # noqa: RUF012 - of the test that clears it

    def handle(self) -> None:
        while head := self.rfile.readline():
            while (line := self.rfile.readline()) != b"\r\n":
                head += line
            assert b"Content-Type: application/pkixcmp\r\n" in head
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            message = decode_message(self.rfile.read(length))
            assert message.protection is not None
            mac = is_mac(message.protection.algorithm)
            assert not mac or read_mac(message.protection.algorithm).iterations == ITERATIONS
            sender: MacSender | None = mac_sender(message.protection.algorithm) if mac else None
            Cmp.seen.append((message.type, mac))
            body = encode_answer(message.header, answer(reply(message), sender or SIGNED), protector(), NOW)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture
def url() -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    Cmp.seen.clear()
    with Server(("127.0.0.1", 0), Cmp) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/.well-known/cmp"
        server.shutdown()
        thread.join()


@pytest.fixture
def pair(tmp_path: Path) -> str:
    path = tmp_path / "device.pem"
    path.touch(0o600)
    path.write_bytes(serialize_private_key(DEVICE.key) + der_to_pem(DEVICE.certificate))
    return str(path)


def test_signed(url: str, pair: str) -> None:
    devices = Devices(url, make_requests(2), 1, read_identity("sign", pair))
    seen, issued = devices.enroll(range(2))
    assert issued == [DEVICE.certificate] * 2
    assert len(seen.latencies) == 4
    assert Cmp.seen == [(BodyType.IR, False)] * 2 + [(BodyType.CERTCONF, False)] * 2
    devices.close()


def test_under_a_secret(url: str) -> None:
    identity = read_identity("mac", "reference", "secret")
    assert isinstance(identity, MacIdentity)
    devices = Devices(url, make_requests(2), 2, identity)
    assert devices.enroll(range(1, 2))[1] == [DEVICE.certificate]
    assert Cmp.seen == [(BodyType.IR, True), (BodyType.CERTCONF, True)]
    devices.close()


def test_a_refusal_ends_the_benchmark(url: str, pair: str) -> None:
    devices = Devices(url, make_requests(3), 1, read_identity("sign", pair))
    with pytest.raises(RuntimeError, match="refused"):
        devices.enroll(range(2, 3))
    devices.close()
