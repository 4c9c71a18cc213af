"""Reads an operation's arguments: JSON values from a body, text from a query or a command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from gateway.errors import Rejection
from gateway.model import RevocationReason, SanKind
from gateway.pki.certificate import pem_to_ders

E = TypeVar("E", bound=StrEnum)

MAX_TEXT = 65536
MAX_TEXTS = 1000
MAX_ITEM = 1024


class BadArgumentError(Exception):
    """An argument is missing or cannot be read; the text names it."""


class Arguments:
    """Typed access to untyped arguments; every method raises BadArgumentError."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.optional_text(name)
        if not value:
            raise BadArgumentError(f"{name} is missing")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None."""
        value = self._given.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > MAX_TEXT):
            raise BadArgumentError(f"{name} must be text")
        return value

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number from `least` to `most`."""
        value = self.optional_integer(name, least, most)
        return default if value is None else value

    def optional_integer(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number from `least` to `most`, or None."""
        value = self._given.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise BadArgumentError(f"{name} must be a whole number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool | None:
        """Return a truth value, or None."""
        value = self._given.get(name)
        found = {True: True, False: False, "true": True, "false": False}.get(value) if isinstance(value, str | bool) else None
        if value is not None and found is None:
            raise BadArgumentError(f"{name} must be true or false")
        return found

    def time(self, name: str) -> datetime | None:
        """Return a time in ISO 8601, UTC where it names no zone, or None."""
        value = self.optional_text(name)
        if value is None:
            return None
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise BadArgumentError(f"{name} must be a time such as 2027-01-31 or 2027-01-31T12:00:00Z") from None
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)

    def serial(self, name: str) -> int | None:
        """Return a serial written in hex, colons allowed, or None."""
        value = self.optional_text(name)
        if value is None:
            return None
        try:
            return int(value.replace(":", ""), 16)
        except ValueError:
            raise BadArgumentError(f"{name} must be a serial in hex") from None

    def members(self, name: str, kind: type[E]) -> tuple[E, ...]:
        """Return the members of an enumeration that a text lists, divided by commas."""
        value = self.optional_text(name) or ""
        try:
            return tuple(kind(word) for word in value.split(",") if word)
        except ValueError:
            raise BadArgumentError(f"{name} must be of: {', '.join(kind)}") from None

    def sans(self, name: str) -> tuple[tuple[SanKind, str], ...] | None:
        """Return subject alternative names written as `dns:host.example`, or None."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise BadArgumentError(f"{name} must be a list of names such as dns:host.example")
        return tuple(_san(name, item) for item in value)

    def texts(self, name: str, most: int = MAX_TEXTS) -> tuple[str, ...] | None:
        """Return up to `most` short texts, or None."""
        value = self._given.get(name)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and 0 < len(item) <= MAX_ITEM for item in value):
            raise BadArgumentError(f"{name} must be a list of texts")
        if len(value) > most:
            raise BadArgumentError(f"{name} has more than {most} entries")
        return tuple(value)

    def certificates(self, name: str) -> tuple[bytes, ...]:
        """Return one certificate or more from PEM, DER."""
        try:
            found = pem_to_ders(self.text(name).encode("utf-8"), "CERTIFICATE")
        except (Rejection, ValueError):
            found = ()
        if not found:
            raise BadArgumentError(f"{name} must be a certificate in PEM")
        return found

    def revocation_reason(self, name: str, default: RevocationReason) -> RevocationReason:
        """Return a CRLReason by its name, `key_compromise` or `keyCompromise`."""
        value = self.optional_text(name)
        if value is None:
            return default
        wanted = value.replace("_", "").replace("-", "").lower()
        for reason in RevocationReason:
            if reason.name.replace("_", "").lower() == wanted:
                return reason
        raise BadArgumentError(f"{name} must be one of: {', '.join(r.name.lower() for r in RevocationReason)}")


def _san(name: str, text: str) -> tuple[SanKind, str]:
    kind, separator, value = text.partition(":")
    try:
        found = SanKind(kind)
    except ValueError:
        found = None
    if not separator or not value or found in {None, SanKind.OTHER, SanKind.DIRECTORY_NAME}:
        raise BadArgumentError(f"{name}: {text} is not a name such as dns:host.example, ip:10.0.0.1, email:, uri:, upn: or sid:")
    return SanKind(kind), value
