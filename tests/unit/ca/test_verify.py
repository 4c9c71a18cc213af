"""Whatever an upstream CA returns is delivered only if it is what was granted, to this key, by this CA."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from gateway.ca.interfaces import Capability, IssueRequest, UpstreamIssued
from gateway.ca.verify import PUBLIC_DETAIL, verify_issued
from gateway.errors import Reason, Rejection
from gateway.model import UNLIMITED_NOT_AFTER, Extension, Grant, NameAttribute, SanKind
from gateway.pki import der
from gateway.pki.certificate import Issuer, build_certificate, parse_certificate, self_signed_ca
from gateway.pki.extensions import eku_oid, make_san
from gateway.pki.keys import public_key_der
from gateway.pki.names import encode_name, parse_name_text
from tests.unit.ca.conftest import DAY, NOW, Pair, key_of, make_issuing, make_request, make_root

NAMES = (make_san(SanKind.DNS, "a.example.org"), make_san(SanKind.UPN, "a@example.org"))
ROOT = make_root()
ISSUING = make_issuing(ROOT)
CHAIN = (ISSUING.der, ROOT.der)
OID = "1.3.6.1.4.1.99999.1"


def judge(request: IssueRequest, issued: UpstreamIssued, ca_chain: tuple[bytes, ...], now: datetime) -> None:
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, ca_chain, now)


def sign(
    request: IssueRequest,
    issuer: Pair = ISSUING,
    *,
    serial: int | None = None,
    key: bytes | None = None,
    is_ca: bool = False,
    **changes: object,
) -> UpstreamIssued:
    """What a CA returns that changes some of the grant."""
    grant: Grant = replace(request.grant, **changes)  # type: ignore[arg-type] # fields by name
    prepared = Issuer.from_certificate(issuer.der, issuer.key)
    leaf = build_certificate(prepared, serial or request.serial or 77, grant, key or request.public_key, is_ca=is_ca)
    return UpstreamIssued(leaf, CHAIN)


def refusal(request: IssueRequest, issued: UpstreamIssued, now: datetime = NOW) -> str:
    with pytest.raises(Rejection) as raised:
        judge(request, issued, CHAIN, now)
    assert raised.value.reason is Reason.UPSTREAM_MISMATCH
    assert raised.value.detail == PUBLIC_DETAIL
    return raised.value.cause


@pytest.mark.parametrize("serial", [5, None], ids=["our serial", "its serial"])
def test_what_was_granted_passes(serial: int | None) -> None:
    request = make_request(serial, sans=NAMES)
    judge(request, sign(request), CHAIN, NOW)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"key": public_key_der(key_of("ec-p256", "other"))}, "another key", id="key"),
        pytest.param({"serial": 6}, "its serial is 6, not 5", id="serial"),
        pytest.param({"is_ca": True}, "it is a CA certificate", id="CA"),
        pytest.param({"is_ca": True, "key_usage": ("keyCertSign", "digitalSignature")}, "key usage", id="keyCertSign"),
        pytest.param({"subject_der": parse_name_text("CN=Device").der}, "its subject", id="subject in other case"),
        pytest.param({"subject_der": parse_name_text("CN=device,O=x").der}, "its subject", id="more subject"),
        pytest.param({"subject_der": b"\x30\x00"}, "its subject", id="no subject"),
        pytest.param({"sans": NAMES[:1]}, "alternative names", id="a name missing"),
        pytest.param({"sans": (*NAMES, make_san(SanKind.DNS, "b.example.org"))}, "alternative names", id="a name more"),
        pytest.param(
            {"sans": (NAMES[0], make_san(SanKind.EMAIL, "a@example.org"))}, "alternative names", id="another kind of name"
        ),
        pytest.param({"sans": (*NAMES, NAMES[0])}, "alternative names", id="a name twice"),
        pytest.param({"key_usage": ()}, "key usage is none", id="no key usage"),
        pytest.param(
            {"key_usage": ("digitalSignature", "keyAgreement")}, "key usage is digitalSignature, keyAgreement", id="more usage"
        ),
        pytest.param({"ekus": ()}, "extended key usage is none", id="no EKU"),
        pytest.param({"ekus": (eku_oid("clientAuth"), eku_oid("serverAuth"))}, "extended key usage", id="more EKU"),
        pytest.param({"ekus": ("2.5.29.37.0",)}, "extended key usage is 2.5.29.37.0", id="any EKU"),
        pytest.param(
            {"extensions": (Extension(OID, False, b"\x05\x00"),)}, f"the extension {OID}, which was not", id="extension"
        ),
        pytest.param(
            {"extensions": (Extension("1.3.6.1.4.1.311.25.2", False, b"\x30\x00"),)}, "311.25.2", id="Microsoft SID extension"
        ),
        pytest.param(
            {"extensions": (Extension("1.3.6.1.4.1.311.21.10", False, b"\x30\x00"),)}, "311.21.10", id="application policies"
        ),
        pytest.param({"not_before": NOW - timedelta(hours=1, seconds=1)}, "it is valid", id="a second earlier"),
        pytest.param({"not_after": NOW + 30 * DAY + timedelta(seconds=1)}, "it is valid", id="a second longer"),
    ],
)
def test_what_was_not_granted_is_refused(changes: dict[str, object], words: str) -> None:
    request = make_request(5, sans=NAMES)
    assert words in refusal(request, sign(request, **changes))  # type: ignore[arg-type] # by name


def test_all_differences_are_named() -> None:
    request = make_request(5, sans=NAMES)
    cause = refusal(request, sign(request, sans=(), key_usage=(), ekus=()))
    assert cause.count(";") == 2


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        pytest.param({"not_before": NOW}, True, id="no backdating"),
        pytest.param({"not_before": NOW + timedelta(minutes=4)}, True, id="clock four minutes ahead"),
        pytest.param({"not_before": NOW + timedelta(minutes=6)}, False, id="clock six minutes ahead"),
        pytest.param({"not_before": NOW - timedelta(minutes=64)}, True, id="backdated a little more"),
        pytest.param({"not_before": NOW - timedelta(minutes=66)}, False, id="backdated much more"),
        pytest.param({"not_after": NOW + 30 * DAY + timedelta(minutes=4)}, True, id="ends four minutes later"),
        pytest.param({"not_after": NOW + 30 * DAY + timedelta(minutes=6)}, False, id="ends six minutes later"),
        pytest.param({"not_after": NOW + 30 * DAY - timedelta(minutes=6)}, False, id="ends six minutes earlier"),
        pytest.param({"not_after": UNLIMITED_NOT_AFTER}, False, id="never ends"),
    ],
)
def test_dates_of_a_ca_that_reckons_them_itself(changes: dict[str, object], passes: bool) -> None:
    request = make_request()
    issued = sign(request, **changes)  # type: ignore[arg-type] # by name
    if passes:
        judge(request, issued, CHAIN, NOW)
    else:
        assert "its not" in refusal(request, issued)


def test_string_types_may_differ() -> None:
    request = make_request(subject_der=encode_name([[NameAttribute("2.5.4.3", "device", 12)]]))
    judge(request, sign(request, subject_der=encode_name([[NameAttribute("2.5.4.3", "device", 19)]])), CHAIN, NOW)


def test_order_of_names_and_usages_may_differ() -> None:
    usage = ("digitalSignature", "keyEncipherment")
    request = make_request(sans=NAMES, key_usage=usage)
    judge(request, sign(request, sans=NAMES[::-1], key_usage=usage[::-1]), CHAIN, NOW)


@pytest.mark.parametrize("critical", [False, True])
def test_granted_extension_must_be_there_as_it_is(critical: bool) -> None:
    extension = Extension(OID, critical, b"\x05\x00")
    request = make_request(5, extensions=(extension,))
    judge(request, sign(request), CHAIN, NOW)
    assert f"lacks the granted extension {OID}" in refusal(request, sign(request, extensions=()))
    assert "is not the granted one" in refusal(request, sign(request, extensions=(replace(extension, value=b"\x01\x01\xff"),)))
    assert "is not the granted one" in refusal(request, sign(request, extensions=(replace(extension, critical=not critical),)))


def test_what_cas_add_by_themselves_passes() -> None:
    policies = der.sequence(der.sequence(der.oid("2.23.140.1.2.1")))
    request = make_request()
    added = (Extension("2.5.29.32", False, policies), Extension("1.3.6.1.4.1.311.21.7", False, der.sequence(der.oid(OID))))
    judge(request, sign(request, extensions=added), CHAIN, NOW)


def test_garbage_in_the_chain_is_refused() -> None:
    request = make_request()
    assert "cannot be read" in refusal(request, UpstreamIssued(sign(request).certificate, (b"garbage", ROOT.der)))


def test_changed_signature_is_refused() -> None:
    request = make_request()
    leaf = bytearray(sign(request).certificate)
    leaf[-1] ^= 1
    assert "does not chain" in refusal(request, UpstreamIssued(bytes(leaf), CHAIN))


def stranger() -> tuple[Pair, Pair]:
    """A CA with the same names and other keys."""
    key = key_of("ec-p256", "stranger")
    root = Pair(self_signed_ca(key, "CN=Test root", NOW - DAY, NOW + 365 * DAY), key)
    return root, make_issuing(root)


def test_another_ca_is_refused() -> None:
    request = make_request()
    root, issuing = stranger()
    issued = sign(request, issuing)
    assert "does not end in" in refusal(request, UpstreamIssued(issued.certificate, (issuing.der, root.der)))
    assert "does not chain" in refusal(request, UpstreamIssued(issued.certificate, (issuing.der, ROOT.der)))
    own_root = UpstreamIssued(sign(request, root).certificate, CHAIN)
    assert "does not chain" in refusal(request, own_root)


def test_self_signed_leaf_is_refused() -> None:
    key = key_of("ec-p256", "device")
    leaf = Pair(self_signed_ca(key, "CN=device", NOW - DAY, NOW + DAY), key)
    request = make_request()
    for chain in ((), (leaf.der,), CHAIN):
        refusal(request, UpstreamIssued(leaf.der, chain))


@pytest.mark.parametrize(
    "chain", [pytest.param((), id="none"), pytest.param((ROOT.der,), id="gap"), pytest.param(CHAIN[::-1], id="reversed")]
)
def test_chain_that_does_not_lead_to_the_ca_is_refused(chain: tuple[bytes, ...]) -> None:
    request = make_request()
    assert "chain" in refusal(request, UpstreamIssued(sign(request).certificate, chain))


def test_chain_may_end_at_any_configured_certificate() -> None:
    request = make_request()
    judge(request, UpstreamIssued(sign(request).certificate, (ISSUING.der,)), CHAIN, NOW)


def test_leaf_used_as_a_ca_is_refused() -> None:
    """A certificate of the CA's own customers signs nothing."""
    middle_request = make_request()
    middle = Pair(sign(middle_request).certificate, key_of("ec-p256", "device"))
    request = replace(make_request(), public_key=public_key_der(key_of("ec-p256", "victim")))
    issued = sign(request, middle)
    assert "does not chain" in refusal(request, UpstreamIssued(issued.certificate, (middle.der, *CHAIN)))


def test_expired_ca_is_refused() -> None:
    request = make_request(not_after=NOW + 400 * DAY)
    assert "not valid at this time" in refusal(request, sign(request), NOW + 366 * DAY)


ITS_DATES, ITS_NAME = Capability.CHOOSES_VALIDITY, Capability.CHOOSES_COMMON_NAME


@pytest.mark.parametrize(
    ("changes", "capability", "passes"),
    [
        pytest.param({"not_after": NOW + 2 * DAY}, ITS_DATES, True, id="ends sooner"),
        pytest.param({"not_after": NOW + 2 * DAY}, ITS_NAME, False, id="ends sooner, not said"),
        pytest.param({"not_after": NOW + 31 * DAY}, ITS_DATES, False, id="ends later"),
        pytest.param({"not_after": NOW - timedelta(seconds=1)}, ITS_DATES, False, id="is over"),
        pytest.param({"not_before": NOW - timedelta(hours=20)}, ITS_DATES, True, id="begins earlier"),
        pytest.param({"not_before": NOW - timedelta(hours=26)}, ITS_DATES, False, id="begins much earlier"),
        pytest.param({"not_before": NOW + timedelta(hours=1)}, ITS_DATES, False, id="begins later"),
        pytest.param({"subject_der": parse_name_text("").der}, ITS_NAME, True, id="no subject"),
        pytest.param({"subject_der": parse_name_text("").der}, ITS_DATES, False, id="no subject, not said"),
        pytest.param({"subject_der": parse_name_text("CN=a.example.org").der}, ITS_NAME, True, id="a name as CN"),
        pytest.param({"subject_der": parse_name_text("CN=a@example.org").der}, ITS_NAME, False, id="another kind of name as CN"),
        pytest.param({"subject_der": parse_name_text("CN=b.example.org").der}, ITS_NAME, False, id="a name not granted as CN"),
        pytest.param({"subject_der": parse_name_text("O=device").der}, ITS_NAME, False, id="another attribute"),
        pytest.param({"subject_der": parse_name_text("CN=device,O=x").der}, ITS_NAME, False, id="one more attribute"),
        pytest.param({"subject_der": parse_name_text("CN=device,CN=a.example.org").der}, ITS_NAME, False, id="two CNs"),
        pytest.param({"sans": NAMES[:1]}, ITS_NAME | ITS_DATES, False, id="a name missing"),
    ],
)
def test_what_a_ca_chooses_itself(changes: dict[str, object], capability: Capability, passes: bool) -> None:
    request = make_request(None, sans=NAMES)
    issued = sign(request, **changes)  # type: ignore[arg-type] # fields by name
    try:
        verify_issued(request, parse_certificate(issued.certificate), issued.chain, CHAIN, NOW, capability)
    except Rejection:
        assert not passes
    else:
        assert passes


def test_attributes_beside_the_common_name_are_not_dropped() -> None:
    request = make_request(None, sans=NAMES, subject_der=parse_name_text("CN=device,O=Example").der)
    issued = sign(request, subject_der=parse_name_text("CN=device").der)
    with pytest.raises(Rejection):
        verify_issued(request, parse_certificate(issued.certificate), issued.chain, CHAIN, NOW, ITS_NAME)


def test_our_serial_means_our_dates() -> None:
    request = make_request(5, sans=NAMES)
    issued = sign(request, not_after=NOW + 2 * DAY)
    with pytest.raises(Rejection):
        verify_issued(request, parse_certificate(issued.certificate), issued.chain, CHAIN, NOW, ITS_DATES)
