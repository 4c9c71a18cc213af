"""One question to one DNS server and its answer, bounded before it is parsed (RFC 1035 §4.2, RFC 7766)."""

from __future__ import annotations

import asyncio

import dns.exception
import dns.message

MAX_MESSAGE = 16_384
"""Bytes of an answer; a longer one comes from nobody whose names are validated here."""
MAX_RECORDS = 96
"""Questions and records of an answer, all sections together: the parser takes up to a fifth of a millisecond for each."""
_FORGED = 16
"""Datagrams that are no answer to the question, of one server, before it counts as silent."""
_SMALL = 16
"""Records of an answer that is parsed on the event loop."""


class AnswerTooLong(dns.exception.DNSException):
    """The answer has more bytes or records than is looked at."""


class _Datagrams(asyncio.DatagramProtocol):
    """Keeps what a server sends; the socket is connected, so that nobody else's arrives."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes | Exception] = asyncio.Queue(maxsize=_FORGED)

    def datagram_received(self, data: bytes, _address: object) -> None:
        self._keep(data)

    def error_received(self, error: Exception) -> None:
        self._keep(error)

    def _keep(self, what: bytes | Exception) -> None:
        if not self.received.full():
            self.received.put_nowait(what)


class Exchange:
    """Asks the servers of one profile; long answers are parsed one at a time, beside the event loop."""

    def __init__(self) -> None:
        self._parsing = asyncio.Semaphore(1)

    async def by_udp(self, query: dns.message.QueryMessage, host: str, port: int, seconds: float) -> dns.message.Message:
        """Return the answer; what is none is passed over. Raises dns.message.Truncated, DNSException, OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(_Datagrams, remote_addr=(host, port))
        try:
            async with asyncio.timeout(seconds):
                transport.sendto(query.to_wire())
                for _ in range(_FORGED):
                    received = await protocol.received.get()
                    if isinstance(received, Exception):
                        raise received
                    if received[:2] != query.id.to_bytes(2, "big"):
                        continue
                    answer = await self._read(received, raise_on_truncation=True)
                    if query.is_response(answer):
                        return answer
        finally:
            transport.close()
        raise TimeoutError

    async def by_tcp(self, query: dns.message.QueryMessage, host: str, port: int, seconds: float) -> dns.message.Message:
        """Return the answer. Raises DNSException, OSError, EOFError, TimeoutError."""
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                wire = query.to_wire()
                writer.write(len(wire).to_bytes(2, "big") + wire)
                length = int.from_bytes(await reader.readexactly(2), "big")
                if length > MAX_MESSAGE:
                    raise AnswerTooLong
                answer = await self._read(await reader.readexactly(length), raise_on_truncation=False)
            finally:
                writer.close()
        if not query.is_response(answer):
            raise dns.exception.FormError
        return answer

    async def _read(self, wire: bytes, *, raise_on_truncation: bool) -> dns.message.Message:
        """Parse an answer of few enough records; raises DNSException."""
        records = sum(int.from_bytes(wire[at : at + 2], "big") for at in (4, 6, 8, 10))
        if len(wire) > MAX_MESSAGE or records > MAX_RECORDS:
            raise AnswerTooLong
        if records <= _SMALL:
            return dns.message.from_wire(wire, raise_on_truncation=raise_on_truncation)
        async with self._parsing:
            return await asyncio.to_thread(dns.message.from_wire, wire, raise_on_truncation=raise_on_truncation)
