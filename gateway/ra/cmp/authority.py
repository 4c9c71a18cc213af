"""What a CMP endpoint asks: one message is judged and answered, whatever its body is (RFC 9810 §5.1, RFC 9483 §3.5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar, TypeVarTuple

from gateway.cmp import Answer, Message
from gateway.model import ProfileName
from gateway.ra.authority import RegistrationAuthority
from gateway.ra.profile import Snapshot
from gateway.store.cmp import CmpRecords
from gateway.store.interfaces import Ledger

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Derivations(Protocol):
    """Derives keys from secrets away from the event loop, a few at a time."""

    async def begin(self, source: str, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Do work for a request that nobody has proved anything with; Rejection OVERLOADED when too much waits already."""


class CmpAuthority:
    """The state machine of CMP around `RegistrationAuthority`; one serves one worker for its whole life."""

    def __init__(
        self,
        authority: RegistrationAuthority,
        ledger: Ledger,
        records: CmpRecords,
        clock: Callable[[], datetime],
        nonce_keys: tuple[bytes, ...],
        decode: Callable[[bytes], Message],
        derivations: Derivations,
    ) -> None:
        """Take the store's parts; the first of `nonce_keys`, 32 bytes each and the same in all workers, makes nonces.

        `decode` reads the messages that come nested (wire/cmp); it raises MalformedMessage.
        """
        if not nonce_keys:
            raise ValueError("there is no key for nonces")

    async def answer(self, snapshot: Snapshot, profile: ProfileName, message: Message, operation: str | None, source: str) -> Answer:
        """Judge one message and return its answer; never raises for anything that it met there.

        `profile` is whose path it came by, `operation` what follows that, one of `PATH_OPERATIONS`; `source` the client's address.
        """
        raise NotImplementedError
