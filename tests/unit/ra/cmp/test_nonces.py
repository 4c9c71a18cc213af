"""Server nonces: ours for one profile, one transaction and one kind of protection, and nobody else's."""

from dataclasses import dataclass

import pytest

from gateway.cmp import MacSender, Sender, SharedSecret, SignatureSender
from gateway.model import ProfileName
from gateway.pki.certificate import parse_certificate, to_signer
from gateway.ra.cmp.nonces import NONCE_BYTES, Nonces, Origin
from tests.unit.ra.fleet import NOW, enroll

PROFILE, OTHER = ProfileName("corp"), ProfileName("other")
KEY, NEW_KEY = b"k" * 32, b"n" * 32
MAC = MacSender(SharedSecret("id", PROFILE, b"reference", b"secret", NOW, NOW, "test"), b"")
SIGNATURE = SignatureSender(to_signer(parse_certificate(enroll())))


@dataclass
class Asked:
    profile: ProfileName = PROFILE
    transaction: bytes = b"one"
    sender: Sender = MAC


@pytest.mark.parametrize(
    ("asked", "origin"),
    [
        pytest.param(Asked(), Origin.OURS, id="ours"),
        pytest.param(Asked(sender=SIGNATURE), Origin.OTHER_PROTECTION, id="another kind of protection"),
        pytest.param(Asked(profile=OTHER), Origin.STRANGE, id="another profile"),
        pytest.param(Asked(transaction=b"two"), Origin.STRANGE, id="another transaction"),
    ],
)
def test_whose_a_nonce_is(asked: Asked, origin: Origin) -> None:
    nonces = Nonces((KEY,))
    nonce = nonces.make(PROFILE, b"one", MAC)
    assert len(nonce) == NONCE_BYTES
    assert nonces.origin(nonce, asked.profile, asked.transaction, asked.sender) is origin


def test_nonces_are_never_the_same() -> None:
    nonces = Nonces((KEY,))
    assert len({nonces.make(PROFILE, b"one", MAC) for _ in range(100)}) == 100


def test_a_nonce_of_the_previous_key_is_ours() -> None:
    nonce = Nonces((KEY,)).make(PROFILE, b"one", SIGNATURE)
    assert Nonces((NEW_KEY, KEY)).origin(nonce, PROFILE, b"one", SIGNATURE) is Origin.OURS
    assert Nonces((NEW_KEY,)).origin(nonce, PROFILE, b"one", SIGNATURE) is Origin.STRANGE


def test_what_nobody_was_told_by_name_is_nobodys() -> None:
    nonces = Nonces((KEY,))
    nonce = nonces.make(PROFILE, b"one", None)
    assert nonces.origin(nonce, PROFILE, b"one", MAC) is Origin.STRANGE
    assert not nonces.is_of(nonce, PROFILE, b"one")


@pytest.mark.parametrize("position", range(0, NONCE_BYTES, 5))
def test_one_bit_changed(position: int) -> None:
    nonces = Nonces((KEY,))
    nonce = bytearray(nonces.make(PROFILE, b"one", MAC))
    nonce[position] ^= 1
    assert nonces.origin(bytes(nonce), PROFILE, b"one", MAC) is Origin.STRANGE


@pytest.mark.parametrize("nonce", [b"", b"short", bytes(64)], ids=["empty", "short", "long"])
def test_other_lengths(nonce: bytes) -> None:
    nonces = Nonces((KEY,))
    assert nonces.origin(nonce, PROFILE, b"one", MAC) is Origin.STRANGE
    assert not nonces.is_of(nonce, PROFILE, b"one")
    assert not nonces.is_of(None, PROFILE, b"one")


def test_parts_do_not_run_together() -> None:
    nonces = Nonces((KEY,))
    nonce = nonces.make(ProfileName("ab"), b"c", MAC)
    assert nonces.origin(nonce, ProfileName("a"), b"bc", MAC) is Origin.STRANGE


def test_no_key_is_refused() -> None:
    with pytest.raises(ValueError, match="no key"):
        Nonces(())
