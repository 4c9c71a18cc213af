"""Expressions that are matched in linear time say what `re` says, or are refused with a sentence."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.patterns import LinearPattern, PatternError


def matches(text: str, value: str) -> bool:
    return LinearPattern.compile(text).matches(value)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        pytest.param("abc", "abc", True, id="literal"),
        pytest.param("abc", "abcd", False, id="whole-value-end"),
        pytest.param("abc", "zabc", False, id="whole-value-start"),
        pytest.param("^abc$", "abc", True, id="anchors-at-the-ends"),
        pytest.param("^abc$", "abc\n", False, id="dollar-before-newline"),
        pytest.param("a|bc|", "", True, id="empty-alternative"),
        pytest.param("a|bc", "bc", True, id="alternative"),
        pytest.param("(ab)+c?", "ababc", True, id="group-repeated"),
        pytest.param("(?:ab)*", "aba", False, id="half-a-group"),
        pytest.param("(?P<x>a)b", "ab", True, id="named-group"),
        pytest.param("a{2}", "aa", True, id="exact-count"),
        pytest.param("a{2}", "aaa", False, id="exact-count-exceeded"),
        pytest.param("a{2,}", "aaaaa", True, id="no-upper-bound"),
        pytest.param("a{x}", "a{x}", True, id="braces-that-count-nothing"),
        pytest.param("a+?b*?", "aab", True, id="lazy"),
        pytest.param("[]a-c]+", "]abc", True, id="bracket-in-class"),
        pytest.param("[^]a]+", "xyz", True, id="negated-class"),
        pytest.param(r"[\w.-]+", "a-b.c_9", True, id="escapes-in-class"),
        pytest.param(r"a\.b", "axb", False, id="escaped-dot"),
        pytest.param(".*", "a\nb", False, id="dot-is-no-newline"),
        pytest.param("(?i)gate", "GaTe", True, id="ignore-case"),
        pytest.param("(?i)k", "\u212a", False, id="kelvin-sign-is-no-k"),
        pytest.param(r"M(u|ü)ller \(?intern\)?", "Müller intern", True, id="escaped-bracket-is-no-flag"),
        pytest.param(r"\d+", "\u0661\u0662", False, id="arabic-digits-are-no-digits"),
        pytest.param(r"\w+", "\u0430dmin", False, id="cyrillic-a-is-no-word-character"),
        pytest.param("M[üu]ller", "Müller", True, id="named-beyond-ascii"),
    ],
)
def test_matches(pattern: str, value: str, expected: bool) -> None:
    assert matches(pattern, value) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(?si)kiosk", id="flags-together"),
        pytest.param("(?mi:sw)-1", id="flags-of-a-group"),
        pytest.param("a(?i)b", id="flag-inside"),
        pytest.param("(?=a)a", id="look-ahead"),
        pytest.param("(?!-)[a-z]+", id="negative-look-ahead"),
        pytest.param("[a-z]+(?<!-)", id="look-behind"),
        pytest.param(r"(a)\1", id="back-reference"),
        pytest.param("a++", id="possessive"),
        pytest.param("(?>a)", id="atomic"),
        pytest.param("((a{50}){50}){50}", id="counts-multiply"),
        pytest.param("(((){1999}){1999}){1999}", id="counts-of-nothing-multiply"),
        pytest.param("a{99999}", id="count-too-large"),
    ],
)
def test_refuses_what_has_no_bound(pattern: str) -> None:
    with pytest.raises(PatternError):
        LinearPattern.compile(pattern)


TOKENS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", "1", "-"])
PATTERNS = st.recursive(
    TOKENS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])).map(lambda two: f"({two[0]}){two[1]}"),
    ),
    max_leaves=6,
)


@given(PATTERNS, st.text("ab1-\n", max_size=8))
def test_agrees_with_re(pattern: str, value: str) -> None:
    expected = re.compile(pattern, re.ASCII).fullmatch(value) is not None
    assert matches(pattern, value) is expected
    assert matches(pattern, value) is expected, "what it remembers says the same"


def test_hostile_value_costs_no_more_than_its_length() -> None:
    start = time.process_time()
    assert not matches(r"([a-z0-9]+-?)+\.corp\.example", "a" * 1000 + "!")
    assert not matches(r"(.*a){10}", "a" * 9 + "b" * 1000)
    assert time.process_time() - start < 5
