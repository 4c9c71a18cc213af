"""One end of the socket pair between supervisor and worker: questions wait for their answers, the rest is handed on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Self

from gateway.supervise.control import (
    LENGTHS,
    Answer,
    Ended,
    Message,
    Question,
    Ready,
    Refused,
    decode,
    decode_lengths,
    encode,
)

CLOSE_SECONDS = 2.0
"""How long the last messages may take to leave."""
MAX_UNSENT = 65536
"""Bytes that may wait for an end that does not read before messages that may be lost are left out."""


class ChannelClosedError(Exception):
    """The other end is gone, or this one was closed."""


class Channel:
    """Messages both ways; a question's `id` is given here and comes back in its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._last = 0
        self._heard = True
        self._closed = False

    @classmethod
    async def open(cls, sock: socket.socket) -> Self:
        """Take over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def send(self, message: Message) -> None:
        """Send a message; to an end that is gone, nothing is sent."""
        if not self._closed:
            self._writer.write(encode(message))

    def send_if_free(self, message: Message) -> None:
        """Send a message that may be lost, unless the other end has stopped reading."""
        if not self._closed and self._writer.transport.get_write_buffer_size() < MAX_UNSENT:
            self._writer.write(encode(message))

    async def ask(self, question: Question) -> Answer:
        """Send a question and wait for its answer, for as long as the caller lets it. Raises ChannelClosedError."""
        if self._closed or not self._heard:
            raise ChannelClosedError
        self._last = number = self._last + 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self.send(replace(question, id=number))
            return await answer
        finally:
            # An answer that comes later finds nobody, and is dropped.
            del self._asked[number]

    async def receive(self) -> Message:
        """Read one message. Raises ChannelClosedError at the end, ControlError for what is no message."""
        try:
            header, body = decode_lengths(await self._reader.readexactly(LENGTHS.size))
            return decode(await self._reader.readexactly(header), await self._reader.readexactly(body))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ChannelClosedError from error

    async def run(self, handle: Callable[[Message], None]) -> None:
        """Hand every message to who asked for it, else to `handle`, until the end. Raises ControlError for what is no message."""
        try:
            while True:
                message = await self.receive()
                if isinstance(message, Ready | Refused | Ended):
                    self._answer(message)
                else:
                    handle(message)
        except ChannelClosedError:
            return
        finally:
            self._abandon()

    def _answer(self, answer: Answer) -> None:
        waiting = self._asked.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _abandon(self) -> None:
        """Nothing is read any more: tell all who wait. What is still to be said can be sent."""
        self._heard = False
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(ChannelClosedError())

    async def close(self) -> None:
        """Send what is left to send, and close; whoever waits for an answer is told."""
        self._abandon()
        self._closed = True
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
