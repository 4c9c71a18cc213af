"""What challenges are made of: key authorizations, names and values of records (RFC 8555 §8, RFC 8737, RFC 8738 and drafts)."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.pki import base64url

HTTP_PATH = "/.well-known/acme-challenge/"
"""Of http-01, before the token (RFC 8555 §8.3)."""
DNS_LABEL = "_acme-challenge"
"""Of dns-01 and dns-account-01 (RFC 8555 §8.4)."""
PERSIST_LABEL = "_validation-persist"
"""Of dns-persist-01 (draft-ietf-acme-dns-persist §4)."""
ALPN_PROTOCOL = "acme-tls/1"
MAX_RECORD = 2048
"""Most bytes of a record of dns-persist-01 that are looked at."""

_ACCOUNT_LABEL_BYTES = 10
_WHITE = " \t"
_VALUE = re.compile(r"[\x21-\x3a\x3c-\x7e]*", re.ASCII)
_SECONDS = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def key_authorization(token: str, thumbprint: str) -> str:
    """Return what only the holder of the account's key, and whom it told, knows to say (RFC 8555 §8.1)."""
    return f"{token}.{thumbprint}"


def dns_value(authorization: str) -> str:
    """Return the TXT record for a key authorization (RFC 8555 §8.4)."""
    return base64url.encode(hashlib.sha256(authorization.encode("ascii")).digest())


def account_label(account_url: str) -> str:
    """Return the label before `_acme-challenge` that is the account's own (draft-ietf-acme-dns-account-label §3.1)."""
    digest = hashlib.sha256(account_url.encode()).digest()[:_ACCOUNT_LABEL_BYTES]
    return "_" + base64.b32encode(digest).decode("ascii").lower()


def alpn_digest(authorization: str) -> bytes:
    """Return what the acmeIdentifier extension holds for a key authorization (RFC 8737 §3)."""
    return hashlib.sha256(authorization.encode("ascii")).digest()


def reverse_name(address: str) -> str:
    """Return the name of an address in its reverse zone, which tls-alpn-01 asks for (RFC 8738 §6)."""
    return ipaddress.ip_address(address).reverse_pointer


@dataclass(frozen=True, slots=True)
class PersistRecord:
    """A record of dns-persist-01; `until` in seconds since 1970."""

    issuer: str
    account_url: str
    wildcard: bool
    until: int | None


def parse_persistent(text: str) -> PersistRecord:
    """Take a record apart: an issue-value (RFC 8659 §4.2) with accounturi; parameters that are not known do not count.

    ValueError says what is wrong. A parameter that is there twice, has no name or no `=` spoils the record; a policy other than
    `wildcard` is none.
    """
    issuer, semicolon, rest = text.partition(";")
    parameters = _parameters(rest) if semicolon and rest.strip(_WHITE) else {}
    account_url = parameters.get("accounturi", "")
    if not account_url:
        raise ValueError("the record has no accounturi")
    until = parameters.get("persistuntil")
    if until is not None and _SECONDS.fullmatch(until) is None:
        raise ValueError("its persistUntil is no number of seconds")
    wildcard = parameters.get("policy", "").lower() == "wildcard"
    return PersistRecord(_domain(issuer), account_url, wildcard, None if until is None else int(until))


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for parameter in text.split(";"):
        tag, equals, value = parameter.partition("=")
        name, value = tag.strip(_WHITE).lower(), value.strip(_WHITE)
        if not equals or not name or _VALUE.fullmatch(value) is None:
            raise ValueError("a parameter is empty or malformed")
        if name in found:
            raise ValueError("a parameter is there twice")
        found[name] = value
    return found


def format_persistent(issuer: str, account_url: str, *, wildcard: bool = False, until: int | None = None) -> str:
    """Return the text of a record."""
    parts = [issuer, f"accounturi={account_url}"]
    if wildcard:
        parts.append("policy=wildcard")
    if until is not None:
        parts.append(f"persistUntil={until}")
    return "; ".join(parts)


def judge_persistent(records: Sequence[bytes], issuers: Collection[str], account_url: str, wildcard: bool, now: datetime) -> bool:
    """Say whether one of the TXT records, strings joined, lets the account have the name.

    Those for other issuers, broken ones, those of other accounts and those that have ended are passed over: another one may be
    good. `wildcard`: names below it shall be covered too.
    """
    ours = {_domain(issuer) for issuer in issuers}
    return any(_permits(record, ours, account_url, wildcard, now) for record in records)


def _permits(data: bytes, issuers: Collection[str], account_url: str, wildcard: bool, now: datetime) -> bool:
    if len(data) > MAX_RECORD or not data.isascii():
        return False
    try:
        record = parse_persistent(data.decode("ascii"))
    except ValueError:
        return False
    in_force = record.until is None or now.timestamp() <= record.until
    return record.issuer in issuers and record.account_url == account_url and in_force and (record.wildcard or not wildcard)


def _domain(name: str) -> str:
    """Return an issuer's domain name as it is compared."""
    return name.strip(_WHITE).removesuffix(".").lower()
