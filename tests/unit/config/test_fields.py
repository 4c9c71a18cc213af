from __future__ import annotations

import json
import pickle
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.durations import format_duration, parse_duration
from gateway.config.fields import (
    Address,
    ConfigName,
    Duration,
    FilePath,
    HttpUrl,
    ListenAddress,
    Model,
    Network,
    ObjectIdentifier,
    Pattern,
    SecretSource,
    StatePath,
)


class Sample(Model):
    duration: Duration | None = None
    pattern: Pattern | None = None
    network: Network | None = None
    oid: ObjectIdentifier | None = None
    name: ConfigName | None = None
    url: HttpUrl | None = None
    address: ListenAddress | None = None
    file: FilePath | None = None
    state: StatePath | None = None
    secret: SecretSource | None = None


def read(field: str, value: Any) -> Any:
    return getattr(Sample.model_validate_json(json.dumps({field: value})), field)


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        pytest.param("duration", "90s", timedelta(seconds=90), id="seconds"),
        pytest.param("duration", "15m", timedelta(minutes=15), id="minutes"),
        pytest.param("duration", "12h", timedelta(hours=12), id="hours"),
        pytest.param("duration", "30d", timedelta(days=30), id="days"),
        pytest.param("duration", "2w", timedelta(weeks=2), id="weeks"),
        pytest.param("duration", "0s", timedelta(0), id="zero"),
        pytest.param("network", "10.0.0.0/8", IPv4Network("10.0.0.0/8"), id="ipv4-network"),
        pytest.param("network", "2001:db8::/32", IPv6Network("2001:db8::/32"), id="ipv6-network"),
        pytest.param("oid", "1.3.6.1.4.1.311.21.7", "1.3.6.1.4.1.311.21.7", id="oid"),
        pytest.param("oid", "2.999.1", "2.999.1", id="oid-large-second-arc"),
        pytest.param("name", "corp-2", "corp-2", id="name"),
        pytest.param("url", "https://pki.example.com/", "https://pki.example.com", id="url-slash-dropped"),
        pytest.param("url", "http://[::1]:8080/pki", "http://[::1]:8080/pki", id="url-ipv6-path"),
        pytest.param("address", "127.0.0.1:8080", Address("127.0.0.1", 8080), id="address"),
        pytest.param("address", "[::1]:0", Address("::1", 0), id="address-ipv6"),
        pytest.param("address", "localhost:80", Address("localhost", 80), id="address-name"),
        pytest.param("file", "ca/root.pem", FilePath("ca/root.pem"), id="file"),
        pytest.param("secret", {"env": "X"}, SecretSource(env="X"), id="secret-env"),
    ],
)
def test_reads(field: str, written: Any, meant: object) -> None:
    value = read(field, written)
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("field", "written"),
    [
        pytest.param("duration", 90, id="duration-number"),
        pytest.param("duration", "90", id="duration-no-unit"),
        pytest.param("duration", "1.5h", id="duration-fraction"),
        pytest.param("duration", "-1h", id="duration-negative"),
        pytest.param("duration", "٣h", id="duration-arabic-digit"),
        pytest.param("duration", "P1D", id="duration-iso"),
        pytest.param("duration", "36501d", id="duration-too-long"),
        pytest.param("duration", "999999999w", id="duration-overflow"),
        pytest.param("pattern", "(", id="pattern-broken"),
        pytest.param("pattern", "a" * 513, id="pattern-long"),
        pytest.param("pattern", "(?=a)a", id="pattern-look-ahead"),
        pytest.param("pattern", 5, id="pattern-number"),
        pytest.param("network", "10.0.0.1/8", id="network-host-bits"),
        pytest.param("network", "ten", id="network-word"),
        pytest.param("oid", "1.3.6.", id="oid-dot"),
        pytest.param("oid", "3.1", id="oid-first-arc"),
        pytest.param("oid", "1.40", id="oid-second-arc"),
        pytest.param("oid", "1.3.06", id="oid-leading-zero"),
        pytest.param("oid", "1." + "1." * 70 + "1", id="oid-long"),
        pytest.param("name", "Corp", id="name-upper"),
        pytest.param("name", "-a", id="name-hyphen"),
        pytest.param("name", "a" * 64, id="name-long"),
        pytest.param("name", "a\n", id="name-newline"),
        pytest.param("name", "a/b", id="name-slash"),
        pytest.param("url", "ftp://x", id="url-scheme"),
        pytest.param("url", "https://", id="url-no-host"),
        pytest.param("url", "https://a@b", id="url-user"),
        pytest.param("url", "https://b/?q", id="url-query"),
        pytest.param("url", "https://b:99999", id="url-port"),
        pytest.param("url", "https://b c", id="url-space"),
        pytest.param("address", "8080", id="address-port-only"),
        pytest.param("address", ":8080", id="address-no-host"),
        pytest.param("address", "::1:8080", id="address-bare-ipv6"),
        pytest.param("address", "[127.0.0.1]:80", id="address-ipv4-in-brackets"),
        pytest.param("address", "127.0.0.1:65536", id="address-port-large"),
        pytest.param("address", "127.0.0.300:80", id="address-octet"),
        pytest.param("address", "a_b:80", id="address-name"),
        pytest.param("file", "", id="file-empty"),
        pytest.param("file", "a\0b", id="file-nul"),
        pytest.param("file", 5, id="file-number"),
        pytest.param("secret", "hunter2", id="secret-inline"),
        pytest.param("secret", {}, id="secret-none"),
        pytest.param("secret", {"file": "a", "env": "B"}, id="secret-two"),
        pytest.param("secret", {"env": "B", "allow_group_world": True}, id="secret-mode-of-env"),
        pytest.param("secret", {"credential": "../x"}, id="secret-credential-path"),
        pytest.param("secret", {"env": "A=B"}, id="secret-env-name"),
    ],
)
def test_refuses(field: str, written: Any) -> None:
    with pytest.raises(ValidationError):
        read(field, written)


@given(st.integers(0, 36500 * 86400))
def test_durations_survive_writing(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        pytest.param("127.0.0.1", True, id="ipv4"),
        pytest.param("127.9.9.9", True, id="whole-127"),
        pytest.param("::1", True, id="ipv6"),
        pytest.param("localhost", True, id="localhost"),
        pytest.param("0.0.0.0", False, id="any"),
        pytest.param("::", False, id="any-ipv6"),
        pytest.param("192.0.2.1", False, id="address"),
        pytest.param("localhost.example.com", False, id="name"),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 80).is_loopback is loopback


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "[::1]:8080", "localhost:8080"])
def test_addresses_are_shown_as_they_are_written(text: str) -> None:
    assert str(read("address", text)) == text


def test_models_are_frozen_picklable_and_written_back_as_text() -> None:
    text = {
        "duration": "1h",
        "pattern": "a+",
        "network": "10.0.0.0/8",
        "address": "[::1]:1",
        "file": "x",
        "secret": {"file": "y"},
    }
    sample = Sample.model_validate_json(json.dumps(text))
    assert pickle.loads(pickle.dumps(sample)) == sample
    written = sample.model_dump(mode="json", exclude_unset=True)
    assert written == text
    with pytest.raises(ValidationError):
        sample.name = "other"  # type: ignore[misc]
