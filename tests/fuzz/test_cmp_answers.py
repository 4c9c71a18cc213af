"""Mutations of CMP answers as an upstream CA or a man in the middle may send them: a protected one says what was protected."""

from __future__ import annotations

import pytest

from gateway.cmp import AnswerBody, BodyType, CertAnswer, ErrorAnswer, General, GeneralInfo, PkiStatus, PollAnswer, StatusInfo
from gateway.errors import Reason, Rejection
from gateway.pki.password_mac import fresh_mac
from gateway.wire.cmp import requests
from gateway.wire.cmp.answers import encode_answer
from gateway.wire.cmp.client import Received, Sent, decode_answer, encode_message, pinned
from gateway.wire.cmp.messages import decode_message
from tests.fuzz.mutations import MUTATIONS, Mutator, refused_cheaply
from tests.unit.wire.cmp.parties import CA, DEVICE, NOW, SECRET, SERVER, SIGNED, answer, mac_sender, protector

COUNT = MUTATIONS // 4
NESTED: Sent = encode_message(requests.nested([]), None, now=NOW)
"""Anything may answer it."""
BODIES: dict[str, AnswerBody] = {
    "ip": CertAnswer(BodyType.IP, 0, StatusInfo(PkiStatus.ACCEPTED), DEVICE.certificate, ca_pubs=(CA,)),
    "error": ErrorAnswer(StatusInfo(PkiStatus.REJECTION, Reason.BAD_TEMPLATE, "no such name")),
    "genp": General((GeneralInfo("1.3.6.1.5.5.7.4.17", CA), GeneralInfo("1.2.3"))),
    "pollRep": PollAnswer(0, 60, "soon"),
}


def read(data: bytes) -> Received:
    return decode_answer(data, NESTED, secret=SECRET.secret, trusts=pinned(SERVER.certificate))


@pytest.mark.parametrize("kind", ["signature", "mac"])
@pytest.mark.parametrize("name", BODIES)
def test_mutations(name: str, kind: str) -> None:
    sender = SIGNED if kind == "signature" else mac_sender(fresh_mac(iterations=100)[0])
    message = encode_answer(decode_message(NESTED.message).header, answer(BODIES[name], sender), protector(), NOW)
    whole = read(message)
    assert whole.protected
    refused = 0
    for number, broken in enumerate(Mutator(message, f"{name} {kind}").mutations(COUNT)):

        def work(broken: bytes = broken) -> None:
            received = read(broken)
            assert not received.protected or (received.header, received.body) == (whole.header, whole.body)
            assert received.protected or isinstance(received.body, ErrorAnswer | CertAnswer)

        refused += refused_cheaply(work, f"{name}, mutation {number}")
    assert refused > COUNT // 2, "mutations break it"


@pytest.mark.parametrize("count", [33, 5000])
def test_certificates_without_end(count: int) -> None:
    beside = answer(BODIES["error"], None)
    message = encode_answer(decode_message(NESTED.message).header, beside, protector(), NOW)
    many = message.replace(SERVER.certificate, b"\x30\x00" * count)
    with pytest.raises(Rejection):
        read(many)
