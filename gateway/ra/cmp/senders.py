"""Who sent a message: what its protection proves, over the bytes as received (RFC 9810 §5.1.3, RFC 9483 §3.2)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from gateway.cmp import Header, MacSender, Message, Protection, Sender, SharedSecret, SignatureSender
from gateway.config.cmp import CmpEndpoint
from gateway.errors import Reason, Rejection
from gateway.model import CredentialKind, ProfileName
from gateway.pki.algorithms import signature_digest, unsupported, verify_signature
from gateway.pki.certificate import Certificate, recall_certificate, to_signer
from gateway.pki.names import normalize_name, parse_name
from gateway.pki.password_mac import MacParameters, MacWindows, compute_mac, is_mac, parse_mac
from gateway.ra.cmp.means import Means
from gateway.ra.policy.subject import same_subject
from gateway.ra.profile import CmpTerms, Profile
from gateway.ra.strangers import source_network

INLINE_ITERATIONS = 2000
"""A derivation of up to so many iterations takes less time than having it done elsewhere."""
MAX_REFERENCE_BYTES = 128
_COMMON_NAME = "2.5.4.3"
_WEAK_DIGESTS = frozenset({"md5", "sha1"})
_NO_SECRET = bytes(32)
"""What is computed with in place of a secret that there is not, so that an unknown name takes as long as a known one."""


async def find_sender(means: Means, profile: Profile, terms: CmpTerms, message: Message, source: str, now: datetime) -> Sender:
    """Return who protected a message, by a shared secret of this profile or by the key of a certificate that came with it.

    Raises Rejection BAD_MESSAGE_CHECK, UNSUPPORTED_ALGORITHM, WRONG_INTEGRITY, CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED or
    OVERLOADED, and StoreUnavailable.
    """
    protection = message.protection
    if protection is None:
        raise _refused("the message is not protected")
    if is_mac(protection.algorithm):
        return await _MacCheck(means, profile, terms, source, now).find(message.header, protection)
    return _find_signer(message, protection, lightweight=terms.config.strictness == "lightweight")


def mac_windows(config: CmpEndpoint) -> MacWindows:
    """Return what a MAC's parameters may be before anything is derived from them."""
    sha1 = config.strictness == "rfc4210" if config.mac.hmac_sha1 is None else config.mac.hmac_sha1
    return MacWindows(config.mac.iterations, config.mac.pbmac1_iterations, sha1)


@dataclass(frozen=True, slots=True)
class _MacCheck:
    """Protection under a shared secret; whether its name is unknown or the secret wrong is not told, and takes the same time."""

    means: Means
    profile: Profile
    terms: CmpTerms
    source: str
    now: datetime

    async def find(self, header: Header, protection: Protection) -> MacSender:
        parameters = parse_mac(protection.algorithm, mac_windows(self.terms.config))
        reference = header.sender_kid
        found = await self._secret(self.profile.name, reference)
        secret = _NO_SECRET if found is None else found.secret
        expected = await self._compute(parameters, secret, protection.covered)
        if not hmac.compare_digest(expected, protection.value) or found is None:
            raise _refused(f"the MAC of reference {_shown(reference)} is wrong" if found else "there is no such shared secret")
        self._check_secret(found)
        if self.terms.config.strictness == "lightweight" and not _names_reference(header):
            raise _refused("the sender does not have the reference number as its common name")
        return MacSender(found, protection.algorithm)

    async def _secret(self, profile: ProfileName, reference: bytes | None) -> SharedSecret | None:
        takes = any(provider.kind is CredentialKind.CMP_SECRET for provider in self.profile.credentials)
        usable = reference is not None and 0 < len(reference) <= MAX_REFERENCE_BYTES
        found = await self.means.records.find_secret(profile, reference if usable and reference else b"\0")
        return found if found is not None and takes and usable and found.profile == profile else None

    async def _compute(self, parameters: MacParameters, secret: bytes, covered: bytes) -> bytes:
        if parameters.iterations <= INLINE_ITERATIONS:
            return compute_mac(parameters, secret, covered)
        return await self.means.derivations.begin(source_network(self.source), compute_mac, parameters, secret, covered)

    def _check_secret(self, secret: SharedSecret) -> None:
        """Refuse a secret that has ended, now that it is proved."""
        if secret.revoked_at is not None:
            raise Rejection(Reason.CREDENTIAL_REVOKED, "the shared secret has been revoked", f"secret {secret.id} is revoked")
        if self.now >= secret.expires_at:
            raise Rejection(Reason.CREDENTIAL_EXPIRED, "the shared secret has expired", f"secret {secret.id} has expired")


async def verify_key_mac(
    means: Means, terms: CmpTerms, sender: Sender, algorithm: bytes, covered: bytes, value: bytes, source: str
) -> bool:
    """Say whether a publicKeyMAC was made with the sender's shared secret (RFC 4211 §4.4)."""
    if not isinstance(sender, MacSender):
        return False
    try:
        parameters = parse_mac(algorithm, mac_windows(terms.config))
    except Rejection:
        return False
    if parameters.iterations <= INLINE_ITERATIONS:
        made = compute_mac(parameters, sender.secret.secret, covered)
    else:
        made = await means.derivations.begin(source_network(source), compute_mac, parameters, sender.secret.secret, covered)
    return hmac.compare_digest(made, value)


def _names_reference(header: Header) -> bool:
    """Whether the sender is a directoryName whose common name is the reference number (RFC 9483 §3.1)."""
    names = header.sender_name.values(_COMMON_NAME) if header.sender_name is not None else ()
    return bool(names) and names[-1].encode() == header.sender_kid


def _shown(reference: bytes | None) -> str:
    return ascii(reference[:64].decode("ascii", "replace")) if reference else "none"


def _find_signer(message: Message, protection: Protection, *, lightweight: bool) -> SignatureSender:
    digest = signature_digest(protection.algorithm)
    if digest in _WEAK_DIGESTS:
        raise unsupported(f"protection by a signature over {digest}")
    if digest is None:
        raise unsupported("protection by a signature without a digest")
    certificate, chain = _protecting_certificate(message.header, message.extra_certs, lightweight=lightweight)
    try:
        verify_signature(certificate.public_key.der, protection.algorithm, protection.value, protection.covered)
    except Rejection as error:
        if error.reason is Reason.UNSUPPORTED_ALGORITHM:
            raise
        raise _refused(f"the signature does not verify: {error.cause}") from None
    return SignatureSender(to_signer(certificate), chain)


def _protecting_certificate(
    header: Header, sent: tuple[bytes, ...], *, lightweight: bool
) -> tuple[Certificate, tuple[bytes, ...]]:
    """Return the certificate that header and extraCerts say protected the message, and those beside it.

    It is the first (RFC 9483 §3.3); older clients may put it anywhere, where senderKID finds it (RFC 4210 §5.1.1).
    """
    for der in sent[:1] if lightweight or header.sender_kid is None else sent:
        try:
            certificate = recall_certificate(der)
        except Rejection as error:
            raise _refused(f"a certificate that came with the message cannot be read: {error.cause}") from None
        if _is_named(certificate, header, lightweight=lightweight):
            return certificate, tuple(other for other in sent if other is not der)
    raise _refused("no certificate came with the message that its sender and senderKID name")


def _is_named(certificate: Certificate, header: Header, *, lightweight: bool) -> bool:
    """Whether senderKID is its subject key identifier and sender its subject, as far as they are there."""
    if header.sender_kid is None:
        if lightweight and certificate.subject_key_id is not None:
            return False
    elif header.sender_kid != certificate.subject_key_id and (lightweight or certificate.subject_key_id is not None):
        return False
    name = header.sender_name
    if name is None or not name.rdns:
        # The NULL-DN of a client that has no name yet (RFC 9810 §5.1.1), or whose certificate has no subject (RFC 9483 §3.1).
        return not lightweight or not certificate.subject.rdns
    return same_subject(name, certificate.subject)


def same_name(one: bytes, other: bytes) -> bool:
    """Say whether two Names, DER, are the same."""
    if one == other:
        return True
    try:
        return normalize_name(parse_name(one)) == normalize_name(parse_name(other))
    except Rejection:
        return False


def _refused(cause: str) -> Rejection:
    return Rejection(Reason.BAD_MESSAGE_CHECK, "the protection of the message is not good", cause)
