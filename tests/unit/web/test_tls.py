"""The TLS context is built from memory, or refused in a sentence."""

import ssl
from datetime import UTC, datetime

import pytest

from gateway.cli.init import make_files
from gateway.errors import ConfigurationError
from gateway.pki.keys import generate_private_key, load_private_key, serialize_private_key
from gateway.web.tls import server_context

FILES = {file.path: file.data for file in make_files("rsa-2048", "ec-p256", 1, 2, datetime.now(UTC))}
CERTIFICATE, KEY = FILES["tls/server.pem"], FILES["secrets/tls.key"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_context(version: str) -> None:
    context = server_context(CERTIFICATE, KEY, version)
    assert context.minimum_version is {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    assert context.verify_mode is ssl.CERT_NONE
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION


def encrypted(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    key = load_private_key(pem)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        pytest.param(CERTIFICATE, serialize_private_key(generate_private_key("ec-p256")), "server.https", id="another-key"),
        pytest.param(b"", KEY, "server.https", id="no-certificate"),
        pytest.param(CERTIFICATE, b"", "server.https", id="no-key"),
        pytest.param(CERTIFICATE, b"garbage", "server.https", id="garbage"),
        pytest.param(CERTIFICATE, encrypted(KEY), "encrypted", id="encrypted-key"),
    ],
)
def test_refusals(certificate: bytes, key: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        server_context(certificate, key, "1.2")
    assert "PRIVATE KEY" not in str(raised.value)
