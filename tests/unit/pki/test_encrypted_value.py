"""What CMP version 2 encrypts is what RFC 4211 §2.1 says, and its key's holder alone opens it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pyasn1.codec.der.decoder import decode
from pyasn1_alt_modules import rfc4211

from gateway.errors import Reason, Rejection
from gateway.pki.ciphers import find_cipher
from gateway.pki.encrypted_value import encrypt_value
from gateway.pki.keys import generate_private_key, public_key_der

CONTENT = bytes(range(200))


def test_the_holder_of_the_key_opens_it() -> None:
    key = generate_private_key("rsa-2048")
    assert isinstance(key, RSAPrivateKey)
    value, rest = decode(encrypt_value(CONTENT, public_key_der(key)), rfc4211.EncryptedValue())
    assert rest == b""
    assert str(value["keyAlg"]["algorithm"]) == "1.2.840.113549.1.1.1"
    assert str(value["symmAlg"]["algorithm"]) == find_cipher("aes-256-cbc").oid
    assert not value["intendedAlg"].isValue
    iv, _ = decode(bytes(value["symmAlg"]["parameters"]))
    content_key = key.decrypt(value["encSymmKey"].asOctets(), padding.PKCS1v15())
    padded = find_cipher("aes-256-cbc").decryptor(content_key, bytes(iv)).update(value["encValue"].asOctets())
    assert padded == find_cipher("aes-256-cbc").pad(CONTENT)


@pytest.mark.parametrize("spec", ["ec-p256", "ed25519", "ml-dsa-44"])
def test_other_keys_are_refused(spec: str) -> None:
    with pytest.raises(Rejection) as refused:
        encrypt_value(CONTENT, public_key_der(generate_private_key(spec)))
    assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM
