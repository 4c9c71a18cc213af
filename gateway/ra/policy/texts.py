"""What a name must look like before any pattern is asked: host names, mail addresses, URIs, and text that shows what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.config.patterns import LinearPattern

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_OID = re.compile(r"[012](?:\.(?:0|[1-9][0-9]{0,38})){1,63}", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", re.ASCII)

_DOTS = "./\u3002\uff0e\uff61"
"""What reads as the end of a label (RFC 3490 §3.1) or of a host."""


def text_problem(value: str, most: int) -> str | None:
    """Say why `value` is no honest text of 1 to `most` characters (NUL, control, invisible, blank), or None."""
    if not value or value.isspace():
        return "is empty"
    if len(value) > most:
        return f"is longer than {most} characters"
    if not value.isprintable():
        return "has control or invisible characters"
    return "begins or ends with a space" if value[0] == " " or value[-1] == " " else None


def host_name_problem(value: str) -> str | None:
    """Say why `value` is no host name in preferred name syntax, in any case (RFC 1034 §3.5, RFC 5280 §4.2.1.6), or None.

    Underscores are left to the patterns: Windows machine names have them.
    """
    if not value or len(value) > 253:
        return "must have 1 to 253 characters"
    if not value.isascii():
        return "is not ASCII; international names are asked for as A-labels (xn--)"
    labels = value.lower().split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        return "is not a host name"
    if labels[-1].isdigit():
        return "looks like an IP address"
    return None if all(_is_honest(label) for label in labels if label.startswith("xn--")) else "has a damaged A-label"


def _is_honest(label: str) -> bool:
    """Say whether an A-label stands for one visible international label and for nothing else (RFC 5891 §5.4)."""
    try:
        unicode = label[4:].encode("ascii").decode("punycode")
        round_trip = unicode.encode("punycode").decode("ascii")
    except (ValueError, OverflowError):
        return False
    shows = not unicode.isascii() and unicode.isprintable() and unicode == unicode.lower()
    return shows and round_trip == label[4:] and not any(c in _DOTS for c in unicode)


def email_problem(value: str) -> str | None:
    """Say why `value` is no rfc822Name, an unquoted ASCII Mailbox (RFC 5280 §4.2.1.6), or None."""
    local, at, domain = value.rpartition("@")
    if not at or len(value) > 254 or len(local) > 64 or not _LOCAL_PART.fullmatch(local) or host_name_problem(domain):
        return "is not a mail address"
    return None


def uri_problem(value: str) -> str | None:
    """Say why `value` is no absolute URI of at most 1024 ASCII characters (RFC 5280 §4.2.1.6), or None."""
    return None if len(value) <= 1024 and _URI.fullmatch(value) else "is not an absolute URI"


def upn_problem(value: str) -> str | None:
    """Say why `value` is no user principal name of the form user@realm, or None."""
    user, at, realm = value.rpartition("@")
    if text_problem(value, 256) or not at or not user or "@" in user or host_name_problem(realm):
        return "is not a user principal name"
    return None


def permanent_identifier_problem(value: str) -> str | None:
    """Say why `value` is no identifier of a device with or without `/` and its assigner's OID (RFC 4043 §2), or None."""
    identifier, slash, assigner = value.partition("/")
    problem = text_problem(identifier, 255)
    return problem or ("has an assigner that is no OID" if slash and not _OID.fullmatch(assigner) else None)


def hardware_module_problem(value: str) -> str | None:
    """Say why `value` is no serial number of a module, `/` and the OID of its type (RFC 4108 §5), or None."""
    serial, _, kind = value.partition("/")
    return text_problem(serial, 255) or (None if _OID.fullmatch(kind) else "has a type that is no OID")


def matches_any(patterns: Sequence[LinearPattern], value: str) -> bool:
    """Say whether one of `patterns` matches the whole of `value`."""
    return any(pattern.matches(value) for pattern in patterns)
