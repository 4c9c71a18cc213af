"""Mutations of every recorded CMP request: only Malformed escapes, what cannot be read is said so, and each is cheap."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.cmp import BodyType, Message, Nested
from gateway.errors import MalformedMessage, Rejection
from gateway.pki import der
from gateway.wire.cmp.messages import MAX_MESSAGE_BYTES, decode_message
from tests.fuzz.mutations import MUTATIONS, Mutator, refused_cheaply

MESSAGES = sorted((Path(__file__).parents[2] / "testdata" / "cmp").glob("*.der"))
COUNT = MUTATIONS // 4


def decoded(data: bytes) -> Message:
    """Decode; whatever is not answered must be malformed, and whatever is must have a body or a reason why not."""
    try:
        message = decode_message(data)
    except Rejection as rejection:
        if not isinstance(rejection, MalformedMessage):
            raise AssertionError from rejection
        raise
    assert (message.body is None) is (message.body_problem is not None)
    assert len(repr(message)) < 200_000
    if isinstance(message.body, Nested):
        for inner in message.body.messages:
            with suppress(MalformedMessage):
                decode_message(inner)
    return message


@pytest.mark.parametrize("path", MESSAGES, ids=lambda p: p.stem)
def test_mutations(path: Path) -> None:
    mutator = Mutator(path.read_bytes(), path.stem)
    refused = 0
    for number, broken in enumerate(mutator.mutations(COUNT)):

        def work(broken: bytes = broken) -> None:
            if decoded(broken).body_problem is not None:
                raise MalformedMessage("the body is broken")

        refused += refused_cheaply(work, f"{path.stem}, mutation {number}")
    assert refused > COUNT // 8, "mutations break it"


def wrapped(depth: int) -> bytes:
    data = MESSAGES[0].read_bytes()
    header_end = der.read(data, der.read(data)[1])[2]
    header = data[der.read(data)[1] : header_end]
    for _ in range(depth):
        data = der.sequence(header, der.context(BodyType.NESTED, der.sequence(data)))
    return data


HEADER = wrapped(1)[der.read(wrapped(1))[1] :][: der.read(wrapped(1), der.read(wrapped(1))[1])[2] - der.read(wrapped(1))[1]]
HOSTILE = [
    pytest.param(wrapped(40), id="nested forty times"),
    pytest.param(
        der.sequence(HEADER, der.context(21, der.sequence(b"\x30\x03\x06\x01\x2a" * 50000))), id="questions without end"
    ),
    pytest.param(der.sequence(HEADER, der.context(20, der.sequence(b"\x30\x00" * 100000))), id="nested messages without end"),
    pytest.param(der.sequence(HEADER, der.context(0, der.sequence(b"\x30\x00" * 30000))), id="requests without end"),
    pytest.param(der.sequence(HEADER, der.context(25, der.sequence(b"\x30\x03\x02\x01\x00" * 6000))), id="polls without end"),
    pytest.param(b"\x30\x80" * 1000 + b"\x00\x00" * 1000, id="indefinite lengths in one another"),
    pytest.param(b"\x30\x84\xff\xff\xff\xff", id="a length without end"),
    pytest.param(bytes(MAX_MESSAGE_BYTES + 1), id="too large"),
]


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_messages(data: bytes) -> None:
    def work() -> None:
        if decoded(data).body_problem is not None:
            raise MalformedMessage("the body is broken")

    assert refused_cheaply(work, "a hostile message")


def test_what_a_refusal_keeps_in_memory() -> None:
    data = der.sequence(HEADER, der.context(21, der.sequence(b"\x30\x03\x06\x01\x2a" * 30000)))
    tracemalloc.start()
    try:
        for _ in range(3):
            with suppress(MalformedMessage):
                decode_message(data)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(data)
    finally:
        tracemalloc.stop()
