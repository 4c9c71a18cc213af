"""How long each fault behind the decryption takes to be refused, against the median of all: what a stopwatch would learn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import perf_counter_ns, thread_time

from gateway.asn1.scep import MessageType
from gateway.errors import Rejection
from gateway.pki import cms
from gateway.pki.certificate import pem_to_ders
from gateway.pki.keys import generate_private_key, load_private_key
from gateway.wire.scep.client import self_signed_signer
from gateway.wire.scep.identity import RaIdentity
from gateway.wire.scep.pkimessage import PkiMessage, decode_pki_message, decode_request
from tests.unit.wire.scep.faults import PASSWORD, SUBJECT, Fault, Transport, faults, plain_of, seal, signed_message

TESTDATA = Path(__file__).parent.parent / "testdata" / "scep"
MESSAGES = 8
"""Different messages of each fault: their keys and padding are random."""
WARM_UP = 10
GOOD = Fault("(nothing wrong)")


@dataclass(frozen=True, slots=True)
class Row:
    """One fault's median, and by how many percent it differs from the median of all faults' medians."""

    name: str
    microseconds: float
    deviation: float


def measure(transport: Transport, kind: MessageType, rounds: int) -> list[Row]:
    """Decode `rounds` messages of every fault, in turns so that what disturbs one disturbs all."""
    ra = _ra()
    signer = _signer(transport)
    messages = {
        fault.name: [_message(fault, transport, kind, ra, signer) for _ in range(MESSAGES)]
        for fault in (GOOD, *faults(transport, kind))
    }
    medians = _medians(messages, lambda message: decode_request(message, ra), rounds)
    middle = statistics.median(value for name, value in medians.items() if name != GOOD.name)
    return [Row(name, value, (value / middle - 1) * 100) for name, value in medians.items()]


def _medians(messages: Mapping[str, list[PkiMessage]], decode: Callable[[PkiMessage], object], rounds: int) -> dict[str, float]:
    times: dict[str, list[int]] = {name: [] for name in messages}
    order, shuffle = list(messages), Random(1).shuffle
    for number in range(rounds + WARM_UP):
        shuffle(order)  # in one order the garbage collector would come at the same faults each time
        for name in order:
            message = messages[name][number % MESSAGES]
            begun = perf_counter_ns()
            with suppress(Rejection):
                decode(message)
            times[name].append(perf_counter_ns() - begun)
    return {name: statistics.median(found[WARM_UP:]) / 1000 for name, found in times.items()}


def _ra() -> RaIdentity:
    [certificate] = pem_to_ders((TESTDATA / "ra.pem").read_bytes())
    key = load_private_key((TESTDATA / "ra.key").read_bytes())
    return replace(RaIdentity.create(certificate, key, (), stopwatch=thread_time), password=PASSWORD)


def _signer(transport: Transport) -> cms.Signer:
    key = generate_private_key("rsa-2048" if transport is Transport.RSA else "ec-p256")
    now = datetime.now(UTC).replace(microsecond=0)
    return self_signed_signer(key, SUBJECT, now - timedelta(days=1), now + timedelta(days=1))


def _message(fault: Fault, transport: Transport, kind: MessageType, ra: RaIdentity, signer: cms.Signer) -> PkiMessage:
    return decode_pki_message(signed_message(seal(fault, transport, ra, plain_of(kind, ra)), kind, signer))


def print_uniformity(rounds: int) -> bool:
    """Print every row; returns whether all are within 5 percent."""
    worst = 0.0
    for transport in Transport:
        for kind in (MessageType.PKCS_REQ, MessageType.GET_CERT, MessageType.GET_CRL):
            rows = measure(transport, kind, rounds)
            print(f"{transport.value} {kind.name} ({kind.value}): medians of {rounds} decode attempts each")
            for row in rows:
                print(f"  {row.name:<52} {row.microseconds:8.1f} µs  {row.deviation:+6.2f} %")
            refused = [abs(row.deviation) for row in rows if row.name != GOOD.name]
            worst = max(worst, *refused)
            print(f"  {'largest deviation of a fault':<52} {max(refused):20.2f} %")
    print(f"largest deviation of all: {worst:.2f} % (goal: 5 %)")
    return worst <= 5
