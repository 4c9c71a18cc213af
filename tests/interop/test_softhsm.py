"""Keys in a real PKCS#11 token: they sign and decrypt, come back after a loss, and never lock their token with a wrong PIN."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from gateway.ca.interfaces import NotSent
from gateway.ca.local import CaUrls, LocalCA
from gateway.ca.pin_guard import PinGuard
from gateway.ca.token import FIRST_PAUSE, KeyName, Module, Token, TokenFault
from gateway.ca.token_keys import TokenECKey, TokenRSAKey, open_key
from gateway.ca.verify import verify_issued
from gateway.errors import KeyUnavailable
from gateway.model import UpstreamCAName
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import default_digest, generate_private_key, public_key_der, sign
from tests.peers.softhsm import PACKAGE, PIN, PROGRAM, SoftHsm
from tests.unit.ca.conftest import DAY, NOW, Pair, make_issuing, make_request, make_root

pytestmark = pytest.mark.interop
KEYS = {"rsa-2048": "01", "rsa-3072": "02", "ec-p256": "03", "ec-p384": "04", "ec-p521": "05"}
PKCS1 = padding.PKCS1v15()


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str, str], str]) -> Iterator[SoftHsm]:
    """One folder for all tests of this process: the module reads the variable when it begins."""
    require_program(PROGRAM, PACKAGE)
    peer = SoftHsm.create(tmp_path_factory.mktemp("softhsm"))
    peer.add_token("keys")
    for spec, number in KEYS.items():
        peer.add_key("keys", spec, spec, number)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in peer.environment.items():
            patch.setenv(name, value)
        yield peer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A token of one test as the gateway holds it, in a module that all tests share."""

    def __init__(self, hsm: SoftHsm, label: str, folder: Path, shared: Module) -> None:
        self.hsm, self.label, self.clock = hsm, label, Clock()
        self.guard = PinGuard(folder, b"k" * 32)
        self.token = Token(shared, label, self.clock)

    def key(self, name: str, pin: str = PIN) -> TokenRSAKey | TokenECKey:
        self.token.log_in(pin.encode(), self.guard)
        return open_key(self.token, KeyName(name, None))


@pytest.fixture(scope="module")
def shared(hsm: SoftHsm) -> Module:
    return Module(str(hsm.module))


@pytest.fixture
def site(hsm: SoftHsm, shared: Module, tmp_path: Path) -> Iterator[Site]:
    """The token `keys`."""
    made = Site(hsm, "keys", tmp_path, shared)
    yield made
    made.token._drop()


@pytest.fixture
def own(hsm: SoftHsm, shared: Module, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A token that a test may spoil, with one P-256 key."""
    label = request.node.name[:32]
    hsm.add_token(label)
    hsm.add_key(label, "signer", "ec-p256")
    made = Site(hsm, label, tmp_path, shared)
    yield made
    made.token._drop()


@pytest.mark.parametrize("spec", KEYS)
def test_signatures_verify_under_the_key_outside(site: Site, spec: str) -> None:
    key, outside = site.key(spec), site.hsm.keys[spec]
    assert public_key_der(key) == public_key_der(outside)
    for digest in ("sha1", "sha256", "sha512", default_digest(outside)):
        kind = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[digest]
        public = outside.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(sign(key, b"data", digest), b"data", PKCS1, kind)
        else:
            assert isinstance(public, ec.EllipticCurvePublicKey)
            public.verify(sign(key, b"data", digest), b"data", ec.ECDSA(kind))


def test_a_key_is_found_by_its_identifier(site: Site) -> None:
    site.token.log_in(PIN.encode(), site.guard)
    key = open_key(site.token, KeyName(None, b"\x03"))
    assert public_key_der(key) == public_key_der(site.hsm.keys["ec-p256"])


@pytest.mark.parametrize(
    "scheme",
    [PKCS1, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)],
    ids=["PKCS #1 v1.5", "OAEP with SHA-1"],
)
def test_what_was_encrypted_is_decrypted(site: Site, scheme: padding.AsymmetricPadding) -> None:
    key = site.key("rsa-2048")
    assert isinstance(key, TokenRSAKey)
    assert key.decrypt(key.public_key().encrypt(b"content key", scheme), scheme) == b"content key"


OAEP_SHA256 = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


@pytest.mark.parametrize(
    ("ciphertext", "scheme"),
    [(b"\0" * 255 + b"\1", PKCS1), (b"\xff" * 256, PKCS1), (b"short", PKCS1), (b"\1" * 256, OAEP_SHA256)],
    ids=["padding", "above the modulus", "too short", "OAEP with SHA-256"],
)
def test_bad_ciphertexts_fail_alike_and_keep_the_session(
    site: Site, ciphertext: bytes, scheme: padding.AsymmetricPadding
) -> None:
    key = site.key("rsa-2048")
    assert isinstance(key, TokenRSAKey)
    session = site.token._session
    with pytest.raises(ValueError):
        key.decrypt(ciphertext, scheme)
    assert site.token._session is session
    assert sign(key, b"data")


def test_a_key_does_not_leave_its_token(site: Site) -> None:
    for name in ("rsa-2048", "ec-p256"):
        key = site.key(name)
        with pytest.raises(ValueError, match="does not leave"):
            key.private_numbers()
        with pytest.raises(ValueError, match="does not leave"):
            key.private_bytes()


def test_threads_take_turns(site: Site) -> None:
    keys = [site.key(name) for name in ("rsa-2048", "ec-p256")]
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            sign(keys[number % 2], b"data")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [(KeyName("absent", None), "no such private key"), (KeyName("ec-p256", b"\x09"), "no such private key")],
)
def test_keys_that_are_not_there(site: Site, name: KeyName, sentence: str) -> None:
    site.token.log_in(PIN.encode(), site.guard)
    with pytest.raises(TokenFault, match=sentence):
        open_key(site.token, name)


def test_two_keys_of_one_name_are_refused(own: Site) -> None:
    own.hsm.import_key(own.label, "signer", generate_private_key("ec-p256"), "02")
    with pytest.raises(TokenFault, match="several"):
        own.key("signer")


def test_a_lost_session_is_opened_again(own: Site) -> None:
    key = own.key("signer")
    own.token._session.close()
    assert sign(key, b"data")
    own.token.module.restart()
    assert sign(key, b"data")


def test_a_token_that_is_away_comes_back(own: Site) -> None:
    key = own.key("signer")
    hidden = own.hsm.folder / "hidden"
    own.hsm.tokens.rename(hidden)
    own.hsm.tokens.mkdir()
    own.token.module.restart()
    with pytest.raises(KeyUnavailable, match="no token"):
        sign(key, b"data")
    own.hsm.tokens.rmdir()
    hidden.rename(own.hsm.tokens)
    with pytest.raises(KeyUnavailable, match="tried again"):
        sign(key, b"data")
    own.clock.now += FIRST_PAUSE
    assert sign(key, b"data")


def test_pauses_grow_while_a_token_is_away(own: Site) -> None:
    own.key("signer")
    own.token._drop()
    own.token.label = "gone"
    waits = []
    for _ in range(8):
        with pytest.raises(KeyUnavailable):
            own.token.use(KeyName("signer", None), lambda key: key)
        waits.append(own.token._next_attempt - own.clock.now)
        own.clock.now = own.token._next_attempt
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_wrong_pin_is_tried_once(own: Site, shared: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenFault, match="refuses the PIN"):
        own.key("signer", "9999")
    another_worker = Site(own.hsm, own.label, own.guard.path.parent, shared)
    for asked in (own, another_worker):
        with pytest.raises(TokenFault, match="refused this PIN before") as caught:
            asked.key("signer", "9999")
        assert "9999" not in str(caught.value)
    assert "9999" not in own.guard.path.read_text()
    assert sign(own.key("signer"), b"data")


def test_a_reload_with_a_wrong_pin_leaves_what_works(own: Site) -> None:
    key = own.key("signer")
    with pytest.raises(TokenFault, match="refuses the PIN"):
        own.key("signer", "9999")
    assert sign(key, b"data")


def test_a_reload_with_a_new_pin_goes_on(own: Site) -> None:
    key = own.key("signer")
    program = (
        "import pkcs11,sys\n"
        "token = pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2])\n"
        "with token.open(rw=True, user_pin='1234') as session: session.set_pin('1234', '5678')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(own.hsm.module), own.label], check=True, timeout=60)
    own.token.module.restart()  # SoftHSM reads the PIN once
    assert sign(own.key("signer", "5678"), b"data")
    own.token._session.close()
    assert sign(key, b"data")


def test_a_login_that_a_lost_session_left_behind_proves_no_pin(own: Site) -> None:
    key = own.key("signer")
    left_behind = own.token._token().open()
    own.token._session, session = None, own.token._session
    assert sign(key, b"data")  # in a session beside those two
    with pytest.raises(TokenFault, match="refuses the PIN"):
        own.key("signer", "9999")
    assert sign(own.key("signer"), b"data")
    del left_behind, session


def test_a_pin_that_was_changed_behind_us_is_not_tried_twice(own: Site) -> None:
    key = own.key("signer")
    own.token._pin = b"0000"
    own.token._drop()
    for _ in range(3):
        own.clock.now += 100
        with pytest.raises(KeyUnavailable, match="refuses the PIN"):
            sign(key, b"data")
    assert len(own.guard.path.read_text().split()) == 1


def test_a_module_that_is_none_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "module.so"
    broken.write_bytes(b"nothing")
    token = Token(Module(str(broken)), "keys")
    with pytest.raises(TokenFault, match="cannot be loaded"):
        token.log_in(b"1234", PinGuard(tmp_path, b"k"))


@pytest.mark.parametrize("spec", ["rsa-2048", "ec-p256"])
async def test_a_local_ca_issues_with_a_key_in_a_token(site: Site, spec: str) -> None:
    root = make_root()
    made = make_issuing(root, spec)
    site.hsm.import_key("keys", f"ca-{spec}", made.key, {"rsa-2048": "11", "ec-p256": "12"}[spec])
    site.token.module.restart()
    issuing = Pair(made.der, site.key(f"ca-{spec}"))
    ca = LocalCA(UpstreamCAName("local"), issuing.key, (issuing.der, root.der), CaUrls(), clock=lambda: NOW)
    request = make_request(ca.new_serial())
    issued = await ca.issue(request)
    verify_issued(request, parse_certificate(issued.certificate), issued.chain, ca.chain(), NOW)
    assert await ca.has_signed(await ca.sign_crl(1, NOW, NOW + DAY, ()))
    assert [trial.good for trial in await ca.check()] == [True, True]
    await ca.close()


async def test_a_ca_whose_token_is_away_has_sent_nothing(own: Site) -> None:
    root = make_root()
    made = make_issuing(root)
    own.hsm.import_key(own.label, "ca", made.key, "02")
    own.token.module.restart()
    ca = LocalCA(UpstreamCAName("local"), own.key("ca"), (made.der, root.der), CaUrls(), clock=lambda: NOW)
    own.token._drop()
    own.token.label = "gone"
    request = make_request(ca.new_serial())
    with pytest.raises(NotSent, match="no token") as caught:
        await ca.issue(request)
    assert caught.value.retry_after is not None
    assert timedelta(seconds=caught.value.retry_after) <= DAY
    with pytest.raises(NotSent):
        await ca.sign_crl(1, NOW, NOW + DAY, ())
    assert [trial.good for trial in await ca.check()] == [True, False]
    await ca.close()
