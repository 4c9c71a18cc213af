"""The TLS contexts are built from memory, or refused in a sentence; one of them collects client certificates."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli.init import make_files
from gateway.errors import ConfigurationError
from gateway.model import Grant
from gateway.pki.certificate import (
    CA_KEY_USAGE,
    Issuer,
    build_certificate,
    der_to_pem,
    new_serial,
    pem_to_ders,
    self_signed_ca,
)
from gateway.pki.keys import PrivateKey, generate_private_key, load_private_key, public_key_der, serialize_private_key
from gateway.pki.names import parse_name_text
from gateway.web.tls import mtls_context, server_context, unresumable

FILES = {file.path: file.data for file in make_files("rsa-2048", "ec-p256", 1, 2, datetime.now(UTC))}
CERTIFICATE, KEY = FILES["tls/server.pem"], FILES["secrets/tls.key"]
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
CLIENT_AUTH, SERVER_AUTH = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"

Build = Callable[[bytes, bytes, str], ssl.SSLContext]


def ask(certificate: bytes, key: bytes, version: str) -> ssl.SSLContext:
    return mtls_context(certificate, key, version, (der_to_pem(FLEET.certificate),))


@dataclass(frozen=True)
class Ca:
    certificate: bytes
    key: PrivateKey

    def issue(self, name: str, is_ca: bool = False, until: datetime = NOW + DAY, **changes: object) -> "Ca":
        key = generate_private_key("ec-p256")
        values = {"sans": (), "key_usage": CA_KEY_USAGE if is_ca else ("digitalSignature",), "ekus": (), **changes}
        grant = Grant(subject_der=parse_name_text(name).der, not_before=NOW - 2 * DAY, not_after=until, **values)  # type: ignore[arg-type]
        issuer = Issuer.from_certificate(self.certificate, self.key)
        return Ca(build_certificate(issuer, new_serial(), grant, public_key_der(key), is_ca=is_ca), key)


def root(name: str, spec: str = "ec-p256") -> Ca:
    key = generate_private_key(spec)
    return Ca(self_signed_ca(key, name, NOW - 3 * DAY, NOW + 30 * DAY), key)


FLEET, OTHER_FLEET, STRANGERS = root("CN=Fleet"), root("CN=Other fleet"), root("CN=Strangers")
ISSUING = FLEET.issue("CN=Fleet issuing", is_ca=True, until=NOW + 20 * DAY)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(
    ("build", "mode"), [(server_context, ssl.CERT_NONE), (ask, ssl.CERT_OPTIONAL)], ids=["https", "https_mtls"]
)
def test_context(build: Build, mode: ssl.VerifyMode, version: str) -> None:
    context = build(CERTIFICATE, KEY, version)
    assert context.minimum_version is {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    assert context.verify_mode is mode
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.post_handshake_auth


def encrypted(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    key = load_private_key(pem)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


@pytest.mark.parametrize(("build", "section"), [(server_context, "https"), (ask, "https_mtls")], ids=["https", "https_mtls"])
@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        pytest.param(CERTIFICATE, serialize_private_key(generate_private_key("ec-p256")), "key: ", id="another-key"),
        pytest.param(b"", KEY, "certificate: the file does not hold", id="no-certificate"),
        pytest.param(CERTIFICATE, b"", "key: ", id="no-key"),
        pytest.param(CERTIFICATE, b"garbage", "key: ", id="garbage"),
        pytest.param(CERTIFICATE, encrypted(KEY), "key: the private key is encrypted", id="encrypted-key"),
    ],
)
def test_refusals(build: Build, section: str, certificate: bytes, key: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^server\.{section}\.{words}") as raised:
        build(certificate, key, "1.2")
    assert "PRIVATE KEY" not in str(raised.value)


@pytest.mark.parametrize(
    "anchors",
    [
        pytest.param((), id="none"),
        pytest.param((b"",), id="empty"),
        pytest.param((b"garbage",), id="garbage"),
        pytest.param((der_to_pem(FLEET.certificate), der_to_pem(b"\x30\x00")), id="one-broken"),
    ],
)
def test_anchors_that_cannot_be_read(anchors: tuple[bytes, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"^server\.https_mtls: the client_anchors"):
        mtls_context(CERTIFICATE, KEY, "1.2", anchors)


def test_the_same_anchor_in_two_profiles() -> None:
    bundle = der_to_pem(FLEET.certificate) + der_to_pem(OTHER_FLEET.certificate)
    context = mtls_context(CERTIFICATE, KEY, "1.2", (bundle, der_to_pem(FLEET.certificate)))
    assert len(context.get_ca_certs()) == 2


def test_an_anchor_whose_key_tls_cannot_use_keeps_the_others_in_force() -> None:
    assert len(asking(FLEET, root("CN=Fleet of tomorrow", "ml-dsa-65")).get_ca_certs()) == 2


@dataclass
class Handshake:
    """Both ends of one connection in memory."""

    server: ssl.SSLObject
    client: ssl.SSLObject

    def certificate(self) -> bytes | None:
        return self.server.getpeercert(binary_form=True)


def connect(server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Handshake:
    """Shake hands until both are done. Raises ssl.SSLError of the server."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = Handshake(server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, session=session))
    waiting = [ends.client, ends.server]
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    return ends


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[..., ssl.SSLContext]:
    """Returns the context of a TLS client with a certificate, and what it sends beside it; or with none."""

    def make(version: ssl.TLSVersion, own: Ca | None, *chain: Ca) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=b"".join(pem_to_ders(FILES["ca/root.pem"])))
        context.minimum_version = context.maximum_version = version
        if own is not None:
            path = tmp_path / "client.pem"
            certificates = b"".join(der_to_pem(ca.certificate) for ca in (own, *chain))
            path.write_bytes(certificates + serialize_private_key(own.key))
            context.load_cert_chain(path)
        return context

    return make


def as_it_is(context: ssl.SSLContext) -> ssl.SSLContext:
    return context


BOTH = pytest.mark.parametrize("in_force", [as_it_is, unresumable])
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


def asking(*anchors: Ca) -> ssl.SSLContext:
    return mtls_context(CERTIFICATE, KEY, "1.2", tuple(der_to_pem(ca.certificate) for ca in anchors))


@BOTH
@VERSIONS
@pytest.mark.parametrize(
    ("own", "chain", "anchors"),
    [
        pytest.param(FLEET.issue("CN=a"), (), (FLEET,), id="below-a-root"),
        pytest.param(FLEET.issue("CN=a"), (), (OTHER_FLEET, FLEET), id="below-an-anchor-of-any-profile"),
        pytest.param(ISSUING.issue("CN=a"), (), (ISSUING,), id="below-an-issuing-CA-without-its-root"),
        pytest.param(ISSUING.issue("CN=a"), (), (FLEET, ISSUING), id="issuing-CA-in-the-bundle"),
        pytest.param(ISSUING.issue("CN=a"), (ISSUING,), (FLEET,), id="issuing-CA-sent-along"),
        pytest.param(FLEET.issue("CN=a", until=NOW - DAY), (), (FLEET,), id="expired-is-for-the-profile-to-refuse"),
        pytest.param(FLEET.issue("CN=a", ekus=(CLIENT_AUTH,)), (), (FLEET,), id="for-clients"),
    ],
)
def test_client_certificates_are_collected(
    own: Ca,
    chain: tuple[Ca, ...],
    anchors: tuple[Ca, ...],
    version: ssl.TLSVersion,
    client_of: Callable[..., ssl.SSLContext],
    in_force: Callable[[ssl.SSLContext], ssl.SSLContext],
) -> None:
    assert connect(in_force(asking(*anchors)), client_of(version, own, *chain)).certificate() == own.certificate


@BOTH
@VERSIONS
@pytest.mark.parametrize(
    ("own", "why"),
    [
        pytest.param(STRANGERS.issue("CN=a"), "unable to get local issuer certificate", id="of-an-unknown-CA"),
        pytest.param(ISSUING.issue("CN=a"), "unable to get local issuer certificate", id="without-its-issuing-CA"),
        pytest.param(FLEET.issue("CN=a", ekus=(SERVER_AUTH,)), "unsuitable certificate purpose", id="for-servers"),
    ],
)
def test_other_client_certificates_end_in_an_alert(
    own: Ca,
    why: str,
    version: ssl.TLSVersion,
    client_of: Callable[..., ssl.SSLContext],
    in_force: Callable[[ssl.SSLContext], ssl.SSLContext],
) -> None:
    with pytest.raises(ssl.SSLError, match=why):
        connect(in_force(asking(FLEET, OTHER_FLEET)), client_of(version, own))


@BOTH
@VERSIONS
@pytest.mark.parametrize("build", [server_context, ask], ids=["https", "https_mtls"])
def test_a_client_may_show_none(
    build: Build,
    version: ssl.TLSVersion,
    client_of: Callable[..., ssl.SSLContext],
    in_force: Callable[[ssl.SSLContext], ssl.SSLContext],
) -> None:
    assert connect(in_force(build(CERTIFICATE, KEY, "1.2")), client_of(version, None)).certificate() is None


@VERSIONS
def test_https_does_not_ask(version: ssl.TLSVersion, client_of: Callable[..., ssl.SSLContext]) -> None:
    own = FLEET.issue("CN=a")
    assert connect(server_context(CERTIFICATE, KEY, "1.2"), client_of(version, own)).certificate() is None


def test_a_resumed_session_keeps_the_certificate_in_its_own_context_only(client_of: Callable[..., ssl.SSLContext]) -> None:
    own = FLEET.issue("CN=a")
    server, client = asking(FLEET), client_of(ssl.TLSVersion.TLSv1_2, own)
    first = connect(server, client)
    assert first.client.session is not None
    assert not first.client.session.has_ticket
    again, elsewhere = (connect(context, client, first.client.session) for context in (server, asking(FLEET)))
    assert (again.server.session_reused, elsewhere.server.session_reused) == (True, False)
    assert again.certificate() == elsewhere.certificate() == own.certificate


def test_tls_13_sessions_are_not_resumed(client_of: Callable[..., ssl.SSLContext]) -> None:
    ends = connect(asking(FLEET), client_of(ssl.TLSVersion.TLSv1_3, FLEET.issue("CN=a")))
    ends.server.write(b"x")
    assert ends.client.read(1) == b"x"
    assert ends.client.session is None or not ends.client.session.has_ticket


def test_an_unresumable_context_resumes_nothing(client_of: Callable[..., ssl.SSLContext]) -> None:
    server, client = asking(FLEET), client_of(ssl.TLSVersion.TLSv1_2, FLEET.issue("CN=a"))
    bare = unresumable(server)
    first = connect(bare, client)
    assert first.server.context is server
    again = [connect(context, client, first.client.session) for context in (unresumable(server), server)]
    assert [ends.server.session_reused for ends in again] == [False, False]
    assert first.client.get_channel_binding("tls-unique") == first.server.get_channel_binding("tls-unique")


@pytest.mark.parametrize("build", [server_context, ask], ids=["https", "https_mtls"])
def test_an_unresumable_context_is_as_the_other(build: Build, client_of: Callable[..., ssl.SSLContext]) -> None:
    context = build(CERTIFICATE, KEY, "1.3")
    bare = unresumable(context)
    for name in ("minimum_version", "maximum_version", "options", "num_tickets", "verify_mode", "verify_flags"):
        assert getattr(bare, name) == getattr(context, name), name
    assert bare.get_ciphers() == context.get_ciphers()
    client = client_of(ssl.TLSVersion.TLSv1_3, None)
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert connect(bare, client).client.selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLError):
        connect(unresumable(context), client_of(ssl.TLSVersion.TLSv1_2, None))
