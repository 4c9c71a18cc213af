"""What the envelope of a request holds, opened and read so that no fault can be told from another (RFC 8894 §3.3).

A stranger may sign any envelope that he captured and look at what we answer. What is asked for is read before the padding behind
it is looked at, everything that is wrong takes the same time, and one answer stands for all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.model import CertificateRequest
from gateway.pki import cms, der, envelope
from gateway.pki.csr import parse_csr
from gateway.pki.names import parse_name, parse_name_text
from gateway.wire.scep.identity import Algorithms, RaIdentity

MAX_SERIAL_BITS = 160
"""Of a certificate's serial number: 20 octets (RFC 5280 §4.1.2.2)."""


@dataclass(frozen=True, slots=True)
class CertificateQuery:
    """The IssuerAndSerialNumber of a GetCert or GetCRL; an empty issuer names nothing (RFC 8894 §3.3.4)."""

    issuer_der: bytes = field(repr=False)
    serial: int


NO_QUERY = CertificateQuery(b"", 0)
"""What every query is that cannot be read."""

_DECOY_QUERY = der.sequence(parse_name_text("CN=decoy.example").der, der.integer(1 << 120))


def open_request(enveloped: envelope.EnvelopedData, ra: RaIdentity) -> CertificateRequest:
    """Return the certification request of a PKCSReq or RenewalReq (RFC 8894 §3.3.1).

    Raises Rejection UNSUPPORTED_ALGORITHM for what the message names in clear, and one DECRYPTION_FAILED for all else.
    """
    plaintext = _decipher(enveloped, ra)
    begun = ra.stopwatch() if ra.stopwatch else 0.0
    try:
        request = _read_csr(plaintext.element)
        if not plaintext.sound:
            raise _unreadable("bytes follow the certification request, or the padding is wrong")
    except Rejection:
        # How far a parser came and what kind of key it met show in half a millisecond. The rest of one is worked off here and
        # not slept: else it would show in how soon this thread answers others, and sooner the busier it is. A stranger who
        # wants this thread busy gains little: his own request with a P-384 key takes half as long.
        while ra.stopwatch and ra.stopwatch() < begun + ra.refusal_seconds:
            pass
        raise
    return request


def _read_csr(data: bytes) -> CertificateRequest:
    """Read a certification request; whatever is wrong with it is told in one way."""
    try:
        return parse_csr(data)
    except Rejection as rejection:
        raise _unreadable(f"messageData: {rejection.reason}: {rejection.cause}") from None


def open_query(enveloped: envelope.EnvelopedData, ra: RaIdentity) -> CertificateQuery:
    """Return the query of a GetCert or GetCRL, `NO_QUERY` for whatever is wrong behind the decryption (RFC 8894 §3.3.4).

    A query proves possession of nothing, so no refusal may say whether this one could be read: it is answered as one that names
    a certificate which does not exist. A query that exists cannot be spliced together under a key that its sender does not know,
    since CBC garbles a block before every one that he places and neither issuer nor serial number has room for that.
    Raises Rejection UNSUPPORTED_ALGORITHM or DECRYPTION_FAILED for what the message says in clear alone.
    """
    plaintext = _decipher(enveloped, ra)
    query = _read_query(plaintext.element)
    if query is None:
        _read_query(_DECOY_QUERY)
        return NO_QUERY
    return query if plaintext.sound else NO_QUERY


def _read_query(data: bytes) -> CertificateQuery | None:
    try:
        named = cms.parse_certificate_id(der.normalize(data))
        parse_name(named.issuer_der)
    except MalformedMessage:
        return None
    if named.key_id is not None or not 0 <= named.serial < 1 << MAX_SERIAL_BITS:
        return None
    return CertificateQuery(named.issuer_der, named.serial)


def _decipher(enveloped: envelope.EnvelopedData, ra: RaIdentity) -> envelope.Plaintext:
    """Decrypt under the one pair that the message names, or else under the password: one RSA operation or one derivation."""
    found = ra.find_pair(recipient.rid for recipient in enveloped.recipients)
    if found is not None:
        pair, position = found
        return envelope.decipher(enveloped, enveloped.recipients[position], pair.key)
    if enveloped.passwords and ra.password is not None:
        recipient = enveloped.passwords[0]
        check_cipher(recipient.cipher, ra.algorithms)
        return envelope.decipher_with_password(enveloped, recipient, ra.password)
    raise _unreadable("no recipient is this RA's certificate: the client has an old one, or one of another profile")


def check_cipher(name: str, algorithms: Algorithms) -> None:
    """Raise Rejection UNSUPPORTED_ALGORITHM for single and triple DES that `algorithms` does not accept (RFC 8894 §2.9)."""
    accepted = {"des-cbc": algorithms.single_des, "des-ede3-cbc": algorithms.triple_des}
    if not accepted.get(name, True):
        raise Rejection(Reason.UNSUPPORTED_ALGORITHM, "DES is not accepted here, use AES", f"cipher {name}")


def _unreadable(cause: str) -> Rejection:
    return Rejection(Reason.DECRYPTION_FAILED, envelope.UNREADABLE, cause)
