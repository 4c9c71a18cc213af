"""Which model reads which part of a raw document: annotations are followed beside the data, valid or not."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from gateway.config.document import DataPath


@dataclass(frozen=True, slots=True)
class Node:
    """One raw value, where it is, and the annotation that it is read by (None: no model knows this place)."""

    path: DataPath
    annotation: Any
    data: Any


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone; Annotated is unwrapped."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return tuple(inner for member in get_args(annotation) for inner in alternatives(member))
    return (annotation,)


def models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the models among an annotation's alternatives."""
    return tuple(a for a in alternatives(annotation) if isinstance(a, type) and issubclass(a, BaseModel))


def tag(model: type[BaseModel]) -> str | None:
    """Return the one value of a model's `type` field, or None when it has no such field."""
    field = model.model_fields.get("type")
    values = get_args(field.annotation) if field is not None else ()
    return str(values[0]) if len(values) == 1 else None


def model_for(annotation: Any, data: Any) -> type[BaseModel] | None:
    """Return the model that reads `data`; among several the one whose `type` the data names, else None."""
    candidates = models(annotation)
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    wanted = data.get("type") if isinstance(data, dict) else None
    return next((model for model in candidates if tag(model) == wanted), None)


def field_names(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's keys as they are written in the file, with their annotations."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def child(annotation: Any, data: Any, key: str | int) -> Any:
    """Return the annotation of `data[key]`, or None when no model knows that key."""
    if isinstance(key, int):
        return next((get_args(a)[0] for a in alternatives(annotation) if get_origin(a) is tuple), None)
    model = model_for(annotation, data)
    if model is not None:
        return field_names(model).get(key)
    return next((get_args(a)[1] for a in alternatives(annotation) if get_origin(a) is dict), None)


def walk(annotation: Any, data: Any, path: DataPath = ()) -> Iterator[Node]:
    """Yield the value and everything in it, whether valid or not."""
    yield Node(path, annotation, data)
    entries: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(data, dict):
        entries = iter(data.items())
    elif isinstance(data, list):
        entries = iter(enumerate(data))
    for key, value in entries:
        yield from walk(child(annotation, data, key), value, (*path, key))


def locate(annotation: Any, data: Any, location: tuple[str | int, ...]) -> Node:
    """Follow a pydantic error location, which also names union members and `[key]`, to the place in the data."""
    path: DataPath = ()
    for part in location:
        known = isinstance(part, int) and isinstance(data, list) and part < len(data)
        if len(models(annotation)) > 1 and part in {tag(model) for model in models(annotation)}:
            annotation = model_for(annotation, data) or annotation
        elif known or (isinstance(data, dict) and _names_key(annotation, data, part)):
            annotation = child(annotation, data, part)
            data = data.get(part) if isinstance(data, dict) else data[part]
            path = (*path, part)
    return Node(path, annotation, data)


def _names_key(annotation: Any, data: dict[str, Any], part: str | int) -> bool:
    model = model_for(annotation, data)
    return part in data or (model is not None and part in field_names(model))
