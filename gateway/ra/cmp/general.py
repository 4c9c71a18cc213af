"""genm: what the CA is asked beside certificates (RFC 9810 §5.3.19, RFC 9483 §4.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from gateway.asn1 import cmp as asn1
from gateway.cmp import Answer, General, GeneralInfo
from gateway.config.policy import KeyRule, RuleMode
from gateway.errors import Reason, Rejection
from gateway.model import Protocol, Rejected, Unavailable
from gateway.pki import cmp_infos, der
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.ciphers import find_cipher
from gateway.pki.crl import parse_crl
from gateway.ra.cmp import answers
from gateway.ra.cmp.means import Exchange, Means
from gateway.ra.cmp.senders import same_name
from gateway.ra.requests import Found, LookUpRequest, Sought

MAX_INFOS = 16
MAX_CRL = 1048576
"""Longest CRL, in bytes, that is put into a message: each asking makes it anew."""
LANGUAGE = "en"
PREFERRED_CIPHER = "aes-256-cbc"


class GeneralMessages:
    """Tells what any client that is known may know; nothing of it changes anything."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._known: Mapping[str, Callable[[Exchange, GeneralInfo], Awaitable[GeneralInfo]]] = MappingProxyType(
            {
                asn1.OID_CA_CERTS: _ca_certificates,
                asn1.OID_ROOT_CA_CERT: _root_update,
                asn1.OID_CA_KEY_UPDATE_INFO: _key_update,
                asn1.OID_CERT_REQ_TEMPLATE: _request_template,
                asn1.OID_CRL_STATUS_LIST: self._crls,
                asn1.OID_CURRENT_CRL: self._current_crl,
                asn1.OID_SIGN_KEY_PAIR_TYPES: _signing_keys,
                asn1.OID_ENC_KEY_PAIR_TYPES: _encryption_keys,
                asn1.OID_PREFERRED_SYMM_ALG: _preferred_cipher,
                asn1.OID_SUPP_LANG_TAGS: _language,
                asn1.OID_CA_PROT_ENC_CERT: _nothing,
            }
        )

    async def answer(self, exchange: Exchange, body: General) -> Answer:
        """Answer each question; where there is nothing to tell, its infoValue is absent (RFC 9483 §4.3).

        Whoever asks nothing is told nothing: it is how `openssl cmp -cmd genm` tries its protection. Raises Rejection
        UNSUPPORTED_MESSAGE, MALFORMED, and StoreUnavailable.
        """
        if len(body.infos) > MAX_INFOS or (exchange.lightweight and len(body.infos) != 1):
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "a general message asks one thing at a time")
        if len({info.oid for info in body.infos}) != len(body.infos):
            # Each answer may be a whole CRL.
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "a general message asks nothing twice")
        told, unknown = [], []
        for info in body.infos:
            tell = self._known.get(info.oid)
            if tell is None:
                unknown.append(info.oid)
                continue
            told.append(await tell(exchange, info))
        if unknown:
            if exchange.lightweight:
                raise Rejection(Reason.UNSUPPORTED_MESSAGE, "this is not told here", f"unknown infoType {unknown[0]}")
            told.append(GeneralInfo(asn1.OID_UNSUPPORTED_OIDS, cmp_infos.encode_oids(unknown)))
        return answers.answer(self._means, exchange, General(tuple(told)))

    async def _current_crl(self, exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
        _check_absent(info)
        return GeneralInfo(info.oid, await self._newest_crl(exchange))

    async def _crls(self, exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
        """Tell the CA's CRL where it is asked for and newer than the one that the client has (RFC 9483 §4.3.4)."""
        if info.value is None:
            raise Rejection(Reason.UNSUPPORTED_MESSAGE, "it is not said which CRL is asked for")
        asked = cmp_infos.decode_crl_questions(info.value)
        crl = await self._newest_crl(exchange)
        if crl is None:
            return GeneralInfo(asn1.OID_CRLS)
        issuer, this_update = _issuer_and_time(crl)
        for question in asked:
            ours = not question.issuers or any(same_name(name, issuer) for name in question.issuers)
            if ours and (question.this_update is None or this_update > question.this_update):
                return GeneralInfo(asn1.OID_CRLS, cmp_infos.encode_list((crl,)))
        return GeneralInfo(asn1.OID_CRLS)

    async def _newest_crl(self, exchange: Exchange) -> bytes | None:
        outcome = await self._means.authority.look_up(
            exchange.snapshot,
            LookUpRequest(
                profile=exchange.profile.name,
                protocol=Protocol.CMP,
                operation=exchange.operation,
                sought=Sought.CRL,
                source=exchange.source,
                transaction_id=exchange.transaction_id,
            ),
        )
        match outcome:
            case Found():
                crl = outcome.ders[0]
                if len(crl) > MAX_CRL:
                    text = "the CRL is too long for this protocol: fetch it from its distribution point"
                    raise Rejection(Reason.DENIED, text, f"the CRL has {len(crl)} bytes")
                return crl
            case Rejected():
                return None
            case Unavailable():
                raise Rejection(outcome.reason, "try again later")


@lru_cache(maxsize=8)
def _issuer_and_time(crl: bytes) -> tuple[bytes, datetime]:
    """Return issuer and thisUpdate of a CRL, DER; one of many entries takes tens of milliseconds to read."""
    found = parse_crl(crl, scoped=True)
    return found.issuer_der, found.this_update


async def _ca_certificates(exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
    _check_absent(info)
    found = exchange.terms.ca_certificates or exchange.profile.upstream_ca.chain()
    return GeneralInfo(info.oid, cmp_infos.encode_list(found) if found else None)


async def _root_update(exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
    """Tell the next root, to who has another one (RFC 9483 §4.3.2)."""
    update = _RootUpdate.read(exchange.terms.root_update)
    if update is None:
        return GeneralInfo(asn1.OID_ROOT_CA_KEY_UPDATE)
    if info.value is not None and not update.replaces(parse_certificate(info.value)):
        return GeneralInfo(asn1.OID_ROOT_CA_KEY_UPDATE)
    value = cmp_infos.encode_root_update(update.new.der, update.new_with_old, update.old_with_new)
    return GeneralInfo(asn1.OID_ROOT_CA_KEY_UPDATE, value)


async def _key_update(exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
    _check_absent(info)
    update = _RootUpdate.read(exchange.terms.root_update)
    if update is None or update.new_with_old is None or update.old_with_new is None:
        return GeneralInfo(info.oid)
    return GeneralInfo(info.oid, cmp_infos.encode_key_update(update.old_with_new, update.new_with_old, update.new.der))


class _RootUpdate:
    """A change of roots: the new one, and the two certificates that lead from one to the other (RFC 4210 §4.4)."""

    def __init__(self, new: Certificate, others: tuple[Certificate, ...]) -> None:
        self.new = new
        self.new_with_old = next((c.der for c in others if c.public_key.sha256 == new.public_key.sha256), None)
        self.old_with_new = next((c.der for c in others if c.public_key.sha256 != new.public_key.sha256), None)
        self._others = others

    @classmethod
    def read(cls, ders: tuple[bytes, ...]) -> _RootUpdate | None:
        """Read what the profile is told; None where no root is next."""
        return cls(parse_certificate(ders[0]), tuple(map(parse_certificate, ders[1:]))) if ders else None

    def replaces(self, old: Certificate) -> bool:
        """Whether a root is the one before: not the new one, and as far as it is known the one with which that is certified."""
        if old.public_key.sha256 == self.new.public_key.sha256:
            return False
        keys = [c.public_key.sha256 for c in self._others if c.public_key.sha256 != self.new.public_key.sha256]
        names = [c.issuer_der for c in self._others if c.public_key.sha256 == self.new.public_key.sha256]
        known = old.public_key.sha256 in keys or any(same_name(name, old.subject.der) for name in names)
        return known or not self._others


async def _request_template(exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
    _check_absent(info)
    return GeneralInfo(info.oid, exchange.terms.request_template)


async def _signing_keys(exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
    _check_absent(info)
    return GeneralInfo(info.oid, _algorithms(signing_algorithms(exchange.profile.policy.key)))


async def _encryption_keys(exchange: Exchange, info: GeneralInfo) -> GeneralInfo:
    """Tell RSA alone: nothing else that is certified here can be encrypted to by itself."""
    _check_absent(info)
    takes_rsa = exchange.profile.policy.key.rsa is not None
    return GeneralInfo(info.oid, _algorithms((cmp_infos.rsa_algorithm(),) if takes_rsa else ()))


async def _preferred_cipher(_: Exchange, info: GeneralInfo) -> GeneralInfo:
    _check_absent(info)
    return GeneralInfo(info.oid, der.sequence(der.oid(find_cipher(PREFERRED_CIPHER).oid)))


async def _language(_: Exchange, info: GeneralInfo) -> GeneralInfo:
    """Tell the one language of ours, whichever were named (RFC 9810 §5.3.19.13)."""
    if info.value is not None:
        cmp_infos.decode_languages(info.value)
    return GeneralInfo(info.oid, cmp_infos.encode_languages((LANGUAGE,)))


async def _nothing(_: Exchange, info: GeneralInfo) -> GeneralInfo:
    """Tell nothing: no certificate here is for encrypting to the CA (RFC 9810 §5.3.19.1)."""
    _check_absent(info)
    return GeneralInfo(info.oid)


def signing_algorithms(rule: KeyRule) -> tuple[bytes, ...]:
    """Return the kinds of keys that policy takes, RSA first, as AlgorithmIdentifiers."""
    if rule.mode == RuleMode.OFF:
        rule = KeyRule(mode=RuleMode.OFF, eddsa=("ed25519", "ed448"))
    found = [cmp_infos.rsa_algorithm()] if rule.rsa is not None else []
    found += [cmp_infos.key_algorithm("ec", curve) for curve in rule.ec]
    return (*found, *[cmp_infos.key_algorithm(name) for name in (*rule.eddsa, *rule.ml_dsa)])


def _algorithms(found: tuple[bytes, ...]) -> bytes | None:
    return cmp_infos.encode_list(found) if found else None


def _check_absent(info: GeneralInfo) -> None:
    if info.value is not None:
        raise Rejection(Reason.UNSUPPORTED_MESSAGE, "the infoValue of this question is absent", f"{info.oid} has a value")
