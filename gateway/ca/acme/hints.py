"""When an ACME CA wants a certificate renewed (RFC 9773 §4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from gateway.ca.interfaces import NotSent, RenewalHint
from gateway.errors import Rejection
from gateway.wire.acme.client import AcmeAnswer

DEFAULT_RETRY = 21_600
"""Seconds after which is asked again where the CA does not say (RFC 9773 §4.3.3)."""
MIN_RETRY, MAX_RETRY = 60, 86_400
MAX_URL = 512


def read_hint(answer: AcmeAnswer) -> RenewalHint:
    """Return the window of an answer; raises NotSent for one that is none."""
    try:
        document = answer.document
        window = document["suggestedWindow"]
        start, end = _read_time(window["start"]), _read_time(window["end"])
    except (Rejection, KeyError, TypeError, ValueError, OverflowError) as error:
        raise NotSent("the CA gave a renewal window that cannot be read") from error
    if end <= start:
        raise NotSent("the CA gave a renewal window that ends before it begins")
    retry = max(MIN_RETRY, min(answer.retry_after or DEFAULT_RETRY, MAX_RETRY))
    return RenewalHint(start, end, retry, _read_url(document))


def _read_time(text: object) -> datetime:
    if not isinstance(text, str) or len(text) > 40:
        raise ValueError("no time")
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without zone")
    return at.astimezone(UTC)


def _read_url(document: Mapping[str, object]) -> str | None:
    url = document.get("explanationURL")
    if not isinstance(url, str) or len(url) > MAX_URL or not url.startswith(("https://", "http://")):
        return None
    return url if url.isascii() and url.isprintable() and " " not in url else None
