"""What cfssl is told to certify, and what its profile certifies whatever it is told (cfssl, config and signer)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from gateway.ca.verify import CLOCK_TOLERANCE
from gateway.model import CertificateRequest, Grant, SanKind
from gateway.pki.extensions import eku_name, eku_oid
from gateway.pki.names import attribute_name, parse_name

MAX_USAGES = 64
_KEY_USAGES: Mapping[str, str] = MappingProxyType(
    {
        "signing": "digitalSignature",
        "digital signature": "digitalSignature",
        "content commitment": "nonRepudiation",
        "content committment": "nonRepudiation",
        "key encipherment": "keyEncipherment",
        "key agreement": "keyAgreement",
        "data encipherment": "dataEncipherment",
        "cert sign": "keyCertSign",
        "crl sign": "cRLSign",
        "encipher only": "encipherOnly",
        "decipher only": "decipherOnly",
    }
)
_EKUS: Mapping[str, str] = MappingProxyType(
    {
        "any": eku_oid("anyExtendedKeyUsage"),
        "server auth": eku_oid("serverAuth"),
        "client auth": eku_oid("clientAuth"),
        "code signing": eku_oid("codeSigning"),
        "email protection": eku_oid("emailProtection"),
        "s/mime": eku_oid("emailProtection"),
        "ipsec end system": "1.3.6.1.5.5.7.3.5",
        "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
        "ipsec user": "1.3.6.1.5.5.7.3.7",
        "timestamping": eku_oid("timeStamping"),
        "ocsp signing": "1.3.6.1.5.5.7.3.9",
    }
)
_ORDER = ("C", "ST", "L", "O", "OU", "CN", "serialNumber")
"""Go writes the attributes of a subject in this order (crypto/x509/pkix, Name.ToRDNSequence)."""
_HOSTS = frozenset({SanKind.DNS, SanKind.IP, SanKind.EMAIL, SanKind.URI})
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:h|ms|m|s|us|µs|ns))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class CannotCertify(Exception):
    """What was granted is not what cfssl would certify; the text says why."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a signing profile certifies; `expiry` is None where cfssl does not say it, usages where one is unknown."""

    key_usage: frozenset[str] | None
    ekus: frozenset[str] | None
    expiry: timedelta | None

    def require(self, grant: Grant, now: datetime) -> None:
        """Raise CannotCertify where the profile certifies something else."""
        if grant.extensions:
            raise CannotCertify("it certifies no further extensions")
        if self.key_usage is not None and self.key_usage != frozenset(grant.key_usage):
            raise CannotCertify(f"its profile certifies the key usage {_list(self.key_usage)}")
        if self.ekus is not None and self.ekus != frozenset(grant.ekus):
            raise CannotCertify(f"its profile certifies the extended key usage {_list(map(eku_name, self.ekus))}")
        if self.expiry is not None and now + self.expiry > grant.not_after + CLOCK_TOLERANCE:
            raise CannotCertify(f"its profile certifies for {self.expiry}, which is longer")

    def describe(self) -> str:
        """Return it in words."""
        usages = "usages that are not known here"
        if self.key_usage is not None and self.ekus is not None:
            usages = f"{_list(self.key_usage)}; {_list(map(eku_name, self.ekus))}"
        return f"{usages}; for {self.expiry if self.expiry is not None else 'a time that it does not say'}"


def read_profile(info: Mapping[str, Any]) -> Profile:
    """Read what `info` says of a profile."""
    usages, expiry = info.get("usages"), info.get("expiry")
    words: list[Any] = usages if isinstance(usages, list) and len(usages) <= MAX_USAGES else [None]
    if not all(isinstance(word, str) and (word in _KEY_USAGES or word in _EKUS) for word in words):
        return Profile(None, None, _parse_duration(expiry))
    return Profile(
        frozenset(_KEY_USAGES[usage] for usage in words if usage in _KEY_USAGES),
        frozenset(_EKUS[usage] for usage in words if usage in _EKUS),
        _parse_duration(expiry),
    )


def _parse_duration(text: object) -> timedelta | None:
    """Read a duration as Go writes it, such as `8760h`; None for anything else and for none."""
    if not isinstance(text, str) or len(text) > 64 or _DURATION.fullmatch(text) is None:
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return timedelta(seconds=seconds) if 0 < seconds < 1e11 else None


def describe_grant(csr: CertificateRequest, grant: Grant) -> dict[str, Any]:
    """Return `subject` and `hosts` of a request; raises CannotCertify where cfssl would add names of the PKCS#10 or lose some."""
    return {"subject": _subject(csr, grant), **_hosts(csr, grant)}


def _subject(csr: CertificateRequest, grant: Grant) -> dict[str, Any]:
    attributes = [attribute for rdn in parse_name(grant.subject_der).rdns for attribute in rdn]
    names = [attribute_name(attribute.oid) for attribute in attributes]
    if any(len(rdn) > 1 for rdn in parse_name(grant.subject_der).rdns):
        raise CannotCertify("it certifies no subject with several attributes in one place")
    if any(name not in _ORDER for name in names):
        raise CannotCertify(f"it certifies {', '.join(_ORDER)} in subjects only")
    if names != sorted(names, key=_ORDER.index):
        raise CannotCertify(f"it writes the attributes of a subject in the order {', '.join(_ORDER)}")
    if len(set(names)) < len(names):
        raise CannotCertify("it writes several values of one attribute into one place of a subject")
    asked = {attribute_name(attribute.oid) for rdn in csr.subject.rdns for attribute in rdn}
    added = sorted((asked & set(_ORDER)) - set(names))
    if added:
        raise CannotCertify(f"it would add {', '.join(added)} from the request")
    values = dict(zip(names, [attribute.value for attribute in attributes], strict=True))
    return {
        "CN": values.pop("CN", ""),
        "SerialNumber": values.pop("serialNumber", ""),
        "names": [values],
    }


def _hosts(csr: CertificateRequest, grant: Grant) -> dict[str, list[str]]:
    if any(san.kind not in _HOSTS for san in grant.sans):
        raise CannotCertify("it certifies DNS names, addresses, e-mail addresses and URIs only")
    if grant.sans:
        return {"hosts": [san.value for san in grant.sans]}
    if csr.sans:
        raise CannotCertify("it would add the alternative names of the request")
    return {}


def _list(values: Any) -> str:
    return ", ".join(sorted(values)) or "none"
