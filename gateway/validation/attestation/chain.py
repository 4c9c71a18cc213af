"""Certificates of attestations, up to the roots that the operator trusts for their format (WebAuthn §8, RFC 5280 §6.1)."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki.algorithms import signature_digest
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.der import normalize
from gateway.pki.names import format_name
from gateway.pki.trust import MAX_PATHS, TrustAnchors, verify_chain

MAX_CERTIFICATES = 8
"""Of one attestation, its own among them."""

_COLLIDING = frozenset({"md5", "sha1"})


def verify_certificates(anchors: TrustAnchors, certificates: tuple[bytes, ...], now: datetime) -> Certificate:
    """Return the first certificate, parsed, which the others lead up from to `anchors` in the order in which they came.

    A root that was sent along adds nothing. Raises MalformedMessage, or Rejection BAD_ATTESTATION.
    """
    sent = tuple([parse_certificate(normalize(one)) for one in certificates])
    leaf = sent[0]
    if leaf.is_ca:
        raise _untrusted("the attestation's certificate is a CA's")
    cause = f"{format_name(leaf.subject)} was issued by no CA of the roots"
    for count in range(1, len(sent) + 1):
        if signature_digest(sent[count - 1].algorithm) in _COLLIDING:
            raise _untrusted(f"{format_name(sent[count - 1].subject)} is signed with SHA-1 or weaker")
        for path in islice(anchors.paths(sent[count - 1]), MAX_PATHS):
            try:
                verify_chain(leaf, (*sent[1:count], *path), now)
            except Rejection as error:
                cause = error.cause
                continue
            return leaf
    raise _untrusted(cause)


def ordered(first: bytes, others: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return `first` and, of `others` in whatever order they came, those that lead up from it by their names.

    Raises MalformedMessage.
    """
    path, left = [parse_certificate(normalize(first))], [parse_certificate(normalize(one)) for one in others]
    while len(path) < MAX_CERTIFICATES:
        last = path[-1]
        above = next((one for one in left if one.subject == last.issuer and one.der != last.der), None)
        if above is None or last.self_issued:
            break
        left.remove(above)
        path.append(above)
    return tuple([one.der for one in path])


def extension(certificate: Certificate, oid: str) -> bytes | None:
    """Return the value of an extension, None where there is none."""
    return next((one.value for one in certificate.extensions if one.oid == oid), None)


def text_extension(certificate: Certificate, oid: str) -> str | None:
    """Return an extension whose value is bare text without an encoding of its own, as Apple writes it; None for none or empty."""
    value = extension(certificate, oid)
    return None if value is None else clean_text(value)


def clean_text(value: bytes) -> str | None:
    """Return text that is shown, compared and written into names; None where it is empty. Raises MalformedMessage."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedMessage("the attestation holds text that is none") from None
    if len(text) > MAX_TEXT or not text.isprintable():
        raise MalformedMessage("the attestation holds text that is too long or cannot be printed")
    return text or None


MAX_TEXT = 255


def _untrusted(cause: str) -> Rejection:
    return Rejection(Reason.BAD_ATTESTATION, "the attestation's certificate does not lead to a root that is trusted here", cause)
