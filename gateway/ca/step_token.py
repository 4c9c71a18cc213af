"""One-time tokens for step-ca: JWTs that a JWK or X5C provisioner signs (step-ca's documentation, provisioners; RFC 7519)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gateway.ca.setup import Setup
from gateway.config.remote_cas import StepJwk, StepX5c
from gateway.pki.certificate import Certificate, parse_certificate
from gateway.pki.extensions import eku_oid
from gateway.pki.jwe import decrypt_jwe, is_jwe
from gateway.pki.jws_signer import Signer
from gateway.pki.keys import PrivateKey, serialize_private_key
from gateway.pki.private_jwk import load_private_jwk

LIFETIME = timedelta(minutes=5)
"""The most that step-ca's own client gives a token."""
ALGORITHMS = frozenset({"ES256", "ES384", "ES512", "RS256", "EdDSA"})
"""What go-jose, which step-ca reads tokens with, verifies."""


@dataclass(frozen=True, slots=True)
class Provisioner:
    """Who signs tokens: `header` names the key for step-ca, `fragment` the provisioner where the key does not."""

    name: str
    signer: Signer = field(repr=False)
    header: Mapping[str, object] = field(repr=False)
    fragment: str
    certificate: Certificate | None
    """Of X5C, the one that signs: step-ca certifies nothing beyond its end."""
    secret: bytes = field(repr=False)
    """Names tokens so that nobody else can use up a name."""

    def name_of(self, request_id: str) -> str:
        """Return the name (`jti`) of the one token that a request has, however often it is sent.

        step-ca notes names of tokens before it looks at their signatures, hence no name that others can guess.
        """
        return hmac.new(self.secret, request_id.encode(), hashlib.sha256).hexdigest()

    def make_token(self, url: str, subject: str, now: datetime, *, name: str | None = None, **claims: Any) -> str:
        """Return a token for one request to `url`, one of the CA's own addresses; without `name` it gets a random one."""
        seconds = int(now.timestamp())
        payload = {
            "iss": self.name,
            "sub": subject,
            "aud": url + self.fragment,
            "iat": seconds,
            "nbf": seconds,
            "exp": seconds + int(LIFETIME.total_seconds()),
            "jti": name or secrets.token_hex(32),
            **claims,
        }
        parts = self.signer.flatten({"typ": "JWT", **self.header}, json.dumps(payload, separators=(",", ":")).encode())
        return f"{parts['protected']}.{parts['payload']}.{parts['signature']}"


def load_provisioner(config: StepJwk | StepX5c, setup: Setup) -> Provisioner:
    """Read the provisioner's key; raises ConfigurationFaults."""
    return _load_jwk(config, setup) if isinstance(config, StepJwk) else _load_x5c(config, setup)


def _load_jwk(config: StepJwk, setup: Setup) -> Provisioner:
    try:
        text = setup.sources.secret(config.key).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise setup.fault(f"{config.key} is no JWK: it is not ASCII text", "provisioner", "key") from error
    if is_jwe(text) and config.password is None:
        raise setup.fault(f"is missing: {config.key} is encrypted", "provisioner", "password")
    if not is_jwe(text) and config.password is not None:
        raise setup.fault(f"is given, but {config.key} is not encrypted", "provisioner", "password")
    try:
        plain = decrypt_jwe(text, setup.sources.secret(config.password)) if config.password is not None else text.encode()
        key, kid = load_private_jwk(plain)
    except ValueError as error:
        raise setup.fault(f"{config.key} {error}", "provisioner", "key") from error
    return Provisioner(config.name, _signer(key, setup, "key"), {"kid": kid}, "", None, _secret(key, config.name))


def _load_x5c(config: StepX5c, setup: Setup) -> Provisioner:
    pair = setup.read_pair(config.signer, "provisioner", "signer")
    leaf = parse_certificate(pair.certificates[0])
    if leaf.key_usage is not None and "digitalSignature" not in leaf.key_usage:
        raise setup.fault("may not sign: its key usage lacks digitalSignature", "provisioner", "signer", "certificate")
    if leaf.ekus is not None and not {eku_oid("clientAuth"), eku_oid("anyExtendedKeyUsage")} & set(leaf.ekus):
        raise setup.fault(
            "is refused by step-ca: its extended key usage lacks clientAuth", "provisioner", "signer", "certificate"
        )
    header = {"x5c": [base64.b64encode(der).decode("ascii") for der in pair.certificates]}
    secret = _secret(pair.key, config.name)
    return Provisioner(config.name, _signer(pair.key, setup, "signer"), header, f"#x5c/{config.name}", leaf, secret)


def _signer(key: PrivateKey, setup: Setup, where: str) -> Signer:
    try:
        signer = Signer.of(key)
    except ValueError as error:
        raise setup.fault(f"cannot be used: {error}", "provisioner", where) from error
    if signer.algorithm not in ALGORITHMS:
        raise setup.fault(f"cannot be used: step-ca takes no tokens signed by {signer.algorithm}", "provisioner", where)
    return signer


def _secret(key: PrivateKey, name: str) -> bytes:
    """Return a secret that is the same in every process, and after a restart."""
    return hmac.new(serialize_private_key(key), f"pki-gateway step-ca token {name}".encode(), hashlib.sha256).digest()
