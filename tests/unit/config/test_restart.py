"""What a reload may change, and what takes a restart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import Examination
from gateway.config.restart import needs_restart
from gateway.config.schema import GatewayConfig, HttpsListener, Limits, Server
from gateway.config.sources import Sources

Judge = Callable[[Any], Examination]
Read = tuple[GatewayConfig, Sources]

MTLS = {"listen": "127.0.0.1:8444", "certificate": "tls.pem", "key": {"file": "tls.key"}}
ASKING = {"client_certificate": "require", "client_anchors": "ca.pem"}


@pytest.fixture
def whole(minimal: dict[str, Any]) -> dict[str, Any]:
    """A configuration with every listener, whose fields all have a value."""
    minimal["server"]["https_mtls"] = copy.deepcopy(MTLS)
    minimal["profiles"]["corp"]["endpoints"]["scep"].update(ASKING)
    minimal["audit"]["heads"] = "heads.log"
    return minimal


def read(judge: Judge, data: Any) -> Read:
    found = judge(data)
    assert found.config is not None, found.problems
    assert found.sources is not None
    return found.config, found.sources


def put(data: dict[str, Any], field: str, value: Any) -> None:
    *above, last = field.split(".")
    for part in above:
        data = data.setdefault(part, {})
    data[last] = value


def fields(sentences: tuple[str, ...]) -> list[str]:
    return [sentence.partition(": ")[0] for sentence in sentences]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("server.http", "127.0.0.1:9090", id="http"),
        pytest.param("server.https.listen", "127.0.0.1:9443", id="https"),
        pytest.param("server.https.min_version", "1.3", id="https-version"),
        pytest.param("server.https_mtls.listen", "127.0.0.1:9444", id="https_mtls"),
        pytest.param("server.https_mtls.min_version", "1.3", id="https_mtls-version"),
        pytest.param("server.monitoring", "127.0.0.1:9465", id="monitoring"),
        pytest.param("server.admin_socket", "run/other.sock", id="admin"),
        pytest.param("server.workers", 3, id="workers"),
        pytest.param("server.limits.connections", 7, id="a-limit"),
        pytest.param("server.limits.body_timeout", "3s", id="a-time"),
        pytest.param("store.path", "store/other.db", id="store"),
        pytest.param("audit.heads", "other.log", id="heads"),
        pytest.param("audit.head_interval", "5s", id="interval"),
    ],
)
def test_what_takes_a_restart(whole: dict[str, Any], judge: Judge, field: str, value: Any) -> None:
    before = read(judge, whole)
    put(whole, field, value)
    (sentence,) = needs_restart(*before, *read(judge, whole))
    assert sentence.startswith(f"{field}: was ")
    assert str(value) in sentence
    assert sentence.endswith("restart the service to change it")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("server.external_url.http", "http://pki.example.com", id="urls"),
        pytest.param("server.https.certificate", "ra.pem", id="tls-certificate"),
        pytest.param("server.https.key", {"file": "ra.key"}, id="tls-key"),
        pytest.param("server.https_mtls.certificate", "ra.pem", id="mtls-certificate"),
        pytest.param("server.https_mtls.key", {"file": "ra.key"}, id="mtls-key"),
        pytest.param("server.proxies", [{"addresses": ["192.0.2.7/32"]}], id="proxies"),
        pytest.param("profiles.corp.endpoints.est", {"label": "corp-1"}, id="est"),
        pytest.param("profiles.corp.endpoints.scep.ra_certificate", "tls.pem", id="ra"),
        pytest.param("profiles.corp.endpoints.scep.client_anchors", "ra.pem", id="anchors"),
        pytest.param("profiles.corp.approval", "manual", id="profile"),
        pytest.param("profiles.corp.policy", {"validity": {"default": "5d", "max": "10d"}}, id="policy"),
        pytest.param("upstream_cas.issuing.crl", None, id="upstream-ca"),
        pytest.param(
            "upstream_cas.other", {"type": "local", "certificate": "ca.pem", "key": {"file": "ca.key"}}, id="another-ca"
        ),
    ],
)
def test_what_a_reload_puts_in_force(whole: dict[str, Any], judge: Judge, field: str, value: Any) -> None:
    before = read(judge, whole)
    put(whole, field, value)
    after = read(judge, whole)
    assert before[0] != after[0]
    assert needs_restart(*before, *after) == ()


def server_fields(model: Any, path: str) -> Iterator[str]:
    for name in model.model_fields:
        yield f"{path}.{name}"


@pytest.mark.parametrize("field", [*server_fields(Server, "server"), *server_fields(Limits, "server.limits")])
def test_every_field_of_the_server_is_decided(field: str) -> None:
    """A new key of the server takes a restart until a reload can put it in force."""
    from gateway.config import restart

    live = {".".join(map(str, path)) for path in restart._LIVE if path[0] == "server"}
    reloaded = {
        "server.external_url",
        "server.proxies",
        *(f"server.{name}.{key}" for name in ("https", "https_mtls") for key in ("certificate", "key")),
    }
    assert live == reloaded
    assert set(HttpsListener.model_fields) == {"listen", "certificate", "key", "min_version"}
    assert (field in live) == (field in {"server.external_url", "server.proxies"})


@pytest.mark.parametrize("comes", [True, False], ids=["added", "removed"])
def test_a_listener_that_comes_or_goes(whole: dict[str, Any], judge: Judge, comes: bool) -> None:
    there = read(judge, whole)
    del whole["server"]["https_mtls"]
    for name in ASKING:
        del whole["profiles"]["corp"]["endpoints"]["scep"][name]
    gone = read(judge, whole)
    said = needs_restart(*gone, *there) if comes else needs_restart(*there, *gone)
    assert said == (f"server.https_mtls: is {'added' if comes else 'removed'}; restart the service to change it",)


@pytest.mark.parametrize("field", ["store", "audit"])
def test_another_key_under_the_same_name(whole: dict[str, Any], judge: Judge, folder: Path, field: str) -> None:
    before = read(judge, whole)
    (folder / f"{field}.key").write_text("other content")
    (sentence,) = needs_restart(*before, *read(judge, whole))
    assert sentence == f"{field}.key: the file {field}.key holds another key; restart the service to change it"
    assert "content" not in sentence


def test_a_key_from_another_source(whole: dict[str, Any], judge: Judge) -> None:
    before = read(judge, whole)
    whole["store"]["key"] = {"env": "PRESENT"}
    assert fields(needs_restart(*before, *read(judge, whole))) == ["store.key.env", "store.key.file"]


def test_other_keys_may_change_under_the_same_name(whole: dict[str, Any], judge: Judge, folder: Path) -> None:
    before = read(judge, whole)
    for name in ("tls.key", "ca.key", "ra.key", "tls.pem", "ca.pem", "ra.pem"):
        (folder / name).write_text("other content")
    assert needs_restart(*before, *read(judge, whole)) == ()


def test_everything_is_said_at_once(whole: dict[str, Any], judge: Judge) -> None:
    before = read(judge, whole)
    for field, value in (("server.workers", 9), ("store.path", "other.db"), ("profiles.corp.approval", "manual")):
        put(whole, field, value)
    assert fields(needs_restart(*before, *read(judge, whole))) == ["server.workers", "store.path"]


def test_nothing_changed(whole: dict[str, Any], judge: Judge) -> None:
    assert needs_restart(*read(judge, whole), *read(judge, whole)) == ()
