"""Profiles of many kinds side by side in one service, and messages of any number and content to send to them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import PkiStatus
from gateway.pki import cms, der, envelope
from gateway.pki.certificate import parse_certificate
from gateway.pki.public_keys import load_public_key
from gateway.wire.scep import attributes
from tests.flow.scep.service import make_folder

Settings = Mapping[str, Any]


def challenge_file(profile: str) -> str:
    """Where a fleet keeps the static challenge of a profile, below its folder."""
    return f"secrets/{profile}-challenge"


def static(profile: str) -> dict[str, Any]:
    """A static credential for any name."""
    return {"type": "static", "challenge": {"file": challenge_file(profile)}, "any_name": True}


def write_fleet(
    folder: Path,
    profiles: Mapping[str, Settings],
    *,
    ca_key: str = "ec-p256",
    server: Settings | None = None,
    now: datetime | None = None,
) -> None:
    """Write a configuration with these profiles: each is `demo` by SCEP alone, without credentials and renewal.

    Each has its own settings beside that.

    `endpoints` of a profile are what its SCEP endpoint has beside the RA certificate. `now` is when the CA begins.
    """
    make_folder(folder, ca_key=ca_key, now=now)
    path = folder / "profiles.yaml"
    config = yaml.safe_load(path.read_text())
    base = config["profiles"].pop("demo")
    for name, settings in profiles.items():
        profile = deepcopy(base)
        del profile["credentials"], profile["renewal"], profile["endpoints"]["acme"]
        profile |= {key: value for key, value in settings.items() if key != "endpoints"}
        profile["endpoints"]["scep"] |= settings.get("endpoints", {})
        config["profiles"][name] = profile
        write_secret(folder / challenge_file(name), secrets.token_hex(16).encode())
    config["server"] |= server or {}
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, which is what the gateway demands of secrets."""
    path.touch(0o600)
    path.write_bytes(data)


def seal(content: bytes, ra: bytes, cipher: str = "aes-256-cbc") -> bytes:
    """Encrypt messageData to an RA certificate."""
    key = load_public_key(parse_certificate(ra).public_key.der)
    assert isinstance(key, RSAPublicKey)
    return envelope.encrypt(content, cipher, key, cms.issuer_and_serial(ra))


def message(number: int, content: bytes, signer: cms.Signer, transaction: str) -> bytes:
    """Sign a PKIMessage of any type over a sealed content."""
    return cms.sign_data(
        content,
        signer,
        "sha256",
        (
            attributes.code(asn1.OID_MESSAGE_TYPE, number),
            cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string(transaction)),
            attributes.nonce(asn1.OID_SENDER_NONCE, secrets.token_bytes(16)),
        ),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: pkiStatus, failInfo and its text, and whether anything was enveloped; no status where HTTP refused."""

    http: int
    status: PkiStatus | None = None
    fail_info: int | None = None
    text: str = ""
    content: bytes = b""


def read_answer(status: int, body: bytes) -> Answer:
    """Read an answer without its keys: what a stranger on the wire can tell."""
    if status != 200:
        return Answer(status, text=body.decode("utf-8", "replace"))
    signed = cms.parse_signed_data(body)
    received = signed.signers[0].attributes
    number = attributes.read_number(received, asn1.OID_PKI_STATUS)
    assert number is not None
    text = attributes.read_text(received, asn1.OID_FAIL_INFO_TEXT)
    return Answer(
        status,
        PkiStatus(number),
        attributes.read_number(received, asn1.OID_FAIL_INFO),
        text[0] if text else "",
        signed.content or b"",
    )
