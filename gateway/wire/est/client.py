"""The client's side of EST, sans I/O: requests to send, answers taken apart (RFC 7030 §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ROOT = "/.well-known/est"


@dataclass(frozen=True, slots=True)
class EstRequest:
    """A request as HTTP takes it."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EstAnswer:
    """An answer: what a 200 carries, else `retry_after` seconds of a 202, 429 or 503, and what the server says in words."""

    status: int
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    key: bytes | None = field(default=None, repr=False)
    """serverkeygen: the private key, PKCS#8 DER, or CMS EnvelopedData that holds it."""
    key_encrypted: bool = False
    csrattrs: bytes | None = field(default=None, repr=False)
    cmc_response: bytes | None = field(default=None, repr=False)
    retry_after: int | None = None
    text: str = ""


def get_request(operation: str, label: str | None = None) -> EstRequest:
    """Return a request for what is public: cacerts, csrattrs."""
    raise NotImplementedError


def post_request(operation: str, der_body: bytes, label: str | None = None, authorization: str | None = None) -> EstRequest:
    """Return a request that carries a PKCS#10, or for fullcmc a CMC message, DER."""
    raise NotImplementedError


def basic_authorization(name: str, password: str) -> str:
    """Return the Authorization header of HTTP Basic (RFC 7617 §2); ValueError for a name with a colon."""
    raise NotImplementedError


def decode_answer(operation: str, status: int, headers: Mapping[str, str], body: bytes) -> EstAnswer:
    """Take the answer to `operation` apart; raises MalformedMessage for a 200 that is not what it should be."""
    raise NotImplementedError
