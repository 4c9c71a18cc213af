"""Attestation objects: bounded CBOR, and the fields that every format has (WebAuthn §6.5.4, RFC 8949)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import cbor2

from gateway.errors import MalformedMessage
from gateway.pki import base64url
from gateway.validation.attestation.chain import MAX_CERTIFICATES
from gateway.validation.interfaces import ValidationTask

MAX_BYTES = 49152
"""Of one attestation object: a body has at most 64 kB, and four thirds of this."""
MAX_DEPTH = 6
MAX_ITEMS = 256
"""Values of one object, at any depth, keys of maps among them."""

_BYTES, _STRING, _ARRAY, _MAP = 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Statement:
    """One attestation: its format, what it says in `fields`, and the certificates beside it, DER, the attesting one first."""

    format: str
    fields: Mapping[str, object] = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)

    def octets(self, name: str) -> bytes:
        """Return a byte string of the statement that is not empty; MalformedMessage where there is none."""
        value = self.fields.get(name)
        if not isinstance(value, bytes) or not value:
            raise MalformedMessage(f"the attestation has no {name}")
        return value


@dataclass(frozen=True, slots=True)
class Claim:
    """What an attestation is asked to prove, and when.

    `token` and `key_authorization` are what it has to be fresh for (RFC 8555 §8.1).
    """

    task: ValidationTask
    key_authorization: str
    now: datetime


def decode_payload(payload: Mapping[str, object]) -> Statement:
    """Return the attestation in the payload of a challenge; unknown members are ignored (§5). Raises MalformedMessage."""
    text = payload.get("attObj")
    if not isinstance(text, str) or not text:
        raise MalformedMessage("the response to the challenge has no attObj")
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise MalformedMessage("attObj is too large", f"{len(text)} characters")
    try:
        return decode_statement(base64url.decode(text))
    except ValueError:
        raise MalformedMessage("attObj is not base64url without padding") from None


def decode_statement(data: bytes) -> Statement:
    """Return an attestation object, `{fmt, attStmt, …}`; authData has no meaning here (§5). Raises MalformedMessage."""
    value = decode_cbor(data)
    if not isinstance(value, dict):
        raise MalformedMessage("the attestation is no map")
    name, fields = value.get("fmt"), value.get("attStmt")
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise MalformedMessage("the attestation has no fmt or no attStmt")
    return Statement(name, fields, _certificates(fields))


def _certificates(fields: Mapping[str, object]) -> tuple[bytes, ...]:
    chain = fields.get("x5c")
    if not isinstance(chain, list) or not chain:
        raise MalformedMessage("the attestation has no x5c")
    if len(chain) > MAX_CERTIFICATES:
        raise MalformedMessage(f"the attestation has more than {MAX_CERTIFICATES} certificates")
    found = tuple([one for one in chain if isinstance(one, bytes)])
    if len(found) != len(chain):
        raise MalformedMessage("a certificate of the attestation is no byte string")
    return found


def decode_cbor(data: bytes) -> object:
    """Return one CBOR value of definite lengths: integers, strings, arrays and maps with text for keys, no more.

    Size, depth and count are judged before anything is built; tags, floats and simple values mean nothing in an attestation and
    are refused, so that no decoder of dates, regular expressions or references is ever met. Raises MalformedMessage.
    """
    if len(data) > MAX_BYTES:
        raise MalformedMessage("the attestation is too large", f"{len(data)} bytes")
    try:
        _scan(data)
        value: object = cbor2.loads(
            data, max_depth=MAX_DEPTH, allow_indefinite=False, allow_duplicate_keys=False, strict_hashable_types=True
        )
    except IndexError:
        raise MalformedMessage("the attestation is cut short") from None
    except (cbor2.CBORDecodeError, UnicodeError, ValueError, OverflowError) as error:
        raise MalformedMessage("the attestation is not CBOR", type(error).__name__) from None
    return value


def _scan(data: bytes) -> None:
    """Walk over every head (RFC 8949 §3); `waiting` holds how many values each open array or map still takes."""
    position, items = 0, 0
    waiting = [1]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        waiting[-1] -= 1
        items += 1
        major, argument, position = _head(data, position)
        if major in {_BYTES, _STRING}:
            position += argument
            if position > len(data):
                raise MalformedMessage("the attestation is cut short")
        elif major in {_ARRAY, _MAP}:
            if argument > MAX_ITEMS or len(waiting) > MAX_DEPTH:
                raise MalformedMessage("the attestation has too many or too deep values")
            waiting.append(argument * (major - _ARRAY + 1))
        elif major > _MAP:
            raise MalformedMessage("the attestation has values that no attestation has", f"major type {major}")
        if items > MAX_ITEMS:
            raise MalformedMessage("the attestation has too many values", f"more than {MAX_ITEMS}")
    if position != len(data):
        raise MalformedMessage("bytes follow the attestation")


def _head(data: bytes, position: int) -> tuple[int, int, int]:
    """Return major type, argument and where the head ends; IndexError where it is cut short."""
    first = data[position]
    position += 1
    major, short = first >> 5, first & 0x1F
    if short < 24:
        return major, short, position
    if short > 27:
        raise MalformedMessage("the attestation is not CBOR of definite lengths")
    size = 1 << short - 24
    if position + size > len(data):
        raise IndexError
    return major, int.from_bytes(data[position : position + size]), position + size
