"""What servers of strangers answer to challenges: each ends as a failed attempt, and none costs much."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import dns.exception
import dns.message
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.validation import http01
from gateway.validation.caa import Asking, judge_records, read_issue
from gateway.validation.http01 import Http01, Target
from gateway.validation.interfaces import ValidationFailed
from gateway.validation.reach import MAX_LINE
from gateway.validation.resolve import CaaRecord
from gateway.validation.tlsalpn01 import judge_certificate
from gateway.wire.acme.challenges import judge_persistent
from tests.fuzz.mutations import MUTATIONS, Mutator
from tests.unit.validation.certificates import DIGEST, challenge_certificate
from tests.unit.validation.site import ACCOUNT, KEY_AUTHORIZATION, NOW, ok, redirect

NAME = Identifier(IdentifierType.DNS, "www.acme.test")
CERTIFICATE = challenge_certificate().public_bytes(Encoding.DER)
TARGET = Target("http", "www.acme.test", 80, "/x")
ANSWERS = (
    ok(),
    ok(headers="Content-Length: 66\r\n"),
    ok(f"42\r\n{KEY_AUTHORIZATION}\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
    redirect("https://other.acme.test/x?y=z"),
)


async def read(data: bytes) -> tuple[int, str, bytes]:
    """Read a response as an attempt does."""
    reader = asyncio.StreamReader(limit=MAX_LINE)
    reader.feed_data(data)
    reader.feed_eof()
    status, headers = await http01._read_head(reader)
    return status, headers.get("location", ""), await http01._read_body(reader, headers)


def read_cheaply(data: bytes) -> None:
    with suppress(OSError, EOFError, ValueError):
        _, _, body = asyncio.run(read(data))
        assert len(body) <= http01.MAX_BODY + 1


@given(st.binary(max_size=2000))
def test_responses_of_any_octets(data: bytes) -> None:
    read_cheaply(data)
    read_cheaply(b"HTTP/1.1 200 OK\r\n" + data)
    read_cheaply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_responses_that_are_nearly_right(answer: str) -> None:
    rng = random.Random(7)
    data = answer.encode()
    for _ in range(MUTATIONS // 4):
        at = rng.randrange(len(data))
        cut = rng.choice((0, 1, 4))
        read_cheaply(data[:at] + rng.randbytes(rng.choice((0, 1, 3))) + data[at + cut :])


@given(st.text(max_size=300))
def test_redirects_to_anywhere(location: str) -> None:
    """A redirect is refused or leads to a port that is permitted, by a request that is one request."""
    judge = Http01(None)  # type: ignore[arg-type]  # nothing is connected to
    for text in (location, f"http://{location}", f"https://x.test/{location}", f"//{location}"):
        with suppress(ValidationFailed):
            target = judge._follow(TARGET, text)
            assert target.scheme in {"http", "https"}
            assert target.port in {80, 443}
            assert not any(character <= " " or character > "~" for character in target.path)


def test_certificates_broken_in_many_ways() -> None:
    judge_certificate(CERTIFICATE, NAME, DIGEST)
    for changed in Mutator(CERTIFICATE, "tls-alpn-01").mutations(MUTATIONS):
        if changed != CERTIFICATE:
            with pytest.raises(ValidationFailed):
                judge_certificate(changed, NAME, DIGEST)


@given(st.binary(max_size=300), st.booleans())
def test_caa_values(value: bytes, critical: bool) -> None:
    asking = Asking({"ca.test"}, ACCOUNT, ChallengeType.HTTP_01, wildcard=False)
    for whole in (value, b"ca.test; " + value, b"ca.test; accounturi=" + value):
        found = judge_records([CaaRecord(128 if critical else 0, "issue", whole)], asking)
        read_value = read_issue(whole)
        assert (found is None) <= (read_value is not None and read_value[0] == "ca.test")


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_persistent_records(records: list[bytes]) -> None:
    assert not judge_persistent(records, ["ca.test"], ACCOUNT, False, NOW)


@given(st.binary(max_size=600))
def test_dns_messages(data: bytes) -> None:
    """Whatever dnspython makes of an answer, it says so in the exceptions that are caught."""
    header = b"\x00\x01\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    for wire in (data, header + data):
        with suppress(dns.exception.DNSException):
            message = dns.message.from_wire(wire)
            if isinstance(message, dns.message.QueryMessage):
                message.resolve_chaining()
