from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import MalformedMessage, Reason, Rejection
from gateway.pki import der, envelope, password
from gateway.pki.ciphers import find_cipher
from gateway.pki.password import PasswordRecipient, Pbkdf2, parse_password_recipient, unwrap, unwrap_key, wrap, wrap_key

SECRET = b"correct horse"
CONTENT = der.sequence(der.octet_string(b"x" * 100))
HMAC_SHA256 = der.sequence(der.oid("1.2.840.113549.2.9"), der.null())


def recipient(content_key: bytes = bytes(range(16)), cipher: str = "aes-128-cbc") -> PasswordRecipient:
    return parse_password_recipient(wrap(content_key, SECRET, cipher))


@pytest.mark.parametrize("size", [8, 16, 24, 32])
@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des-ede3-cbc", "des-cbc"])
def test_what_is_wrapped_unwraps(cipher: str, size: int) -> None:
    content_key = bytes(range(size))
    wrapped = recipient(content_key, cipher)
    assert unwrap(wrapped, SECRET, size) == content_key
    assert wrapped.cipher == ("des-ede3-cbc" if cipher == "des-cbc" else cipher)


def test_every_wrapping_has_its_own_salt_and_iv() -> None:
    one, other = recipient(), recipient()
    assert one.derivation is not None
    assert other.derivation is not None
    assert one.derivation.salt != other.derivation.salt
    assert one.iv != other.iv
    assert (len(one.derivation.salt), one.derivation.iterations, one.derivation.prf) == (16, 10_000, "sha256")


class TestVectors:
    """RFC 3211 §3.2, whose 500 iterations are fewer than `unwrap` takes."""

    KEY = hashlib.pbkdf2_hmac(
        "sha1",
        b"All n-entities must communicate with other n-entities via n-1 entiteeheehees",
        bytes.fromhex("1234567878563412"),
        500,
        24,
    )
    IV = bytes.fromhex("baf1ca7931213c4e")
    CONTENT_KEY = bytes.fromhex("8c637d887223a2f965b566eb014b0fa5d52300a3f7ea40fffc577203c71baf3b")
    WRAPPED = bytes.fromhex("c03c514abdb9e2c5aac038572b5e24553876b377aafb82eca5a9d73f8ab143d9ec74e6cad7db260c")

    def test_derivation(self) -> None:
        assert bytes.fromhex("6a8970bf68c92caea84a8df28510858607126380cc47ab2d") == self.KEY

    def test_unwrapping(self) -> None:
        assert unwrap_key(find_cipher("des-ede3-cbc"), self.KEY, self.IV, self.WRAPPED, 32) == self.CONTENT_KEY

    def test_wrapping_draws_the_padding_and_gives_the_same_key(self) -> None:
        cipher = find_cipher("des-ede3-cbc")
        wrapped = wrap_key(cipher, self.KEY, self.IV, self.CONTENT_KEY)
        assert (len(wrapped), wrapped == self.WRAPPED) == (len(self.WRAPPED), False)
        assert unwrap_key(cipher, self.KEY, self.IV, wrapped, 32) == self.CONTENT_KEY


def openssl(*arguments: str, data: bytes) -> bytes:
    done = subprocess.run(["openssl", "cms", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


OPENSSL_CIPHERS = [
    pytest.param("aes-128-cbc", "-aes128", id="aes-128"),
    pytest.param("aes-192-cbc", "-aes192", id="aes-192"),
    pytest.param("aes-256-cbc", "-aes256", id="aes-256"),
    pytest.param("des-ede3-cbc", "-des3", id="3des"),
]


@pytest.mark.parametrize("flags", [pytest.param((), id="DER"), pytest.param(("-stream",), id="BER, streamed")])
@pytest.mark.parametrize(("cipher", "option"), OPENSSL_CIPHERS)
def test_what_openssl_encrypts_decrypts(cipher: str, option: str, flags: tuple[str, ...]) -> None:
    message = openssl("-encrypt", "-binary", "-outform", "DER", "-pwri_password", SECRET.decode(), option, *flags, data=CONTENT)
    enveloped = envelope.parse_enveloped_data(message)
    assert (enveloped.cipher, enveloped.recipients, enveloped.passwords[0].cipher) == (cipher, (), cipher)
    assert envelope.decrypt_with_password(enveloped, enveloped.passwords[0], SECRET) == CONTENT
    assert not envelope.decipher_with_password(enveloped, enveloped.passwords[0], b"incorrect").sound


@pytest.mark.parametrize(("cipher", "option"), OPENSSL_CIPHERS)
def test_openssl_decrypts_what_is_encrypted(cipher: str, option: str) -> None:
    message = envelope.encrypt_with_password(CONTENT, cipher, SECRET)
    arguments = ("-decrypt", "-binary", "-inform", "DER", "-pwri_password")
    assert openssl(*arguments, SECRET.decode(), data=message) == CONTENT


def test_openssl_reads_both_kinds_of_recipient(tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a", "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    message = openssl(
        "-encrypt", "-binary", "-outform", "DER", "-aes128", "-pwri_password", SECRET.decode(), certificate, data=CONTENT
    )
    enveloped = envelope.parse_enveloped_data(message)
    assert (len(enveloped.recipients), len(enveloped.passwords)) == (1, 1)
    assert envelope.decrypt_with_password(enveloped, enveloped.passwords[0], SECRET) == CONTENT


def forged(header: bytes, body: bytes, size: int = 32) -> PasswordRecipient:
    """A recipient whose wrapped block decrypts, under the right password, to `header` and `body`."""
    good = recipient()
    assert good.derivation is not None
    cipher, derivation = find_cipher(good.cipher), good.derivation
    key = hashlib.pbkdf2_hmac(derivation.prf, SECRET, derivation.salt, derivation.iterations, cipher.key_size)
    encryptor = cipher.encryptor(key, good.iv)
    return replace(good, encrypted_key=encryptor.update(encryptor.update((header + body).ljust(size, b"\7"))))


CHECK = bytes((0xFF, 0xFE, 0xFD))
KEY = bytes(range(16))


def test_the_forger_itself_passes() -> None:
    assert unwrap(forged(b"\x10" + CHECK, KEY), SECRET, 16) == KEY


@pytest.mark.parametrize(
    ("wrapped", "secret"),
    [
        pytest.param(forged(b"\x10" + CHECK, KEY), b"correct horsf", id="wrong-password"),
        pytest.param(forged(b"\x10" + CHECK, KEY), b"", id="no-password"),
        pytest.param(forged(b"\x10\xff\xfe\xfc", KEY), SECRET, id="wrong-check-value"),
        pytest.param(forged(b"\x10\0\0\0", KEY), SECRET, id="no-check-value"),
        pytest.param(forged(b"\x11" + CHECK, KEY), SECRET, id="count-of-another-cipher"),
        pytest.param(forged(b"\x00" + CHECK, KEY), SECRET, id="count-zero"),
        pytest.param(forged(b"\xff" + CHECK, KEY), SECRET, id="count-over-the-block"),
    ],
)
def test_whatever_is_wrong_a_random_key_comes_after_equal_work(
    wrapped: PasswordRecipient, secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[tuple[str, int]] = []
    derive = hashlib.pbkdf2_hmac

    def count(*arguments: object) -> bytes:
        work.append((str(arguments[0]), int(str(arguments[3]))))
        return derive(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", count)
    one, other = unwrap(wrapped, secret, 16), unwrap(wrapped, secret, 16)
    assert (len(one), len(other)) == (16, 16)
    assert len({one, other, KEY}) == 3
    assert work == [("sha256", 10_000)] * 2


def test_a_key_that_is_longer_than_what_is_wrapped_is_random() -> None:
    wrapped = forged(b"\x20" + CHECK, KEY)
    assert unwrap(wrapped, SECRET, 32) != unwrap(wrapped, SECRET, 32)


def bounded(**changes: object) -> PasswordRecipient:
    good = recipient()
    assert good.derivation is not None
    return replace(good, derivation=replace(good.derivation, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(bounded(iterations=999), id="few-iterations"),
        pytest.param(bounded(iterations=100_001), id="many-iterations"),
        pytest.param(bounded(iterations=1 << 62), id="iterations-for-a-life"),
        pytest.param(bounded(iterations=0), id="no-iterations"),
        pytest.param(bounded(iterations=-5000), id="negative-iterations"),
        pytest.param(bounded(salt=bytes(7)), id="short-salt"),
        pytest.param(bounded(salt=bytes(65)), id="long-salt"),
        pytest.param(bounded(key_length=32), id="key-length-of-another-cipher"),
        pytest.param(bounded(prf="1.2.840.113549.2.6"), id="hmacWithMD5"),
        pytest.param(replace(recipient(), derivation=None), id="no-derivation"),
        pytest.param(replace(recipient(), cipher="1.2.840.113549.3.2"), id="rc2"),
        pytest.param(replace(recipient(), cipher="des-cbc", iv=bytes(8)), id="single-des"),
        pytest.param(replace(recipient(), encrypted_key=bytes(16)), id="one-block"),
        pytest.param(replace(recipient(), encrypted_key=bytes(33)), id="part-of-a-block"),
        pytest.param(replace(recipient(), encrypted_key=bytes(288)), id="more-than-a-count-can-tell"),
        pytest.param(replace(recipient(), encrypted_key=b""), id="no-key"),
    ],
)
def test_what_is_out_of_bounds_is_refused_before_any_derivation(
    wrapped: PasswordRecipient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", None)
    for use in (password.check_recipient, lambda r: unwrap(r, SECRET, 16)):
        with pytest.raises(Rejection) as refused:
            use(wrapped)
        assert refused.value.reason is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(recipient(), id="own"),
        pytest.param(bounded(iterations=1_000), id="fewest-iterations"),
        pytest.param(bounded(iterations=100_000), id="most-iterations"),
        pytest.param(bounded(salt=bytes(8)), id="shortest-salt"),
        pytest.param(bounded(salt=bytes(64)), id="longest-salt"),
        pytest.param(bounded(key_length=16), id="key-length"),
        pytest.param(bounded(prf="sha1"), id="default-prf"),
    ],
)
def test_what_is_within_bounds_is_taken(wrapped: PasswordRecipient) -> None:
    password.check_recipient(wrapped)


def built(
    parameters: bytes = der.sequence(der.octet_string(bytes(8)), der.integer(2048)),
    derivation: str = password.OID_PBKDF2,
    encryption: bytes = der.sequence(der.oid(password.OID_PWRI_KEK), find_cipher("aes-128-cbc").identifier(bytes(16))),
    derivation_tag: Callable[..., bytes] = lambda *parts: der.context(0, *parts),
) -> bytes:
    algorithm = derivation_tag(der.oid(derivation), parameters) if derivation else b""
    return der.context(3, der.integer(0), algorithm, encryption, der.octet_string(bytes(32)))


def parameters(*members: bytes) -> bytes:
    return built(der.sequence(der.octet_string(bytes(8)), der.integer(2048), *members))


@pytest.mark.parametrize(
    ("element", "derivation"),
    [
        pytest.param(built(), Pbkdf2(bytes(8), 2048, None, "sha1"), id="defaults"),
        pytest.param(parameters(der.integer(16)), Pbkdf2(bytes(8), 2048, 16, "sha1"), id="key-length"),
        pytest.param(parameters(HMAC_SHA256), Pbkdf2(bytes(8), 2048, None, "sha256"), id="prf"),
        pytest.param(parameters(der.integer(16), HMAC_SHA256), Pbkdf2(bytes(8), 2048, 16, "sha256"), id="both"),
        pytest.param(
            parameters(der.sequence(der.oid("1.2.840.113549.2.11"))),
            Pbkdf2(bytes(8), 2048, None, "sha512"),
            id="prf-without-null",
        ),
        pytest.param(parameters(der.sequence(der.oid("1.2.3"))), Pbkdf2(bytes(8), 2048, None, "1.2.3"), id="unknown-prf"),
        pytest.param(built(derivation="1.3.6.1.4.1.11591.4.11"), None, id="scrypt"),
        pytest.param(built(derivation=""), None, id="no-derivation"),
        pytest.param(built(der.sequence(der.sequence(der.oid("1.2.3")), der.integer(2048))), None, id="salt-from-elsewhere"),
    ],
)
def test_derivations(element: bytes, derivation: Pbkdf2 | None) -> None:
    assert parse_password_recipient(element).derivation == derivation


@pytest.mark.parametrize(
    ("encryption", "cipher"),
    [
        pytest.param(
            der.sequence(der.oid("1.2.840.113549.1.9.16.3.6"), der.null()), "1.2.840.113549.1.9.16.3.6", id="CMS3DESwrap"
        ),
        pytest.param(
            der.sequence(der.oid(password.OID_PWRI_KEK), der.sequence(der.oid("1.2.840.113549.3.2"), der.sequence())),
            "1.2.840.113549.3.2",
            id="rc2",
        ),
    ],
)
def test_key_encryptions_that_we_do_not_have_are_named(encryption: bytes, cipher: str) -> None:
    assert parse_password_recipient(built(encryption=encryption)).cipher == cipher


@pytest.mark.parametrize(
    "element",
    [
        pytest.param(built(der.sequence()), id="no-parameters"),
        pytest.param(built(b""), id="parameters-absent"),
        pytest.param(built(der.sequence(der.octet_string(bytes(8)))), id="no-iterations"),
        pytest.param(built(der.sequence(der.integer(1), der.octet_string(bytes(8)))), id="out-of-order"),
        pytest.param(parameters(HMAC_SHA256, der.integer(16)), id="prf-before-key-length"),
        pytest.param(parameters(der.integer(16), der.integer(16)), id="two-key-lengths"),
        pytest.param(parameters(der.null()), id="stray-member"),
        pytest.param(parameters(der.integer(16), HMAC_SHA256, der.null()), id="five-members"),
        pytest.param(parameters(der.integer(1 << 64)), id="huge-key-length"),
        pytest.param(built(der.sequence(der.octet_string(bytes(8)), der.integer(1 << 500_000))), id="huge-iterations"),
        pytest.param(parameters(der.sequence(der.oid("1.2.840.113549.2.9"), der.integer(1))), id="prf-parameters"),
        pytest.param(parameters(der.sequence()), id="empty-prf"),
        pytest.param(built(encryption=der.sequence(der.oid(password.OID_PWRI_KEK))), id="no-key-cipher"),
        pytest.param(
            built(
                encryption=der.sequence(
                    der.oid(password.OID_PWRI_KEK),
                    der.sequence(der.oid(find_cipher("aes-128-cbc").oid), der.octet_string(bytes(8))),
                )
            ),
            id="short-iv",
        ),
        pytest.param(built(encryption=der.sequence()), id="empty-key-encryption"),
    ],
)
def test_broken_password_recipients(element: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_password_recipient(element)
