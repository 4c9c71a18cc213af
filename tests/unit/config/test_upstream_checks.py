"""Upstream CAs that cannot work as they are written are refused with a sentence at the field that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from gateway.config.load import Examination
from gateway.config.upstream_cas import UpstreamCAConfig
from gateway.config.upstream_checks import accepted_forms
from gateway.config.warnings import warn
from gateway.model import RequestForm

Complaints = Callable[[Any], list[str]]
SECRET = {"file": "challenge"}
PAIR = {"certificate": "tls.pem", "key": {"file": "tls.key"}}
VAULT: dict[str, Any] = {
    "type": "vault",
    "url": "https://vault.example.com:8200",
    "auth": {"type": "token", "token": SECRET},
    "role": "devices",
    "chain": ["ca.pem"],
}
STEP: dict[str, Any] = {
    "type": "step-ca",
    "url": "https://step.example.com",
    "provisioner": {"type": "jwk", "name": "gw", "key": SECRET},
    "chain": ["ca.pem"],
}
CFSSL: dict[str, Any] = {
    "type": "cfssl",
    "url": "https://cfssl.example.com",
    "profile": "device",
    "auth_key": SECRET,
    "chain": ["ca.pem"],
}
HOOK: dict[str, Any] = {"type": "hook", "command": ["/bin/hook"]}
TSIG: dict[str, Any] = {"type": "rfc2136", "server": "192.0.2.53", "key_name": "k", "key": SECRET}
ACME: dict[str, Any] = {
    "type": "acme",
    "directory": "https://acme.example.com/directory",
    "account_key": SECRET,
    "dns": HOOK,
    "chain": ["ca.pem"],
}
EST: dict[str, Any] = {
    "type": "est",
    "url": "https://est.example.com/.well-known/est",
    "username": "gw",
    "password": SECRET,
    "chain": ["ca.pem"],
}
SCEP: dict[str, Any] = {
    "type": "scep",
    "url": "http://scep.example.com/scep",
    "signer": PAIR,
    "challenge": SECRET,
    "chain": ["ca.pem"],
}
CMP: dict[str, Any] = {
    "type": "cmp",
    "url": "http://cmp.example.com/.well-known/cmp",
    "auth": {"type": "signature", "signer": PAIR},
    "chain": ["ca.pem"],
}
BY_SECRET = {"type": "secret", "reference": "gw", "secret": SECRET}
GROUP: dict[str, Any] = {"type": "group", "members": ["one", "two"]}
REMOTE = {"vault": VAULT, "step-ca": STEP, "cfssl": CFSSL, "acme": ACME, "est": EST, "scep": SCEP, "cmp": CMP}


def with_ca(data: dict[str, Any], ca: dict[str, Any], **others: dict[str, Any]) -> dict[str, Any]:
    data["upstream_cas"] |= {"far": ca, **others}
    return data


@pytest.mark.parametrize("ca", REMOTE.values(), ids=REMOTE)
def test_what_is_right(minimal: dict[str, Any], complaints: Complaints, ca: dict[str, Any]) -> None:
    assert complaints(with_ca(minimal, ca)) == []


@pytest.mark.parametrize(
    ("ca", "field", "url", "said"),
    [
        pytest.param(ca, "directory" if kind == "acme" else "url", url, said, id=f"{kind}-{name}")
        for kind, ca in REMOTE.items()
        for name, url, said in (
            ("http", "http://ca.example.com/.well-known/est", kind not in {"scep", "cmp"}),
            ("loopback", "http://127.0.0.1:8080/.well-known/est", False),
            ("loopback by name", "http://localhost/.well-known/est", False),
            ("loopback, IPv6", "http://[::1]:80/.well-known/est", False),
            ("like loopback", "http://127.0.0.1.example.com/.well-known/est", kind not in {"scep", "cmp"}),
        )
    ],
)
def test_credentials_go_over_tls(
    minimal: dict[str, Any], complaints: Complaints, ca: dict[str, Any], field: str, url: str, said: bool
) -> None:
    sentence = f'upstream_cas.far.{field}: must begin with "https://": whoever is between could read the credentials'
    found = complaints(with_ca(minimal, {**ca, field: url}))
    assert [text.startswith(sentence) for text in found] == ([True] if said else [])


@pytest.mark.parametrize(
    ("ca", "said"),
    [
        pytest.param({**SCEP, "connection": {"anchors": "ca.pem"}}, "connection.anchors: is for TLS, and url", id="anchors"),
        pytest.param(
            {**ACME, "directory": "http://localhost/d", "connection": {"client_certificate": PAIR}},
            "connection.client_certificate: is for TLS, and directory",
            id="client certificate",
        ),
        pytest.param(
            {**VAULT, "connection": {"timeout": "91s"}}, "connection.timeout: must not be longer than 90s", id="timeout"
        ),
        pytest.param(
            {**VAULT, "connection": {"connect_timeout": "0s"}},
            "connection.connect_timeout: must be longer than zero",
            id="connect",
        ),
        pytest.param(
            {**VAULT, "connection": {"connect_timeout": "5s", "timeout": "4s"}},
            "connection.connect_timeout: must not be longer",
            id="part",
        ),
        pytest.param({**VAULT, "queue": "31d"}, "queue: must not be longer than 30d", id="queue"),
        pytest.param({**VAULT, "auth": {"type": "cert"}}, "auth.type: cert needs connection.client_certificate", id="vault cert"),
        pytest.param({**VAULT, "role": None}, "role: is needed; only sign_verbatim may do without one", id="vault role"),
        pytest.param({**VAULT, "mount": "pki/"}, "mount: is a part of a URL", id="vault mount"),
        pytest.param({**VAULT, "mount": "team/../sys"}, "mount: is a part of a URL", id="vault mount that climbs"),
        pytest.param({**VAULT, "role": "a/b"}, "role: is a part of a URL", id="vault role with a slash"),
        pytest.param({**VAULT, "issuer": "a?b"}, "issuer: is a part of a URL", id="vault issuer"),
        pytest.param({**VAULT, "namespace": "a b"}, "namespace: is a part of a URL", id="vault namespace"),
        pytest.param(
            {**VAULT, "auth": {"type": "approle", "role_id": SECRET, "secret_id": SECRET, "mount": "a#b"}},
            "auth.mount: is a part of a URL",
            id="vault auth mount",
        ),
        pytest.param({**ACME, "dns": None}, "dns: is needed, or http01: true", id="acme without proof"),
        pytest.param({**ACME, "dns": {**HOOK, "wait": "11m"}}, "dns.wait: must not be longer than 10m", id="acme wait"),
        pytest.param({**ACME, "dns": {**TSIG, "wait": "11m"}}, "dns.wait: must not be longer than 10m", id="acme tsig wait"),
        pytest.param({**ACME, "dns": {**HOOK, "timeout": "0s"}}, "dns.timeout: must be longer than zero", id="acme hook"),
        pytest.param(
            {**ACME, "dns": {**HOOK, "timeout": "11m"}}, "dns.timeout: must not be longer than 10m", id="acme slow hook"
        ),
        pytest.param({**ACME, "contact": ["pki@example.com"]}, 'contact[0]: must begin with "mailto:"', id="acme contact"),
        pytest.param({**EST, "password": None}, "password: is needed: username and password go together", id="est password"),
        pytest.param({**EST, "username": None}, "username: is needed: username and password go together", id="est username"),
        pytest.param(
            {**EST, "username": None, "password": None}, "username: is needed, or connection.client_certificate", id="est nobody"
        ),
        pytest.param({**EST, "url": "https://est.example.com"}, "url: must lead to /.well-known/est", id="est url"),
        pytest.param({**SCEP, "poll_every": "1s"}, "poll_every: must be from 5s to 24h", id="scep poll"),
        pytest.param({**SCEP, "remembers": "59s"}, "remembers: must be from 1m to 7d", id="scep memory"),
        pytest.param({**EST, "remembers": "8d"}, "remembers: must be from 1m to 7d", id="est memory"),
        pytest.param({**CMP, "poll_every": "25h"}, "poll_every: must be from 5s to 24h", id="cmp poll"),
        pytest.param({**CMP, "remembers": "30s"}, "remembers: must be from 1m to 7d", id="cmp memory"),
        pytest.param(
            {**CMP, "forward": "nested", "auth": BY_SECRET}, "forward: nested needs auth of type signature", id="cmp nested"
        ),
        pytest.param({**CMP, "connection": {"anchors": "ca.pem"}}, "connection.anchors: is for TLS, and url", id="cmp anchors"),
    ],
)
def test_what_cannot_work(minimal: dict[str, Any], complaints: Complaints, ca: dict[str, Any], said: str) -> None:
    found = complaints(with_ca(minimal, ca))
    assert any(text.startswith(f"upstream_cas.far.{said}") for text in found), found


@pytest.mark.parametrize(
    ("members", "said"),
    [
        pytest.param(["one", "two"], [], id="two"),
        pytest.param(["one", "one"], ["members[1]: one is written twice"], id="twice"),
        pytest.param(["one", "far"], ["members[1]: is this group itself"], id="itself"),
        pytest.param(
            ["one", "three"],
            ["members[1]: there is no upstream CA three; there are: issuing, far, one, two, other"],
            id="unknown",
        ),
        pytest.param(["one", "other"], ["members[1]: other is a group, and a group has no groups in it"], id="a group"),
        pytest.param(
            ["issuing", "two"], ["members[0]: issuing is in this process, where there is nothing to stand in for"], id="local"
        ),
    ],
)
def test_groups(minimal: dict[str, Any], complaints: Complaints, members: list[str], said: list[str]) -> None:
    data = with_ca(minimal, {**GROUP, "members": members}, one=VAULT, two=STEP, other=GROUP)
    assert complaints(data) == [f"upstream_cas.far.{sentence}" for sentence in said]


DNS = {"dns": {"patterns": [".*"]}}


@pytest.mark.parametrize("by_group", [False, True], ids=["itself", "in a group"])
@pytest.mark.parametrize(
    ("policy", "ca", "said"),
    [
        pytest.param({"san": DNS}, ACME, [], id="hosts"),
        pytest.param({"san": {"ip": {"networks": ["192.0.2.0/24"]}}}, ACME, [], id="addresses"),
        pytest.param(
            {"san": {"uri": {"patterns": [".*"]}}}, ACME, ["san: names neither dns nor ip, and far, an ACME CA"], id="no hosts"
        ),
        pytest.param({"san": {"mode": "off"}}, ACME, [], id="names are not judged"),
        pytest.param({"san": {"dns": {"patterns": [".*"], "wildcards": True}}}, ACME, [], id="wildcards by DNS"),
        pytest.param(
            {"san": {"dns": {"patterns": [".*"], "wildcards": True}}},
            {**ACME, "dns": None, "http01": True},
            ["san.dns.wildcards: needs dns in upstream_cas.far: a wildcard is proved by dns-01 alone"],
            id="wildcards by HTTP",
        ),
        pytest.param({"san": DNS, "subject": {"require": ["CN"]}}, ACME, [], id="a common name"),
        pytest.param({"san": DNS, "subject": {"require": ["CN", "O"]}}, ACME, ["subject.require[1]: asks for what far"], id="O"),
        pytest.param(
            {"san": DNS, "subject": {"override": {"O": "x"}}}, ACME, ["subject.override.O: asks for what far"], id="sets O"
        ),
        pytest.param({"san": {"uri": {"patterns": [".*"]}}, "subject": {"require": ["O"]}}, VAULT, [], id="another CA"),
    ],
)
def test_what_acme_cas_never_certify(
    minimal: dict[str, Any], complaints: Complaints, policy: dict[str, Any], ca: dict[str, Any], said: list[str], by_group: bool
) -> None:
    with_ca(minimal, ca, two=STEP, both={**GROUP, "members": ["far", "two"]})
    minimal["profiles"]["corp"] |= {"upstream_ca": "both" if by_group else "far", "policy": policy}
    found = complaints(minimal)
    assert len(found) == len(said)
    assert all(text.startswith(f"profiles.corp.policy.{start}") for text, start in zip(found, said, strict=True))


STATIC = {"type": "static", "challenge": SECRET, "any_name": True}
OTHER_STATIC = {"type": "static", "challenge": {"file": "ours"}, "any_name": True}
ONE_TIME = {"type": "one_time"}


@pytest.mark.parametrize("by_group", [False, True], ids=["itself", "in a group"])
@pytest.mark.parametrize(
    ("ca", "credentials", "said"),
    [
        pytest.param(SCEP, [STATIC], [], id="scep, its own challenge"),
        pytest.param(SCEP, [ONE_TIME, STATIC], [], id="scep, its own beside others"),
        pytest.param(
            SCEP, [ONE_TIME], ["credentials: lack a static credential with the challenge"], id="scep, not its challenge"
        ),
        pytest.param(
            SCEP,
            [OTHER_STATIC],
            ["credentials[0].challenge: is in every request, and far gets", "credentials: lack a static"],
            id="scep, another challenge",
        ),
        pytest.param({**SCEP, "challenge": None}, [ONE_TIME], [], id="scep by signer"),
        pytest.param(
            {**SCEP, "challenge": None}, [STATIC], ["credentials[0].challenge: is in every"], id="scep by signer, static"
        ),
        pytest.param(EST, [ONE_TIME], [], id="est"),
        pytest.param(EST, [ONE_TIME, STATIC], ["credentials[1].challenge: is in every request, and far"], id="est, static"),
        pytest.param(ACME, [ONE_TIME], [], id="acme"),
        pytest.param(ACME, [STATIC], ["credentials[0].challenge: is in every request, and far"], id="acme, static"),
        pytest.param(VAULT, [STATIC], [], id="a CA that reads no challenges"),
        pytest.param(CMP, [STATIC], ["credentials[0].challenge: is in every request, and far"], id="cmp, static"),
        pytest.param({**CMP, "forward": "nested"}, [STATIC], ["credentials[0].challenge: is in every"], id="cmp nested, static"),
        pytest.param({**CMP, "forward": "ra_verified"}, [STATIC], [], id="cmp, its own template"),
    ],
)
def test_challenges_go_to_nobody_else(
    minimal: dict[str, Any],
    complaints: Complaints,
    ca: dict[str, Any],
    credentials: list[dict[str, Any]],
    said: list[str],
    by_group: bool,
) -> None:
    with_ca(minimal, ca, two=STEP, both={**GROUP, "members": ["far", "two"]})
    minimal["profiles"]["corp"] |= {"upstream_ca": "both" if by_group else "far", "credentials": credentials}
    minimal["profiles"]["corp"]["policy"] = {"san": DNS}
    found = complaints(minimal)
    assert bool(found) == bool(said), found
    assert all(any(text.startswith(f"profiles.corp.{start}") for text in found) for start in said), found


@pytest.mark.parametrize(
    ("ca", "said"),
    [
        pytest.param(VAULT, ["far"], id="vault"),
        pytest.param(STEP, ["far"], id="step-ca"),
        pytest.param(CFSSL, ["far"], id="cfssl"),
        pytest.param({**GROUP, "members": ["two", "three"]}, ["two, three"], id="a group"),
        pytest.param({"type": "exec", "command": ["/bin/sign"], "chain": ["ca.pem"]}, [], id="a program of ours"),
    ],
)
def test_a_static_challenge_is_seen_by_cas_that_do_not_look_for_it(
    minimal: dict[str, Any], judge: Callable[[Any], Examination], ca: dict[str, Any], said: list[str]
) -> None:
    with_ca(minimal, ca, two=STEP, three=VAULT)
    minimal["profiles"]["corp"] |= {"upstream_ca": "far", "credentials": [ONE_TIME, STATIC]}
    found = judge(minimal)
    assert found.config is not None, found.problems
    assert found.sources is not None
    ours = [(problem.path, problem.sentence) for problem in warn(found.config, found.sources) if problem.path[-1] == "challenge"]
    path = ("profiles", "corp", "credentials", 1, "challenge")
    reason = "gets requests as they came: who runs it, or reads its logs, could enroll here; use one_time challenges"
    assert ours == [(path, f"is in every request, and {who} {reason}") for who in said]


def test_keys_that_are_kept_nowhere_do_not_wait(minimal: dict[str, Any], complaints: Complaints) -> None:
    with_ca(minimal, ACME)
    profile = minimal["profiles"]["corp"]
    profile |= {"upstream_ca": "far", "policy": {"san": DNS}}
    profile["endpoints"]["est"] = {"server_keygen": {"keys": ["ec-p256"], "require_encryption": False}}
    assert any("endpoints.est.server_keygen: draws keys that are kept nowhere" in text for text in complaints(minimal))


@pytest.mark.parametrize(
    ("ca", "policy", "said"),
    [
        *(pytest.param(ca, {"san": DNS}, [], id=kind) for kind, ca in REMOTE.items()),
        pytest.param({**VAULT, "queue": "0s"}, {}, ["upstream_cas.far.queue: keeps nothing"], id="no queue"),
        pytest.param({**VAULT, "sign_verbatim": True}, {}, ["upstream_cas.far.sign_verbatim: lets the gateway's"], id="verbatim"),
        pytest.param({**CFSSL, "auth_key": None}, {}, ["upstream_cas.far.auth_key: is absent, and so is"], id="open cfssl"),
        pytest.param({**CFSSL, "auth_key": None, "connection": {"client_certificate": PAIR}}, {}, [], id="cfssl by certificate"),
        pytest.param({**CFSSL, "auth_key": None, "url": "http://127.0.0.1:8888"}, {}, [], id="cfssl on this machine"),
        pytest.param({**ACME, "http01": True}, {"san": DNS}, ["upstream_cas.far.http01: is answered at port 80"], id="http-01"),
        pytest.param({**SCEP, "challenge": None}, {}, ["upstream_cas.far.challenge: is absent"], id="no challenge"),
        pytest.param(
            EST,
            {"subject": {"template": "CN={CN}"}},
            ["profiles.corp.policy.subject.template: changes what was asked"],
            id="template",
        ),
        pytest.param(
            SCEP,
            {"subject": {"override": {"O": "x"}}},
            ["profiles.corp.policy.subject.override: changes what was asked"],
            id="override",
        ),
        pytest.param(VAULT, {"subject": {"override": {"O": "x"}}}, [], id="a CA that is told"),
        pytest.param(
            CMP,
            {"subject": {"override": {"O": "x"}}},
            ["profiles.corp.policy.subject.override: changes what was asked"],
            id="cmp as asked",
        ),
        pytest.param({**CMP, "forward": "ra_verified"}, {"subject": {"override": {"O": "x"}}}, [], id="cmp that is told"),
        pytest.param({**CMP, "auth": BY_SECRET}, {}, ["upstream_cas.far.auth.secret: protects messages"], id="cmp by secret"),
        pytest.param({**CMP, "auth": BY_SECRET, "url": "https://cmp.example.com"}, {}, [], id="cmp by secret over TLS"),
    ],
)
def test_what_is_often_not_meant(
    minimal: dict[str, Any],
    judge: Callable[[Any], Examination],
    ca: dict[str, Any],
    policy: dict[str, Any],
    said: list[str],
) -> None:
    with_ca(minimal, ca)
    minimal["profiles"]["corp"] |= {"upstream_ca": "far", "policy": policy}
    if ca["type"] == "scep" and ca["challenge"]:
        minimal["profiles"]["corp"]["credentials"] = [{"type": "static", "challenge": SECRET, "any_name": True}]
    found = judge(minimal)
    assert found.config is not None, found.problems
    assert found.sources is not None
    texts = [f"{'.'.join(map(str, problem.path))}: {problem.sentence}" for problem in warn(found.config, found.sources)]
    ours = [text for text in texts if text.startswith(("upstream_cas.", "profiles.corp.policy.subject."))]
    assert len(ours) == len(said), ours
    assert all(text.startswith(start) for text, start in zip(ours, said, strict=True))


PKCS10, EVERY = frozenset({RequestForm.PKCS10}), frozenset(RequestForm)
EXEC: dict[str, Any] = {"type": "exec", "command": ["/bin/true"], "chain": ["ca.pem"]}
LOCAL: dict[str, Any] = {"type": "local", "certificate": "ca.pem", "key": {"file": "ca.key"}}


@pytest.mark.parametrize(
    ("ca", "forms"),
    [
        pytest.param(LOCAL, EVERY, id="local"),
        pytest.param(EXEC, PKCS10, id="exec"),
        pytest.param({**EXEC, "forms": ["pkcs10", "crmf"]}, EVERY, id="exec that takes both"),
        pytest.param({**EXEC, "forms": ["crmf"]}, frozenset({RequestForm.CRMF}), id="exec for CMP alone"),
        *(pytest.param(ca, PKCS10, id=kind) for kind, ca in REMOTE.items()),
        pytest.param({**CMP, "forward": "ra_verified"}, EVERY, id="cmp, its own template"),
        pytest.param({**CMP, "forward": "nested"}, EVERY, id="cmp, nested"),
        pytest.param({**GROUP, "members": ["nested", "vault"]}, PKCS10, id="group of both"),
        pytest.param({**GROUP, "members": ["nested", "nested"]}, EVERY, id="group of alike"),
    ],
)
def test_what_requests_a_ca_takes(ca: dict[str, Any], forms: frozenset[RequestForm]) -> None:
    parse = TypeAdapter[UpstreamCAConfig](UpstreamCAConfig).validate_json
    others = {"vault": parse(json.dumps(VAULT)), "nested": parse(json.dumps({**CMP, "forward": "nested"}))}
    assert accepted_forms(parse(json.dumps(ca)), others) == forms
