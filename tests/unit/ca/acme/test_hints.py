"""Renewal windows of ACME CAs (RFC 9773 §4.2)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.ca.acme.hints import read_hint
from gateway.ca.interfaces import NotSent
from gateway.wire.acme.client import AcmeAnswer

WINDOW = {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00+02:00"}


def answer(document: object, retry: str | None = None) -> AcmeAnswer:
    return AcmeAnswer(200, {} if retry is None else {"retry-after": retry}, json.dumps(document).encode())


@pytest.mark.parametrize(("retry", "expected"), [(None, 21_600), ("1", 60), ("7200", 7200), ("999999", 86_400)])
def test_a_window(retry: str | None, expected: int) -> None:
    hint = read_hint(answer({"suggestedWindow": WINDOW, "explanationURL": "https://ca.example/why"}, retry))
    assert (hint.start, hint.end) == (datetime(2026, 1, 2, 4, tzinfo=UTC), datetime(2026, 1, 3, 2, tzinfo=UTC))
    assert (hint.retry_after, hint.explanation_url) == (expected, "https://ca.example/why")


@pytest.mark.parametrize("url", [7, "javascript:alert(1)", "https://ca.example/ x", "https://ca.example/" + "x" * 600, None])
def test_explanations_that_are_left_out(url: object) -> None:
    assert read_hint(answer({"suggestedWindow": WINDOW, "explanationURL": url})).explanation_url is None


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"suggestedWindow": None},
        {"suggestedWindow": {"start": WINDOW["start"]}},
        {"suggestedWindow": {"start": WINDOW["end"], "end": WINDOW["start"]}},
        {"suggestedWindow": {"start": "2026-01-02T04:00:00", "end": "2026-01-03T04:00:00"}},
        {"suggestedWindow": {"start": "tomorrow", "end": "later"}},
        {"suggestedWindow": {"start": 1, "end": 2}},
        {"suggestedWindow": {"start": "0001-01-01T00:00:00+14:00", "end": WINDOW["end"]}},
    ],
    ids=str,
)
def test_windows_that_are_none(document: Any) -> None:
    with pytest.raises(NotSent):
        read_hint(answer(document))
