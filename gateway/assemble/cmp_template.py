"""From a profile's policy to what id-it-certReqTemplate tells its clients (RFC 9810 §5.3.19.16, RFC 9483 §4.3.3)."""

from __future__ import annotations

from gateway.assemble.csrattrs import find_demands
from gateway.config.policy import PolicyConfig
from gateway.model import Extension
from gateway.pki import cmp_infos, der, extensions
from gateway.pki.crmf_writer import encode_cert_template
from gateway.pki.names import encode_name, make_attribute
from gateway.wire.est.csrattrs import Demands, KeyDemand

_DNS_NAME = 2


def encode_request_template(policy: PolicyConfig) -> bytes | None:
    """Return CertReqTemplateContent, DER: what a request must hold to pass `policy`; None where there is nothing to tell.

    Where the client fills a value in, it is empty here.
    """
    demands = find_demands(policy, linking=False)
    if demands == Demands():
        return None
    template = encode_cert_template(subject=_subject(demands), wanted=_extensions(demands))
    return cmp_infos.encode_template(template, *_key(demands.key))


def _subject(demands: Demands) -> bytes | None:
    if not demands.subject:
        return None
    return der.sequence(*[_attribute(oid, value) for oid, value in demands.subject])


def _attribute(oid: str, value: str | None) -> bytes:
    if value is None:
        return der.set_of(der.sequence(der.oid(oid), der.utf8_string("")))
    return der.content(der.SEQUENCE, encode_name([[make_attribute(oid, value)]]))


def _extensions(demands: Demands) -> tuple[Extension, ...]:
    found = []
    if demands.key_usage:
        found.append(Extension(extensions.KEY_USAGE, True, extensions.encode_key_usage(demands.key_usage)))
    if demands.ekus:
        found.append(Extension(extensions.EXTENDED_KEY_USAGE, False, extensions.encode_ekus(demands.ekus)))
    if demands.san:
        empty = der.sequence(der.context(_DNS_NAME, constructed=False))
        found.append(Extension(extensions.SUBJECT_ALT_NAME, False, empty))
    return tuple(found)


def _key(demand: KeyDemand | None) -> tuple[bytes | None, int | None]:
    """Return the kind of key that is taken, an AlgorithmIdentifier, or the size of an RSA key; both None: the client chooses."""
    if demand is None:
        return None, None
    if demand.algorithm == "rsa":
        return None, demand.bits
    return cmp_infos.key_algorithm(demand.algorithm, demand.curve), None
