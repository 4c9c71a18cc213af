"""An ACME client that does what a test tells it to, right or wrong, one connection a request."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.flow.acme.signing import Key, sign

READ = b""
"""The payload of POST-as-GET (RFC 8555 §6.3)."""
JOSE = "application/jose+json"
_OMITTED = object()


@dataclass(frozen=True)
class Answer:
    """One answer; `headers` in lower case, each with all its values."""

    status: int
    headers: Mapping[str, tuple[str, ...]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The only value of a header; None where it is not there."""
        values = self.headers.get(name.lower(), ())
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def nonce(self) -> str:
        value = self.header("Replay-Nonce")
        assert value is not None, f"no Replay-Nonce with {self.status}"
        return value

    @property
    def location(self) -> str:
        value = self.header("Location")
        assert value is not None, f"no Location with {self.status}: {self.body[:300]!r}"
        return value

    @property
    def links(self) -> dict[str, list[str]]:
        """URLs of the Link headers by relation."""
        found: dict[str, list[str]] = {}
        for value in self.headers.get("link", ()):
            url, _, relation = value.partition(">;rel=")
            found.setdefault(relation.strip('"'), []).append(url.removeprefix("<"))
        return found

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def problem(self) -> str:
        """The type of the problem, without its namespace; asserts that it is a problem document."""
        assert self.header("Content-Type") == "application/problem+json", (self.status, self.headers, self.body[:300])
        document = self.json
        assert document["status"] == self.status
        return str(document["type"]).removeprefix("urn:ietf:params:acme:error:")


@dataclass
class Client:
    """One client of one directory; `base` is the folder's URL as the server knows it."""

    port: int
    tls: ssl.SSLContext | None
    base: str
    key: Key = field(default_factory=Key)
    kid: str | None = None
    nonce: str | None = None
    host: str = "localhost"
    corrupts: Any = None
    """Called for each nonce that is sent; returns what is sent in its place."""

    def url(self, path: str) -> str:
        return path if path.startswith("https://") else f"{self.base}/{path}"

    async def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request as it stands."""
        parts = urlsplit(self.url(path))
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        named = {"Host": parts.netloc, "Connection": "close", **(headers or {})}
        if body or method == "POST":
            named.setdefault("Content-Length", str(len(body)))
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""])
        name = self.host if self.tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname=name)
        try:
            writer.write(head.encode("latin-1") + body)
            async with asyncio.timeout(60):
                received = await reader.read()
        finally:
            writer.close()
        return parse(received)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, headers=headers)

    async def new_nonce(self) -> str:
        answer = await self.send("HEAD", "new-nonce")
        return answer.nonce

    async def post(
        self,
        path: str,
        payload: object = READ,
        *,
        key: Key | None = None,
        jwk: bool = False,
        headers: Mapping[str, str] | None = None,
        **protected: Any,
    ) -> Answer:
        """Sign and send one request; `protected` changes members of the header, None leaves one out.

        The nonce of the answer is kept for the next one, as clients do.
        """
        signer = key or self.key
        nonce = protected.pop("nonce", _OMITTED)
        if nonce is _OMITTED:
            nonce = self.nonce or await self.new_nonce()
            self.nonce = None
            if self.corrupts is not None:
                nonce = self.corrupts(nonce)
        named = {"jwk": signer.jwk} if jwk or self.kid is None else {"kid": self.kid}
        header = {"nonce": nonce, "url": self.url(path), **named, **protected}
        return await self.post_jws(path, sign(signer, header, payload), headers)

    async def post_jws(self, path: str, jws: object, headers: Mapping[str, str] | None = None) -> Answer:
        body = jws if isinstance(jws, bytes) else json.dumps(jws).encode()
        answer = await self.send("POST", path, body, {"Content-Type": JOSE, **(headers or {})})
        self.nonce = answer.header("Replay-Nonce") if answer.status < 500 else None
        return answer

    async def register(self, **members: Any) -> Answer:
        """Make or find this key's account, and be it from now on."""
        asked = {"termsOfServiceAgreed": True, **members}
        answer = await self.post("new-account", asked, jwk=True)
        if answer.status in {200, 201}:
            self.kid = answer.location
        return answer

    async def order(self, *names: str | dict[str, str], **members: Any) -> Answer:
        identifiers = [name if isinstance(name, dict) else {"type": "dns", "value": name} for name in names]
        return await self.post("new-order", {"identifiers": identifiers, **members})


def parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    found = {name: tuple(values) for name, values in headers.items()}
    assert "transfer-encoding" not in found, "clients of ACME want a length"
    return Answer(int(status.split()[1]), found, body)
