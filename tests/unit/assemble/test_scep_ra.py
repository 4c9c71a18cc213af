"""RA pairs: what cannot serve is told of at its place."""

from __future__ import annotations

import pytest

from tests.unit.assemble.installation import SCEP, Installation


@pytest.mark.parametrize("place", ["ra_encryption", "previous_ra"])
def test_a_pair_that_does_not_belong_together(installation: Installation, place: str) -> None:
    other = installation.pair("other", issuer=installation.issuer())
    pair = {**installation.pair("mine", issuer=installation.issuer()), "key": other["key"]}
    installation.scep[place] = [pair] if place == "previous_ra" else pair
    field = f"{SCEP}.previous_ra[0].key" if place == "previous_ra" else f"{SCEP}.ra_encryption.key"
    found = installation.problems()
    assert found.keys() == {field}
    assert "does not belong to the certificate CN=mine" in found[field]


def test_all_that_is_wrong_with_pairs_is_said_at_once(installation: Installation) -> None:
    installation.write("junk.pem", b"junk")
    installation.write("junk.key", b"junk")
    junk = {"certificate": "junk.pem", "key": {"file": "junk.key"}}
    installation.scep.update(
        {"ra_encryption": junk, "previous_ra": [installation.pair("good"), {**junk, "certificate": "./junk.pem"}]}
    )
    assert installation.problems().keys() == {
        f"{SCEP}.{place}.{part}" for place in ("ra_encryption", "previous_ra[1]") for part in ("certificate", "key")
    }


@pytest.mark.parametrize(
    ("place", "pair", "said"),
    [
        pytest.param("ra_encryption", {"usage": ("digitalSignature",)}, "lacks key usage keyEncipherment", id="no-encryption"),
        pytest.param("ra_encryption", {"spec": "ec-p256"}, "must be RSA", id="ec-encryption"),
        pytest.param("previous_ra", {"usage": ("digitalSignature",)}, "lacks key usage keyEncipherment", id="no-decryption"),
        pytest.param("previous_ra", {"spec": "ed25519"}, "must be RSA", id="ed25519-previous"),
    ],
)
def test_a_pair_that_cannot_serve_is_told_of_at_its_place(
    installation: Installation, place: str, pair: dict[str, object], said: str
) -> None:
    made = installation.pair(f"{place}-{'-'.join(map(str, pair.values()))[:9]}", issuer=installation.issuer(), **pair)  # type: ignore[arg-type]
    good = installation.pair("good", issuer=installation.issuer())
    installation.scep[place] = [good, made] if place == "previous_ra" else made
    field = f"{SCEP}.previous_ra[1].certificate" if place == "previous_ra" else f"{SCEP}.ra_encryption.certificate"
    found = installation.problems()
    assert found.keys() == {field}
    assert said in found[field]


def test_a_signing_certificate_needs_no_encryption_beside_another(installation: Installation) -> None:
    signing = installation.pair("signing", usage=("digitalSignature",), issuer=installation.issuer())
    installation.scep.update({"ra_certificate": signing["certificate"], "ra_key": signing["key"]})
    assert installation.problems().keys() == {f"{SCEP}.ra_certificate"}
    installation.scep["ra_encryption"] = installation.pair("encrypting", usage=("keyEncipherment",), issuer=installation.issuer())
    assert installation.problems() == {}
    assert installation.warnings() == {}
