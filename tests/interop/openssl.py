"""A SCEP client made of `openssl` commands; only the signed attributes, which these cannot write, are ours."""

import re
import secrets
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from gateway.asn1 import scep as asn1
from gateway.asn1.scep import MessageType
from gateway.pki import cms, der
from gateway.wire.scep import attributes

REQUEST = """[req]
distinguished_name = name
attributes = attributes
prompt = no
[name]
CN = {common_name}
[attributes]
{challenge}
"""


@dataclass
class OpensslClient:
    """A folder with a device's key and the certificate that signs its messages, and what it knows of the RA."""

    folder: Path
    url: str
    state: Path

    def openssl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(["openssl", *args], cwd=self.folder, capture_output=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done

    def new_key(self, *options: str) -> None:
        """Make a key, and the throw-away certificate that a first request is signed with."""
        self.openssl("genpkey", *options, "-out", "key.pem")
        self.openssl("req", "-new", "-x509", "-key", "key.pem", "-subj", "/CN=first-request", "-days", "2", "-out", "signer.pem")

    def new_request(self, common_name: str, challenge: str | None) -> str:
        """Make a CSR; return its file's name."""
        line = f"challengePassword = {challenge}" if challenge else ""
        (self.folder / "req.conf").write_text(REQUEST.format(common_name=common_name, challenge=line))
        self.openssl("req", "-new", "-key", "key.pem", "-config", "req.conf", "-outform", "DER", "-out", "csr.der")
        return "csr.der"

    def encrypt(self, file: str, *options: str, cipher: str = "-aes256") -> bytes:
        """Encrypt to the RA, unless `options` name another recipient."""
        recipient = options if "-pwri_password" in options else ("-recip", str(self.state / "ca" / "ra.pem"), *options)
        return self.openssl("cms", "-encrypt", "-binary", "-in", file, "-outform", "DER", cipher, *recipient).stdout

    def send(self, message_type: int, content: bytes, transaction: str) -> Path:
        """Sign, send, and return the file that holds the reply."""
        certificate = x509.load_pem_x509_certificate((self.folder / "signer.pem").read_bytes())
        key = load_pem_private_key((self.folder / "key.pem").read_bytes(), None)
        signer = cms.Signer.create(certificate.public_bytes(Encoding.DER), key)  # type: ignore[arg-type]
        signed = (
            attributes.code(asn1.OID_MESSAGE_TYPE, message_type),
            cms.attribute(asn1.OID_TRANSACTION_ID, der.printable_string(transaction)),
            attributes.nonce(asn1.OID_SENDER_NONCE, secrets.token_bytes(16)),
        )
        request = urllib.request.Request(f"{self.url}?operation=PKIOperation", cms.sign_data(content, signer, "sha256", signed))
        return self.save("reply.der", urllib.request.urlopen(request, timeout=30).read())

    def get(self, operation: str) -> Path:
        return self.save("reply.der", urllib.request.urlopen(f"{self.url}?operation={operation}", timeout=30).read())

    def save(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def enroll(self, common_name: str, challenge: str | None, *options: str, cipher: str = "-aes256") -> Path:
        content = self.encrypt(self.new_request(common_name, challenge), *options, cipher=cipher)
        return self.send(MessageType.PKCS_REQ, content, common_name)

    def verify(self, reply: Path) -> bytes:
        """Verify the reply's signature and the RA's path to the root; return what is signed, write `signed-by.pem`."""
        anchors = self.save("anchors.pem", b"".join((self.state / "ca" / n).read_bytes() for n in ("root.pem", "issuing.pem")))
        return self.openssl(
            "cms", "-verify", "-binary", "-inform", "DER", "-in", reply.name, "-CAfile", anchors.name, "-purpose", "any",
            "-signer", "signed-by.pem",
        ).stdout  # fmt: skip

    def attribute(self, reply: Path, oid: str) -> str:
        """The text of a signed attribute, as OpenSSL prints it; empty where there is none."""
        text = self.openssl("cms", "-cmsout", "-print", "-noout", "-inform", "DER", "-in", reply.name).stdout.decode()
        found = re.search(rf"object: [^\n]*\({re.escape(oid)}\)\n\s+set:\n\s+[A-Z0-9]+STRING:(\S*)", text)
        return found[1] if found else ""

    def decrypt(self, content: bytes, *options: str) -> str:
        """Decrypt what a reply carries; return its certificates and CRLs, PEM."""
        self.save("content.der", content)
        own = options or ("-recip", "signer.pem", "-inkey", "key.pem")
        self.openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-in", "content.der", *own, "-out", "certificates.p7")
        return self.list_certificates("certificates.p7")

    def list_certificates(self, file: str) -> str:
        """What a certs-only SignedData holds, PEM."""
        return self.openssl("pkcs7", "-inform", "DER", "-print_certs", "-in", file).stdout.decode()
