"""What a worker counts: one function an event, microseconds each; a series is made once and kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from gateway.errors import AUTHENTICATION_REASONS, Reason
from gateway.metrics import registry
from gateway.metrics.files import VARIABLE, reserve
from gateway.metrics.registry import (
    AcmeWork,
    CommitResult,
    Family,
    LegacyAlgorithm,
    Operation,
    Result,
    UpstreamOperation,
    UpstreamResult,
    Waiting,
)
from gateway.model import Issued, Pending, ProfileName, Protocol, Rejected, Unavailable, UpstreamCAName

uncounted: str | None = None
"""Why nothing of what this worker counts would ever be read: it must not serve."""

if VARIABLE in os.environ:
    # A worker: the library maps its files with the first metric, below.
    _PROCESS = os.getpid()
    try:
        reserve(Path(os.environ[VARIABLE]), _PROCESS)
    except OSError as _error:
        uncounted = f"this worker cannot count in {os.environ[VARIABLE]}: {_error.strerror}"
        values.ValueClass = values.MutexValue
    else:
        # It never forks itself: the library need not ask the kernel with every count who counts.
        values.ValueClass = values.MultiProcessValue(lambda: _PROCESS)

REGISTRY = CollectorRegistry()
"""What this process alone counted; across workers the supervisor reads their files."""

_RESULTS = {Issued: Result.ISSUED, Pending: Result.PENDING, Rejected: Result.REJECTED, Unavailable: Result.UNAVAILABLE}
_OPERATIONS = {operation.value: operation for operation in Operation}
_ENROLLING = {
    Protocol.SCEP: (Operation.PKCS_REQ, Operation.RENEWAL_REQ),
    Protocol.EST: (Operation.SIMPLEENROLL, Operation.SIMPLEREENROLL),
    Protocol.ACME: (Operation.FINALIZE,),
    Protocol.CMP: (Operation.IR, Operation.CR, Operation.KUR, Operation.P10CR),
}
_LEGACY = {algorithm.value: algorithm for algorithm in LegacyAlgorithm}


def _counter(family: Family) -> Counter:
    return Counter(family.name, family.help, family.labels, registry=REGISTRY)


def _histogram(family: Family) -> Histogram:
    return Histogram(family.name, family.help, family.labels, buckets=family.buckets, registry=REGISTRY)


def _gauge(family: Family) -> Gauge:
    mode = family.merge.value if family.merge else "all"
    return Gauge(family.name, family.help, family.labels, multiprocess_mode=mode, registry=REGISTRY)  # type: ignore[arg-type]


_enrollments = _counter(registry.ENROLLMENTS)
_request_seconds = _histogram(registry.REQUEST_SECONDS)
_auth_failures = _counter(registry.AUTH_FAILURES)
_signed_challenges = _counter(registry.SIGNED_CHALLENGES)
_legacy_algorithms = _counter(registry.LEGACY_ALGORITHMS)
_upstream_seconds = _histogram(registry.UPSTREAM_SECONDS)
_upstream_circuit_open = _gauge(registry.UPSTREAM_CIRCUIT_OPEN)
_upstream_failovers = _counter(registry.UPSTREAM_FAILOVERS)
_store_commit_seconds = _histogram(registry.STORE_COMMIT_SECONDS)
_audit_write_failures = _counter(registry.AUDIT_WRITE_FAILURES)
_in_flight = _gauge(registry.IN_FLIGHT)
_connections = _gauge(registry.CONNECTIONS)
_pending_requests = _gauge(registry.PENDING_REQUESTS)
_acme_unfinished = _gauge(registry.ACME_UNFINISHED)
_pending_revocations = _gauge(registry.PENDING_REVOCATIONS)
_reservations = _gauge(registry.RESERVATIONS)
_crl_next_update = _gauge(registry.CRL_NEXT_UPDATE)


def open_profile(protocol: Protocol, profile: ProfileName, challenge_results: Iterable[str] = ()) -> None:
    """Begin the series of a configured profile at nought: an alert on an increase would miss a series' first event otherwise.

    `challenge_results` is the closed set of what may become of a signed challenge; empty for a profile that takes none.
    """
    for operation in _ENROLLING.get(protocol, ()):
        _answers(protocol, profile, operation, Result.ISSUED, None)
    for result in challenge_results:
        _challenges(profile, result)


def count_answer(protocol: Protocol, profile: ProfileName, operation: str, answer: object, seconds: float) -> None:
    """Count the answer to a message that could be read, and the time from there to here.

    `answer` is an outcome of the registration authority; whatever is none is an answered look-up.
    """
    reason = answer.reason if isinstance(answer, Rejected | Unavailable) else None
    count_result(protocol, profile, operation, _RESULTS.get(type(answer), Result.FOUND), reason, seconds)


def count_result(
    protocol: Protocol, profile: ProfileName, operation: str, result: Result, reason: Reason | None, seconds: float
) -> None:
    """Count what became of a message that could be read, by its word, and the time from there to here."""
    series = _series(protocol, profile, operation, result, reason)
    series.answers.inc()
    series.requests.observe(seconds)
    if series.failures is not None:
        series.failures.inc()


def count_refusal(protocol: Protocol, profile: ProfileName | None, reason: Reason) -> None:
    """Count the refusal of something that was not read as a message; None: it named no configured profile."""
    _answers(protocol, profile or "", Operation.UNKNOWN, Result.REJECTED, reason).inc()


def count_unavailable(protocol: Protocol, profile: ProfileName, reason: Reason) -> None:
    """Count what was sent away for a while before it was read."""
    _answers(protocol, profile, Operation.UNKNOWN, Result.UNAVAILABLE, reason).inc()


def count_signed_challenge(profile: ProfileName, result: str) -> None:
    """Count what became of a signed challenge, by a word of its closed vocabulary."""
    _challenges(profile, result).inc()


def count_legacy_algorithm(protocol: Protocol, profile: str, algorithm: str) -> None:
    """Count one accepted message that used an algorithm of old clients."""
    if algorithm in _LEGACY:
        _legacy(protocol, profile, _LEGACY[algorithm]).inc()


def observe_upstream(upstream_ca: UpstreamCAName, operation: UpstreamOperation, result: UpstreamResult, seconds: float) -> None:
    """Count one question to an upstream CA."""
    _upstreams(upstream_ca, operation, result).observe(seconds)


def set_circuit(upstream_ca: UpstreamCAName, *, is_open: bool) -> None:
    """Say whether this worker leaves an upstream CA alone."""
    _upstream_circuit_open.labels(upstream_ca).set(is_open)


def count_failover(group: UpstreamCAName, upstream_ca: UpstreamCAName) -> None:
    """Count one request that a member of a group did not take."""
    _upstream_failovers.labels(group, upstream_ca).inc()


def observe_commit(result: CommitResult, seconds: float) -> None:
    """Count one group of writes."""
    _commits(result).observe(seconds)


def count_audit_write_failure() -> None:
    """Count an answer that was not given, or a count that was kept back, for want of an audit row."""
    _audit_write_failures.inc()


def set_load(in_flight: int, connections: int) -> None:
    """Say how many requests and connections this worker has now."""
    _in_flight.set(in_flight)
    _connections.set(connections)


def set_pending(counts: Mapping[Waiting, int]) -> None:
    """Say how many requests of the whole store wait; what is not named, none waits for."""
    for waiting in Waiting:
        _pending_requests.labels(waiting.value).set(counts.get(waiting, 0))


def set_acme_unfinished(counts: Mapping[AcmeWork, int]) -> None:
    """Say how much of ACME is not done yet in the whole store."""
    for work, count in counts.items():
        _acme_unfinished.labels(work.value).set(count)


def set_pending_revocations(counts: Mapping[UpstreamCAName, int]) -> None:
    """Say how many revocations each of these CAs has not been told of."""
    for upstream_ca, count in counts.items():
        _pending_revocations.labels(upstream_ca).set(count)


def set_reservations(counts: Mapping[str, int]) -> None:
    """Say how many reservations the whole store remembers, by their kinds."""
    for kind, count in counts.items():
        _reservations.labels(kind).set(count)


def set_crl_next_update(upstream_ca: UpstreamCAName, at: datetime) -> None:
    """Say when the CRL ends that is published now."""
    _crl_next_update.labels(upstream_ca).set(at.timestamp())


class _Series(NamedTuple):
    """Where one kind of answer is counted; `failures` where it concerns who asked."""

    answers: Counter
    requests: Histogram
    failures: Counter | None


@lru_cache(maxsize=1024)
def _series(protocol: Protocol, profile: ProfileName, operation: str, result: Result, reason: Reason | None) -> _Series:
    """Find all series of an answer at once; bounded, since `operation` need not be one of ours."""
    known = _OPERATIONS.get(operation, Operation.UNKNOWN)
    return _Series(
        _answers(protocol, profile, known, result, reason),
        _requests(protocol, profile, known),
        _failures(protocol, profile, reason) if reason in AUTHENTICATION_REASONS else None,
    )


@cache
def _answers(protocol: Protocol, profile: str, operation: Operation, result: Result, reason: Reason | None) -> Counter:
    return _enrollments.labels(protocol.value, profile, operation.value, result.value, reason.value if reason else "")


@cache
def _requests(protocol: Protocol, profile: str, operation: Operation) -> Histogram:
    return _request_seconds.labels(protocol.value, profile, operation.value)


@cache
def _failures(protocol: Protocol, profile: str, reason: Reason) -> Counter:
    return _auth_failures.labels(protocol.value, profile, reason.value)


@cache
def _challenges(profile: ProfileName, result: str) -> Counter:
    return _signed_challenges.labels(profile, result)


@cache
def _legacy(protocol: Protocol, profile: str, algorithm: LegacyAlgorithm) -> Counter:
    return _legacy_algorithms.labels(protocol.value, profile, algorithm.value)


@cache
def _upstreams(upstream_ca: UpstreamCAName, operation: UpstreamOperation, result: UpstreamResult) -> Histogram:
    return _upstream_seconds.labels(upstream_ca, operation.value, result.value)


@cache
def _commits(result: CommitResult) -> Histogram:
    return _store_commit_seconds.labels(result.value)
