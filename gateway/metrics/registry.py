"""Every metric by name, labels and meaning; label values come from closed sets and configured names, never from a client."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Types of the exposition format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How the gauges of several workers become one; the words are prometheus-client's."""

    SUM = "livesum"
    NEWEST = "livemostrecent"


class Result(StrEnum):
    """What became of a request."""

    ISSUED = "issued"
    PENDING = "pending"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    FOUND = "found"
    """A look-up was answered."""


class Operation(StrEnum):
    """The messages of all protocols by the names that their standards give them."""

    PKCS_REQ = "PKCSReq"
    RENEWAL_REQ = "RenewalReq"
    CERT_POLL = "CertPoll"
    GET_CERT = "GetCert"
    GET_CRL = "GetCRL"
    SIMPLEENROLL = "simpleenroll"
    SIMPLEREENROLL = "simplereenroll"
    SERVERKEYGEN = "serverkeygen"
    FULLCMC = "fullcmc"
    RENEWAL_INFO = "renewal-info"
    NEW_ACCOUNT = "newAccount"
    ACCOUNT = "account"
    KEY_CHANGE = "keyChange"
    ORDERS = "orders"
    NEW_ORDER = "newOrder"
    ORDER = "order"
    NEW_AUTHORIZATION = "newAuthz"
    AUTHORIZATION = "authz"
    CHALLENGE = "challenge"
    FINALIZE = "finalize"
    CERTIFICATE = "certificate"
    REVOKE_CERT = "revokeCert"
    ACME_RENEWAL_INFO = "renewalInfo"
    IR = "ir"
    CR = "cr"
    KUR = "kur"
    P10CR = "p10cr"
    RR = "rr"
    CERT_CONF = "certConf"
    POLL_REQ = "pollReq"
    GENM = "genm"
    NESTED = "nested"
    ERROR = "error"
    UNKNOWN = "unknown"
    """Another message type, or nothing that could be read."""


class LegacyAlgorithm(StrEnum):
    """Algorithms that are accepted only where a profile says so."""

    MD5 = "md5"
    SHA1 = "sha1"
    TRIPLE_DES = "des-ede3-cbc"
    DES = "des-cbc"


class UpstreamOperation(StrEnum):
    """What an upstream CA is asked."""

    ISSUE = "issue"
    FIND = "find"
    POLL = "poll"
    REVOKE = "revoke"
    CRL = "crl"
    RENEWAL_HINT = "renewal_hint"


class UpstreamResult(StrEnum):
    """What an upstream CA answered."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    """The request did not reach it."""
    AUTH_FAILED = "auth_failed"
    """It does not take the gateway's credentials."""
    TIMEOUT = "timeout"
    FAILED = "failed"
    """Anything else: what it did is in doubt."""


class CommitResult(StrEnum):
    """What became of a group of writes."""

    DURABLE = "durable"
    FAILED = "failed"


class AcmeWork(StrEnum):
    """What of ACME is not done yet."""

    ORDER = "order"
    """An order that waits for its account: to prove its names, or to finalize it."""
    FINALIZATION = "finalization"
    """An order that was finalized and waits for its certificate."""
    CHALLENGE = "challenge"
    """A challenge that is being tried."""


class Waiting(StrEnum):
    """What an unfinished request waits for."""

    APPROVAL = "approval"
    UPSTREAM = "upstream"
    QUEUE = "queue"
    """Until its CA, which could not be reached, can be."""
    DOUBT = "doubt"
    """Until it is known what the upstream CA did: it is asked, or an operator ends it."""
    CONFIRMATION = "confirmation"
    """Until its CMP client confirms the certificate that it has."""


class CertificateKind(StrEnum):
    """Whose a configured certificate is."""

    RA = "ra"
    CA = "ca"
    TLS = "tls"
    CHALLENGE_ANCHOR = "challenge_anchor"
    CLIENT_ANCHOR = "client_anchor"
    PREVIOUS_RA = "previous_ra"
    NEXT_CA = "next_ca"
    RECIPIENT = "recipient"


class RestartCause(StrEnum):
    """Why a worker was replaced."""

    DIED = "died"
    ROLLING = "rolling"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric; `merge` says how a gauge of the workers is put together, None belongs to the supervisor."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge | None = None


_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UPSTREAM_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 90)
_COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

ENROLLMENTS = Family(
    "gateway_enrollments_total",
    Kind.COUNTER,
    "Answers to enrollment messages; the reason is empty without a refusal, the profile where none of the configured was named.",
    ("protocol", "profile", "operation", "result", "reason"),
)
REQUEST_SECONDS = Family(
    "gateway_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time from a message that could be read to its answer.",
    ("protocol", "profile", "operation"),
    _REQUEST_SECONDS,
)
AUTH_FAILURES = Family(
    "gateway_auth_failures_total",
    Kind.COUNTER,
    "Requests refused because of who asked.",
    ("protocol", "profile", "reason"),
)
SIGNED_CHALLENGES = Family(
    "gateway_signed_challenges_total",
    Kind.COUNTER,
    "What became of signed challenges.",
    ("profile", "result"),
)
LEGACY_ALGORITHMS = Family(
    "gateway_legacy_algorithms_total",
    Kind.COUNTER,
    "Accepted messages that used an algorithm of old clients.",
    ("protocol", "profile", "algorithm"),
)
UPSTREAM_SECONDS = Family(
    "gateway_upstream_request_duration_seconds",
    Kind.HISTOGRAM,
    "Time that an upstream CA took to answer, or that it was waited for.",
    ("upstream_ca", "operation", "result"),
    _UPSTREAM_SECONDS,
)
UPSTREAM_CIRCUIT_OPEN = Family(
    "gateway_upstream_circuit_open",
    Kind.GAUGE,
    "Workers that leave an upstream CA alone at present, because it has failed again and again.",
    ("upstream_ca",),
    merge=Merge.SUM,
)
UPSTREAM_FAILOVERS = Family(
    "gateway_upstream_failovers_total",
    Kind.COUNTER,
    "Requests that a member of a group of CAs did not take, so that the next one was asked.",
    ("group", "upstream_ca"),
)
STORE_COMMIT_SECONDS = Family(
    "gateway_store_commit_seconds",
    Kind.HISTOGRAM,
    "Time to make one group of writes durable.",
    ("result",),
    _COMMIT_SECONDS,
)
AUDIT_WRITE_FAILURES = Family(
    "gateway_audit_write_failures_total",
    Kind.COUNTER,
    "Answers that were not given, and counts that were kept back, because no audit row could be written.",
)
IN_FLIGHT = Family(
    "gateway_inflight",
    Kind.GAUGE,
    "Requests that are worked on.",
    merge=Merge.SUM,
)
CONNECTIONS = Family(
    "gateway_connections",
    Kind.GAUGE,
    "Open connections of clients.",
    merge=Merge.SUM,
)
PENDING_REQUESTS = Family(
    "gateway_pending_requests",
    Kind.GAUGE,
    "Requests that wait, by what they wait for.",
    ("waiting_for",),
    merge=Merge.NEWEST,
)
ACME_UNFINISHED = Family(
    "gateway_acme_unfinished",
    Kind.GAUGE,
    "Orders of ACME that wait for their accounts or for their certificates, and challenges that are tried.",
    ("work",),
    merge=Merge.NEWEST,
)
PENDING_REVOCATIONS = Family(
    "gateway_pending_revocations",
    Kind.GAUGE,
    "Revocations that an upstream CA has not been told of yet.",
    ("upstream_ca",),
    merge=Merge.NEWEST,
)
RESERVATIONS = Family(
    "gateway_reservations",
    Kind.GAUGE,
    "Used challenges and shared secrets that are remembered, so that none serves twice.",
    ("kind",),
    merge=Merge.NEWEST,
)
CRL_NEXT_UPDATE = Family(
    "gateway_crl_next_update_timestamp_seconds",
    Kind.GAUGE,
    "When the published CRL of a CA ends (nextUpdate), in Unix time.",
    ("upstream_ca",),
    merge=Merge.NEWEST,
)
CERTIFICATE_NOT_AFTER = Family(
    "gateway_certificate_not_after_timestamp_seconds",
    Kind.GAUGE,
    "When a configured certificate ends (notAfter), in Unix time; the name is the configuration field.",
    ("kind", "name"),
)
CLIENT_CRL_NEXT_UPDATE = Family(
    "gateway_client_crl_next_update_timestamp_seconds",
    Kind.GAUGE,
    "When the last CRL of a CA ends by which certificates of clients are judged (nextUpdate), in Unix time; 0: there is none.",
    ("name",),
)
CONFIG_GENERATION = Family(
    "gateway_config_generation",
    Kind.GAUGE,
    "Number of the configuration in force, counted from the start of the service.",
)
CONFIG_LAST_RELOAD_SUCCESSFUL = Family(
    "gateway_config_last_reload_successful",
    Kind.GAUGE,
    "1 when the last attempt to load the configuration succeeded, else 0.",
)
CONFIG_LAST_RELOAD_SUCCESS = Family(
    "gateway_config_last_reload_success_timestamp_seconds",
    Kind.GAUGE,
    "When a configuration was last put in force, in Unix time.",
)
WORKER_RESTARTS = Family(
    "gateway_worker_restarts_total",
    Kind.COUNTER,
    "Worker processes that were replaced, or tried in vain.",
    ("cause",),
)
WORKERS = Family(
    "gateway_workers",
    Kind.GAUGE,
    "Worker processes that accept connections.",
)
WORKER_CPU_SECONDS = Family(
    "gateway_worker_cpu_seconds_total",
    Kind.COUNTER,
    "Processor time of a worker process, user and system; begins anew with each process.",
    ("worker",),
)
WORKER_RESIDENT_MEMORY = Family(
    "gateway_worker_resident_memory_bytes",
    Kind.GAUGE,
    "Resident memory of a worker process.",
    ("worker",),
)
WORKER_OPEN_FILES = Family(
    "gateway_worker_open_fds",
    Kind.GAUGE,
    "File descriptors that a worker process has open.",
    ("worker",),
)
READY = Family(
    "gateway_ready",
    Kind.GAUGE,
    "1 while every worker makes a write durable and signs with its RA keys, else 0.",
)
BUILD_INFO = Family(
    "gateway_build_info",
    Kind.GAUGE,
    "1, labelled with what runs.",
    ("version", "python"),
)

FAMILIES = (
    ENROLLMENTS,
    REQUEST_SECONDS,
    AUTH_FAILURES,
    SIGNED_CHALLENGES,
    LEGACY_ALGORITHMS,
    UPSTREAM_SECONDS,
    UPSTREAM_CIRCUIT_OPEN,
    UPSTREAM_FAILOVERS,
    STORE_COMMIT_SECONDS,
    AUDIT_WRITE_FAILURES,
    IN_FLIGHT,
    CONNECTIONS,
    PENDING_REQUESTS,
    ACME_UNFINISHED,
    PENDING_REVOCATIONS,
    RESERVATIONS,
    CRL_NEXT_UPDATE,
    CERTIFICATE_NOT_AFTER,
    CLIENT_CRL_NEXT_UPDATE,
    CONFIG_GENERATION,
    CONFIG_LAST_RELOAD_SUCCESSFUL,
    CONFIG_LAST_RELOAD_SUCCESS,
    WORKER_RESTARTS,
    WORKERS,
    WORKER_CPU_SECONDS,
    WORKER_RESIDENT_MEMORY,
    WORKER_OPEN_FILES,
    READY,
    BUILD_INFO,
)
"""All of them, in the order of the documentation."""
