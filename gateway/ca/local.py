"""The embedded CA: a key in memory or in a token that signs certificates and CRLs (RFC 5280 §4, §5)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    NotSent,
    Trial,
    UnknownResult,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.key_source import is_in_token, read_key
from gateway.ca.setup import read_certificates, utc_now
from gateway.config.document import ConfigurationFaults, Problem
from gateway.config.load import Sources
from gateway.config.upstream_cas import LocalCA as Config
from gateway.errors import KeyUnavailable, Rejection
from gateway.model import UNLIMITED_NOT_AFTER, RequestForm, RevocationReason, UpstreamCAName
from gateway.pki.certificate import Certificate, Issuer, build_certificate, new_serial, parse_certificate
from gateway.pki.crl import build_crl, parse_crl
from gateway.pki.keys import PrivateKey, sign
from gateway.pki.names import format_name
from gateway.pki.trust import check_pair, verify_crl, verify_issued_by

T = TypeVar("T")

SIGNING_THREADS = 2
_TEST_DATA = b"pki-gateway test signature"
EXPIRED_RETRY = 3600
"""Seconds to wait when only an operator can help."""
SLOW_ALGORITHMS = frozenset({"ml-dsa-44", "ml-dsa-65", "ml-dsa-87"})
SLOW_RSA_BITS = 3072
"""From here a signature takes longer than the loop may stand still (0.7 ms and more)."""


@dataclass(frozen=True, slots=True)
class CaUrls:
    """Where the certificates of a CA say that its CRL and its certificate are; None leaves the extension out."""

    crl: str | None = None
    ca_issuers: str | None = None


def find_ca_faults(chain: tuple[Certificate, ...], *, signs_crl: bool) -> tuple[str, ...]:
    """Say in whole sentences why this chain (issuing CA first, root last) may not sign, whatever the time; empty if it may."""
    issuing = chain[0]
    faults = []
    if not issuing.is_ca:
        faults.append("the certificate may not sign others: it is not a CA certificate (basicConstraints, RFC 5280 §4.2.1.9)")
    if issuing.key_usage is not None and "keyCertSign" not in issuing.key_usage:
        faults.append("the CA certificate may not sign certificates: its key usage lacks keyCertSign (RFC 5280 §4.2.1.3)")
    if signs_crl and issuing.key_usage is not None and "cRLSign" not in issuing.key_usage:
        faults.append("the CA certificate may not sign CRLs: its key usage lacks cRLSign; set `crl: null` or replace it")
    return (*faults, *find_broken_links(chain))


def find_broken_links(chain: tuple[Certificate, ...]) -> tuple[str, ...]:
    """Say which certificate of a chain (issuing CA first, root last) the next one did not issue."""
    faults = []
    for lower, upper in itertools.pairwise(chain):
        try:
            verify_issued_by(lower, upper)
        except Rejection as error:
            faults.append(f"{_label(lower)} was not issued by the next in the chain: {error.cause}")
    return tuple(faults)


def _label(certificate: Certificate) -> str:
    return f"the CA certificate with serial {certificate.serial:x}"


def describe_dates(certificate: Certificate, now: datetime) -> str | None:
    """Say how a certificate is not valid at `now`, to be read on after its name; None when it is (RFC 5280 §4.1.2.5)."""
    if now > certificate.not_after:
        return f"expired on {certificate.not_after:%Y-%m-%d %H:%M:%SZ}"
    if now < certificate.not_before:
        return f"is not valid before {certificate.not_before:%Y-%m-%d %H:%M:%SZ}: check this machine's clock"
    return None


class LocalCA:
    """An `UpstreamCA` in this process; issuing is deterministic in all but the signature's own randomness.

    A certificate is delivered only after the ledger recorded it, and its serial is stored before it is signed. So
    `find` can say that what was not recorded does not exist for anybody, and the stored serial is signed again.
    """

    accepts = frozenset({RequestForm.PKCS10, RequestForm.CRMF})
    queue = timedelta(0)

    def __init__(
        self,
        name: UpstreamCAName,
        key: PrivateKey,
        chain: tuple[bytes, ...],
        urls: CaUrls,
        *,
        publishes_crl: bool = True,
        clock: Callable[[], datetime] = utc_now,
        newest_crl: Callable[[], Awaitable[bytes | None]] | None = None,
    ) -> None:
        self.name = name
        self.capabilities = Capability.FIND | Capability.REVOKE | Capability.REVIVE | Capability.CHOOSES_SERIAL
        if publishes_crl:
            self.capabilities |= Capability.CRL
        self._chain = chain
        self._certificates = tuple(parse_certificate(der) for der in chain)
        self._key = key
        self._issuer = Issuer.from_certificate(chain[0], key)
        self._urls = CaUrls(urls.crl if publishes_crl else None, urls.ca_issuers)
        self._clock = clock
        self._newest_crl = newest_crl
        self._not_after = min(certificate.not_after for certificate in self._certificates)
        public_key = self._certificates[0].public_key
        self._in_token = is_in_token(key)
        slow_rsa = public_key.algorithm == "rsa" and public_key.bits >= SLOW_RSA_BITS
        self._slow = self._in_token or slow_rsa or public_key.algorithm in SLOW_ALGORITHMS
        self._executor = ThreadPoolExecutor(SIGNING_THREADS, thread_name_prefix=f"ca-{name}")

    async def start(self) -> None:
        """Nothing to do: `create` refuses what cannot sign."""

    async def close(self) -> None:
        """End the signing threads when they have signed what they were given."""
        self._executor.shutdown(wait=False)

    def new_serial(self) -> int:
        """Draw a positive serial of 159 random bits (RFC 5280 §4.1.2.2)."""
        return new_serial()

    async def issue(self, request: IssueRequest) -> UpstreamIssued:
        """Sign the stored grant with the stored serial; raises UpstreamRejected, NotSent when time is over or a token away."""
        serial = request.serial
        if serial is None:
            raise UpstreamRejected("no serial was stored for this request")
        self._check_dates(request)
        try:
            certificate = await self._run(lambda: self._build(request, serial))
        except ValueError as error:
            raise UpstreamRejected(f"the CA does not sign this: {error}") from error
        return UpstreamIssued(certificate, self._chain, f"{serial:x}")

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Raise UnknownResult: this CA never answers that it is pending."""
        raise UnknownResult(f"upstream CA {self.name} has no pending requests")

    async def find(self, request: IssueRequest) -> None:
        """Return None: what the ledger does not hold was never delivered."""
        return

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Do nothing: the inventory is this CA's own record, and the next CRL is made from it."""

    async def revive(self, certificate: bytes, serial: int, when: datetime) -> None:
        """Do nothing: the next CRL, which is whole, does not have the certificate any more (RFC 5280 §5.3.1)."""

    def chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates, issuing CA first, root last, DER."""
        return self._chain

    def not_after_limit(self, now: datetime) -> datetime | None:
        """Return the first notAfter in the chain."""
        return self._not_after

    async def crl(self) -> bytes | None:
        """Return the newest published CRL, DER, or None."""
        return None if self._newest_crl is None else await self._newest_crl()

    async def health(self) -> None:
        """Try a key in a token, raises NotSent; a key in memory works."""
        if self._in_token:
            await self._run(lambda: sign(self._key, _TEST_DATA))

    async def renewal_hint(self, certificate: bytes) -> None:
        """Return None: the gateway's own rules say when to renew."""
        return

    async def inspect(self, certificate: bytes) -> None:
        """Do nothing: what came back has been judged."""

    async def check(self) -> tuple[Trial, ...]:
        """Say whether every certificate of the chain is in force."""
        now = self._clock()
        ended = [c for c in map(parse_certificate, self.chain()) if not c.not_before <= now <= c.not_after]
        names = ", ".join(format_name(c.subject) for c in ended)
        advice = "put a certificate that is in force in its place and reload" if ended else ""
        chain = Trial("chain", not ended, f"not in force: {names}" if ended else "every certificate is in force", advice)
        return (chain, await self._try_key()) if self._in_token else (chain,)

    async def _try_key(self) -> Trial:
        try:
            await self.health()
        except NotSent as error:
            return Trial("key", False, str(error), "see that the token is in reach of this machine, and docs/hsm.md")
        return Trial("key", True, "the token signs", "")

    async def sign_crl(
        self,
        number: int,
        this_update: datetime,
        next_update: datetime,
        entries: Iterable[tuple[int, datetime, RevocationReason]],
    ) -> bytes:
        """Sign a CRL (RFC 5280 §5), DER, in a thread: it may have a hundred thousand entries. Raises NotSent as `issue` does."""
        self._check_dates(None)
        listed = tuple(entries)
        return await self._run_aside(lambda: build_crl(self._issuer, number, this_update, next_update, listed))

    async def has_signed(self, crl: bytes) -> bool:
        """Whether this CA's present key signed the CRL, DER."""

        def check() -> bool:
            try:
                verify_crl(parse_crl(crl), self._certificates[0])
            except Rejection:
                return False
            return True

        return await asyncio.get_running_loop().run_in_executor(self._executor, check)

    @property
    def not_after(self) -> datetime:
        """The issuing CA certificate's own notAfter."""
        return self._certificates[0].not_after

    def _build(self, request: IssueRequest, serial: int) -> bytes:
        return build_certificate(
            self._issuer,
            serial,
            request.grant,
            request.public_key,
            crl_url=self._urls.crl,
            ca_issuers_url=self._urls.ca_issuers,
        )

    def _check_dates(self, request: IssueRequest | None) -> None:
        now = self._clock()
        for certificate in self._certificates:
            fault = describe_dates(certificate, now)
            if fault is not None:
                raise NotSent(f"upstream CA {self.name} cannot sign: {_label(certificate)} {fault}", EXPIRED_RETRY)
        if request is not None and self._not_after < request.grant.not_after != UNLIMITED_NOT_AFTER:
            raise UpstreamRejected("the certificate would be valid longer than the CA that signs it")

    async def _run(self, work: Callable[[], T]) -> T:
        """Sign here when that is quick, else in a thread, so that the loop goes on."""
        return await self._run_aside(work) if self._slow else work()

    async def _run_aside(self, work: Callable[[], T]) -> T:
        """Sign in a thread; raises NotSent where the key's token cannot be used."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except KeyUnavailable as error:
            raise NotSent(f"upstream CA {self.name} cannot sign: {error}", error.retry_after) from error


def create(
    name: UpstreamCAName,
    config: Config,
    sources: Sources,
    urls: CaUrls,
    clock: Callable[[], datetime] = utc_now,
    newest_crl: Callable[[], Awaitable[bytes | None]] | None = None,
) -> LocalCA:
    """Return the CA; `newest_crl` reads what it published last. Raises ConfigurationFaults with why it cannot sign.

    Dates are judged by whoever starts a service; here a CA whose time is over answers each request with NotSent.
    """
    where = ("upstream_cas", name)
    above = (((*where, "chain", number), file) for number, file in enumerate(config.chain))
    chain, faults = read_certificates((((*where, "certificate"), config.certificate), *above), sources)
    if not faults:
        found = find_ca_faults(tuple(map(parse_certificate, chain)), signs_crl=config.crl is not None)
        faults = [Problem((*where, "certificate"), fault) for fault in found]
    key = None
    try:
        key = _read_key(config, sources)
        if chain:
            check_pair(chain[0], key)
    except ValueError as error:
        faults.append(Problem((*where, "key"), f"{config.key}: {error}"))
    if faults or key is None:
        raise ConfigurationFaults(*faults)
    return LocalCA(name, key, chain, urls, publishes_crl=config.crl is not None, clock=clock, newest_crl=newest_crl)


def _read_key(config: Config, sources: Sources) -> PrivateKey:
    password = None if config.key_password is None else sources.secret(config.key_password)
    return read_key(config.key, sources, password)
