"""ACME accounts in a process of their own: each orders, proves, finalizes and fetches over one kept connection.

`python -m bench.acme_client DIRECTORY CSRS ANSWERS CONNECTIONS ROOT DOMAIN KID KEY PORT` works as `bench.client`: lines of
numbers in, one JSON object a line out. The CSR of number n is for `dN.DOMAIN`. KID and KEY (base64url) bind the accounts, `-` and
`-` do not; at PORT http-01 is answered, 0 answers nothing. It does as little as it can: it shares the cores with the servers.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from urllib.parse import urlsplit

from bench.client import Round, read_frames, write_frames
from gateway.model import ChallengeType, Identifier, IdentifierType
from gateway.pki import base64url
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import generate_private_key
from gateway.supervise.worker import loop_factory
from gateway.wire.acme.challenges import HTTP_PATH
from gateway.wire.acme.client import AcmeAnswer, AcmeClient, AcmeRequest, ExternalKey, Trial, drive_async

LONGEST_PAUSE = 0.02
"""Seconds between two polls, whatever Retry-After says: what is measured is the server, and not how long clients sleep."""


class Connection(asyncio.Protocol):
    """One connection: a request out, its answer in."""

    def __init__(self) -> None:
        self._received = b""
        self._bodiless = False
        self._waiting: asyncio.Future[AcmeAnswer] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes, *, bodiless: bool) -> asyncio.Future[AcmeAnswer]:
        """Send a request; the future is its answer."""
        if self.transport is None:
            raise RuntimeError("there is no connection")
        self._received, self._bodiless = b"", bodiless
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        """Collect until the body is whole."""
        self._received += data
        if self._waiting is None or self._waiting.done():
            return
        answer = read_answer(self._received, bodiless=self._bodiless)
        if answer is not None:
            self._waiting.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        self.transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error or ConnectionResetError("the server ended the connection"))


def read_answer(data: bytes, *, bodiless: bool) -> AcmeAnswer | None:
    """Return an answer, None while some of it is missing; `bodiless` is one to HEAD."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split(" ")[1])
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    answer = AcmeAnswer.of(status, pairs, body)
    if bodiless or status in {204, 304}:
        return AcmeAnswer(status, answer.headers)
    if answer.headers.get("transfer-encoding", "").lower() == "chunked":
        whole = _join_chunks(body)
        return None if whole is None else AcmeAnswer(status, answer.headers, whole)
    return answer if len(body) == int(answer.headers["content-length"]) else None


def _join_chunks(data: bytes) -> bytes | None:
    """Return what chunks hold (RFC 9112 §7.1), None while the last one is missing."""
    parts: list[bytes] = []
    offset = 0
    while True:
        end = data.find(b"\r\n", offset)
        if end < 0:
            return None
        size = int(data[offset:end].partition(b";")[0], 16)
        offset = end + 2 + size + 2
        if offset > len(data):
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])


class Responder(asyncio.Protocol):
    """Answers http-01; `answers` are key authorizations by token."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer when the head is whole."""
        self._received += data
        if b"\r\n\r\n" not in self._received or self._transport is None:
            return
        path = self._received.split(b" ", 2)[1].decode("latin-1")
        body = self._answers.get(path.removeprefix(HTTP_PATH), "").encode()
        status = "200 OK" if body else "404 Not Found"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._transport.close()


class Applicant:
    """One account and its connection."""

    def __init__(
        self, directory: str, context: ssl.SSLContext, domain: str, tokens: dict[str, str], port: int | None = None
    ) -> None:
        """`port` is where the directory is, if not where its URL says."""
        self._context = context
        self._domain = domain
        self._tokens = tokens
        self._client = AcmeClient(directory, Signer.of(generate_private_key("ec-p256")))
        self._host = urlsplit(directory).netloc
        self._port = int(self._host.rpartition(":")[2]) if port is None else port
        self._connection: Connection | None = None

    async def register(self, external: ExternalKey | None) -> None:
        """Make the account."""
        await drive_async(self._client.register(external=external), self._send, self._pause)

    async def issue(self, number: int, csr: bytes) -> bytes:
        """Return the certificate of one number, DER."""
        name = Identifier(IdentifierType.DNS, f"d{number}.{self._domain}")
        chain = await drive_async(self._client.issue([name], csr, self._respond), self._send, self._pause)
        leaf: bytes = chain[0]
        return leaf

    def _respond(self, trial: Trial) -> Mapping[str, object] | None:
        if trial.type is not ChallengeType.HTTP_01:
            return None
        self._tokens[trial.token] = trial.authorization
        return {}

    async def _send(self, request: AcmeRequest) -> AcmeAnswer:
        if self._connection is None or self._connection.transport is None:
            self._connection = await self._connect()
        path = request.url.partition(self._host)[2]
        fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        length = f"Content-Length: {len(request.body)}\r\n" if request.body else ""
        head = f"{request.method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{fields}{length}\r\n"
        return await self._connection.ask(head.encode() + request.body, bodiless=request.method == "HEAD")

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, LONGEST_PAUSE))

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            Connection, "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
        )
        return connection

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()


async def send_round(applicants: Sequence[Applicant], csrs: Sequence[bytes], numbers: range, answers: Path) -> Round:
    """Have one certificate issued for each number, and write them down."""
    latencies: list[float] = []
    issued: dict[int, bytes] = {}
    waiting = iter(numbers)

    async def work(applicant: Applicant) -> None:
        for number in waiting:
            begun = perf_counter()
            issued[number] = await applicant.issue(number, csrs[number])
            latencies.append(perf_counter() - begun)

    begun, cpu = perf_counter(), process_time()
    await asyncio.gather(*map(work, applicants))
    seconds, cpu = perf_counter() - begun, process_time() - cpu
    write_frames(answers, (issued[number] for number in numbers))
    return Round(seconds, cpu, tuple(latencies))


async def _serve_master(arguments: Sequence[str]) -> None:
    directory, requests, answers, connections, root, domain, kid, key, port = arguments
    context, csrs = ssl.create_default_context(cafile=root), read_frames(Path(requests))
    external = None if kid == "-" else ExternalKey(kid, base64url.decode(key))
    tokens: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    responder = await loop.create_server(lambda: Responder(tokens), "127.0.0.1", int(port)) if int(port) else None
    applicants = [Applicant(directory, context, domain, tokens) for _ in range(int(connections))]
    for applicant in applicants:
        await applicant.register(external)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        first, last = map(int, line.split())
        done = await send_round(applicants, csrs, range(first, last), Path(answers))
        print(json.dumps({"seconds": done.seconds, "cpu": done.cpu, "latencies": done.latencies}), flush=True)
    for applicant in applicants:
        applicant.close()
    if responder is not None:
        responder.close()


def main() -> None:
    """Serve the process that started this one, until standard input ends."""
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        loop.run(_serve_master(sys.argv[1:]))


if __name__ == "__main__":
    main()
