"""What cfssl says of its profiles is read, whatever it is."""

from datetime import timedelta
from typing import Any

import pytest

from gateway.ca.cfssl_grant import Profile, read_profile
from gateway.pki.extensions import eku_oid


@pytest.mark.parametrize(
    ("text", "expiry"),
    [
        ("8760h", timedelta(days=365)),
        ("2160h0m0s", timedelta(days=90)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("90m", timedelta(minutes=90)),
        ("100ms", timedelta(milliseconds=100)),
        ("", None),
        ("0h", None),
        ("1 h", None),
        ("-1h", None),
        ("h", None),
        ("1d", None),
        ("٣h", None),
        ("999999999h" * 6, None),
        ("1h" * 100, None),
        (7, None),
        (None, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_durations(text: object, expiry: timedelta | None) -> None:
    assert read_profile({"usages": [], "expiry": text}).expiry == expiry


def test_usages() -> None:
    usages = ["signing", "digital signature", "key encipherment", "client auth", "any", "s/mime", "ocsp signing"]
    found = read_profile({"usages": usages, "expiry": "1h"})
    ekus = {eku_oid(name) for name in ("clientAuth", "anyExtendedKeyUsage", "emailProtection", "OCSPSigning")}
    assert found == Profile(frozenset({"digitalSignature", "keyEncipherment"}), frozenset(ekus), timedelta(hours=1))
    assert found.describe().startswith("digitalSignature, keyEncipherment; OCSPSigning, ")


@pytest.mark.parametrize("usages", [None, "signing", ["microsoft sgc"], [["signing"]], ["signing"] * 65, {"signing": 1}], ids=str)
def test_usages_that_are_not_known(usages: Any) -> None:
    found = read_profile({"usages": usages, "expiry": "1h"})
    assert (found.key_usage, found.ekus) == (None, None)
    assert "not known here" in found.describe()
