"""The configuration reference and its JSON Schema (draft 2020-12), written from the models that check the file.

`python -m gateway.config.reference > docs/configuration.md` writes the reference.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator, BaseModel, PlainValidator
from pydantic.fields import FieldInfo

from gateway.config import fields
from gateway.config.durations import format_duration, parse_duration
from gateway.config.fields import Address, FilePath, KeySource, LivePath, SecretSource, SocketPath, StatePath
from gateway.config.schema import GatewayConfig
from gateway.config.shape import alternatives, models, tag

_FIELD_TYPES: dict[Callable[..., Any], str] = {
    parse_duration: "duration",
    fields.parse_pattern: "regular expression",
    fields.parse_network: "network",
    fields.parse_object_identifier: "object identifier",
    fields.parse_http_url: "URL",
    fields.parse_listen_address: "address and port",
    fields.parse_config_name: "name",
}
_PLAIN_TYPES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    type(None): "null",
    FilePath: "file",
    StatePath: "path",
    LivePath: "path",
    SocketPath: "path",
}
_PLAIN_MODELS = frozenset({SecretSource, KeySource})
"""What has no section for each place where it stands."""
_INTRODUCTION = """\
# Configuration reference

One YAML file, by default `var/profiles.yaml` or `/etc/pki-gateway/profiles.yaml`; `--config FILE` or the variable
`PKI_GATEWAY_CONFIG` names another. [profiles.example.yaml](../profiles.example.yaml) shows every feature with comments.
`pki-gateway config check` says everything that is wrong, each with file, line, column and field; `config show` prints what is in
force, defaults included; `config diff` compares with the running server.

Editors check and complete the file when it begins with

    # yaml-language-server: $schema=./profiles.schema.json

and `pki-gateway config schema > profiles.schema.json` was run beside it.

## How values are written

- Unknown keys, keys written twice and values of another type are errors. Nothing is converted: `"5"` is text, `5` is a number.
- Words and numbers that some YAML readers turn into something else (`no`, `on`, `1:30`, `0777`, `0x1F`, `2024-01-01`) are errors;
  put them in quotes, or write `true`, `false` or the decimal number.
- Aliases (`&name`, `*name`) are read; merge keys (`<<`) and tags (`!x`) are not.
- **duration**: a whole number with a unit: `90s`, `15m`, `12h`, `30d`, `2w`.
- **name**: up to 63 lower-case letters, digits and hyphens.
- **file**: read once when the configuration is read. **path**: something that the program makes. Relative ones count from the
  folder of the configuration file.
- **regular expression**: up to 512 characters in RE2's syntax, matched in linear time: no look-around, no back-references;
  `\\d`, `\\w`, `\\s` mean ASCII. It must match the whole value. The only flag is `(?i)`, at the beginning, for ASCII letters.
- **network**: `10.0.0.0/8`, `2001:db8::/32`. **address and port**: `127.0.0.1:8080`, `"[::1]:8080"`.
- **object identifier**: dotted, `1.3.6.1.4.1.311.21.7`.
"""
_SECRETS = """\
A secret is never written into the file; it says where it is read from, by exactly one key: `{file: secrets/store.key}`.
A file that others can read or change, or that its group can change, is refused; so that containers can be handed secrets, one
that others can read is accepted on tmpfs in a folder that others cannot enter."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors."""
    schema = GatewayConfig.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "pki-gateway configuration"}


def reference() -> str:
    """Return the configuration reference in Markdown."""
    places = {model: tuple(paths) for model, paths in _places("", GatewayConfig).items() if model not in _PLAIN_MODELS}
    body = [_section(paths[0], model, paths[1:]) for model, paths in places.items()]
    return "\n".join([_INTRODUCTION, *body, _section("Private keys", KeySource), _section("Secrets", SecretSource)])


def _places(path: str, model: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """Return every model below `model` with the paths it is written at, parents first."""
    found: dict[type[BaseModel], list[str]] = {}
    waiting = [(path, model)]
    while waiting:
        path, model = waiting.pop()
        known = model in found
        found.setdefault(model, []).append(path)
        if not known:
            inner = [place for name, field in _fields(model) for place in _models_below(f"{path}.{name}", field.annotation)]
            waiting += reversed(inner)
    return found


def _models_below(path: str, annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    found = models(annotation)
    for model in found:
        yield (f"{path} (type: {tag(model)})" if len(found) > 1 or tag(model) else path), model
    for member in alternatives(annotation):
        if get_origin(member) is dict:
            yield from _models_below(f"{path}.NAME", get_args(member)[1])
        elif get_origin(member) is tuple:
            yield from _models_below(f"{path}[]", get_args(member)[0])


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    return ((field.alias or name, field) for name, field in model.model_fields.items())


def _section(path: str, model: type[BaseModel], also: tuple[str, ...] = ()) -> str:
    text = _SECRETS if model is SecretSource else inspect.cleandoc(model.__doc__ or "")
    lines = [f"## {path or 'The whole file'}".replace("## .", "## "), "", text, ""]
    if also:
        lines += [f"Also at {', '.join(f'`{other[1:]}`' for other in also)}.", ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in _fields(model):
        value = type_text(field.annotation, tuple(field.metadata))
        cells = (f"`{name}`", value, _default_text(field), _one_line(field.description or ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def type_text(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """Return what a field takes, in the words of the reference."""
    for item in metadata:
        if isinstance(item, PlainValidator | AfterValidator) and item.func in _FIELD_TYPES:
            return _FIELD_TYPES[item.func]
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return type_text(inner, tuple(more))
    members = tuple(member for member in _members(annotation) if member is not type(None))
    if len(members) > 1 and not models(annotation):
        return " or ".join(type_text(member) for member in members)
    return _single_type(members[0] if len(members) == 1 else annotation, metadata)


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union with what annotates them."""
    origin = get_origin(annotation)
    return get_args(annotation) if len(alternatives(annotation)) > 1 and origin is not Annotated else (annotation,)


def _single_type(annotation: Any, metadata: tuple[Any, ...]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return f"{type_text(arguments[1])} by {type_text(arguments[0])}"
    return _block_text(annotation) if models(annotation) else _plain_text(annotation, metadata)


def _block_text(annotation: Any) -> str:
    if KeySource in models(annotation):
        return "[private key](#private-keys)"
    if SecretSource not in models(annotation):
        return "block"
    return "text or [secret](#secrets)" if str in alternatives(annotation) else "[secret](#secrets)"


def _plain_text(annotation: Any, metadata: tuple[Any, ...]) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return _PLAIN_TYPES[annotation] + _bounds_text(metadata)


def _bounds_text(metadata: tuple[Any, ...]) -> str:
    low = next((item.ge for item in metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, Le)), None)
    if low is None and high is None:
        return ""
    return f", {low} to {high}" if low is not None and high is not None else f", at least {low}"


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    match value:
        case None:
            return "none"
        case BaseModel():
            return "its defaults"
        case _:
            return f"`{_plain(value, field)}`"


def _plain(value: Any, field: FieldInfo) -> str:
    """Write a default as YAML takes it."""
    match value:
        case timedelta():
            return format_duration(value)
        case str() if field.annotation is timedelta:
            return format_duration(parse_duration(value))
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case str() | int() | Address():
            return str(value)
        case _:
            return json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
