"""Where private keys may be, and what is refused about keys in tokens before any token is asked."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.ca.key_source import is_in_token, read_key
from gateway.ca.setup import Setup
from gateway.ca.token import MISSING, TokenFault, find_token
from gateway.config.document import ConfigurationFaults
from gateway.config.fields import KeySource, RaPair, SecretSource
from gateway.config.sources import Sources, find_named
from gateway.model import UpstreamCAName
from gateway.pki.keys import generate_private_key, public_key_der, serialize_private_key

TOKEN = {"module": "/lib/module.so", "token": "gateway", "label": "issuing", "pin": {"env": "PIN"}}


def source(**written: Any) -> KeySource:
    return KeySource.model_validate(written, strict=False)


def sources(**secrets: bytes) -> Sources:
    return Sources(
        Path("/etc/profiles.yaml"), "profiles.yaml", b"", {}, {f"environment variable {n}": s for n, s in secrets.items()}
    )


def test_a_key_from_elsewhere_is_pem() -> None:
    key = generate_private_key("ec-p256")
    found = read_key(source(env="KEY"), sources(KEY=serialize_private_key(key)))
    assert public_key_der(found) == public_key_der(key)
    assert not is_in_token(found)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({}, "exactly one"),
        ({"pkcs11": TOKEN, "env": "KEY"}, "exactly one"),
        ({"pkcs11": TOKEN, "allow_group_world": True}, "goes with"),
        ({"pkcs11": {k: v for k, v in TOKEN.items() if k != "label"}}, "must name the key"),
        ({"pkcs11": {**TOKEN, "id": "0"}}, "id"),
        ({"pkcs11": {**TOKEN, "token": "x" * 33}}, "token"),
        ({"pkcs11": {k: v for k, v in TOKEN.items() if k != "pin"}}, "pin"),
    ],
)
def test_what_is_written_wrong_is_refused(written: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        source(**written)


def test_the_key_is_named_without_its_pin() -> None:
    assert str(source(pkcs11=TOKEN)) == "key issuing in token gateway"
    assert str(source(env="KEY")) == "environment variable KEY"


@pytest.mark.parametrize("whole", [False, True], ids=["as written", "with all fields"])
@pytest.mark.parametrize(
    ("key", "named"),
    [
        ({"env": "KEY"}, SecretSource(env="KEY")),
        ({"pkcs11": TOKEN}, SecretSource(env="PIN")),
    ],
    ids=["elsewhere", "in a token"],
)
def test_secrets_are_found_also_where_a_section_is_written_out(key: dict[str, Any], named: SecretSource, whole: bool) -> None:
    pair: dict[str, Any] = {"certificate": "ra.pem", "key": key}
    if whole:
        pair = RaPair.model_validate(pair, strict=False).model_dump(mode="json")
    assert [found for _, found in find_named(pair, RaPair)] == ["ra.pem", named]


def test_a_password_does_not_go_with_a_token() -> None:
    with pytest.raises(ValueError, match="has a PIN"):
        read_key(source(pkcs11=TOKEN), sources(PIN=b"1234"), b"password")


def test_python_pkcs11_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(TokenFault) as caught:
        find_token("/lib/never-loaded.so", "gateway")
    assert str(caught.value) == MISSING


def test_what_is_shown_to_cas_is_no_key_in_a_token() -> None:
    pair = RaPair.model_validate({"certificate": "client.pem", "key": {"pkcs11": TOKEN}}, strict=False)
    setup = Setup(UpstreamCAName("there"), (), Sources(Path("/p"), "p", b"", {"client.pem": b""}, {}))
    with pytest.raises(ConfigurationFaults) as caught:
        setup.read_pair(pair, "connection", "client_certificate")
    assert [fault.path[-1] for fault in caught.value.faults] == ["key"]
    assert "in a token" in caught.value.faults[0].sentence
