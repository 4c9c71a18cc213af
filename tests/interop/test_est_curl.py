"""curl and openssl enroll over EST, as operators type it and as scripts of the field do."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from cryptography import x509

from gateway.asn1.est import OID_ASYMMETRIC_DECRYPT_KEY_ID, OID_DECRYPT_KEY_ID
from gateway.pki import der
from tests.flow.est.fleet import Wanted
from tests.interop.est_site import DIGEST_PASSWORD, TRANSPORT_KEY, Site, write_maker_pair
from tests.interop.observed import rejections

pytestmark = pytest.mark.interop

PKCS10 = ("-H", "Content-Type: application/pkcs10")
PKI_DATA = "1.3.6.1.5.5.7.12.2"
AGREES = "keyUsage=digitalSignature,keyAgreement"
MAX_HEAD = 1024
"""What strongSwan reads of a head, and libest of a status line and headers."""


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def headers(self) -> Message:
        """The headers of the last answer, without its status line."""
        return message_from_bytes(self.head.partition(b"\r\n")[2])

    @property
    def text(self) -> str:
        assert self.headers.get_content_type() == "text/plain"
        return self.body.decode()


@dataclass
class Client:
    """A folder, curl and openssl, and the server's URL."""

    folder: Path
    site: Site
    program: str

    def openssl(self, *args: str, data: bytes | None = None) -> bytes:
        done = subprocess.run(["openssl", *args], cwd=self.folder, input=data, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def curl(self, path: str, *options: str, check: bool = True) -> Answer:
        url = f"{self.site.url}/.well-known/est/{path}"
        command = [self.program, "-sS", "--cacert", self.site.root, "-D", "head", "-o", "body", "-w", "%{http_code}", *options]
        for name in ("head", "body"):
            (self.folder / name).write_bytes(b"")
        done = subprocess.run([*command, url], cwd=self.folder, capture_output=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        last = (self.folder / "head").read_bytes().strip().split(b"\r\n\r\n")[-1]
        return Answer(int(done.stdout), last, (self.folder / "body").read_bytes())

    def fails(self, path: str, *options: str) -> int:
        """Return curl's exit code, which is not 0."""
        answer = self.curl(path, *options, check=False)
        assert answer.status == 0
        command = [self.program, "-sS", "--cacert", self.site.root, *options, f"{self.site.url}/.well-known/est/{path}"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, timeout=60, check=False).returncode

    def new_request(self, subject: str, *options: str, name: str = "req") -> None:
        """Make a key and a PKCS#10, in DER, PEM and base64."""
        self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
        self.openssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.pem", *options)
        self.openssl("req", "-in", f"{name}.pem", "-outform", "DER", "-out", f"{name}.der")
        self.openssl("base64", "-in", f"{name}.der", "-out", f"{name}.b64")

    def save_certificate(self, body: bytes, name: str = "device.pem") -> x509.Certificate:
        """Take the one certificate out of an answer and keep it, PEM."""
        text = self.openssl("pkcs7", "-inform", "DER", "-print_certs", data=self.openssl("base64", "-d", data=body))
        found = x509.load_pem_x509_certificates(text)
        assert len(found) == 1
        (self.folder / name).write_bytes(text)
        return found[0]

    def verify(self, name: str = "device.pem") -> None:
        state = self.site.server.state
        self.openssl("verify", "-CAfile", str(state / "ca/root.pem"), "-untrusted", str(state / "ca/issuing.pem"), name)

    @property
    def user(self) -> tuple[str, str]:
        return "-u", self.site.userpass


@pytest.fixture
def client(est_site: Site, tmp_path: Path, require_program: Callable[[str, str], str]) -> Client:
    require_program("openssl", "openssl")
    return Client(tmp_path, est_site, require_program("curl", "curl"))


def test_fetches_the_ca_certificates(est_site: Site, client: Client) -> None:
    answer = client.curl("cacerts")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/pkcs7-mime")
    text = client.openssl("pkcs7", "-inform", "DER", "-print_certs", data=client.openssl("base64", "-d", data=answer.body))
    found = x509.load_pem_x509_certificates(text)
    assert {c.subject for c in found} == {c.issuer for c in found} | {found[0].subject}, "a chain with its root"
    root = x509.load_pem_x509_certificate(Path(est_site.root).read_bytes())
    assert root in found


def test_fetches_the_attributes(client: Client) -> None:
    answer = client.curl("csrattrs")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/csrattrs")
    text = client.openssl("asn1parse", "-inform", "DER", data=client.openssl("base64", "-d", data=answer.body)).decode()
    assert ":1.2.840.113549.1.9.16.2.61" in text, "the template of RFC 9908"
    assert ":Extension Request" in text, "the attributes of RFC 7030"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(("--data-binary", "@req.b64"), id="base64-in-lines"),
        pytest.param(("--data", "@req.b64"), id="curl-strips-the-line-breaks"),
        pytest.param(("--data-binary", "@req.pem"), id="pem"),
        pytest.param(("--data-binary", "@req.der"), id="der"),
        pytest.param(("--data-binary", "@req.b64", "-H", "Transfer-Encoding: chunked"), id="chunked"),
        pytest.param(("--data-binary", "@req.b64", "-H", "Content-Transfer-Encoding: base64"), id="with-its-encoding"),
        pytest.param(("--data-binary", "@req.b64", "-H", "Expect: 100-continue"), id="asks-before-it-sends"),
        pytest.param(("--data-binary", "@req.b64", "--http1.0"), id="http-1.0"),
        pytest.param(("--data-binary", "@req.b64", "--http2"), id="would-speak-http-2"),
        pytest.param(("--data-binary", "@req.b64", "--tls-max", "1.2"), id="tls-1.2"),
        pytest.param(("--data-binary", "@req.b64", "--tlsv1.3"), id="tls-1.3"),
        pytest.param(("--data-binary", "@req.b64", "--anyauth"), id="waits-to-be-asked-for-a-password"),
        pytest.param(("--data-binary", "@req.b64", "-A", ""), id="no-user-agent"),
    ],
)
def test_enrolls(client: Client, body: tuple[str, ...]) -> None:
    client.new_request("/O=lab/CN=curl", "-addext", "subjectAltName=DNS:curl.example.org")
    answer = client.curl("simpleenroll", *client.user, *PKCS10, *body)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.headers["Content-Transfer-Encoding"] == "base64"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert answer.headers["Transfer-Encoding"] is None
    assert len(answer.head) < MAX_HEAD
    assert client.save_certificate(answer.body).subject.rfc4514_string() == "CN=curl,O=lab"
    client.verify()


@pytest.mark.parametrize("label", ["demo/", "d%65mo/", ""])
def test_labels(client: Client, label: str) -> None:
    client.new_request("/CN=labelled")
    assert client.curl(f"{label}simpleenroll", *client.user, *PKCS10, "--data-binary", "@req.b64").status == 200


def test_retries_get_the_same_certificate(client: Client) -> None:
    client.new_request("/CN=retrying")
    answers = [client.curl("simpleenroll", *client.user, *PKCS10, "--data-binary", "@req.b64") for _ in range(2)]
    first, second = (client.save_certificate(answer.body) for answer in answers)
    assert first == second


def enroll(client: Client, subject: str) -> x509.Certificate:
    """Enroll with the password; leaves `device.pem` and `device.key`."""
    client.new_request(subject, name="device")
    (client.folder / "device.csr").write_bytes((client.folder / "device.b64").read_bytes())
    answer = client.curl("simpleenroll", *client.user, *PKCS10, "--data-binary", "@device.csr")
    return client.save_certificate(answer.body)


def renew(client: Client, name: str, *options: str) -> Answer:
    shown = ("--cert", "device.pem", "--key", "device.key")
    return client.curl("simplereenroll", *shown, *PKCS10, "--data-binary", f"@{name}.b64", *options)


def test_renews_with_the_same_key_and_then_a_new_one(est_site: Site, client: Client) -> None:
    old = enroll(client, "/CN=curl-renewing")
    same_key = client.save_certificate(renew(client, "device").body, "renewed.pem")
    assert same_key.public_key() == old.public_key()
    assert same_key.serial_number != old.serial_number
    (client.folder / "device.pem").write_bytes((client.folder / "renewed.pem").read_bytes())
    client.new_request("/CN=curl-renewing")
    rekeyed = client.save_certificate(renew(client, "req").body, "renewed.pem")
    assert (rekeyed.subject, rekeyed.public_key() == old.public_key()) == (old.subject, False)
    client.verify("renewed.pem")
    assert est_site.asked("curl-renewing") == [("simpleenroll", "issued"), *[("simplereenroll", "issued")] * 2]


def test_what_was_renewed_by_another_key_renews_no_more(est_site: Site, client: Client) -> None:
    enroll(client, "/CN=curl-heir")
    client.new_request("/CN=curl-heir")
    assert renew(client, "req").status == 200
    client.new_request("/CN=curl-heir")
    refused = renew(client, "req")
    assert (refused.status, refused.text) == (403, "the certificate has been renewed already\n")
    assert rejections(est_site.server)[-1] == "renewal_refused"


@pytest.mark.parametrize("options", [(), ("-addext", "subjectAltName=DNS:more.example.org")], ids=["subject", "san"])
def test_a_renewal_changes_no_name(client: Client, options: tuple[str, ...]) -> None:
    enroll(client, "/CN=curl-old-name")
    client.new_request("/CN=curl-old-name" if options else "/CN=curl-new-name", *options)
    refused = renew(client, "req")
    assert (refused.status, refused.text) == (403, "a renewal keeps subject and subject alternative names\n")


def test_a_revoked_certificate_renews_nothing(est_site: Site, client: Client) -> None:
    serial = enroll(client, "/CN=curl-revoked").serial_number
    est_site.server.cli("certs", "revoke", f"{serial:x}", "--reason", "keyCompromise")
    client.new_request("/CN=curl-revoked")
    refused = renew(client, "req")
    assert (refused.status, refused.text) == (403, "the certificate has been revoked\n")


def test_a_certificate_enrolls_nothing_more(client: Client) -> None:
    enroll(client, "/CN=curl-passport")
    client.new_request("/CN=another")
    shown = ("--cert", "device.pem", "--key", "device.key")
    assert client.curl("simpleenroll", *shown, *PKCS10, "--data-binary", "@req.b64").status == 401


def test_its_makers_certificate_enrolls(client: Client) -> None:
    write_maker_pair(client.folder)
    client.new_request("/CN=from the factory")
    shown = ("--cert", "maker.crt", "--key", "maker.key")
    answer = client.curl("maker/simpleenroll", *shown, *PKCS10, "--data-binary", "@req.b64")
    assert client.save_certificate(answer.body).subject.rfc4514_string() == "CN=from the factory"
    assert client.curl("maker/simpleenroll", *PKCS10, "--data-binary", "@req.b64").status == 403, "no scheme to ask for"


@pytest.mark.parametrize("version", [("--tls-max", "1.2"), ("--tlsv1.3",)], ids=["tls-1.2", "tls-1.3"])
def test_a_certificate_of_strangers_ends_in_a_tls_alert(client: Client, version: tuple[str, ...]) -> None:
    client.new_request("/CN=stranger")
    client.openssl("req", "-x509", "-key", "req.key", "-subj", "/CN=stranger", "-days", "2", "-out", "self.pem")
    shown = ("--cert", "self.pem", "--key", "req.key")
    assert client.fails("simpleenroll", *version, *shown, *PKCS10, "--data-binary", "@req.b64") in {35, 52, 55, 56}


def test_digest_where_it_is_allowed(client: Client) -> None:
    client.new_request("/CN=digested")
    asked = (*PKCS10, "--data-binary", "@req.b64", "--digest")
    answer = client.curl("digest/simpleenroll", "-u", f"demo:{DIGEST_PASSWORD}", *asked)
    assert client.save_certificate(answer.body).subject.rfc4514_string() == "CN=digested"
    assert client.curl("digest/simpleenroll", "-u", "demo:wrong", *asked).status == 401
    assert client.curl("demo/simpleenroll", *client.user, *asked).status == 401, "it is not offered here"


@pytest.mark.parametrize("version", [("--tls-max", "1.2"), ("--tlsv1.3",)], ids=["tls-1.2", "tls-1.3"])
def test_cannot_tie_a_request_to_its_connection(client: Client, version: tuple[str, ...]) -> None:
    client.new_request("/CN=untied")
    refused = client.curl("linked/simpleenroll", *client.user, *version, *PKCS10, "--data-binary", "@req.b64")
    assert refused.status == 400
    assert "must be tied to its TLS connection" in refused.text


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        pytest.param("simpleenroll", ("--data-binary", "@req.b64", *PKCS10), 401, id="nothing"),
        pytest.param("simpleenroll", ("--data-binary", "@req.b64", *PKCS10, "-u", "demo:wrong"), 401, id="wrong-password"),
        pytest.param("simpleenroll", ("--data-binary", "@req.b64"), 415, id="media-type-of-a-form"),
        pytest.param("simpleenroll", (), 405, id="get"),
        pytest.param("cacerts", ("--data-binary", "@req.b64", *PKCS10), 405, id="post-to-cacerts"),
        pytest.param("simpleenroll", ("--data-binary", "not base64!", *PKCS10), 400, id="no-base64"),
        pytest.param("simpleenroll", ("--data-binary", "AAAA", *PKCS10), 400, id="no-pkcs10"),
        pytest.param("simpleenroll", ("--data-binary", "@large", *PKCS10), 413, id="too-large"),
        pytest.param("nobody/simpleenroll", ("--data-binary", "@req.b64", *PKCS10), 404, id="no-such-label"),
        pytest.param("demo/enroll", ("--data-binary", "@req.b64", *PKCS10), 404, id="no-such-operation"),
        pytest.param("linked/serverkeygen", ("--data-binary", "@req.b64", *PKCS10), 404, id="not-offered"),
        pytest.param("simplereenroll", ("--data-binary", "@req.b64", *PKCS10, "-u", "demo:wrong"), 403, id="no-certificate"),
    ],
)
def test_refusals(client: Client, path: str, options: tuple[str, ...], status: int) -> None:
    client.new_request("/CN=refused")
    (client.folder / "large").write_bytes(b"A" * 70000)
    answer = client.curl(path, *options)
    assert answer.status == status, answer
    assert len(answer.head) < MAX_HEAD
    schemes = [value.split()[0] for value in answer.headers.get_all("WWW-Authenticate", [])]
    assert schemes == (["Basic"] if status == 401 else [])
    assert (answer.body == b"") is (status == 401 and "-u" not in options), "Bouncy Castle does not read what only invites"
    assert not answer.body or answer.text.endswith("\n")


# Keys that the server draws


def parts(answer: Answer) -> list[Message]:
    """Take a multipart/mixed apart, as any MIME library does."""
    head = b"Content-Type: " + str(answer.headers["Content-Type"]).encode() + b"\r\n\r\n"
    message = message_from_bytes(head + answer.body)
    assert message.get_content_type() == "multipart/mixed"
    found: list[Message] = message.get_payload()  # type: ignore[assignment]
    assert [part["Content-Transfer-Encoding"] for part in found] == ["base64", "base64"]
    return found


def decoded(part: Message) -> bytes:
    data = part.get_payload(decode=True)
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_gets_a_key(client: Client, kind: str) -> None:
    """The CSR's key says of what kind it is to be, and is nothing else."""
    client.new_request("/CN=without-a-key")
    if kind == "rsa":
        client.openssl(
            "req", "-new", "-newkey", "rsa:2048", "-noenc", "-keyout", "rsa.key", "-subj", "/CN=rsa", "-out", "req.pem"
        )
    key, leaf = parts(client.curl("serverkeygen", *client.user, *PKCS10, "--data-binary", "@req.pem"))
    assert key.get_content_type() == "application/pkcs8"
    assert leaf["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    (client.folder / "got.der").write_bytes(decoded(key))
    public = client.openssl("pkey", "-inform", "DER", "-in", "got.der", "-pubout")
    (client.folder / "leaf.p7").write_bytes(decoded(leaf))
    client.openssl("pkcs7", "-inform", "DER", "-in", "leaf.p7", "-print_certs", "-out", "device.pem")
    assert client.openssl("x509", "-in", "device.pem", "-noout", "-pubkey") == public
    bits = {"ec": b"(256 bit)", "rsa": b"(2048 bit)"}
    assert bits[kind] in client.openssl("pkey", "-pubin", "-noout", "-text", data=public)
    assert public != client.openssl("req", "-in", "req.pem", "-noout", "-pubkey")
    client.verify()


def encrypted_key(client: Client, *attributes: bytes, options: tuple[str, ...]) -> bytes:
    """Ask for a key that is encrypted as the CSR's attributes say; return the CMS message."""
    (client.folder / "req.der").write_bytes(Wanted("CN=encrypted", attributes=attributes).csr)
    answer = client.curl("serverkeygen", *options, *PKCS10, "--data-binary", "@req.der")
    assert answer.status == 200, answer
    key, leaf = parts(answer)
    assert key["Content-Type"] == "application/pkcs7-mime; smime-type=server-generated-key"
    (client.folder / "key.p7").write_bytes(decoded(key))
    client.save_certificate(client.openssl("base64", data=decoded(leaf)))
    return decoded(key)


def key_identifier(oid: str, value: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.set_of(der.octet_string(value)))


def check_package(client: Client) -> None:
    """Verify the signature of what was decrypted, and that its key is the certificate's (RFC 5958)."""
    state = client.site.server.state
    (client.folder / "anchors.pem").write_bytes(b"".join((state / "ca" / n).read_bytes() for n in ("root.pem", "issuing.pem")))
    verify = ("-verify", "-binary", "-inform", "DER", "-in", "signed.p7", "-CAfile", "anchors.pem", "-purpose", "any")
    package = client.openssl("cms", *verify)
    _, start, end = der.read(package)
    (client.folder / "got.der").write_bytes(package[start:end])
    public = client.openssl("pkey", "-inform", "DER", "-in", "got.der", "-pubout")
    assert client.openssl("x509", "-in", "device.pem", "-noout", "-pubkey") == public


def test_gets_a_key_under_a_key_that_both_have(client: Client) -> None:
    encrypted_key(client, key_identifier(OID_DECRYPT_KEY_ID, b"transport"), options=client.user)
    secret = ("-secretkey", TRANSPORT_KEY, "-secretkeyid", b"transport".hex())
    client.openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", "key.p7", *secret, "-out", "inner.der")
    wrap_signed_data(client)
    check_package(client)


def wrap_signed_data(client: Client) -> None:
    """Put the decrypted SignedData into the ContentInfo that `openssl cms -verify` wants."""
    inner = (client.folder / "inner.der").read_bytes()
    (client.folder / "signed.p7").write_bytes(der.sequence(der.oid("1.2.840.113549.1.7.2"), der.context(0, inner)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(("-newkey", "rsa:2048"), (), id="rsa"),
        pytest.param(
            ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            ("-addext", "keyUsage=digitalSignature,keyAgreement"),
            id="ec",
        ),
    ],
)
def test_gets_a_key_encrypted_to_its_own_certificate(client: Client, kind: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Where that certificate may be used for it: keyEncipherment, or keyAgreement for EC."""
    new = ("-noenc", "-keyout", "device.key", "-subj", "/CN=has-a-key", "-out", "device.pem", *options)
    client.openssl("req", "-new", *kind, *new)
    leaf = client.save_certificate(client.curl("simpleenroll", *client.user, *PKCS10, "--data-binary", "@device.pem").body)
    identifier = leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    (client.folder / "own.pem").write_bytes((client.folder / "device.pem").read_bytes())
    shown = ("--cert", "own.pem", "--key", "device.key")
    encrypted_key(client, key_identifier(OID_ASYMMETRIC_DECRYPT_KEY_ID, identifier), options=(*client.user, *shown))
    own = ("-recip", "own.pem", "-inkey", "device.key")
    client.openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", "key.p7", *own, "-out", "inner.der")
    wrap_signed_data(client)
    check_package(client)


@pytest.mark.parametrize("oid", [OID_DECRYPT_KEY_ID, OID_ASYMMETRIC_DECRYPT_KEY_ID], ids=["symmetric", "asymmetric"])
def test_an_unknown_key_to_encrypt_to_is_refused(client: Client, oid: str) -> None:
    """RFC 7030 §4.4.1: such a request must fail, and not be answered with a key in the clear."""
    (client.folder / "req.der").write_bytes(Wanted(attributes=(key_identifier(oid, b"unknown"),)).csr)
    answer = client.curl("serverkeygen", *client.user, *PKCS10, "--data-binary", "@req.der")
    assert (answer.status, answer.text) == (403, "the key that should encrypt the private key is not known here\n")


# fullcmc


def pki_data(client: Client, *controls: bytes) -> None:
    """Write `cmc.der`: a PKIData with the request `req.der`, signed by the request's key, named by its identifier."""
    tagged = der.context(0, der.integer(1), (client.folder / "req.der").read_bytes())
    data = der.sequence(der.sequence(*controls), der.sequence(tagged), der.sequence(), der.sequence())
    (client.folder / "data.der").write_bytes(data)
    client.openssl("req", "-x509", "-key", "req.key", "-subj", "/CN=cmc", "-days", "2", "-out", "self.pem")
    sign = ("-sign", "-binary", "-nodetach", "-in", "data.der", "-econtent_type", PKI_DATA, "-signer", "self.pem")
    client.openssl("cms", *sign, "-inkey", "req.key", "-keyid", "-nosmimecap", "-outform", "DER", "-out", "cmc.der")


def full_response(client: Client, *options: str) -> tuple[Answer, str]:
    """Send `cmc.der`; return the answer and the PKIResponse as openssl prints it, its signature verified."""
    media_type = ("-H", "Content-Type: application/pkcs7-mime; smime-type=CMC-request")
    answer = client.curl("fullcmc", *options, *media_type, "--data-binary", "@cmc.der")
    assert answer.headers["Content-Type"] == "application/pkcs7-mime; smime-type=CMC-response"
    (client.folder / "response.p7").write_bytes(client.openssl("base64", "-d", data=answer.body))
    state = client.site.server.state
    (client.folder / "anchors.pem").write_bytes(b"".join((state / "ca" / n).read_bytes() for n in ("root.pem", "issuing.pem")))
    verify = ("-verify", "-binary", "-inform", "DER", "-in", "response.p7", "-CAfile", "anchors.pem", "-purpose", "any")
    response = client.openssl("cms", *verify, "-certsout", "certificates.pem")
    return answer, client.openssl("asn1parse", "-inform", "DER", data=response).decode()


def test_full_cmc(client: Client) -> None:
    client.new_request("/CN=full-cmc")
    nonce = der.sequence(der.integer(2), der.oid("1.3.6.1.5.5.7.7.6"), der.set_of(der.octet_string(b"nonce of client")))
    pki_data(client, nonce)
    answer, response = full_response(client, *client.user)
    assert answer.status == 200
    assert "id-cmc-statusInfoV2" in response or "1.3.6.1.5.5.7.7.25" in response
    assert "nonce of client" in response
    found = x509.load_pem_x509_certificates((client.folder / "certificates.pem").read_bytes())
    assert "CN=full-cmc" in {c.subject.rfc4514_string() for c in found}


def test_full_cmc_is_refused_in_its_own_words(client: Client) -> None:
    client.new_request("/CN=full-cmc-refused")
    pki_data(client)
    answer, response = full_response(client, "-u", "demo:wrong")
    assert answer.status == 401
    assert "name or password is not valid" in response
    revoke = der.sequence(der.integer(2), der.oid("1.3.6.1.5.5.7.7.17"), der.set_of(der.sequence()))
    pki_data(client, revoke)
    answer, response = full_response(client, *client.user)
    assert answer.status == 400
    assert "not supported" in response
