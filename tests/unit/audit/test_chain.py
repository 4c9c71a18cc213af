"""The audit chain: every kind of tampering is found, heads show a cut tail."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import (
    GENESIS,
    AuditEvent,
    AuditHead,
    append_head,
    canonical_body,
    link,
    parse_audit_key,
    parse_heads,
    sign_head,
    verify_chain,
    verify_head,
)
from gateway.audit.chain import MAX_PROBLEMS
from gateway.errors import ConfigurationError, Reason
from gateway.store.interfaces import AuditRow

KEY, OTHER = b"k" * 32, b"o" * 32
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEXT = st.text(st.characters())
"""Lone surrogates among it."""


def chain(length: int, key: bytes = KEY) -> list[AuditRow]:
    rows, previous = [], GENESIS
    for seq in range(1, length + 1):
        body = canonical_body(
            AuditEvent("enrollment.issued", AT + timedelta(seconds=seq), "one_time:c1", "granted", detail=str(seq))
        )
        row_hash = link(key, seq, previous, body)
        rows.append(AuditRow(seq, previous, row_hash, body))
        previous = row_hash
    return rows


def head(rows: list[AuditRow], seq: int, key: bytes = KEY) -> AuditHead:
    return sign_head(key, seq, rows[seq - 1].hash, AT)


def problems(rows: list[AuditRow], *heads: AuditHead) -> tuple[str, ...]:
    return verify_chain(rows, KEY, heads).problems


def test_whole_chain() -> None:
    rows = chain(100)
    report = verify_chain(rows, KEY, [head(rows, 1), head(rows, 50), head(rows, 100)])
    assert (report.rows, report.last_seq, report.heads, report.problems) == (100, 100, 3, ())


def test_empty_chain() -> None:
    assert verify_chain([], KEY).problems == ()


def test_changed_body() -> None:
    rows = chain(5)
    rows[2] = replace(rows[2], body=rows[2].body.replace("granted", "refused"))
    assert problems(rows) == ("row 3 was changed, or written under another audit key",)


@pytest.mark.parametrize("field", ["hash", "previous"])
def test_changed_digest(field: str) -> None:
    rows = chain(5)
    rows[2] = replace(rows[2], **{field: bytes(32)})  # type: ignore[arg-type]
    assert any("row 3" in problem for problem in problems(rows))


@given(st.integers(2, 8), st.data())
def test_any_missing_row(length: int, data: st.DataObject) -> None:
    rows = chain(length)
    gone = data.draw(st.integers(1, length - 1))
    assert f"row {gone} is missing" in problems([row for row in rows if row.seq != gone])


def test_missing_rows_are_named_together() -> None:
    rows = chain(9)
    assert problems(rows[:2] + rows[6:]) == ("rows 3 to 6 are missing",)


@given(st.integers(3, 6).flatmap(lambda n: st.permutations(range(n))))
def test_any_other_order(order: list[int]) -> None:
    rows = chain(len(order))
    assert (problems([rows[n] for n in order]) == ()) == (order == sorted(order))


def test_rows_that_changed_places_with_their_numbers() -> None:
    rows = chain(4)
    rows[1], rows[2] = replace(rows[2], seq=2), replace(rows[1], seq=3)
    assert len(problems(rows)) >= 2


def test_row_that_was_cut_out_and_the_rest_renumbered() -> None:
    rows = chain(5)
    rows = rows[:2] + [replace(row, seq=row.seq - 1) for row in rows[3:]]
    assert "row 3 was changed, or written under another audit key" in problems(rows)


def test_row_twice() -> None:
    rows = chain(3)
    assert "row 2 comes after row 2: rows were reordered" in problems([rows[0], rows[1], rows[1], rows[2]])


def test_chain_of_another_key() -> None:
    assert len(problems(chain(3, OTHER))) == 3


def test_rows_of_another_chain_spliced_in() -> None:
    other = chain(5, OTHER)
    rows = chain(5)
    assert problems(rows[:3] + other[3:])


@given(st.integers(1, 9))
def test_any_cut_tail_shows_against_a_later_head(length: int) -> None:
    rows = chain(10)
    [problem] = problems(rows[:length], head(rows, 10))
    assert f"row 10, but the chain ends at row {length}: rows were cut off" in problem


def test_tail_that_was_cut_and_grew_again_shows() -> None:
    """Whoever has the audit key can write a chain, but not the old one."""
    rows = chain(10)
    grown = rows[:5]
    for seq in range(6, 13):
        body = canonical_body(AuditEvent("other", AT, "x", "done"))
        grown.append(AuditRow(seq, grown[-1].hash, link(KEY, seq, grown[-1].hash, body), body))
    [problem] = problems(grown, head(rows, 10))
    assert "row 10 is not the one" in problem


def test_head_over_a_row_that_is_missing_in_the_middle() -> None:
    rows = chain(5)
    assert any("over row 3, but it is missing" in problem for problem in problems(rows[:2] + rows[3:], head(rows, 3)))


def test_head_of_another_key_proves_nothing() -> None:
    rows = chain(3)
    [problem] = problems(rows, head(rows, 3, OTHER))
    assert "not signed under this audit key" in problem


def test_problems_end_at_a_number_that_can_be_read() -> None:
    found = problems(chain(500, OTHER))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == "there are more problems than are listed"


def test_non_ascii_body_is_a_changed_one() -> None:
    rows = chain(2)
    rows[0] = replace(rows[0], body="é")
    assert "row 1 was changed, or written under another audit key" in problems(rows)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"seq": 2}, id="seq"),
        pytest.param({"hash": bytes(32)}, id="hash"),
        pytest.param({"at": AT + timedelta(microseconds=1)}, id="time"),
        pytest.param({"mac": bytes(32)}, id="mac"),
    ],
)
def test_changed_head_is_noticed(change: dict[str, object]) -> None:
    good = head(chain(3), 3)
    assert verify_head(KEY, good)
    assert not verify_head(KEY, replace(good, **change))  # type: ignore[arg-type]


def test_heads_travel_as_lines(tmp_path: Path) -> None:
    rows, path = chain(3), tmp_path / "heads"
    heads = tuple(head(rows, seq) for seq in (1, 3))
    for one in heads:
        append_head(path, one)
    text = path.read_text()
    assert set(json.loads(text.splitlines()[0])) == {"seq", "hash", "at", "mac"}
    assert parse_heads(text + "\n\n") == heads
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_heads_of_several_workers_stay_in_order(tmp_path: Path) -> None:
    rows, path, second = chain(5), tmp_path / "heads", timedelta(seconds=1)

    def at(seq: int, seconds: int) -> AuditHead:
        return sign_head(KEY, seq, rows[seq - 1].hash, AT + seconds * second)

    assert append_head(path, at(4, 4))
    assert not append_head(path, at(2, 2)), "another worker was faster"
    assert not append_head(path, at(4, 4))
    assert append_head(path, at(5, 5))
    assert append_head(path, at(3, 9)), "the store came back from a backup"
    assert [one.seq for one in parse_heads(path.read_text())] == [4, 5, 3]


def test_head_begins_a_line_after_one_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "heads"
    append_head(path, head(chain(2), 1))
    path.write_bytes(path.read_bytes() + b'{"seq":9,')
    append_head(path, head(chain(2), 2))
    assert AuditHead.from_json(path.read_text().splitlines()[-1]) == head(chain(2), 2)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("no json", id="text"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="empty"),
        pytest.param('{"seq":1,"hash":"zz","at":"2026-01-01T00:00:00+00:00","mac":""}', id="no hex"),
        pytest.param('{"seq":1,"hash":"","at":"2026-01-01","mac":""}', id="naive time"),
        pytest.param('{"seq":-1,"hash":"","at":"2026-01-01T00:00:00+00:00","mac":""}', id="negative"),
        pytest.param('{"seq":1e99,"hash":"","at":"2026-01-01T00:00:00+00:00","mac":""}', id="huge"),
        pytest.param('{"seq":NaN,"hash":"","at":"2026-01-01T00:00:00+00:00","mac":""}', id="not a number"),
        pytest.param('{"seq":Infinity,"hash":"","at":"2026-01-01T00:00:00+00:00","mac":""}', id="infinite"),
        pytest.param("[" * 100000, id="deep"),
    ],
)
def test_line_that_is_no_head_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not an audit head"):
        parse_heads(head(chain(1), 1).to_json() + "\n" + line)


def test_body_is_canonical_and_leaves_out_what_is_empty() -> None:
    event = AuditEvent("e", AT, "a", "refused", reason=Reason.POLICY_KEY, sans=("dns:é",))
    body = canonical_body(event)
    assert body == (
        '{"actor":"a","at":"2026-11-21T12:00:00+00:00","count":1,"decision":"refused","event":"e",'
        '"reason":"policy_key","sans":["dns:\\u00e9"]}'
    )


@given(st.text(), st.text())
def test_any_text_makes_a_body_that_links(subject: str, detail: str) -> None:
    body = canonical_body(AuditEvent("e", AT, "a", "done", subject=subject, detail=detail))
    assert json.loads(body).get("subject", "") == subject
    assert len(link(KEY, 1, GENESIS, body)) == 32


@given(TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3), st.integers(0, 2**40), st.sampled_from([None, *Reason]))
def test_body_is_the_json_that_any_reader_would_write(
    actor: str, subject: str, detail: str, sans: list[str], number: int, reason: Reason | None
) -> None:
    event = AuditEvent(
        "e", AT, actor, "done", subject=subject, detail=detail, sans=tuple(sans), generation=number, count=number, reason=reason
    )
    fields = {name: value for name, value in asdict(event).items() if value} | {"at": AT.isoformat()}
    assert canonical_body(event) == json.dumps(fields, sort_keys=True, separators=(",", ":"))


def test_audit_key_is_hex() -> None:
    assert parse_audit_key(b"0a" * 32 + b"\n") == b"\x0a" * 32


@pytest.mark.parametrize("data", [b"", b"0a" * 31, b"xy" * 32, b"\xff" * 64])
def test_other_audit_keys_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_audit_key(data)
