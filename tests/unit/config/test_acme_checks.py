from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.config.acme_checks import dns_server

Complaints = Callable[[Any], list[str]]
ACME = "profiles.corp.endpoints.acme"
SAN = {"dns": {"patterns": ["[a-z0-9-]+\\.example\\.com"]}}
OPEN = {"dns": {"patterns": [".*"]}}
UNPROVED = {"external_account": "required", "validation": {"mode": "none", "acknowledge_no_validation": True}}
LOOPBACK = {"allow_cidrs": ["127.0.0.0/8"]}
WEBHOOK = {"url": "https://cmdb.example.com/acme", "secret": {"file": "challenge"}}


@pytest.fixture
def profile(minimal: dict[str, Any]) -> dict[str, Any]:
    """Profile corp, which opens ACME alone."""
    found: dict[str, Any] = minimal["profiles"]["corp"]
    del found["credentials"]
    found |= {"endpoints": {"acme": {}}, "policy": {"san": SAN}}
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, None, id="defaults"),
        pytest.param(
            {"extrnal_account": "off"}, 'extrnal_account: is not a known key; did you mean "external_account"?', id="typo"
        ),
        pytest.param({"external_account": "must"}, 'external_account: must be "off", "optional" or "required"', id="word"),
        pytest.param({"finalize_wait": "25s"}, None, id="longest-wait"),
        pytest.param({"finalize_wait": "1s"}, None, id="shortest-wait"),
        pytest.param({"finalize_wait": "0s"}, "finalize_wait: must be from 1s to 25s", id="no-wait"),
        pytest.param({"finalize_wait": "26s"}, "finalize_wait: must be from 1s to 25s", id="wait"),
        pytest.param({"order_lifetime": "0s"}, "order_lifetime: must be longer than zero", id="lifetime"),
        pytest.param({"authorization_reuse": "0s"}, "authorization_reuse: must be longer than zero", id="reuse"),
        pytest.param({"max_identifiers": 0}, "max_identifiers: must be a whole number of at least 1", id="identifiers"),
        pytest.param({"renewal": {"before": "0s"}}, "renewal.before: must be longer than zero", id="before"),
        pytest.param({"renewal": {"retry_after": "30s"}}, "renewal.retry_after: must be from 1m to 24h", id="often"),
        pytest.param({"renewal": {"retry_after": "2d"}}, "renewal.retry_after: must be from 1m to 24h", id="rarely"),
        pytest.param(
            {"limits": {"orders": {"count": 1, "window": "0s"}}}, "limits.orders.window: must be longer than zero", id="quota"
        ),
        pytest.param({"limits": {"orders_per_account": None}}, None, id="unlimited"),
        pytest.param({"aliases": ["https://acme.example.com/acme"]}, None, id="alias"),
        pytest.param({"aliases": ["http://acme.example.com"]}, 'aliases[0]: must begin with "https://"', id="plain-alias"),
        pytest.param({"aliases": ["https://a.example", "https://a.example/"]}, "aliases[1]: is written twice", id="same-alias"),
        pytest.param({"cors_origins": ["*"]}, None, id="everybody"),
        pytest.param({"cors_origins": []}, None, id="nobody"),
        pytest.param({"cors_origins": ["https://app.example.com:8443"]}, None, id="origin"),
        pytest.param({"cors_origins": ["https://app.example.com/"]}, 'cors_origins[0]: must be "*" or an origin', id="path"),
        pytest.param({"cors_origins": ["app.example.com"]}, 'cors_origins[0]: must be "*" or an origin', id="host"),
        pytest.param({"alternate_chains": ["missing.pem"]}, "alternate_chains[0]: ", id="missing-chain"),
        pytest.param({"revocation_reasons": ["cACompromise"]}, "revocation_reasons[0]: must be ", id="reason"),
    ],
)
def test_an_endpoint(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None
) -> None:
    profile["endpoints"]["acme"] = change
    found = complaints(minimal)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(f"{ACME}.{said}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"challenges": ["http-01", "dns-01"]}, None, id="challenges"),
        pytest.param({"challenges": []}, "challenges: must not be empty", id="no-challenges"),
        pytest.param({"challenges": ["dns-01", "dns-01"]}, "challenges[1]: dns-01 is written twice", id="twice"),
        pytest.param({"challenges": ["http-02"]}, "challenges[0]: must be ", id="unknown-challenge"),
        pytest.param({"challenges": ["device-attest-01"]}, "attestation: names no roots", id="no-roots"),
        pytest.param({"mode": "attestation"}, "attestation: names no roots", id="mode-without-roots"),
        pytest.param({"mode": "attestation", "attestation": {"tpm": "ca.pem"}}, None, id="attestation"),
        pytest.param({"challenges": ["device-attest-01"], "attestation": {"apple": "ca.pem"}}, None, id="apple"),
        pytest.param({"attestation": {"step": "missing.pem"}}, "attestation.step: ", id="missing-roots"),
        pytest.param({"challenges": ["dns-persist-01"]}, "caa.identities: must name this CA", id="persist"),
        pytest.param({"challenges": ["dns-persist-01"], "caa": {"identities": ["pki.example.com"]}}, None, id="identity"),
        pytest.param({"caa": {"identities": ["PKI.example.com"]}}, "caa.identities[0]: is not a DNS name", id="case"),
        pytest.param({"caa": {"identities": ["*.example.com"]}}, "caa.identities[0]: is not a DNS name", id="wildcard-identity"),
        pytest.param({"caa": {"mode": "always"}}, 'caa.mode: must be "off", "log" or "enforce"', id="caa"),
        pytest.param({"mode": "webhook"}, "mode: webhook needs webhook", id="no-webhook"),
        pytest.param({"mode": "webhook", "webhook": WEBHOOK}, None, id="webhook"),
        pytest.param(
            {"webhook": WEBHOOK | {"url": "http://cmdb.example.com"}}, "webhook.url: must begin with", id="plain-webhook"
        ),
        pytest.param({"webhook": WEBHOOK | {"url": "http://127.0.0.1:9000"}}, None, id="local-webhook"),
        pytest.param({"webhook": WEBHOOK | {"url": "http://localhost:9000"}}, None, id="localhost-webhook"),
        pytest.param({"webhook": WEBHOOK | {"timeout": "0s"}}, "webhook.timeout: must be longer than zero", id="webhook-no-time"),
        pytest.param({"webhook": WEBHOOK | {"timeout": "31s"}}, "webhook.timeout: must not be longer", id="webhook-time"),
        pytest.param({"mode": "client_ip_forward"}, None, id="forward"),
        pytest.param({"mode": "client_ip_reverse"}, None, id="reverse"),
        pytest.param({"attempts": 0}, "attempts: must be a whole number of at least 1", id="attempts"),
        pytest.param({"attempt_every": "0s"}, "attempt_every: must be longer than zero", id="pause"),
        pytest.param({"resolver": {"timeout": "0s"}}, "resolver.timeout: must be longer than zero", id="resolver-no-time"),
        pytest.param({"resolver": {"timeout": "31s"}}, "resolver.timeout: must not be longer than 30s", id="resolver-time"),
        pytest.param({"resolver": {"servers": ["192.0.2.53", "[2001:db8::53]:5353"]}}, None, id="servers"),
        pytest.param({"resolver": {"servers": ["dns.example"]}}, "resolver.servers[0]: must be an IP address", id="server-name"),
        pytest.param({"resolver": {"hosts": {"*.demo.test": ["127.0.0.1"], "a.test": ["::1"]}}}, None, id="hosts"),
        pytest.param({"resolver": {"hosts": {"*": ["127.0.0.1"]}}}, "resolver.hosts.*: is not a DNS name", id="all-hosts"),
        pytest.param({"resolver": {"hosts": {"a..b": ["127.0.0.1"]}}}, "resolver.hosts.a..b: is not a DNS name", id="bad-host"),
        pytest.param({"resolver": {"hosts": {"a.test": []}}}, "resolver.hosts.a.test: has no address", id="no-address"),
        pytest.param({"resolver": {"hosts": {"a.test": ["b"]}}}, "resolver.hosts.a.test[0]: is not an IP", id="bad-address"),
        pytest.param({"allow_cidrs": ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]}, None, id="networks"),
        pytest.param({"allow_cidrs": ["0.0.0.0/0"]}, "allow_cidrs[0]: 0.0.0.0/0 holds more than 127.0.0.0/8", id="everything"),
        pytest.param({"allow_cidrs": ["::/0"]}, "allow_cidrs[0]: ::/0 holds more than ::1/128", id="everything-6"),
        pytest.param({"allow_cidrs": ["168.0.0.0/6"]}, "allow_cidrs[0]: 168.0.0.0/6 holds more than 169.254", id="metadata"),
        pytest.param({"http01_port": 5002}, "http01_port: is for trials", id="port"),
        pytest.param({"tlsalpn01_port": 5001, "allow_cidrs": ["10.0.0.0/8"]}, "tlsalpn01_port: is for trials", id="tls-port"),
        pytest.param({"http01_port": 5002, "tlsalpn01_port": 5001, **LOOPBACK}, None, id="ports"),
        pytest.param({"http01_port": 0, **LOOPBACK}, "http01_port: must be a whole number of at least 1", id="port-zero"),
    ],
)
def test_validation(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None
) -> None:
    profile["endpoints"]["acme"] = {"validation": change}
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"{ACME}.validation.{said}")


@pytest.mark.parametrize(
    ("acme", "san", "said"),
    [
        pytest.param(UNPROVED, SAN, [], id="acknowledged"),
        pytest.param(UNPROVED | {"external_account": "off"}, SAN, ["none gives names to whoever asks"], id="no-accounts"),
        pytest.param(UNPROVED | {"external_account": "optional"}, SAN, ["none gives names to whoever asks"], id="some-accounts"),
        pytest.param({"external_account": "required", "validation": {"mode": "none"}}, SAN, ["none proves nothing"], id="unsaid"),
        pytest.param(
            UNPROVED, OPEN, ["none needs an allow-list of names, and policy.san lets every name of type dns"], id="open"
        ),
        pytest.param(UNPROVED, SAN | {"mode": "warn"}, ["none needs an allow-list of names: policy.san.mode"], id="warn"),
        pytest.param(UNPROVED, SAN | {"mode": "off"}, ["none needs an allow-list of names: policy.san.mode"], id="off"),
        pytest.param(
            UNPROVED,
            {"ip": {"networks": ["0.0.0.0/0"]}},
            ["none needs an allow-list of names, and policy.san lets every name of type ip"],
            id="every-address",
        ),
        pytest.param(
            {"validation": {"mode": "none"}},
            OPEN,
            ["none gives names", "none proves", "none needs an allow-list"],
            id="all-three",
        ),
    ],
)
def test_proving_nothing_takes_three_words(
    minimal: dict[str, Any],
    profile: dict[str, Any],
    complaints: Complaints,
    acme: dict[str, Any],
    san: dict[str, Any],
    said: list[str],
) -> None:
    profile["endpoints"]["acme"] = acme
    profile["policy"]["san"] = san
    found = [sentence.removeprefix(f"{ACME}.validation.mode: ") for sentence in complaints(minimal)]
    assert [start for start in said if not any(sentence.startswith(start) for sentence in found)] == []
    assert len(found) == len(said)


@pytest.mark.parametrize(
    ("account", "validation", "said"),
    [
        pytest.param("required", {"prevalidated": {"dns": ["[a-z]+\\.example\\.com"]}}, None, id="names"),
        pytest.param("required", {"prevalidated": {"ip": ["10.0.0.0/8"]}}, None, id="networks"),
        pytest.param("required", {}, "mode: prevalidated needs prevalidated", id="none"),
        pytest.param(
            "off", {"prevalidated": {"dns": ["a\\.test"]}}, "mode: prevalidated gives names to whoever asks", id="anybody"
        ),
        pytest.param(
            "required", {"prevalidated": {"dns": ["a", ".*"]}}, "prevalidated.dns[1]: holds everything", id="every-name"
        ),
        pytest.param("required", {"prevalidated": {"ip": ["::/0"]}}, "prevalidated.ip[0]: holds everything", id="every-address"),
        pytest.param(
            "required", {"prevalidated": {"dns": [".*"]}, "acknowledge_no_validation": True}, None, id="every-name-acknowledged"
        ),
    ],
)
def test_names_that_are_good_at_once(
    minimal: dict[str, Any],
    profile: dict[str, Any],
    complaints: Complaints,
    account: str,
    validation: dict[str, Any],
    said: str | None,
) -> None:
    profile["endpoints"]["acme"] = {"external_account": account, "validation": {"mode": "prevalidated", **validation}}
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"{ACME}.validation.{said}")


def test_a_list_that_holds_everything_counts_in_any_mode(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints
) -> None:
    profile["endpoints"]["acme"] = {"validation": {"prevalidated": {"dns": [".*"]}}}
    (found,) = complaints(minimal)
    assert found.startswith(f"{ACME}.validation.prevalidated.dns[0]: holds everything")


@pytest.mark.parametrize("listener", ["http", "https", "https_mtls"])
def test_loopback_is_for_listeners_on_loopback(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints, listener: str
) -> None:
    profile["endpoints"]["acme"] = {"validation": LOOPBACK}
    assert complaints(minimal) == []
    server = minimal["server"]
    if listener == "http":
        server["http"] = "0.0.0.0:8080"
    else:
        server[listener] = {**server["https"], "listen": "192.0.2.1:8443"}
    # A listener for client certificates that nobody needs is a fault of its own.
    found = [sentence for sentence in complaints(minimal) if not sentence.startswith("server.https_mtls")]
    assert len(found) == 1
    assert found[0].startswith(f"{ACME}.validation.allow_cidrs: lets clients reach this machine's own services")


@pytest.mark.parametrize(
    ("others", "said"),
    [
        pytest.param({"short": "One day"}, None, id="fine"),
        pytest.param({"corp": "x"}, "corp: is this profile itself", id="itself"),
        pytest.param({"shrt": "x"}, "shrt: there is no profile shrt; there are: corp, short, bound, scep", id="unknown"),
        pytest.param({"scep": "x"}, "scep: profile scep does not open ACME", id="closed"),
        pytest.param({"short": ""}, "short: must not be empty", id="no-description"),
        pytest.param({"bound": "x"}, "bound: profile bound is for accounts with an external account", id="nobody-s"),
    ],
)
def test_profiles_that_orders_may_ask_for(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints, others: dict[str, str], said: str | None
) -> None:
    scep = {"endpoints": {"scep": {"ra_certificate": "ra.pem", "ra_key": {"file": "ra.key"}}}, "upstream_ca": "issuing"}
    minimal["profiles"] |= {
        "short": {**profile, "endpoints": {"acme": {}}},
        "bound": {**profile, "endpoints": {"acme": {"external_account": "required"}}},
        "scep": scep | {"credentials": [{"type": "one_time"}]},
    }
    profile["endpoints"]["acme"] = {"profiles": others}
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(f"{ACME}.profiles.{said}")


@pytest.mark.parametrize("own", ["optional", "required"])
def test_a_profile_for_external_accounts_is_offered_where_they_can_be_bound(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints, own: str
) -> None:
    minimal["profiles"]["bound"] = {**profile, "endpoints": {"acme": {"external_account": "required"}}}
    profile["endpoints"]["acme"] = {"external_account": own, "profiles": {"bound": "x"}}
    assert complaints(minimal) == []


def test_an_alias_belongs_to_one_profile(minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints) -> None:
    profile["endpoints"]["acme"] = {"aliases": ["https://old.example.com/acme"]}
    minimal["profiles"]["other"] = profile
    assert complaints(minimal) == [
        "profiles.other.endpoints.acme.aliases[0]: https://old.example.com/acme is an alias of profile corp too"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"policy": {}}, "profiles.corp.policy.san: names neither dns nor ip", id="default-policy"),
        pytest.param(
            {"policy": {"san": {"email": SAN["dns"]}}}, "profiles.corp.policy.san: names neither dns nor ip", id="email"
        ),
        pytest.param({"policy": {"san": {"mode": "off"}}}, None, id="not-judged"),
        pytest.param({"policy": {"san": {"ip": {"networks": ["10.0.0.0/8"]}}}}, None, id="addresses"),
        pytest.param(
            {"credentials": [{"type": "one_time"}]}, "profiles.corp.credentials: come by SCEP and EST", id="credentials"
        ),
        pytest.param({"renewal": {"from": ["corp"]}}, "profiles.corp.renewal: is for SCEP and EST", id="renewal"),
    ],
)
def test_a_profile_that_opens_acme_alone(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints, change: dict[str, Any], said: str | None
) -> None:
    profile.update(change)
    found = complaints(minimal)
    assert len(found) == (said is not None), found
    assert said is None or found[0].startswith(said)


def test_other_endpoints_still_need_somebody_who_may_enroll(
    minimal: dict[str, Any], profile: dict[str, Any], complaints: Complaints
) -> None:
    profile["endpoints"]["est"] = {}
    assert complaints(minimal) == ['profiles.corp: lets nobody enroll; name "credentials" or "renewal", or open ACME alone']
    profile["credentials"] = [{"type": "one_time"}]
    assert complaints(minimal) == []


@pytest.mark.parametrize(
    ("text", "server"),
    [
        pytest.param("192.0.2.53", ("192.0.2.53", 53), id="address"),
        pytest.param("192.0.2.53:5353", ("192.0.2.53", 5353), id="port"),
        pytest.param("2001:db8::53", ("2001:db8::53", 53), id="address-6"),
        pytest.param("[2001:db8::53]:5353", ("2001:db8::53", 5353), id="port-6"),
        pytest.param("[2001:db8::53]", None, id="brackets"),
        pytest.param("192.0.2.53:", None, id="no-port"),
        pytest.param("192.0.2.53:0", None, id="port-zero"),
        pytest.param("192.0.2.53:65536", None, id="port-high"),
        pytest.param("192.0.2.53:" + "9" * 5000, None, id="port-endless"),
        pytest.param("192.0.2.53:٥٣", None, id="arabic-digits"),
        pytest.param("localhost:53", None, id="name"),
        pytest.param("tls://192.0.2.53", None, id="scheme"),
        pytest.param("", None, id="empty"),
    ],
)
def test_dns_servers(text: str, server: tuple[str, int] | None) -> None:
    assert dns_server(text) == server
