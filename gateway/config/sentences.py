"""What a validation error says to the person who wrote the file: one sentence, with the key that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.document import DataPath, Problem
from gateway.config.shape import Node, field_names, locate, model_for, models, tag

_QUOTED = re.compile(r"'([^']*)'")


def problems_of(error: ValidationError, annotation: Any, data: Any, base: DataPath = ()) -> tuple[Problem, ...]:
    """Return one problem a place: what several members of a union say of the same value becomes one sentence."""
    said: dict[DataPath, list[str]] = {}
    for details in error.errors(include_url=False, include_input=False):
        node = locate(annotation, data, details["loc"])
        if details["type"] == "too_short" and len(node.data or ()) >= details["ctx"]["min_length"]:
            continue  # its entries are there, and each says what is wrong with it
        path, sentence = _describe(details, node, annotation, data)
        said.setdefault(path, []).append(sentence)
    inner = {path[:end] for path in said for end in range(len(path))}
    # A mapping in a place that also takes text is judged by its keys; that it is no text says nothing more.
    return tuple(
        Problem((*base, *path), _join(sentences))
        for path, sentences in said.items()
        if not (path in inner and all(s.startswith("must be text") for s in sentences))
    )


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6) or difflib.get_close_matches(
        word.lower().replace("-", "_"), list(known), n=1, cutoff=0.6
    )
    return f'; did you mean "{near[0]}"?' if near else ""


def choice(words: Iterable[str], quote: bool = True) -> str:
    """Return `"a", "b" or "c"`."""
    shown = [f'"{word}"' if quote else word for word in words]
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _join(sentences: list[str]) -> str:
    unique = list(dict.fromkeys(sentences))
    if len(unique) > 1 and all(sentence.startswith("must be ") for sentence in unique):
        return "must be " + choice((sentence.removeprefix("must be ") for sentence in unique), quote=False)
    return "; ".join(unique)


def _describe(details: ErrorDetails, node: Node, annotation: Any, data: Any) -> tuple[DataPath, str]:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return node.path, _unknown_key(locate(annotation, data, details["loc"][:-1]), str(details["loc"][-1]))
    if kind == "union_tag_not_found":
        return node.path, f'needs "type": {choice(_tags(node))}'
    if kind == "union_tag_invalid":
        tags = _tags(node)
        return (*node.path, "type"), f"must be {choice(tags)}{suggest(str(context.get('tag')), tags)}"
    return node.path, _describe_value(details, node.data)


def _describe_value(details: ErrorDetails, data: Any) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "missing":
        return "is required"
    if data is None:
        return "has no value; write one, or remove the line"
    if kind == "value_error":
        return str(context.get("error", details["msg"]))
    describe = _SENTENCES.get(kind)
    return describe(context, data) if describe else f"is not valid: {details['msg'][0].lower()}{details['msg'][1:]}"


def _tags(node: Node) -> list[str]:
    return [found for model in models(node.annotation) if (found := tag(model)) is not None]


def _unknown_key(parent: Node, key: str) -> str:
    """Say that a key is unknown; names the one that was meant, else all that there are."""
    model = model_for(parent.annotation, parent.data)
    known = list(field_names(model)) if model is not None else []
    meant = suggest(key, known)
    if meant or not known:
        return f"is not a known key{meant}"
    return f"is not a known key; known here: {', '.join(known)}"


def _text(_context: dict[str, Any], data: Any) -> str:
    return "must be text; put it in quotes" if isinstance(data, int | float) else "must be text"


def _member(context: dict[str, Any], data: Any) -> str:
    known = _QUOTED.findall(str(context.get("expected", "")))
    if isinstance(data, int | float) and str(data) in known:
        return f"must be text; write it in quotes: {choice(known)}"
    return f"must be {choice(known)}{suggest(data, known) if isinstance(data, str) else ''}"


def _whole_number(_context: dict[str, Any], _data: Any) -> str:
    return "must be a whole number"


def _truth(_context: dict[str, Any], _data: Any) -> str:
    return "must be true or false"


def _at_least(context: dict[str, Any], _data: Any) -> str:
    return f"must be a whole number of at least {context['ge']}"


def _at_most(context: dict[str, Any], _data: Any) -> str:
    return f"must be a whole number of at most {context['le']}"


def _list(_context: dict[str, Any], _data: Any) -> str:
    return "must be a list"


def _mapping(_context: dict[str, Any], _data: Any) -> str:
    return "must be a block of keys and values"


def _too_short(context: dict[str, Any], _data: Any) -> str:
    count = context.get("min_length", 1)
    return "must not be empty" if count == 1 else f"must have at least {count} entries"


def _characters(context: dict[str, Any], _data: Any) -> str:
    return f"must match {context.get('pattern')}"


_SENTENCES: dict[str, Callable[[dict[str, Any], Any], str]] = {
    "string_type": _text,
    "literal_error": _member,
    "enum": _member,
    "int_type": _whole_number,
    "int_from_float": _whole_number,
    "int_parsing": _whole_number,
    "bool_type": _truth,
    "greater_than_equal": _at_least,
    "less_than_equal": _at_most,
    "tuple_type": _list,
    "dict_type": _mapping,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
    "too_short": _too_short,
    "string_too_short": _too_short,
    "string_pattern_mismatch": _characters,
}
"""Pydantic's error types that these models can raise; a test feeds each."""
