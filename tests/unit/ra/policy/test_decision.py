"""Keys, usages, validity, extensions and bound names; and what a grant never holds, whatever is asked for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.policy import PolicyConfig
from gateway.errors import Reason
from gateway.model import (
    UNLIMITED_NOT_AFTER,
    CertificateRequest,
    CredentialKind,
    Extension,
    Name,
    NameAttribute,
    NameBinding,
    PublicKey,
    Requester,
    RequestForm,
    SanKind,
    SubjectAltName,
)
from gateway.pki.extensions import EKU_OIDS, KEY_USAGE_BITS, make_san
from gateway.pki.names import normalize_name, parse_name, parse_name_text
from gateway.ra.policy import decide, precheck_names

CLIENT, SERVER, ANY = EKU_OIDS["clientAuth"], EKU_OIDS["serverAuth"], EKU_OIDS["anyExtendedKeyUsage"]


@pytest.mark.parametrize(
    ("section", "key", "allowed"),
    [
        pytest.param({}, PublicKey(b"", b"", "rsa", 2048), True, id="rsa"),
        pytest.param({}, PublicKey(b"", b"", "rsa", 1024), False, id="rsa-too-small"),
        pytest.param({}, PublicKey(b"", b"", "rsa", 8192), False, id="rsa-too-large"),
        pytest.param({"rsa": None}, PublicKey(b"", b"", "rsa", 2048), False, id="no-rsa"),
        pytest.param({}, PublicKey(b"", b"", "ec", 256, "P-256"), True, id="ec"),
        pytest.param({"ec": ["P-384"]}, PublicKey(b"", b"", "ec", 256, "P-256"), False, id="other-curve"),
        pytest.param({}, PublicKey(b"", b"", "ec", 256, "secp256k1"), False, id="unknown-curve"),
        pytest.param({}, PublicKey(b"", b"", "ed25519", 256), True, id="ed25519"),
        pytest.param({}, PublicKey(b"", b"", "ed448", 456), False, id="ed448"),
        pytest.param({}, PublicKey(b"", b"", "ml-dsa-65", 0), False, id="ml-dsa-not-named"),
        pytest.param({"ml_dsa": ["ml-dsa-65"]}, PublicKey(b"", b"", "ml-dsa-65", 0), True, id="ml-dsa-named"),
        pytest.param({}, PublicKey(b"", b"", "unknown", 0), False, id="unknown"),
    ],
)
def test_key(bench: Any, section: dict[str, Any], key: PublicKey, allowed: bool) -> None:
    decision = bench.decide(bench.policy(key=section), bench.request(public_key=key))
    assert (decision.grant is not None) is allowed
    assert [v.reason for v in decision.violations] == ([] if allowed else [Reason.POLICY_KEY])


@pytest.mark.parametrize(
    ("section", "digest", "allowed"),
    [
        pytest.param({}, "sha256", True, id="sha256"),
        pytest.param({}, "none", True, id="keys-that-hash-by-themselves"),
        pytest.param({}, "sha1", False, id="sha1"),
        pytest.param({"allow_sha1_signature": True}, "sha1", True, id="sha1-allowed"),
        pytest.param({"mode": "off"}, "sha1", True, id="sha1-not-judged"),
        pytest.param({}, "md5", False, id="md5"),
        pytest.param({"allow_sha1_signature": True}, "md5", False, id="md5-where-sha1-is-allowed"),
        pytest.param({"mode": "off"}, "md5", False, id="md5-in-mode-off"),
        pytest.param({"mode": "warn"}, "md5", False, id="md5-in-mode-warn"),
        pytest.param({"allow_md5_signature": True}, "md5", True, id="md5-allowed"),
        pytest.param({"allow_md5_signature": True}, "sha1", False, id="sha1-where-md5-is-allowed"),
        pytest.param({}, "", False, id="none-named"),
    ],
)
def test_request_signature(bench: Any, section: dict[str, Any], digest: str, allowed: bool) -> None:
    decision = bench.decide(bench.policy(key=section), bench.request(signature_digest=digest))
    assert [v.reason for v in decision.violations] == ([] if allowed else [Reason.UNSUPPORTED_ALGORITHM])


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"is_ca": True}, id="ca-true"),
        pytest.param({"key_usage": frozenset({"keyCertSign"})}, id="keyCertSign"),
        pytest.param({"key_usage": frozenset({"digitalSignature", "cRLSign"})}, id="cRLSign"),
        pytest.param({"ekus": (CLIENT, ANY)}, id="any-eku"),
        pytest.param({"ekus": (EKU_OIDS["OCSPSigning"],)}, id="ocsp-signing"),
        pytest.param({"ekus": (EKU_OIDS["certificateRequestAgent"],)}, id="request-agent"),
        pytest.param({"ekus": (EKU_OIDS["pkInitKdc"],)}, id="domain-controller"),
    ],
)
def test_no_mode_lets_power_over_others_through(bench: Any, mode: str, asked: dict[str, Any]) -> None:
    sections = {name: {"mode": mode} for name in ("key", "san", "key_usage", "eku", "validity", "extensions")}
    policy = bench.policy(**sections, subject={"mode": mode})
    assert bench.decide(policy, bench.request(**asked)).grant is None


@pytest.mark.parametrize(
    ("section", "asked", "expected"),
    [
        pytest.param({}, None, ("digitalSignature",), id="default-without-what-ec-cannot"),
        pytest.param({}, frozenset(), ("digitalSignature",), id="no-bits"),
        pytest.param({}, {"digitalSignature"}, ("digitalSignature",), id="listed"),
        pytest.param({}, {"digitalSignature", "keyEncipherment"}, None, id="ec-cannot-encipher"),
        pytest.param(
            {"unlisted": "drop"}, {"digitalSignature", "keyEncipherment"}, ("digitalSignature",), id="ec-cannot-encipher-dropped"
        ),
        pytest.param({}, {"nonRepudiation"}, None, id="unlisted"),
        pytest.param({"unlisted": "drop"}, {"nonRepudiation"}, ("digitalSignature",), id="all-dropped-takes-default"),
        pytest.param({"unlisted": "drop", "default": []}, {"nonRepudiation"}, None, id="all-dropped-and-no-default"),
        pytest.param({"default": []}, None, (), id="configured-without"),
        pytest.param({"default": ["keyEncipherment"]}, None, None, id="default-that-ec-cannot"),
        pytest.param({"mode": "off", "default": ["keyEncipherment"]}, None, None, id="default-that-ec-cannot-when-off"),
        pytest.param({"mode": "warn"}, {"nonRepudiation"}, ("nonRepudiation",), id="warned"),
        pytest.param(
            {"unlisted": "drop", "allow": ["digitalSignature", "encipherOnly"]},
            {"digitalSignature", "encipherOnly"},
            ("digitalSignature",),
            id="encipher-only-without-agreement",
        ),
    ],
)
def test_key_usage(bench: Any, section: dict[str, Any], asked: set[str] | None, expected: tuple[str, ...] | None) -> None:
    key_usage = None if asked is None else frozenset(asked)
    grant = bench.decide(bench.policy(key_usage=section), bench.request(key_usage=key_usage)).grant
    assert (grant and grant.key_usage) == expected
    if grant is not None and asked:
        assert grant.modified is (set(grant.key_usage) != asked)


def test_rsa_keeps_key_encipherment(bench: Any) -> None:
    assert bench.decide(None, bench.request(public_key=bench.rsa)).grant.key_usage == ("digitalSignature", "keyEncipherment")


@pytest.mark.parametrize(
    ("section", "asked", "expected"),
    [
        pytest.param({}, None, (CLIENT,), id="default"),
        pytest.param({}, (), (CLIENT,), id="empty-extension"),
        pytest.param({}, (CLIENT, CLIENT), (CLIENT,), id="repeated"),
        pytest.param({}, (SERVER,), None, id="unlisted"),
        pytest.param({"unlisted": "drop"}, (SERVER, CLIENT), (CLIENT,), id="dropped"),
        pytest.param({"unlisted": "drop"}, (SERVER,), (CLIENT,), id="all-dropped-takes-default"),
        pytest.param({"unlisted": "drop", "default": []}, (SERVER,), None, id="all-dropped-and-no-default"),
        pytest.param({"unlisted": "drop"}, (ANY, CLIENT), (CLIENT,), id="dangerous-dropped"),
        pytest.param({"allow": ["anyExtendedKeyUsage"]}, (ANY,), None, id="dangerous-only-in-allow"),
        pytest.param({"dangerous_ekus": ["anyExtendedKeyUsage"]}, (ANY,), None, id="dangerous-not-in-allow"),
        pytest.param({"allow": [ANY], "dangerous_ekus": ["anyextendedkeyusage"]}, (ANY,), (ANY,), id="dangerous-in-both"),
        pytest.param({"default": ["smartcardLogon"]}, None, None, id="dangerous-default"),
        pytest.param({"mode": "off"}, (SERVER, "1.2.3.4"), (SERVER, "1.2.3.4"), id="off"),
        pytest.param({"allow": ["nonsense"]}, ("nonsense",), None, id="word-means-nothing"),
        pytest.param({"default": []}, None, (), id="configured-without"),
    ],
)
def test_ekus(bench: Any, section: dict[str, Any], asked: tuple[str, ...] | None, expected: tuple[str, ...] | None) -> None:
    grant = bench.decide(bench.policy(eku=section), bench.request(ekus=asked)).grant
    assert (grant and grant.ekus) == expected


class TestValidity:
    def test_default_from_now_and_backdated(self, bench: Any) -> None:
        grant = bench.decide(bench.policy(validity={"default": "30d", "max": "90d", "backdate": "2h"})).grant
        now = bench.now.replace(microsecond=0)
        assert (grant.not_before, grant.not_after) == (now - timedelta(hours=2), now + timedelta(days=30))

    def test_max_counts_both_ends_and_backdating(self, bench: Any) -> None:
        grant = bench.decide(bench.policy(validity={"default": "47d", "max": "47d", "backdate": "1h"})).grant
        assert grant.not_after - grant.not_before + timedelta(seconds=1) == timedelta(days=47)

    def test_within_the_ca(self, bench: Any) -> None:
        begin, end = bench.now - timedelta(minutes=1), bench.now + timedelta(days=3)
        grant = bench.decide(ca_not_before=begin, ca_not_after=end).grant
        assert (grant.not_before, grant.not_after) == (begin, end.replace(microsecond=0))

    def test_unlimited_is_not_capped(self, bench: Any) -> None:
        policy = bench.policy(validity={"not_after": "unlimited"})
        assert bench.decide(policy, ca_not_after=bench.now + timedelta(days=3)).grant.not_after == UNLIMITED_NOT_AFTER

    @pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
    @pytest.mark.parametrize("section", [{}, {"not_after": "unlimited"}], ids=["limited", "unlimited"])
    def test_no_certificate_from_a_ca_that_is_not_valid(self, bench: Any, mode: str, section: dict[str, str]) -> None:
        policy = bench.policy(validity={"mode": mode, **section})
        second = timedelta(seconds=1)
        assert bench.decide(policy, ca_not_after=bench.now - second).violations[0].reason is Reason.POLICY_VALIDITY
        assert bench.decide(policy, ca_not_before=bench.now + second).grant is None

    def test_mode(self, bench: Any) -> None:
        lengths = {"default": "90d", "max": "30d", "backdate": "1h"}
        warned = bench.decide(bench.policy(validity={"mode": "warn", **lengths}))
        assert warned.warnings[0].field == "policy.validity.max"
        assert warned.grant.not_after == bench.now.replace(microsecond=0) + timedelta(days=90)
        assert bench.decide(bench.policy(validity=lengths)).grant.not_after < bench.now + timedelta(days=30)


class TestExtensions:
    template = Extension("1.3.6.1.4.1.311.20.2", False, b"\x1e\x00")

    def test_only_listed_ones_are_copied(self, bench: Any) -> None:
        other = Extension("1.2.3", True, b"\x05\x00")
        policy = bench.policy(extensions={"allow": [self.template.oid]})
        assert bench.decide(policy, bench.request(extensions=(self.template, other))).grant.extensions == (self.template,)
        refusing = bench.policy(extensions={"allow": [self.template.oid], "unlisted": "refuse"})
        assert bench.decide(refusing, bench.request(extensions=(other,))).violations[0].reason is Reason.POLICY_EXTENSION

    @pytest.mark.parametrize("mode", ["warn", "off"])
    def test_no_mode_copies_others(self, bench: Any, mode: str) -> None:
        policy = bench.policy(extensions={"mode": mode, "unlisted": "refuse"})
        assert bench.decide(policy, bench.request(extensions=(self.template,))).grant.extensions == ()

    @pytest.mark.parametrize(
        "oid",
        [
            pytest.param("2.5.29.19", id="basic-constraints"),
            pytest.param("2.5.29.17", id="subject-alternative-name"),
            pytest.param("2.5.29.15", id="key-usage"),
            pytest.param("2.5.29.37", id="extended-key-usage"),
            pytest.param("2.5.29.30", id="name-constraints"),
            pytest.param("2.5.29.35", id="authority-key-identifier"),
            pytest.param("1.3.6.1.4.1.311.21.10", id="application-policies"),
            pytest.param("2.16.840.1.113730.1.1", id="netscape-type"),
        ],
    )
    def test_never_copied_although_listed(self, bench: Any, oid: str) -> None:
        policy = bench.policy(extensions={"allow": [oid]})
        assert bench.decide(policy, bench.request(extensions=(Extension(oid, True, b"\x30\x00"),))).grant.extensions == ()

    def test_sid_extension_only_where_vouched_for(self, bench: Any) -> None:
        sid = Extension("1.3.6.1.4.1.311.25.2", False, b"\x30\x00")
        policy, request = bench.policy(extensions={"allow": [sid.oid]}), bench.request(extensions=(sid,))
        vouching = replace(bench.requester, vouches_for_sid=True)
        assert bench.decide(policy, request).grant.extensions == ()
        assert bench.decide(policy, request, vouching).grant.extensions == (sid,)
        renewal = replace(vouching, kind=CredentialKind.CERTIFICATE)
        assert bench.decide(policy, request, renewal).grant.extensions == ()

    def test_twice_is_refused(self, bench: Any) -> None:
        policy = bench.policy(extensions={"allow": [self.template.oid]})
        assert bench.decide(policy, bench.request(extensions=(self.template, self.template))).grant is None


@pytest.mark.parametrize(
    ("binding", "bound"),
    [
        pytest.param(NameBinding(), True, id="unbound"),
        pytest.param(NameBinding("cn=gate-1"), True, id="subject"),
        pytest.param(NameBinding("CN=GATE-1"), False, id="subject-in-other-case"),
        pytest.param(NameBinding("CN=\uff47ate-1"), False, id="subject-in-full-width"),
        pytest.param(NameBinding("CN=gate-2"), False, id="other-subject"),
        pytest.param(NameBinding("CN=gate-1,O=Corp"), False, id="subject-with-more"),
        pytest.param(NameBinding("nonsense"), False, id="unreadable-binding"),
        pytest.param(NameBinding(""), False, id="bound-to-no-subject"),
        pytest.param(NameBinding(sans=frozenset({(SanKind.DNS, "A.corp.example")})), True, id="sans-in-other-case"),
        pytest.param(NameBinding(sans=frozenset()), False, id="bound-to-no-sans"),
        pytest.param(NameBinding(sans=frozenset({(SanKind.EMAIL, "a.corp.example")})), False, id="same-text-other-type"),
        pytest.param(
            NameBinding(sans=frozenset({(SanKind.DNS, "a.corp.example"), (SanKind.DNS, "b.corp.example")})),
            False,
            id="fewer-than-bound",
        ),
    ],
)
def test_binding(bench: Any, binding: NameBinding, bound: bool) -> None:
    request = bench.request("CN=gate-1", ("dns", "a.corp.example"))
    decision = bench.decide(None, request, replace(bench.requester, binding=binding))
    assert (decision.grant is not None) is bound
    assert all(v.reason is Reason.NAME_NOT_BOUND for v in decision.violations)


def test_modes(bench: Any) -> None:
    decision = bench.decide(bench.policy(subject={"mode": "off", "allow": []}, key={"mode": "warn", "ec": []}))
    assert decision.grant is not None
    assert [v.rule for v in decision.warnings] == ["key"]
    assert {(v.rule, v.message) for v in decision.verdicts if v.mode == "off"} == {("subject", "not judged")}


def test_precheck_names(bench: Any) -> None:
    assert all(v.passed for v in precheck_names(bench.policy(), (make_san(SanKind.DNS, "a.corp.example"),)))
    assert not all(v.passed for v in precheck_names(bench.policy(), (make_san(SanKind.DNS, "evil.example"),)))


# Whatever is asked for

NOW = datetime(2027, 3, 4, tzinfo=UTC)
POLICIES = [
    PolicyConfig.model_validate(
        {
            "subject": {"allow": ["CN", "O"], "patterns": {"CN": "[a-z0-9.-]+"}, "unlisted": unlisted, "allow_empty": True},
            "san": {
                "dns": {"patterns": [r"([a-z0-9-]+\.)*corp\.example"]},
                "ip": {"networks": ["10.0.0.0/8"]},
                "unlisted": unlisted,
            },
            "key_usage": {"unlisted": unlisted},
            "eku": {"allow": ["clientAuth", "OCSPSigning"], "unlisted": unlisted},
            "extensions": {"allow": ["1.2.3", "2.5.29.19"], "unlisted": unlisted},
        },
        strict=False,
    )
    for unlisted in ("drop", "refuse")
]
GOOD = [make_san(SanKind.DNS, "a.corp.example"), make_san(SanKind.DNS, "B.corp.example"), make_san(SanKind.IP, "10.0.0.1")]
TEXTS = st.one_of(
    st.sampled_from(
        ["gate", "a.corp.example", "*.corp.example", "A.CORP.EXAMPLE", "a.corp.example.", "evil.example\0.corp.example"]
    ),
    st.text(max_size=12),
    st.text("a-.*x", max_size=12).map(lambda text: text + ".corp.example"),
)
TYPES = ["2.5.4.3", "2.5.4.10", "2.5.4.11", "1.2.3"]
ATTRIBUTES = st.builds(NameAttribute, st.sampled_from(TYPES), TEXTS, st.sampled_from([12, 12, 19, 20, 4]))
NAMES = st.one_of(
    st.sampled_from(["", "CN=gate", "O=Corp", "CN=gate,O=Corp", "CN=gate+O=Corp", "CN=gate,OU=x"]).map(parse_name_text),
    st.lists(st.lists(ATTRIBUTES, min_size=1, max_size=2).map(tuple), max_size=3).map(lambda rdns: Name(tuple(rdns), b"")),
)
ADDRESSES = st.one_of(st.ip_addresses().map(str), st.sampled_from(["10.0.0.1", "::ffff:10.0.0.1", "fe80::1%1", "010.0.0.1"]))
SANS = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(GOOD),
    st.builds(SubjectAltName, st.sampled_from(SanKind), TEXTS, st.binary(max_size=8)),
    st.builds(SubjectAltName, st.just(SanKind.DNS), TEXTS, st.binary(max_size=8)),
    st.builds(SubjectAltName, st.just(SanKind.IP), ADDRESSES, st.binary(max_size=8)),
)
USUAL = ["digitalSignature", "keyEncipherment", "nonRepudiation"]
KEYS = [PublicKey(b"", b"", "ec", 256, "P-256"), PublicKey(b"", b"", "rsa", 2048), PublicKey(b"", b"", "rsa", 512)]
EXTENSIONS = st.builds(Extension, st.sampled_from(["1.2.3", "2.5.29.19", "1.2.4"]), st.booleans(), st.binary(max_size=4))
REQUESTS = st.builds(
    CertificateRequest,
    form=st.just(RequestForm.PKCS10),
    der=st.just(b""),
    digest=st.just(b""),
    subject=NAMES,
    public_key=st.sampled_from(KEYS),
    sans=st.lists(SANS, max_size=4).map(tuple),
    key_usage=st.none()
    | st.frozensets(st.sampled_from(USUAL), max_size=2)
    | st.frozensets(st.sampled_from(KEY_USAGE_BITS), max_size=4),
    ekus=st.none() | st.just((CLIENT,)) | st.lists(st.sampled_from(sorted(EKU_OIDS.values())), max_size=4).map(tuple),
    is_ca=st.sampled_from([False] * 9 + [True]),
    extensions=st.lists(EXTENSIONS, max_size=2).map(tuple),
)


@settings(max_examples=400)
@given(REQUESTS, st.sampled_from(POLICIES), st.booleans())
def test_a_grant_stays_within_the_lists(request: CertificateRequest, policy: PolicyConfig, vouched: bool) -> None:
    requester = Requester("r", CredentialKind.ONE_TIME, vouches_for_sid=vouched)
    grant = decide(policy, request, requester, NOW, NOW + timedelta(days=90)).grant
    if grant is None:
        return
    subject = parse_name(grant.subject_der)
    assert {a.oid for rdn in subject.rdns for a in rdn} <= {"2.5.4.3", "2.5.4.10"}
    assert all(a.value.isprintable() for rdn in subject.rdns for a in rdn)
    assert len(subject.values("2.5.4.3")) <= 1
    assert {san.kind for san in grant.sans} <= {SanKind.DNS, SanKind.IP}
    for san in grant.sans:
        assert san == make_san(san.kind, san.value)
        if san.kind is SanKind.DNS:
            assert f".{san.value.lower()}".endswith(".corp.example")
            assert "*" not in san.value
            assert san.value.isascii()
        else:
            assert san.value.startswith("10.")
    assert subject.rdns or grant.sans
    assert set(grant.key_usage) <= {"digitalSignature", "keyEncipherment"}
    assert grant.key_usage
    assert grant.ekus == (CLIENT,)
    assert {extension.oid for extension in grant.extensions} <= {"1.2.3"}
    assert NOW - timedelta(hours=1) <= grant.not_before <= NOW < grant.not_after <= NOW + timedelta(days=90)
    assert not request.is_ca
    assert not (request.key_usage or frozenset()) & {"keyCertSign", "cRLSign"}
    assert request.public_key.bits != 512


@given(NAMES, st.lists(SANS, max_size=3).map(tuple))
def test_a_bound_credential_gets_its_names_or_nothing(subject: Name, sans: tuple[SubjectAltName, ...]) -> None:
    binding = NameBinding("CN=gate", frozenset({(SanKind.DNS, "a.corp.example")}))
    requester = Requester("r", CredentialKind.ONE_TIME, binding)
    request = CertificateRequest(RequestForm.PKCS10, b"", b"", subject, PublicKey(b"", b"", "ec", 256, "P-256"), sans)
    grant = decide(POLICIES[0], request, requester, NOW, None).grant
    if grant is not None:
        assert normalize_name(parse_name(grant.subject_der)) == normalize_name(parse_name_text("CN=gate"))
        assert [san.value.lower() for san in grant.sans] == ["a.corp.example"]
