from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.document import MAX_BYTES, Mark, read_document

# JSON writes some characters as pairs of surrogates or bare, which YAML does not take.
words = st.text(st.characters(max_codepoint=0x9FFF, exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")), max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(words, plain, max_size=5))
def test_what_is_written_as_json_is_read_as_it_is(data: object) -> None:
    document = read_document(json.dumps(data).encode())
    assert document.problems == ()
    assert document.data == data


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(text: bytes) -> None:
    read_document(text)


@given(st.text(alphabet="ab:-&*!<>{}[],\n \t'\"0189no~#|?", max_size=60))
def test_no_text_makes_it_raise_and_values_agree_with_yaml(text: str) -> None:
    document = read_document(text.encode())
    # a lone "<<" is text to us, and a merge key without a place to CSafeLoader
    if not document.problems and ".0" not in text and "<<" not in text:
        assert document.data == yaml.load(text, Loader=yaml.CSafeLoader)


def test_every_value_knows_its_place() -> None:
    document = read_document(b"a:\n  b: [1, x]\nc: {d: e}\n")
    assert document.mark(("a",)) == Mark(1, 1)
    assert document.mark(("a", "b")) == Mark(2, 3)
    assert document.mark(("a", "b", 1)) == Mark(2, 10)
    assert document.mark(("c", "d")) == Mark(3, 5)
    assert document.mark(("c", "missing", "deeper")) == Mark(3, 1)


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "Yes",
        "ON",
        "off",
        "y",
        "N",
        "True",
        "NULL",
        "1:30",
        "0777",
        "0o17",
        "0x1F",
        "0b1",
        "1_000",
        "+5",
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        ".inf",
        ".NaN",
        "1e3",
        "1.5e+3",
    ],
)
def test_words_that_some_readers_convert_are_refused_unless_quoted(word: str) -> None:
    problems = read_document(f"a: {word}\n".encode()).problems
    if word != "1e3":  # text to YAML 1.1, which wants a dot and a sign
        assert [problem.path for problem in problems] == [("a",)]
        assert problems[0].mark == Mark(1, 4)
        assert word in problems[0].sentence
    quoted = read_document(f'a: "{word}"\n'.encode())
    assert quoted.problems == ()
    assert quoted.data == {"a": word}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("true", True, id="true"),
        pytest.param("false", False, id="false"),
        pytest.param("null", None, id="null"),
        pytest.param("~", None, id="tilde"),
        pytest.param("", None, id="empty"),
        pytest.param("0", 0, id="zero"),
        pytest.param("-7", -7, id="negative"),
        pytest.param("127.0.0.1:8080", "127.0.0.1:8080", id="address"),
        pytest.param("2.5.4.3", "2.5.4.3", id="oid"),
        pytest.param("10.0.0.0/8", "10.0.0.0/8", id="network"),
        pytest.param("|\n  x\n", "x\n", id="block"),
    ],
)
def test_plain_words(text: str, value: object) -> None:
    document = read_document(f"a: {text}\n".encode())
    assert document.problems == ()
    assert document.data == {"a": value}


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        pytest.param(b"a: 1\nb: 2\na: 3\n", 3, 1, "written twice; the first is in line 1", id="duplicate"),
        pytest.param(b"a: {b: 1, b: 2}\n", 1, 11, "written twice", id="duplicate-inside"),
        pytest.param(b"x: &x {a: 1}\nz:\n  <<: *x\n", 3, 3, "merge keys", id="merge"),
        pytest.param(b"a: !!python/object:os.system x\n", 1, 4, "tag", id="python-tag"),
        pytest.param(b"a: !secret x\n", 1, 4, "has a tag", id="own-tag"),
        pytest.param(b"a: *b\n", 1, 4, "of no anchor", id="unknown-anchor"),
        pytest.param(b"a: &a [*a]\n", 1, 8, "of no anchor", id="anchor-in-itself"),
        pytest.param(b"? [a]\n: b\n", 1, 3, "a key must be text", id="list-as-key"),
        pytest.param(b"5: b\n", 1, 1, "a key must be text", id="number-as-key"),
        pytest.param(b"on: b\n", 1, 1, "truth value", id="word-as-key"),
        pytest.param(b"a: 1\n---\nb: 1\n", 2, 1, "second document", id="two-documents"),
        pytest.param(b"a: [::1]:80\n", 1, 5, "not YAML", id="unquoted-ipv6"),
        pytest.param(b"a: b\n\tc: d\n", 2, 1, "not YAML", id="tab"),
        pytest.param(b"a: b\nc: \xff\n", 2, 1, "not UTF-8", id="not-utf-8"),
        pytest.param(b"a: \x00\n", 1, 1, "not YAML", id="nul"),
        pytest.param(b"[" * 5000, 1, 34, "nested deeper", id="deep"),
        pytest.param(b"a" * (MAX_BYTES + 1), 1, 1, "larger than", id="large"),
    ],
)
def test_what_is_refused(text: bytes, line: int, column: int, word: str) -> None:
    problem = read_document(text).problems[0]
    assert word in problem.sentence
    assert problem.mark == Mark(line, column)


def test_aliases_are_read_and_a_tower_of_them_is_refused() -> None:
    assert read_document(b"a: &x {b: [1]}\nc: *x\n").data == {"a": {"b": [1]}, "c": {"b": [1]}}
    wide = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i)] * 10)) for i in range(1, 12)
    )
    assert "values, aliases expanded" in read_document(wide).problems[0].sentence
    deep = b"k0: &a0 [x]\n" + b"".join(b"k%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 60))
    assert "nested deeper" in read_document(deep).problems[0].sentence


@pytest.mark.parametrize("text", [b"token: *S3CRETVALUE\n", b"token: !S3CRETVALUE x\n"], ids=["alias", "tag"])
def test_a_secret_that_looks_like_yaml_is_not_repeated(text: bytes) -> None:
    [problem] = read_document(text).problems
    assert "put text in quotes" in problem.sentence
    assert "S3CRET" not in problem.sentence
