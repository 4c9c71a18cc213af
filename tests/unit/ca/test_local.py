"""The embedded CA signs what was granted, says why it cannot, and makes CRLs that openssl accepts."""

import threading
from datetime import datetime, timedelta

import pytest

from gateway.ca.interfaces import Capability, NotSent, UnknownResult, UpstreamRejected
from gateway.ca.local import CaUrls, LocalCA, describe_dates, find_ca_faults
from gateway.ca.verify import verify_issued
from gateway.model import UNLIMITED_NOT_AFTER, RevocationReason, UpstreamCAName
from gateway.pki.certificate import Certificate, der_to_pem, parse_certificate
from tests.unit.ca.conftest import DAY, NOW, Judge, Pair, make_issuing, make_request, make_root

NAME = UpstreamCAName("local")
URLS = CaUrls("http://pki.example.org/crl/local.crl", "http://pki.example.org/ca/local.crt")


def local(issuing: Pair, root: Pair, now: datetime = NOW, publishes_crl: bool = True) -> LocalCA:
    return LocalCA(NAME, issuing.key, (issuing.der, root.der), URLS, clock=lambda: now, publishes_crl=publishes_crl)


@pytest.fixture
def root() -> Pair:
    return make_root()


@pytest.mark.parametrize(
    "spec", ["ec-p256", "ec-p384", "ec-p521", "rsa-2048", "rsa-3072", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87"]
)
async def test_every_kind_of_key_signs(spec: str, root: Pair, openssl: Judge) -> None:
    issuing = make_issuing(root, spec)
    ca = local(issuing, root)
    request = make_request(ca.new_serial())
    issued = await ca.issue(request)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, ca.chain(), NOW)
    if not spec.startswith("ml-dsa"):  # Debian's openssl does not know them
        untrusted, anchor = der_to_pem(issuing.der), der_to_pem(root.der)
        at = str(int(NOW.timestamp()))
        openssl(
            "verify", "-x509_strict", "-attime", at, "-CAfile", anchor, "-untrusted", untrusted, der_to_pem(issued.certificate)
        )
    await ca.close()


async def test_urls_are_in_the_certificate(root: Pair, openssl: Judge) -> None:
    ca = local(make_issuing(root), root)
    issued = await ca.issue(make_request(ca.new_serial()))
    text = openssl("x509", "-noout", "-text", "-in", der_to_pem(issued.certificate))
    assert f"URI:{URLS.crl}" in text
    assert f"CA Issuers - URI:{URLS.ca_issuers}" in text


async def test_without_crl_no_distribution_point(root: Pair, openssl: Judge) -> None:
    ca = local(make_issuing(root), root, publishes_crl=False)
    issued = await ca.issue(make_request(ca.new_serial()))
    assert "CRL Distribution" not in openssl("x509", "-noout", "-text", "-in", der_to_pem(issued.certificate))
    assert Capability.CRL not in ca.capabilities
    assert await ca.crl() is None


async def test_the_stored_serial_is_signed_again(root: Pair) -> None:
    ca = local(make_issuing(root), root)
    request = make_request(ca.new_serial())
    one, two = await ca.issue(request), await ca.issue(request)
    assert parse_certificate(one.certificate).serial == parse_certificate(two.certificate).serial == request.serial


async def test_no_serial_no_certificate(root: Pair) -> None:
    with pytest.raises(UpstreamRejected, match="no serial"):
        await local(make_issuing(root), root).issue(make_request())


@pytest.mark.parametrize("offset", [DAY, 364 * DAY])
async def test_validity_within_the_ca(root: Pair, offset: timedelta) -> None:
    ca = local(make_issuing(root), root)
    issued = await ca.issue(make_request(5, not_after=NOW + offset))
    assert parse_certificate(issued.certificate).not_after == NOW + offset
    assert ca.not_after_limit(NOW) == NOW + 365 * DAY


async def test_validity_beyond_the_ca_is_refused(root: Pair) -> None:
    with pytest.raises(UpstreamRejected, match="longer than the CA"):
        await local(make_issuing(root), root).issue(make_request(5, not_after=NOW + 366 * DAY))


async def test_unlimited_goes_beyond_the_ca(root: Pair, openssl: Judge) -> None:
    ca = local(make_issuing(root), root)
    request = make_request(5, not_after=UNLIMITED_NOT_AFTER)
    issued = await ca.issue(request)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, ca.chain(), NOW)
    assert "99991231235959Z" in openssl("asn1parse", "-in", der_to_pem(issued.certificate))


async def test_expired_ca_sends_nothing_and_says_so(root: Pair) -> None:
    ca = local(make_issuing(root, not_after=NOW + DAY), root, NOW + 2 * DAY)
    with pytest.raises(NotSent, match="expired on 2026-05-02") as raised:
        await ca.issue(make_request(5))
    assert raised.value.retry_after >= 60
    with pytest.raises(NotSent, match="expired"):
        await ca.sign_crl(1, NOW, NOW + DAY, ())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"key_usage": ("keyCertSign",)}, id="keyCertSign"),
        pytest.param({"subject_der": b"\x30\x00"}, id="no name at all"),
        pytest.param({"not_before": NOW + 31 * DAY}, id="ends before it begins"),
    ],
)
async def test_what_must_not_be_signed(root: Pair, changes: dict[str, object]) -> None:
    with pytest.raises(UpstreamRejected, match="does not sign this"):
        await local(make_issuing(root), root).issue(make_request(5, **changes))


async def test_slow_keys_sign_in_a_thread(root: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = {}
    for spec in ("ec-p256", "rsa-3072", "ml-dsa-65"):
        ca = local(make_issuing(root, spec), root)
        build = ca._build

        def record(*args: object, spec: str = spec, build: object = build) -> bytes:
            threads[spec] = threading.current_thread() is threading.main_thread()
            return build(*args)  # type: ignore[operator, no-any-return] # the method

        monkeypatch.setattr(ca, "_build", record)
        await ca.issue(make_request(5))
        await ca.close()
    assert threads == {"ec-p256": True, "rsa-3072": False, "ml-dsa-65": False}


async def test_poll_has_nothing_to_tell(root: Pair) -> None:
    with pytest.raises(UnknownResult):
        await local(make_issuing(root), root).poll(make_request(5), "x")


@pytest.mark.parametrize("spec", ["ec-p256", "rsa-2048", "ed25519"])
async def test_crl_satisfies_openssl(spec: str, root: Pair, openssl: Judge) -> None:
    issuing = make_issuing(root, spec)
    ca = local(issuing, root)
    entries = [(serial, NOW - timedelta(hours=1), reason) for serial, reason in enumerate(RevocationReason, start=1)]
    crl = await ca.sign_crl(42, NOW, NOW + 7 * DAY, entries)
    openssl("crl", "-inform", "DER", "-CAfile", der_to_pem(issuing.der), "-noout", "-in", crl)
    text = openssl("crl", "-inform", "DER", "-noout", "-text", "-in", crl)
    assert text.count("Serial Number:") == len(entries)
    assert "X509v3 CRL Number: \n                42" in text
    assert "Key Compromise" in text
    assert await ca.has_signed(crl)
    assert not await local(root, root).has_signed(crl)
    assert not await ca.has_signed(b"junk")
    await ca.close()


async def test_revoked_certificate_fails_openssls_check(root: Pair, openssl: Judge) -> None:
    issuing = make_issuing(root)
    ca = local(issuing, root)
    good, bad = await ca.issue(make_request(5)), await ca.issue(make_request(6))
    crl = await ca.sign_crl(1, NOW, NOW + 7 * DAY, [(6, NOW, RevocationReason.KEY_COMPROMISE)])
    pem = der_to_pem(crl, "X509 CRL")
    options = ("verify", "-crl_check", "-attime", str(int(NOW.timestamp())), "-CAfile", der_to_pem(root.der))
    chain = ("-untrusted", der_to_pem(issuing.der), "-CRLfile", pem)
    openssl(*options, *chain, der_to_pem(good.certificate))
    with pytest.raises(AssertionError, match="certificate revoked"):
        openssl(*options, *chain, der_to_pem(bad.certificate))
    await ca.close()


def faults(issuing: Pair, *above: Pair, signs_crl: bool = True) -> str:
    chain: tuple[Certificate, ...] = tuple(parse_certificate(pair.der) for pair in (issuing, *above))
    return "\n".join(find_ca_faults(chain, signs_crl=signs_crl))


def test_a_ca_that_may_sign_has_no_faults(root: Pair) -> None:
    assert faults(make_issuing(root), root) == ""
    assert faults(root) == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"is_ca": False, "usage": ("digitalSignature",)}, "it is not a CA certificate", id="no CA"),
        pytest.param({"usage": ("cRLSign",)}, "its key usage lacks keyCertSign", id="no keyCertSign"),
        pytest.param({"usage": ("keyCertSign",)}, "may not sign CRLs: its key usage lacks cRLSign", id="no cRLSign"),
    ],
)
def test_faults_are_sentences(root: Pair, changes: dict[str, object], sentence: str) -> None:
    assert sentence in faults(make_issuing(root, **changes), root)  # type: ignore[arg-type] # by name


def test_crl_sign_is_not_asked_of_a_ca_without_crl(root: Pair) -> None:
    assert faults(make_issuing(root, usage=("keyCertSign",)), root, signs_crl=False) == ""


def test_chain_that_does_not_hold_together(root: Pair) -> None:
    assert "was not issued by the next in the chain" in faults(make_issuing(root), make_root(label="stranger"))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        pytest.param(NOW, None, id="valid"),
        pytest.param(NOW + 365 * DAY, None, id="ends now"),
        pytest.param(NOW + 366 * DAY, "expired on 2027-05-01 12:00:00Z", id="expired"),
        pytest.param(NOW - 2 * DAY, "is not valid before 2026-04-30 12:00:00Z: check this machine's clock", id="not yet"),
    ],
)
def test_dates_are_sentences(root: Pair, now: datetime, said: str | None) -> None:
    assert describe_dates(parse_certificate(make_issuing(root).der), now) == said


def test_all_faults_at_once(root: Pair) -> None:
    issuing = make_issuing(root, usage=("digitalSignature",), is_ca=False)
    assert len(faults(issuing, make_root(label="stranger")).splitlines()) == 4
