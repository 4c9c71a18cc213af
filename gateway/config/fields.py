"""Field types that the configuration models are made of: each reads one strict spelling and says in a sentence what is wrong."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from gateway.config.durations import format_duration, parse_duration
from gateway.config.patterns import LinearPattern, PatternError

MAX_TEXT = 4096
"""Longest path, URL or environment value, in characters."""
MAX_PATTERN = 512
"""Longest regular expression, in characters."""
_OID = re.compile(r"(?:[01]\.(?:[0-9]|[123][0-9])|2\.(?:0|[1-9][0-9]*))(?:\.(?:0|[1-9][0-9]*))*", re.ASCII)
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]{1,64}", re.ASCII)
"""What a path segment may hold without an escape (RFC 3986 §3.3)."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Model(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no conversions between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, hide_input_in_errors=True)


def _text(value: object, what: str) -> str:
    """`value` as bounded text without control characters; `what` starts the sentence that refuses anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text; put it in quotes")  # noqa: TRY004  pydantic collects ValueError
    if not value or len(value) > MAX_TEXT or _CONTROL.search(value):
        raise ValueError(f"{what} must have 1 to {MAX_TEXT} characters and no control characters")
    return value


def parse_pattern(value: object) -> LinearPattern:
    """Compile a regular expression of at most 512 characters. Raises ValueError."""
    if isinstance(value, LinearPattern):
        return value
    text = _text(value, "a pattern")
    if len(text) > MAX_PATTERN:
        raise ValueError(f"a pattern must not be longer than {MAX_PATTERN} characters")
    try:
        return LinearPattern.compile(text)
    except PatternError as error:
        raise ValueError(f"is not a regular expression that RE2 can match: {error}") from error


def parse_network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read "10.0.0.0/8" or "2001:db8::/32"; host bits are refused. Raises ValueError."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    text = _text(value, "a network")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError('must be a network such as "10.0.0.0/8" or "2001:db8::/32"') from None
    raise ValueError(f'has host bits set; did you mean "{meant}"?')


def parse_config_name(value: str) -> str:
    """Read the name of a profile or an upstream CA, which is also a part of URLs. Raises ValueError."""
    if _NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 63 lower-case letters, digits and hyphens, and not begin with a hyphen")
    return value


def parse_est_label(value: str) -> str:
    """Read the label of an EST service, one segment of a URL (RFC 7030 §3.2.2). Raises ValueError."""
    if _LABEL.fullmatch(value) is None or value in {".", ".."}:
        raise ValueError("must be 1 to 64 letters, digits and characters that a URL segment may hold, such as - . : _")
    return value


def parse_object_identifier(value: object) -> str:
    """Read a dotted object identifier of at most 128 characters. Raises ValueError."""
    text = _text(value, "an object identifier")
    if len(text) > 128 or _OID.fullmatch(text) is None:
        raise ValueError('must be a dotted object identifier such as "1.3.6.1.4.1.311.21.7"')
    return text


def parse_http_url(value: object) -> str:
    """Read an http or https URL without user, query and fragment; a slash at the end is dropped. Raises ValueError."""
    text = _text(value, "a URL").rstrip("/")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError('must be a URL that begins with "http://" or "https://" and names a host')
    if "@" in parts.netloc or parts.query or parts.fragment or "?" in text or "#" in text or not text.isascii() or " " in text:
        raise ValueError("must be a plain URL: no user, query, fragment, spaces or characters beyond ASCII")
    return text


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: `host` is an IP address or a host name (IPv6 without brackets), `port` 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect; a host name other than localhost is taken as reachable."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def parse_listen_address(value: object) -> Address:
    """Read "127.0.0.1:8080", "[::1]:8080" or "localhost:8080". Raises ValueError."""
    if isinstance(value, Address):
        return value
    text = _text(value, "an address")
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError('must be an address and a port such as "127.0.0.1:8080" or "[::1]:8080"')
    return Address(_listen_host(host), int(port))


def _listen_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"{host} is not an IPv6 address in brackets") from None
    if ":" in host:
        raise ValueError('an IPv6 address must be in brackets: "[::1]:8080"')
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        if _HOST.fullmatch(host) is None or host.replace(".", "").isdigit():
            raise ValueError(f"{host} is neither an IP address nor a host name") from None
    return host


class _Path(str):
    """A path as written in the file; relative ones count from the configuration file's folder."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate as bounded text and keep the class, so that a walk over the models finds every path."""
        inner = core_schema.no_info_plain_validator_function(
            cls._parse, json_schema_input_schema=core_schema.str_schema(min_length=1, max_length=MAX_TEXT)
        )
        return core_schema.json_or_python_schema(inner, inner, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def _parse(cls, value: object) -> Self:
        return cls(_text(value, "a path"))


class FilePath(_Path):
    """A file that is read once when the configuration is read; its bytes are in `Sources`."""

    __slots__ = ()


class LivePath(_Path):
    """A file that others write anew again and again, read each time that it is needed."""

    __slots__ = ()


class StatePath(_Path):
    """A file that the program writes."""

    __slots__ = ()


class SocketPath(_Path):
    """A unix socket that the program makes."""

    __slots__ = ()


Duration = Annotated[
    timedelta,
    PlainValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^(0|[1-9][0-9]{0,9})[smhdw]$", "examples": ["90s", "15m", "12h", "30d", "2w"]}),
]
Pattern = Annotated[
    LinearPattern,
    PlainValidator(parse_pattern),
    PlainSerializer(lambda pattern: pattern.text, return_type=str),
    WithJsonSchema({"type": "string", "format": "regex", "maxLength": MAX_PATTERN}),
]
Network = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    PlainValidator(parse_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32"]}),
]
ObjectIdentifier = Annotated[
    str,
    PlainValidator(parse_object_identifier),
    WithJsonSchema({"type": "string", "pattern": r"^[0-2](\.(0|[1-9][0-9]*))+$", "maxLength": 128}),
]
ConfigName = Annotated[
    str, AfterValidator(parse_config_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})
]
EstLabel = Annotated[str, AfterValidator(parse_est_label), WithJsonSchema({"type": "string", "pattern": f"^{_LABEL.pattern}$"})]
HttpUrl = Annotated[str, PlainValidator(parse_http_url), WithJsonSchema({"type": "string", "pattern": "^https?://[^/?#@ ]+"})]
ListenAddress = Annotated[
    Address,
    PlainValidator(parse_listen_address),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:8080", "[::1]:8080"]}),
]


class SecretSource(Model):
    """Where a secret is read from: exactly one of `file`, `env` and `credential`."""

    file: FilePath | None = None
    """A file; one newline at its end does not count."""
    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = None
    """An environment variable."""
    credential: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")] | None = None
    """A systemd credential (LoadCredential=, LoadCredentialEncrypted=)."""
    allow_group_world: bool = Field(default=False)
    """Accept a `file` that others can read, or that its group or others can change."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("file", "env", "credential") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError('must name exactly one of "file", "env" and "credential"')
        if self.allow_group_world and self.file is None:
            raise ValueError('"allow_group_world" goes with "file" only')
        return self

    def __str__(self) -> str:
        if self.file is not None:
            return f"file {self.file}"
        return f"environment variable {self.env}" if self.env is not None else f"systemd credential {self.credential}"


class TokenKey(Model):
    """A private key in a token (HSM) behind a PKCS#11 module: RSA, or EC with its public key beside it."""

    module: LivePath
    """The vendor's PKCS#11 module, such as `/usr/lib/softhsm/libsofthsm2.so`."""
    token: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,32}$")]
    """The token's label."""
    label: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,128}$")] | None = None
    """The key's label; this, `id` or both."""
    id: Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}){1,64}$")] | None = None
    """The key's identifier in hex."""
    pin: SecretSource
    """The user's PIN; one that the token has refused is never tried again."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.label is None and self.id is None:
            raise ValueError('must name the key by "label", "id" or both')
        return self

    def __str__(self) -> str:
        return f"key {self.label if self.label is not None else self.id} in token {self.token}"


class KeySource(SecretSource):
    """Where a private key is: in a PEM file, or another place of a secret, or in a token that it never leaves."""

    pkcs11: TokenKey | None = None
    """A key in a token (HSM); see docs/hsm.md."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("file", "env", "credential", "pkcs11") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError('must name exactly one of "file", "env", "credential" and "pkcs11"')
        if self.allow_group_world and self.file is None:
            raise ValueError('"allow_group_world" goes with "file" only')
        return self

    def __str__(self) -> str:
        return str(self.pkcs11) if self.pkcs11 is not None else super().__str__()


class RaPair(Model):
    """An RA certificate and its key."""

    certificate: FilePath
    """The certificate, PEM."""
    key: KeySource
    """Its private key: PEM, or in a token."""


class QuotaConfig(Model):
    """At most `count` certificates (or failed requests) in any `window`."""

    count: Annotated[int, Field(ge=1)]
    """How many."""
    window: Duration
    """In which time."""
