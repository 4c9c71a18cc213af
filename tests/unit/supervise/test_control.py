"""Messages on the control channel, as bytes."""

import pytest

from gateway.supervise.control import (
    LENGTHS,
    MAX_HEADER,
    MAX_TEXT,
    Abort,
    Beat,
    Check,
    Commit,
    ControlError,
    Ended,
    Message,
    Prepare,
    Ready,
    Record,
    Refused,
    ReloadWanted,
    RestartWanted,
    Start,
    cut,
    decode,
    decode_lengths,
    encode,
    show_problems,
)

SOURCES = bytes(range(256)) * 100
START = Start(
    worker="host:1:ab", slot=1, generation=7, http=5, https=6, admin=7, https_mtls=None, balance=8, share=0,
    log_format="json", log_level="info", drain_seconds=30.0, sources=SOURCES,
)  # fmt: skip
MESSAGES: tuple[Message, ...] = (
    START,
    Prepare(2, SOURCES, id=3),
    Commit(2, id=4),
    Abort(2),
    Check(id=5),
    Record("configuration.refused", "uid:0 (root)", "refused", "two\nlines, and ünicode", 2, id=6),
    Ready(6),
    Refused(7, 3, "why"),
    ReloadWanted("uid:0 (root)", id=8),
    RestartWanted("SIGUSR2", id=9),
    Ended(9, ok=False, reason="failed", text="why", found={"fields": [{"before": None}]}),
    Beat(),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_through(message: Message) -> None:
    frame = encode(message)
    header, body = decode_lengths(frame[: LENGTHS.size])
    assert len(frame) == LENGTHS.size + header + body
    assert decode(frame[LENGTHS.size : LENGTHS.size + header], frame[LENGTHS.size + header :]) == message


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[1]", id="no-object"),
        pytest.param(b"{}", id="no-kind"),
        pytest.param(b'{"kind": "Ready"}', id="a-field-is-missing"),
        pytest.param(b'{"kind": "Ready", "id": 1, "more": 2}', id="a-field-too-many"),
        pytest.param(b'{"kind": "Message", "id": 1}', id="unknown-kind"),
        pytest.param(b'{"kind": []}', id="kind-of-another-type"),
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(b"[" * 100000, id="deep"),
    ],
)
def test_what_is_no_message_is_refused(header: bytes) -> None:
    with pytest.raises(ControlError):
        decode(header, b"")


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (1, 1 << 40)])
def test_absurd_lengths_are_refused_before_anything_is_read(lengths: tuple[int, int]) -> None:
    with pytest.raises(ControlError):
        decode_lengths(LENGTHS.pack(*lengths))


def test_no_secret_shows_where_a_message_is_printed() -> None:
    assert "sources" not in repr(START)
    assert "sources" not in repr(Prepare(1, b"secret"))


def test_problems_beyond_a_hundred_are_counted() -> None:
    assert show_problems(["one", "two"]) == "one\ntwo"
    assert len(show_problems(["wrong"] * 100).splitlines()) == 100
    assert show_problems([f"wrong {number}" for number in range(64000)]).splitlines()[99:] == ["wrong 99", "and 63900 more"]


@pytest.mark.parametrize("problems", [["\U0001f512" * 1_000_000], ["\U0001f512" * 100_000] * 101], ids=["one", "many"])
def test_a_text_of_any_length_fits_into_a_message(problems: list[str]) -> None:
    text = show_problems(problems)
    assert len(text) <= MAX_TEXT + 1
    assert ("and 1 more" in text) == (len(problems) > 100)
    for message in (Refused(1, 3, text), Ended(1, ok=False, reason="configuration", text=text)):
        decode_lengths(encode(message)[: LENGTHS.size])


def test_a_text_that_was_cut_says_so() -> None:
    assert (cut("four", 4), cut("fives", 4)) == ("four", "five…")
