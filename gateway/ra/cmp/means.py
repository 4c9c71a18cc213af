"""What every part of CMP's state machine works with, and one message on its way through it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar, TypeVarTuple

from gateway.cmp import Message, Sender, SignatureSender
from gateway.model import UNLIMITED_NOT_AFTER, secret_key_of
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.cmp.nonces import Nonces
from gateway.ra.profile import CmpTerms, Profile, Snapshot
from gateway.store.cmp import CmpRecords
from gateway.store.interfaces import Ledger

TRANSACTION_KEPT_FOR = timedelta(days=30)
"""A message is answered within minutes of its time."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Derivations(Protocol):
    """Derives keys from secrets away from the event loop, a few at a time."""

    async def begin(self, source: str, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do work for a request that nobody has proved anything with; Rejection OVERLOADED when too much waits already."""


@dataclass(frozen=True, slots=True)
class Means:
    """The registration authority, the store's parts, and what reads messages that come nested."""

    authority: RegistrationAuthority
    ledger: Ledger
    records: CmpRecords
    clock: Callable[[], datetime]
    nonces: Nonces
    decode: Callable[[bytes], Message]
    derivations: Derivations


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message whose sender is known: its protection was verified, and nothing else of it is trusted.

    `profile` is the one that judges it, chosen by path and certProfile; `transaction` its transactionID, or what stands for it
    where it has none. `via` is the registration authority that forwarded it (nested).
    """

    snapshot: Snapshot
    profile: Profile
    terms: CmpTerms
    message: Message
    sender: Sender
    transaction: bytes
    source: str
    now: datetime
    via: SignatureSender | None = None

    @property
    def transaction_id(self) -> str:
        """The transaction as ledger, log and audit name it."""
        return self.transaction.hex()

    @property
    def operation(self) -> str:
        """What the message is, as the RFC calls it."""
        return self.message.type.operation

    @property
    def lightweight(self) -> bool:
        """Whether all is demanded that RFC 9483 demands."""
        return self.terms.config.strictness == "lightweight"

    @property
    def kept_until(self) -> datetime:
        """Until when its transaction serves nothing else: beyond the time that its messageTime is good for, else without end."""
        return UNLIMITED_NOT_AFTER if self.message.header.message_time is None else self.now + TRANSACTION_KEPT_FOR

    @property
    def requester_key(self) -> bytes:
        """What stands for its sender in the ledger: SHA-256 of the key that signed it, or a shared secret's name."""
        sender = self.sender
        return sender.signer.public_key.sha256 if isinstance(sender, SignatureSender) else secret_key_of(sender.secret.id)


def transaction_key(exchange: Exchange) -> bytes:
    """Return the 32 bytes that stand for a transaction of this sender at this profile, and for no other (RFC 9810 §5.1.1)."""
    digest = hashlib.sha256()
    for part in (exchange.profile.name.encode(), exchange.requester_key, exchange.transaction):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()


def identity_of(sender: Sender) -> str:
    """Return what the audit trail calls a sender of whom nothing is known but what protected the message."""
    return f"certificate:{sender.signer.sha256.hex()}" if isinstance(sender, SignatureSender) else sender.identity
