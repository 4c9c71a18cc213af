"""Certificate revocation lists: build, and a small view for tests and clients (RFC 5280 §5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from gateway.errors import MalformedMessage, Reason
from gateway.model import Extension, RevocationReason
from gateway.pki import der, extensions
from gateway.pki.certificate import Issuer, split_signed

ISSUING_DISTRIBUTION_POINT = "2.5.29.28"
MAX_CRL_BYTES = 64 * 1024 * 1024

_VERSION_2 = der.integer(1)


def build_crl(
    issuer: Issuer,
    number: int,
    this_update: datetime,
    next_update: datetime,
    entries: Iterable[tuple[int, datetime, RevocationReason]],
) -> bytes:
    """Build and sign a full CRL, DER; `entries` are (serial, revocation time, reason) and keep their order.

    ValueError for a number that is negative or above 20 bytes, and for a next update that is not later.
    """
    if not 0 <= number < 1 << 159:
        raise ValueError("a CRL number is not negative and fits 20 bytes (RFC 5280 §5.2.3)")
    if next_update <= this_update:
        raise ValueError("a CRL's next update lies after its update")
    revoked = b"".join(_entry(*entry) for entry in entries)
    return issuer.sign(
        der.sequence(
            _VERSION_2,
            issuer.algorithm,
            issuer.name_der,
            der.time(this_update),
            der.time(next_update),
            der.sequence(revoked) if revoked else b"",  # absent when empty (RFC 5280 §5.1.2.6)
            der.context(
                0,
                der.sequence(
                    issuer.authority_key_id,
                    extensions.encode_extension(extensions.CRL_NUMBER, False, der.integer(number)),
                ),
            ),
        )
    )


def _entry(serial: int, when: datetime, reason: RevocationReason) -> bytes:
    return der.sequence(der.integer(serial), der.time(when), _reason_extension(reason))


@lru_cache(maxsize=16)
def _reason_extension(reason: RevocationReason) -> bytes:
    """Return crlEntryExtensions; absent for unspecified (RFC 5280 §5.3.1)."""
    if reason is RevocationReason.UNSPECIFIED:
        return b""
    value = der.tlv(0x0A, bytes((reason.value,)))
    return der.sequence(extensions.encode_extension(extensions.CRL_REASON, False, value))


@dataclass(frozen=True, slots=True)
class CertificateList:
    """A decoded CRL; nothing in it has been verified. `number` and `next_update` are None when absent."""

    der: bytes = field(repr=False)
    issuer_der: bytes = field(repr=False)
    number: int | None
    this_update: datetime
    next_update: datetime | None
    entries: tuple[tuple[int, datetime, RevocationReason], ...]
    authority_key_id: bytes | None
    tbs: bytes = field(repr=False)
    algorithm: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def serials(self) -> frozenset[int]:
        """The serial numbers that are revoked."""
        return frozenset(serial for serial, _, _ in self.entries)


def parse_crl(data: bytes, *, scoped: bool = False) -> CertificateList:
    """Decode a DER CRL of at most 64 MB; MalformedMessage when it is none or has critical extensions (RFC 5280 §5.2).

    A `scoped` one may have issuingDistributionPoint: that is for passing it on, never for believing that what it does not list is
    good.
    """
    if len(data) > MAX_CRL_BYTES:
        raise MalformedMessage("CRL is too large", reason=Reason.TOO_LARGE)
    tbs, algorithm, signature = split_signed(data)
    body = der.content(der.SEQUENCE, tbs)
    fields = der.elements(body)
    first = 1 if fields and fields[0][0] == der.INTEGER else 0
    if len(fields) < first + 3 or body[fields[first][1] : fields[first][3]] != algorithm:
        raise MalformedMessage("CRL is broken")
    rest = fields[first + 3 :]
    next_update, rest = _next_update(body, rest)
    entries, found = _revoked_and_extensions(body, rest)
    if any(e.critical and not (scoped and e.oid == ISSUING_DISTRIBUTION_POINT) for e in found):
        raise MalformedMessage("CRL has a critical extension, so it does not list every certificate of its issuer")
    by_oid = {e.oid: e.value for e in found}
    number, issuer_id = by_oid.get(extensions.CRL_NUMBER), by_oid.get(extensions.AUTHORITY_KEY_IDENTIFIER)
    return CertificateList(
        der=data,
        issuer_der=body[fields[first + 1][1] : fields[first + 1][3]],
        number=der.decode_integer(der.content(der.INTEGER, number)) if number is not None else None,
        this_update=_time(body, fields[first + 2]),
        next_update=next_update,
        entries=entries,
        authority_key_id=extensions.parse_authority_key_id(issuer_id) if issuer_id is not None else None,
        tbs=tbs,
        algorithm=algorithm,
        signature=signature,
    )


_Element = tuple[int, int, int, int]


def _time(body: bytes, element: _Element) -> datetime:
    return der.decode_time(element[0], body[element[2] : element[3]])


def _next_update(body: bytes, rest: list[_Element]) -> tuple[datetime | None, list[_Element]]:
    if rest and rest[0][0] in {der.UTC_TIME, der.GENERALIZED_TIME}:
        return _time(body, rest[0]), rest[1:]
    return None, rest


def _revoked_and_extensions(
    body: bytes, rest: list[_Element]
) -> tuple[tuple[tuple[int, datetime, RevocationReason], ...], tuple[Extension, ...]]:
    """Read revokedCertificates and crlExtensions, each optional."""
    entries: tuple[tuple[int, datetime, RevocationReason], ...] = ()
    found: tuple[Extension, ...] = ()
    tags = [tag for tag, _, _, _ in rest]
    if tags not in ([], [der.SEQUENCE], [0xA0], [der.SEQUENCE, 0xA0]):
        raise MalformedMessage("CRL is broken")
    for tag, _, start, end in rest:
        if tag == der.SEQUENCE:
            entries = tuple(_parse_entry(body, *element) for element in der.elements(body, start, end, MAX_CRL_BYTES))
        else:
            found = extensions.parse_extensions(body[start:end])
    return entries, found


def _parse_entry(body: bytes, tag: int, _: int, start: int, end: int) -> tuple[int, datetime, RevocationReason]:
    fields = der.elements(body, start, end)
    if tag != der.SEQUENCE or len(fields) not in {2, 3} or fields[0][0] != der.INTEGER:
        raise MalformedMessage("CRL entry is broken")
    reason = RevocationReason.UNSPECIFIED
    if len(fields) == 3:
        reason = _parse_reason(body[fields[2][1] : fields[2][3]])
    return der.decode_integer(body[fields[0][2] : fields[0][3]]), _time(body, fields[1]), reason


@lru_cache(maxsize=64)
def _parse_reason(entry_extensions: bytes) -> RevocationReason:
    for extension in extensions.parse_extensions(entry_extensions):
        if extension.critical:
            raise MalformedMessage("CRL entry has a critical extension")
        if extension.oid == extensions.CRL_REASON:
            code = der.decode_integer(der.content(0x0A, extension.value))
            try:
                return RevocationReason(code)
            except ValueError:
                raise MalformedMessage("CRL entry has an unknown reason", str(code)[:20]) from None
    return RevocationReason.UNSPECIFIED
