"""SCEP over HTTP: query parsing, GetCACaps and what gives out CA certificates (RFC 8894 §3.5, §4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from gateway.errors import MalformedMessage, Reason
from gateway.pki import cms
from gateway.wire.scep.identity import RaIdentity

PKI_OPERATION = "PKIOperation"
GET_CA_CAPS = "GetCACaps"
GET_CA_CERT = "GetCACert"
GET_CA_CERT_CHAIN = "GetCACertChain"
GET_NEXT_CA_CERT = "GetNextCACert"

MEDIA_CAPS = "text/plain"
MEDIA_CA_CERT = "application/x-x509-ca-cert"
MEDIA_CA_RA_CERT = "application/x-x509-ca-ra-cert"
MEDIA_CA_CHAIN = "application/x-x509-ca-ra-cert-chain"
MEDIA_NEXT_CA_CERT = "application/x-x509-next-ca-cert"
MEDIA_PKI_MESSAGE = "application/x-pki-message"
"""Apple and certmonger compare media types exactly: no charset may follow."""

MAX_QUERY = 98304
MAX_PARAMETERS = 16

_BASE64 = bytes.maketrans(b" -_", b"++/")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a query asks for; `message` is the PKIMessage of a GET, empty on POST."""

    name: str
    message: bytes = field(default=b"", repr=False)


def parse_query(raw_query: bytes | str) -> Operation:
    """Read `operation` and `message` from a query as it stood in the request line (RFC 8894 §4.1).

    The name is empty where `operation` is absent, as some POSTing clients leave it. Raises MalformedMessage for a query
    that is too long, names a parameter twice, or whose message is not base64.
    """
    raw = raw_query.encode("utf-8", "surrogateescape") if isinstance(raw_query, str) else raw_query
    if len(raw) > MAX_QUERY:
        raise MalformedMessage("the query is too long", f"{len(raw)} bytes", Reason.TOO_LARGE)
    parameters: dict[bytes, bytes] = {}
    pieces = raw.split(b"&", MAX_PARAMETERS)
    if len(pieces) > MAX_PARAMETERS:
        raise MalformedMessage("the query has too many parameters")
    for piece in pieces:
        name, _, value = piece.partition(b"=")
        if name in parameters:
            raise MalformedMessage("the query names a parameter twice")
        parameters[name] = value
    operation = _text(parameters.get(b"operation", b""))
    if operation != PKI_OPERATION:
        return Operation(operation)
    return Operation(operation, decode_base64(unquote_to_bytes(parameters.get(b"message", b""))))


def _text(value: bytes) -> str:
    """Return percent-decoded text without what could break a log line."""
    return "".join(c for c in unquote_to_bytes(value[:256]).decode("utf-8", "replace") if c.isprintable())


def decode_base64(text: bytes) -> bytes:
    """Decode base64 as clients really send it; MalformedMessage when it is none.

    iOS leaves '+' unescaped so that it may arrive as a space, Cisco breaks lines at 64 columns, old scepclients use the
    URL-safe alphabet without padding.
    """
    digits = text.translate(_BASE64, b"\r\n\t=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error:
        raise MalformedMessage("the message is not base64") from None


def decode_body(body: bytes) -> bytes:
    """Return the PKIMessage of a POST body: DER as the standard says, or base64 as some clients send (RFC 8894 §4.1)."""
    return body if body[:1] == b"\x30" else decode_base64(body)


def ca_capabilities(ra: RaIdentity, *, renewal: bool, next_ca: bool = False) -> bytes:
    """Return the GetCACaps text: what `ra` accepts, and whether its profile renews and has a next CA (RFC 8894 §3.5.2).

    SHA-384 is no standard token: strongSwan 5.9.8 misreads the list and needs it to believe in SHA-256. MD5 and single DES have
    no token and get none: whoever needs them does not ask.
    """
    tokens = ["AES", "POSTPKIOperation", "SCEPStandard", "SHA-256", "SHA-384", "SHA-512"]
    told = {"Renewal": renewal, "GetNextCACert": next_ca, "SHA-1": ra.algorithms.sha1, "DES3": ra.algorithms.triple_des}
    tokens += [token for token, applies in told.items() if applies]
    return "".join(f"{token}\n" for token in tokens).encode("ascii")


def ca_certificates(ra: RaIdentity) -> tuple[bytes, str]:
    """Return body and media type of GetCACert: RA certificates first, then the CA chain (RFC 8894 §4.2.1.2).

    Apple picks the RA by position and key usage, Android needs the root in the bundle. A previous RA is never shown.
    """
    return cms.certs_only((*ra.certificates, *ra.chain)), MEDIA_CA_RA_CERT


def ca_certificate_chain(ra: RaIdentity) -> tuple[bytes, str]:
    """Return body and media type of GetCACertChain, which drafts before RFC 8894 had: the CA chain, issuing CA first."""
    return cms.certs_only(ra.chain), MEDIA_CA_CHAIN


def next_ca_certificates(ra: RaIdentity, certificates: tuple[bytes, ...]) -> tuple[bytes, str]:
    """Return body and media type of GetNextCACert: the next CA's `certificates`, DER, signed by the RA (RFC 8894 §4.7.1).

    No message attribute is signed: the answer is the same for everybody and is made once. RSA work: one private-key operation.
    """
    # jscep checks the signature, but then takes the certificates that stand beside the signer's
    return cms.sign_data(cms.certs_only(certificates), ra.signer, "sha256", (), beside=certificates), MEDIA_NEXT_CA_CERT
