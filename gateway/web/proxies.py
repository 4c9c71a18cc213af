"""What a proxy that ends TLS says of its client, its certificate and its address; listed peers alone are believed (RFC 9440)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote_to_bytes

from multidict import MultiMapping

from gateway.errors import MalformedMessage
from gateway.pki.certificate import pem_to_ders

CertificateForm = Literal["rfc9440", "nginx", "envoy", "haproxy"]
MAX_CHAIN = 10
"""Certificates beside the leaf."""
MAX_HOPS = 8
"""Proxies behind one another."""
MAX_HEADER = 65536
"""Characters of all headers that hold certificates."""

_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):", re.ASCII)
"""A Byte Sequence of Structured Fields (RFC 9651 §3.3.5), without parameters: RFC 9440 §2.1 has none."""
_ENVOY_PAIR = re.compile(r'(?P<key>[A-Za-z]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^",;]*))(?P<end>[;,]|$)', re.ASCII)
_NONE = frozenset({"", "-"})


@dataclass(frozen=True, slots=True)
class TrustedProxy:
    """One kind of proxy: where it connects from and what it tells."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    client_certificate: CertificateForm | None = None
    client_address: bool = False
    """It sets X-Forwarded-For, whose last address is then the client's."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate, DER, whose key a TLS client proved to hold, and what it sent beside it; nothing of it is checked."""

    certificate: bytes | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)


NOTHING = Shown()


class Proxies:
    """The proxies of one configuration generation."""

    def __init__(self, proxies: Iterable[TrustedProxy] = ()) -> None:
        self._proxies = tuple(proxies)

    def find(self, address: str) -> TrustedProxy | None:
        """Return the proxy that connects from `address`; None: whoever that is speaks for itself alone."""
        return self._match(_read_address(address)) if self._proxies else None

    def client_address(self, peer: str, headers: MultiMapping[str]) -> str:
        """Return the address of the client that a connection from `peer` serves: its own, unless it is a proxy that says so.

        An entry of X-Forwarded-For was written by whoever stands right of it; the last one that is no proxy is the client.
        """
        proxy = self.find(peer)
        if proxy is None or not proxy.client_address:
            return peer
        found = peer
        for entry in reversed(_last_hops(headers.getall("X-Forwarded-For", ()))):
            address = _read_address(entry)
            if address is None:
                break
            found, proxy = str(address), self._match(address)
            if proxy is None or not proxy.client_address:
                break
        return found

    def _match(self, address: IPv4Address | IPv6Address | None) -> TrustedProxy | None:
        if address is None:
            return None
        return next((proxy for proxy in self._proxies if any(address in network for network in proxy.networks)), None)


def read_certificate(proxy: TrustedProxy, headers: MultiMapping[str]) -> Shown:
    """Return what a proxy says that its client showed; raises MalformedMessage where it does not say it as configured."""
    if proxy.client_certificate is None:
        return NOTHING
    try:
        return _READERS[proxy.client_certificate](headers)
    except (ValueError, UnicodeError) as error:
        sentence = "the proxy's word on the client's certificate cannot be read"
        raise MalformedMessage(sentence, f"{proxy.client_certificate}: {error}") from error


def is_encrypted(headers: MultiMapping[str]) -> bool:
    """Whether a proxy says that its client came over TLS (X-Forwarded-Proto); one that says nothing may serve HTTP as well."""
    said = ",".join(headers.getall("X-Forwarded-Proto", ()))
    return said.rpartition(",")[2].strip().lower() == "https"


def _read_rfc9440(headers: MultiMapping[str]) -> Shown:
    """Client-Cert and Client-Cert-Chain, which holds what is between leaf and anchor (RFC 9440 §2.2, §2.3)."""
    leaf = _single(headers, "Client-Cert")
    if leaf is None:
        return NOTHING
    chain = _bounded(",".join(headers.getall("Client-Cert-Chain", ())))
    members = [member for text in chain.split(",") if (member := text.strip())]
    return _shown(_decode_bytes(leaf), *map(_decode_bytes, members))


def _read_nginx(headers: MultiMapping[str]) -> Shown:
    """The PEM of the leaf, percent-encoded."""
    text = _single(headers, "X-SSL-Client-Cert")
    return NOTHING if text is None else _shown(_only(_decode_pem(text)))


def _read_haproxy(headers: MultiMapping[str]) -> Shown:
    """The base64 of the leaf's DER."""
    text = _single(headers, "X-SSL-Client-Cert")
    return NOTHING if text is None else _shown(_decode_base64(text))


def _read_envoy(headers: MultiMapping[str]) -> Shown:
    """One element with Hash and Cert or Chain, which begins with the leaf: percent-encoded PEM in quotes.

    More than one element means that Envoy passes on what its own client wrote (APPEND_FORWARD), and is refused. URI and DNS are
    names in the client's certificate that Envoy writes as they are: they may look like any other pair. So no other key may come
    twice, and the certificate must be the one of which Envoy, which always writes Hash, says the SHA-256.
    """
    text = _single(headers, "X-Forwarded-Client-Cert")
    if text is None:
        return NOTHING
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        pair = _ENVOY_PAIR.match(text, at)
        if pair is None or pair["end"] == ",":
            raise ValueError("not one element of KEY=VALUE pairs")
        key = pair["key"].lower()
        if key in pairs and key not in {"uri", "dns"}:
            raise ValueError("a repeated key")
        pairs[key] = pair["quoted"] if pair["quoted"] is not None else pair["bare"]
        at = pair.end()
    chain = list(_decode_pem(pairs["chain"])) if pairs.get("chain") else []
    leaf = _only(_decode_pem(pairs["cert"])) if pairs.get("cert") else next(iter(chain), None)
    if leaf is None:
        return NOTHING
    if chain and chain[0] != leaf:
        raise ValueError("Chain does not begin with Cert")
    if pairs.get("hash", "").lower() != hashlib.sha256(leaf).hexdigest():
        raise ValueError("Hash is not the certificate's")
    return _shown(leaf, *chain[1:])


_READERS: Mapping[CertificateForm, Callable[[MultiMapping[str]], Shown]] = MappingProxyType(
    {"rfc9440": _read_rfc9440, "nginx": _read_nginx, "haproxy": _read_haproxy, "envoy": _read_envoy}
)


def _single(headers: MultiMapping[str], name: str) -> str | None:
    """Return the value of a header that may come once; None where it is absent or says that there is nothing."""
    values = headers.getall(name, ())
    if len(values) > 1:
        raise ValueError(f"{name} comes {len(values)} times")
    text = _bounded(values[0]).strip() if values else ""
    return None if text in _NONE else text


def _bounded(text: str) -> str:
    if len(text) > MAX_HEADER:
        raise ValueError("too long")
    return text


def _shown(leaf: bytes, *chain: bytes) -> Shown:
    if len(chain) > MAX_CHAIN:
        raise ValueError(f"more than {MAX_CHAIN} certificates beside the leaf")
    if not all(der[:1] == b"\x30" for der in (leaf, *chain)):
        raise ValueError("no certificate")
    return Shown(leaf, chain)


def _only(ders: tuple[bytes, ...]) -> bytes:
    if len(ders) != 1:
        raise ValueError("more than one certificate where the leaf belongs")
    return ders[0]


def _decode_bytes(text: str) -> bytes:
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ValueError("no Byte Sequence")
    return _decode_base64(found[1])


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except binascii.Error:
        raise ValueError("broken base64") from None


def _decode_pem(text: str) -> tuple[bytes, ...]:
    return pem_to_ders(unquote_to_bytes(text))


def _last_hops(values: Iterable[str]) -> list[str]:
    return ",".join(values)[-4096:].rsplit(",", MAX_HOPS)[-MAX_HOPS:]


def _read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, with a port or without, as proxies write it; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
