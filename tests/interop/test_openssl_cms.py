"""OpenSSL reads every kind of reply, and the server every kind of envelope that OpenSSL writes (RFC 8894 §3, RFC 5652 §6.2)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import MessageType
from gateway.wire.scep.client import encode_issuer_and_serial
from tests.conftest import RunningServer, launch
from tests.interop.authorities import issue_root
from tests.interop.observed import log_lines
from tests.interop.openssl import OpensslClient
from tests.interop.settings import LEGACY, edit, profile, scep

pytestmark = pytest.mark.interop

STATIC = {"type": "static", "challenge": {"file": "secrets/demo-scep-challenge"}, "any_name": True}
RSA = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Beside `demo`: `patient` waits for approval, `keyless` serves keys that cannot encrypt, and a next CA is announced."""
    state = tmp_path_factory.mktemp("openssl-server") / "state"

    def apply(text: str) -> str:
        issue_root(state, "next-ca")
        return edit(
            scep("demo", next_ca="ca/next-ca.pem", legacy=LEGACY),
            profile("patient", approval="manual"),
            profile("keyless", credentials=[STATIC]),
            scep("keyless", pwri=True),
        )(text)

    running = launch(state, edit=apply)
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: RunningServer, tmp_path: Path, require_program: Callable[[str, str], str]) -> OpensslClient:
    require_program("openssl", "openssl")
    client = OpensslClient(tmp_path, f"{server.url}/scep/demo", server.state)
    client.new_key(*RSA)
    return client


def common_names(pem: str) -> list[str]:
    return [c.subject.rfc4514_string() for c in x509.load_pem_x509_certificates(pem.encode())]


def test_success_is_signed_by_the_ra_and_encrypted_to_the_signer(server: RunningServer, client: OpensslClient) -> None:
    reply = client.enroll("success", server.static_challenge)
    content = client.verify(reply)
    assert client.attribute(reply, asn1.OID_PKI_STATUS) == "0"
    assert client.attribute(reply, asn1.OID_TRANSACTION_ID) == "success"
    assert common_names(client.decrypt(content)) == ["CN=success"]


def test_failure_is_signed_by_the_ra(client: OpensslClient) -> None:
    reply = client.enroll("failure", "not-the-challenge")
    assert client.verify(reply) == b""
    assert client.attribute(reply, asn1.OID_PKI_STATUS) == "2"
    assert client.attribute(reply, asn1.OID_FAIL_INFO) == "2"


def test_pending_is_signed_by_the_ra(server: RunningServer, client: OpensslClient) -> None:
    client.url = f"{server.url}/scep/patient"
    reply = client.enroll("pending", server.static_challenge)
    assert client.verify(reply) == b""
    assert client.attribute(reply, asn1.OID_PKI_STATUS) == "3"


@pytest.mark.parametrize(
    ("options", "cipher"),
    [
        pytest.param((), "-aes128", id="aes-128"),
        pytest.param((), "-aes192", id="aes-192"),
        pytest.param((), "-des3", id="3des"),
        pytest.param(("-keyid",), "-aes256", id="subject key identifier"),
        pytest.param(("-keyopt", "rsa_padding_mode:oaep"), "-aes256", id="oaep"),
        pytest.param(("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"), "-aes256", id="oaep with sha256"),
        pytest.param(("-stream",), "-aes256", id="indefinite lengths"),
    ],
)
def test_envelopes_of_openssl(server: RunningServer, client: OpensslClient, options: tuple[str, ...], cipher: str) -> None:
    reply = client.enroll("enveloped", server.static_challenge, *options, cipher=cipher)
    assert common_names(client.decrypt(client.verify(reply))) == ["CN=enveloped"]


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), id="ec p-256"),
        pytest.param(("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"), id="ec p-384"),
        pytest.param(("-algorithm", "ED25519"), id="ed25519"),
    ],
)
def test_key_that_cannot_encrypt_uses_the_challenge(
    server: RunningServer, client: OpensslClient, algorithm: tuple[str, ...]
) -> None:
    client.url = f"{server.url}/scep/keyless"
    client.new_key(*algorithm)
    secret = server.static_challenge
    reply = client.enroll("keyless", secret, "-pwri_password", secret)
    content = client.verify(reply)
    assert common_names(client.decrypt(content, "-pwri_password", secret)) == ["CN=keyless"]
    refused = client.openssl("cms", "-decrypt", "-inform", "DER", "-in", "content.der", "-pwri_password", "x" * 32, check=False)
    assert refused.returncode != 0


def test_request_under_another_password_is_refused(server: RunningServer, client: OpensslClient) -> None:
    client.url = f"{server.url}/scep/keyless"
    client.new_key("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    reply = client.enroll("keyless", server.static_challenge, "-pwri_password", "another-password-of-32-characters")
    assert client.verify(reply) == b""
    assert client.attribute(reply, asn1.OID_PKI_STATUS) == "2"


def test_key_that_cannot_encrypt_is_refused_without_pwri(server: RunningServer, client: OpensslClient) -> None:
    client.new_key("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    reply = client.enroll("keyless", server.static_challenge, "-pwri_password", server.static_challenge)
    assert client.verify(reply) == b""
    assert client.attribute(reply, asn1.OID_FAIL_INFO) == "0"
    assert log_lines(server)[-1]["reason"] == "unsupported_algorithm"


def enrolled(server: RunningServer, client: OpensslClient, common_name: str) -> x509.Certificate:
    """Enroll, and let the certificate sign what comes after."""
    pem = client.decrypt(client.verify(client.enroll(common_name, server.static_challenge)))
    client.save("signer.pem", pem.encode())
    return x509.load_pem_x509_certificate(pem.encode())


def look_up(client: OpensslClient, message_type: MessageType, leaf: x509.Certificate, serial: int) -> Path:
    data = encode_issuer_and_serial(leaf.issuer.public_bytes(), serial)
    client.save("look-up.der", data)
    return client.send(message_type, client.encrypt("look-up.der"), "1")


def test_certificate_can_be_looked_up(server: RunningServer, client: OpensslClient) -> None:
    leaf = enrolled(server, client, "looks-itself-up")
    reply = look_up(client, MessageType.GET_CERT, leaf, leaf.serial_number)
    assert x509.load_pem_x509_certificates(client.decrypt(client.verify(reply)).encode()) == [leaf]


def test_unknown_certificate_cannot_be_looked_up(server: RunningServer, client: OpensslClient) -> None:
    leaf = enrolled(server, client, "looks-for-others")
    reply = look_up(client, MessageType.GET_CERT, leaf, leaf.serial_number + 1)
    assert client.verify(reply) == b""
    assert client.attribute(reply, asn1.OID_FAIL_INFO) == "4"


def test_crl_can_be_looked_up(server: RunningServer, client: OpensslClient) -> None:
    leaf = enrolled(server, client, "looks-for-the-crl")
    reply = look_up(client, MessageType.GET_CRL, leaf, leaf.serial_number)
    crl = client.save("crl.pem", client.decrypt(client.verify(reply)).encode())
    issuing = str(server.state / "ca" / "issuing.pem")
    done = client.openssl("crl", "-in", crl.name, "-noout", "-CAfile", issuing, "-verify")
    assert b"verify OK" in done.stdout + done.stderr


def test_next_ca_is_signed_by_the_ra(client: OpensslClient) -> None:
    content = client.verify(client.get("GetNextCACert"))
    client.save("next.p7", content)
    assert common_names(client.list_certificates("next.p7")) == ["CN=next-ca"]


def test_ca_certificates_are_a_certs_only_message(client: OpensslClient) -> None:
    found = common_names(client.list_certificates(client.get("GetCACert").name))
    assert [name.split(" ")[1] for name in found] == ["SCEP", "Issuing", "Root"]
