"""Both ends of a control channel in one loop."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.supervise.channel import Channel, ChannelClosedError
from gateway.supervise.control import Beat, Check, Commit, ControlError, Message, Prepare, Ready, Refused

Ends = tuple[Channel, Channel]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    one, other = socket.socketpair()
    channels = (await Channel.open(one), await Channel.open(other))
    yield channels
    for channel in channels:
        await channel.close()


async def test_questions_get_their_own_answers_in_any_order(ends: Ends) -> None:
    ours, theirs = ends
    asked: list[Message] = []

    def answer(message: Message) -> None:
        asked.append(message)
        if isinstance(message, Commit):
            theirs.send(Ready(message.id))
        if len(asked) == 2 and isinstance(asked[0], Check):
            theirs.send(Refused(asked[0].id, 75, "not yet"))

    running = [asyncio.create_task(ours.run(lambda _: None)), asyncio.create_task(theirs.run(answer))]
    first = asyncio.create_task(ours.ask(Check()))
    await asyncio.sleep(0)
    assert isinstance(await ours.ask(Commit(2)), Ready)
    refused = await first
    assert isinstance(refused, Refused)
    assert refused.text == "not yet"
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_large_bodies_come_through(ends: Ends) -> None:
    ours, theirs = ends
    body = bytes(3_000_000)
    ours.send(Prepare(2, body, id=1))
    assert await theirs.receive() == Prepare(2, body, id=1)


async def test_an_answer_that_comes_late_finds_nobody(ends: Ends) -> None:
    ours, theirs = ends
    heard: list[Message] = []
    running = asyncio.create_task(ours.run(heard.append))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ours.ask(Check())
    question = await theirs.receive()
    assert isinstance(question, Check)
    theirs.send(Ready(question.id))
    again = asyncio.create_task(ours.ask(Commit(3)))
    other = await theirs.receive()
    assert isinstance(other, Commit)
    assert other.id != question.id
    theirs.send(Refused(other.id, 1, "no"))
    assert isinstance(await again, Refused)
    assert heard == []
    running.cancel()


async def test_who_waits_is_told_when_the_other_end_is_gone(ends: Ends) -> None:
    ours, theirs = ends
    running = asyncio.create_task(ours.run(lambda _: None))
    waiting = asyncio.create_task(ours.ask(Check()))
    await theirs.receive()
    await theirs.close()
    with pytest.raises(ChannelClosedError):
        await waiting
    await running
    with pytest.raises(ChannelClosedError):
        await ours.ask(Check())
    ours.send(Beat())


async def test_nonsense_ends_the_conversation() -> None:
    one, other = socket.socketpair()
    channel = await Channel.open(one)
    other.sendall(b"\x00\x00\x00\x02" + bytes(8) + b"{}")
    with pytest.raises(ControlError):
        await channel.run(lambda _: None)
    await channel.close()
    other.close()


@pytest.mark.parametrize("left", [1, 11, 12, 20])
async def test_a_message_that_breaks_off_is_the_end(left: int) -> None:
    one, other = socket.socketpair()
    channel = await Channel.open(one)
    other.sendall(b"\x00\x00\x00\x40" + bytes(8) + bytes(64)[: left - 12])
    other.close()
    with pytest.raises(ChannelClosedError):
        await channel.receive()
    await channel.close()


async def test_beats_do_not_pile_up_for_an_end_that_does_not_read(ends: Ends) -> None:
    ours, _ = ends
    for _ in range(20000):
        ours.send_if_free(Beat())
    assert ours._writer.transport.get_write_buffer_size() < 70000
