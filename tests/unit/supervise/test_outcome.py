"""Whatever became of an order, the answer fits into a message."""

import pytest

from gateway.config.view import Difference
from gateway.errors import ConfigurationError
from gateway.supervise.acceptance import Changes
from gateway.supervise.control import LENGTHS, decode_lengths, encode
from gateway.supervise.orders import refusal
from gateway.supervise.outcome import Outcome


def test_the_text_is_said_once() -> None:
    ended = Outcome(ok=True, generation=2, text="generation 2 is in force").answer(7)
    assert (ended.id, ended.text) == (7, "generation 2 is in force")
    assert ended.found == {"generation": 2, "fields": [], "contents": []}


@pytest.mark.parametrize("value", ["x", "\U0001f512" * 1000, ["y" * 100] * 20000], ids=["short", "long", "beyond-all"])
def test_differences_that_do_not_fit_are_counted(value: object) -> None:
    fields = tuple(Difference(f"profiles.p{number}.subject", value, None) for number in range(64000 if value == "x" else 500))
    outcome = Outcome(ok=True, generation=2, text="done", changes=Changes(fields, ("content of ca.pem",) * 64000))
    ended = outcome.answer(7)
    decode_lengths(encode(ended)[: LENGTHS.size])
    left = len(fields) + 64000 - len(ended.found["fields"]) - len(ended.found["contents"])
    assert left > 0
    assert ended.text == f"done; {left} more differences are not shown"


def test_a_worker_that_finds_much_wrong_says_so_in_a_message() -> None:
    refused = refusal(7, ConfigurationError(tuple(f"profiles.p{number}: wrong" for number in range(64000))))
    assert (refused.code, refused.text.splitlines()[-1]) == (3, "and 63900 more")
