"""Which certificates and keys may serve SCEP clients, whom a message means, and who signs the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.errors import MalformedMessage
from gateway.pki import cms
from gateway.pki.certificate import parse_certificate, self_signed_ca
from gateway.pki.keys import PrivateKey, generate_private_key
from gateway.wire.scep.client import choose_ra_certificate, choose_ra_signer, decode_ca_certificates, self_signed_signer
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.operations import ca_certificates
from tests.unit.wire.scep.identities import BEGIN, CA, END, make_pair

Pair = tuple[bytes, PrivateKey]
BOTH = ("digitalSignature", "keyEncipherment")
SIGN, DECRYPT = ("digitalSignature",), ("keyEncipherment",)


@pytest.fixture(scope="module")
def main() -> Pair:
    return make_pair(*BOTH)


@pytest.fixture(scope="module")
def signing() -> Pair:
    return make_pair(*SIGN, subject="CN=RA signs")


@pytest.fixture(scope="module")
def encryption() -> Pair:
    return make_pair(*DECRYPT, subject="CN=RA decrypts")


@pytest.fixture(scope="module")
def old() -> Pair:
    return make_pair(*BOTH, subject="CN=Old RA")


def rid_of(certificate: bytes) -> cms.CertificateId:
    return cms.parse_certificate_id(cms.issuer_and_serial(certificate))


def small() -> Pair:
    """RSA-1024, which `generate_private_key` does not make."""
    key = rsa.generate_private_key(65537, 1024)
    return self_signed_signer(key, parse_certificate(CA).subject.der, BEGIN, END).certificate, key


def mismatched() -> Pair:
    return make_pair(*BOTH)[0], generate_private_key("rsa-2048")


REFUSED = [
    pytest.param(lambda: make_pair(*BOTH, spec="ec-p256"), "key must be RSA", id="an EC key"),
    pytest.param(lambda: (make_pair(*BOTH)[0], generate_private_key("ec-p256")), "key must be RSA", id="a key of another kind"),
    pytest.param(small, "has 1024 bits; at least 2048", id="1024 bits"),
    pytest.param(mismatched, "do not belong together", id="another key"),
    pytest.param(lambda: make_pair("nonRepudiation"), "lacks key usage", id="key usage for something else"),
    pytest.param(make_pair, "lacks key usage", id="no key usage"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_refused_as_the_one_pair(make: Callable[[], Pair], why: str) -> None:
    with pytest.raises(ValueError, match=f"^the SCEP RA .*{why}"):
        RaIdentity.create(*make(), (CA,))


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_refused_for_encryption(make: Callable[[], Pair], why: str, signing: Pair) -> None:
    with pytest.raises(ValueError, match=f"^the SCEP RA encryption .*{why}"):
        RaIdentity.create(*signing, (CA,), encryption=make())


@pytest.mark.parametrize(("make", "why"), REFUSED)
def test_refused_as_previous(make: Callable[[], Pair], why: str, main: Pair, old: Pair) -> None:
    with pytest.raises(ValueError, match=f"^the previous SCEP RA 2 .*{why}"):
        RaIdentity.create(*main, (CA,), previous=(old, make()))


def test_each_needs_the_usage_that_it_has(main: Pair, signing: Pair, encryption: Pair) -> None:
    RaIdentity.create(*signing, (CA,), encryption=encryption)
    for pair, missing in ((signing, "keyEncipherment"), (encryption, "digitalSignature")):
        with pytest.raises(ValueError, match=f"lacks key usage {missing}:"):
            RaIdentity.create(*pair, (CA,))
    with pytest.raises(ValueError, match="lacks key usage digitalSignature:"):
        RaIdentity.create(*encryption, (CA,), encryption=main)
    with pytest.raises(ValueError, match="encryption certificate lacks key usage keyEncipherment:"):
        RaIdentity.create(*main, (CA,), encryption=signing)
    with pytest.raises(ValueError, match="previous SCEP RA 1 certificate lacks key usage keyEncipherment:"):
        RaIdentity.create(*main, (CA,), previous=(signing,))


def test_a_ca_certificate_lacks_key_usage() -> None:
    key = generate_private_key("rsa-2048")
    with pytest.raises(ValueError, match="lacks key usage keyEncipherment"):
        RaIdentity.create(self_signed_ca(key, "CN=CA", BEGIN, END), key, ())


def test_an_empty_password_is_none(main: Pair) -> None:
    with pytest.raises(ValueError, match=r"password .* empty"):
        RaIdentity.create(*main, (CA,), password=b"")


def test_identity_shows_no_secret(main: Pair, encryption: Pair, old: Pair) -> None:
    ra = RaIdentity.create(
        *main, (CA,), encryption=encryption, previous=(old,), password=b"tell nobody", signing_time_skew=timedelta(minutes=5)
    )
    assert "tell nobody" not in repr(ra)
    assert "key" not in repr(ra).lower()
    assert "key" not in repr(ra.pairs).lower()


# What GetCACert shows


def test_one_pair_for_both(main: Pair) -> None:
    ra = RaIdentity.create(*main, (CA,))
    assert ra.certificates == (main[0],)
    assert [(p.certificate.der, p.key, p.signer is None) for p in ra.pairs] == [(*main, False)]
    assert (ra.certificate.der, ra.key, ra.signer.certificate) == (*main, main[0])


def test_split_pairs_are_shown_signing_first(signing: Pair, encryption: Pair) -> None:
    ra = RaIdentity.create(*signing, (CA,), encryption=encryption)
    shown = decode_ca_certificates(*ca_certificates(ra))
    assert shown == (signing[0], encryption[0], CA)
    assert (choose_ra_certificate(shown), choose_ra_signer(shown)) == (encryption[0], signing[0])
    assert [(p.certificate.der, p.key, p.signer) for p in ra.pairs] == [(*encryption, None)]
    assert (ra.certificate.der, ra.key) == signing


def test_a_signing_certificate_that_may_decrypt_does(main: Pair, encryption: Pair) -> None:
    """Clients that encrypt to the first RA certificate of the bundle go by its key usage."""
    ra = RaIdentity.create(*main, (CA,), encryption=encryption)
    assert [p.certificate.der for p in ra.pairs] == [encryption[0], main[0]]
    assert choose_ra_certificate(ra.certificates) == encryption[0]


def test_previous_pairs_are_shown_to_nobody(main: Pair, old: Pair, encryption: Pair) -> None:
    ra = RaIdentity.create(*main, (CA,), previous=(old, encryption))
    assert decode_ca_certificates(*ca_certificates(ra)) == (main[0], CA)
    assert [p.certificate.der for p in ra.pairs] == [main[0], old[0], encryption[0]]
    assert [p.signer is None for p in ra.pairs] == [False, False, True]


# Whom a message means


def test_the_pair_in_force_goes_before_previous_ones(main: Pair, old: Pair) -> None:
    ra = RaIdentity.create(*main, (CA,), previous=(old,))
    found = ra.find_pair((rid_of(CA), rid_of(old[0]), rid_of(main[0])))
    assert found is not None
    assert (found[0].certificate.der, found[1]) == (main[0], 2)
    assert ra.find_pair((rid_of(CA),)) is None
    assert ra.find_pair(()) is None


@pytest.mark.parametrize("previous", [0, 1], ids=["in force", "previous"])
def test_pairs_by_subject_key_identifier(previous: int, main: Pair, old: Pair) -> None:
    ra = RaIdentity.create(*main, (CA,), previous=(old,))
    key_id = parse_certificate((main, old)[previous][0]).subject_key_id
    found = ra.find_pair((cms.CertificateId(key_id=b"other"), cms.CertificateId(key_id=key_id)))
    assert found == (ra.pairs[previous], 1)


@pytest.mark.parametrize(
    ("issuer", "named"),
    [
        pytest.param(lambda name: name, True, id="as it stands"),
        pytest.param(lambda name: name.replace(b"\x0c\x07Test CA", b"\x13\x07test ca"), True, id="encoded anew"),
        pytest.param(lambda name: name.replace(b"Test CA", b"Best CA"), False, id="another name"),
        pytest.param(lambda name: b"\x30\x03\x02\x01\x01", False, id="no name"),
        pytest.param(lambda name: b"\x30\x00", False, id="an empty name"),
        pytest.param(lambda name: name.replace(b"\x06\x03\x55\x04\x03", b"\x06\x03\xff\xff\xff"), False, id="a broken type"),
    ],
)
def test_issuers_of_recipients(issuer: Callable[[bytes], bytes], named: bool, main: Pair) -> None:
    ra = RaIdentity.create(*main, (CA,))
    rid = rid_of(main[0])
    changed = replace(rid, issuer_der=issuer(rid.issuer_der))
    assert (ra.find_pair((changed,)) is not None) is named
    assert ra.find_pair((replace(changed, serial=rid.serial + 1),)) is None


# Who signs


def test_who_signs_the_answer(main: Pair, old: Pair, encryption: Pair) -> None:
    ra = RaIdentity.create(*main, (CA,), previous=(old, encryption))

    def signer(*certificates: bytes) -> bytes:
        return ra.signer_for(map(rid_of, certificates)).certificate

    assert signer(main[0]) == main[0]
    assert signer(old[0]) == old[0], "whoever encrypts to it knows no other"
    assert signer(old[0], main[0]) == main[0]
    assert signer(encryption[0]) == main[0], "a pair that may not sign does not"
    assert signer(CA) == signer() == main[0]


def test_what_is_encrypted_to_the_second_certificate_is_signed_by_the_first(main: Pair) -> None:
    both = make_pair(*BOTH, subject="CN=RA for all")
    ra = RaIdentity.create(*main, (CA,), encryption=both)
    assert ra.pairs[0].signer is not None
    assert ra.signer_for((rid_of(both[0]),)).certificate == main[0]


# What the client chooses


@pytest.mark.parametrize("choose", [choose_ra_certificate, choose_ra_signer])
def test_a_bundle_of_nothing_usable(choose: Callable[[tuple[bytes, ...]], bytes]) -> None:
    for bundle in ((), (make_pair("dataEncipherment")[0],)):
        with pytest.raises(MalformedMessage):
            choose(bundle)


def test_an_ra_goes_before_its_ca(main: Pair) -> None:
    key = generate_private_key("rsa-2048")
    ca = self_signed_ca(key, "CN=CA that may all", BEGIN, END)
    assert choose_ra_signer((ca, main[0])) == main[0]
    assert choose_ra_certificate((ca, main[0])) == main[0]
