"""Certificates beside those that `init` made: RAs issued by its CA, as an operator would, and a CA that comes next."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID, ObjectIdentifier

REQUEST_AGENT = ObjectIdentifier("1.3.6.1.4.1.311.20.2.1")
CMC_RA = ObjectIdentifier("1.3.6.1.5.5.7.3.28")
CM_KGA = ObjectIdentifier("1.3.6.1.5.5.7.3.32")


def issue_ra(
    state: Path, name: str, *, signs: bool = True, decrypts: bool = True, purpose: ObjectIdentifier = REQUEST_AGENT
) -> dict[str, object]:
    """Write an RA certificate and its key below `state`; return the pair as the configuration names it."""
    issuer = x509.load_pem_x509_certificate((state / "ca" / "issuing.pem").read_bytes())
    issuer_key = load_pem_private_key((state / "secrets" / "issuing.key").read_bytes(), None)
    assert isinstance(issuer_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"RA {name}")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(_usage(signs, decrypts), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value), critical=False)
        .sign(issuer_key, SHA256())
    )
    (state / "ca" / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    secret = state / "secrets" / f"{name}.key"
    secret.touch(0o600)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"certificate": f"ca/{name}.pem", "key": {"file": f"secrets/{name}.key"}}


def issue_root(state: Path, name: str) -> None:
    """Write the certificate of another self-signed CA below `state`; nothing needs its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    (state / "ca" / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))


def _usage(signs: bool, decrypts: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        key_encipherment=decrypts,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
