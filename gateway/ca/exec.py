"""An upstream CA that is a program: one JSON object on its standard input, one on its standard output (docs/upstream-exec.md)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import structlog

from gateway.ca.exec_messages import (
    Answer,
    AnswerError,
    Found,
    describe_issue,
    describe_poll,
    describe_revocation,
    encode,
    parse_answer,
)
from gateway.ca.interfaces import (
    Capability,
    IssueRequest,
    NotSent,
    Trial,
    UnknownResult,
    UpstreamIssued,
    UpstreamPending,
)
from gateway.ca.program import ProgramResult, ProgramStartError, run_program
from gateway.ca.remote import RemoteBackend
from gateway.ca.setup import Setup
from gateway.config.document import ConfigurationFaults, Problem
from gateway.config.upstream_cas import ExecCA as Config
from gateway.errors import ConfigurationError
from gateway.model import RequestForm, RevocationReason

MAX_OUTPUT = 262_144
"""Bytes that a program may write to standard output."""
DEFAULT_ENVIRONMENT: Mapping[str, str] = MappingProxyType({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"})
"""All that a program finds in its environment beside what the configuration names."""
BUSY_RETRY = 15
"""Seconds after which a request that found no free slot may come again."""
STATUS_BY_OPERATION: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "issue": frozenset({"issued", "pending"}),
        "poll": frozenset({"issued", "pending"}),
        "find": frozenset({"issued", "pending", "none"}),
        "revoke": frozenset({"revoked"}),
    }
)
"""What each operation may be answered with, beside `rejected`, `not_sent` and `unknown`."""

_CAPABILITIES = MappingProxyType({"find": Capability.FIND, "poll": Capability.POLL, "revoke": Capability.REVOKE})

log = structlog.get_logger("gateway.ca.exec")


@dataclass(frozen=True, slots=True)
class ExecSettings:
    """How to run the program; `deadline` is in seconds, `environment` may hold secrets."""

    command: tuple[str, ...]
    deadline: float
    concurrency: int
    capabilities: Capability
    environment: Mapping[str, str]
    forms: frozenset[RequestForm] = frozenset({RequestForm.PKCS10})

    def __repr__(self) -> str:
        return f"ExecSettings(command={self.command[0]!r}, deadline={self.deadline})"


class ExecCA(RemoteBackend):
    """An `UpstreamCA` behind a program that signs one request at a time.

    The program is trusted to sign and not trusted to be right: whatever it does beyond the contract (crash, stall,
    garbage, too much output, a non-zero status) is `UnknownResult`, because it may have issued before that.
    """

    def __init__(self, setup: Setup, settings: ExecSettings) -> None:
        super().__init__(setup)
        self.accepts = settings.forms
        self.capabilities = settings.capabilities
        self._settings = settings
        self._environment = {**DEFAULT_ENVIRONMENT, **settings.environment}
        self._slots = asyncio.Semaphore(settings.concurrency)

    async def start(self) -> None:
        """Check that the program is there and may be run; raises ConfigurationError."""
        if not self._is_there():
            program = self._settings.command[0]
            raise ConfigurationError((f"upstream_cas.{self.name}.command: {program} is not a program that this user may run",))

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        """Have one certificate issued; raises NotSent, UpstreamRejected, UnknownResult."""
        answer = await self._ask("issue", lambda deadline: describe_issue("issue", request, deadline), request.timeout)
        return self._issued_or_pending(answer)

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Ask about an earlier pending answer; raises NotSent, UpstreamRejected, UnknownResult."""
        self._require(Capability.POLL, "poll")
        answer = await self._ask("poll", lambda deadline: describe_poll(request, reference, deadline), request.timeout)
        return self._issued_or_pending(answer)

    async def find(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending | None:
        """Ask what became of an earlier `issue`; raises NotSent, UpstreamRejected, UnknownResult."""
        self._require(Capability.FIND, "find")
        answer = await self._ask("find", lambda deadline: describe_issue("find", request, deadline), request.timeout)
        return None if answer is Found.NONE else self._issued_or_pending(answer)

    async def revoke(self, certificate: bytes, serial: int, reason: RevocationReason, when: datetime) -> None:
        """Have one certificate revoked; raises NotSent, UpstreamRejected, UnknownResult."""
        self._require(Capability.REVOKE, "revoke")
        await self._ask(
            "revoke",
            lambda deadline: describe_revocation(certificate, serial, reason, when, deadline),
            self._settings.deadline,
        )

    async def health(self) -> None:
        """Check that the program is there; raises NotSent."""
        if not self._is_there():
            raise NotSent(f"{self._settings.command[0]} is not a program that this user may run")

    async def check(self) -> tuple[Trial, ...]:
        """Say whether the program can be run; what it does only a request shows."""
        if self._is_there():
            return (Trial("program", good=True, finding=f"{self._settings.command[0]} can be run"),)
        finding = f"{self._settings.command[0]} is not a program that this user may run"
        return (Trial("program", good=False, finding=finding, advice="install it, or correct `command`"),)

    def _is_there(self) -> bool:
        return shutil.which(self._settings.command[0], path=self._environment["PATH"]) is not None

    def _require(self, capability: Capability, operation: str) -> None:
        if capability not in self.capabilities:
            raise UnknownResult(f"the program of upstream CA {self.name} has no operation {operation}")

    async def _ask(self, operation: str, describe: Callable[[datetime], dict[str, Any]], seconds: float) -> Answer:
        """Run the program once, within `seconds` from now, waiting for a slot included."""
        budget = min(seconds, self._settings.deadline)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + budget
        try:
            async with asyncio.timeout(budget):
                await self._slots.acquire()
        except TimeoutError:
            raise NotSent(f"all {self._settings.concurrency} slots of upstream CA {self.name} were busy", BUSY_RETRY) from None
        try:
            remaining = give_up - loop.time()
            if remaining <= 0:
                raise NotSent(f"no time was left to ask upstream CA {self.name}", BUSY_RETRY)
            data = encode(describe(datetime.now(UTC) + timedelta(seconds=remaining)))
            result = await run_program(self._settings.command, self._environment, data, remaining, MAX_OUTPUT)
        except ProgramStartError as error:
            raise NotSent(f"the program of upstream CA {self.name} could not be started: {error}") from error
        finally:
            self._slots.release()
        return self._judge(operation, result)

    def _judge(self, operation: str, result: ProgramResult) -> Answer:
        """Turn what the program left behind into an answer or the error that it means."""
        if result.stderr:
            log.warning("upstream_program_said", upstream_ca=self.name, operation=operation, stderr=_printable(result.stderr))
        fault = _describe_fault(result)
        if fault is not None:
            raise UnknownResult(f"the program of upstream CA {self.name} {fault}")
        try:
            return parse_answer(result.stdout, STATUS_BY_OPERATION[operation])
        except AnswerError as error:
            raise UnknownResult(f"the program of upstream CA {self.name} gave no valid answer to {operation}: {error}") from error

    def _issued_or_pending(self, answer: Answer) -> UpstreamIssued | UpstreamPending:
        match answer:
            case UpstreamIssued():
                return UpstreamIssued(answer.certificate, self.complete(answer.chain), answer.reference)
            case UpstreamPending():
                self._require(Capability.POLL, "poll, and answered pending")
                return answer
            case Found():
                raise UnknownResult(f"the program of upstream CA {self.name} answered {answer.value}")


def _describe_fault(result: ProgramResult) -> str | None:
    """Say in words why the output may not be believed, or None."""
    if result.overflowed:
        return f"wrote more than {MAX_OUTPUT} bytes"
    if result.timed_out:
        return "did not answer before its deadline"
    if result.status < 0:
        return f"was ended by signal {-result.status}"
    if result.status > 0:
        return f"ended with status {result.status}"
    return None


def _printable(data: bytes) -> str:
    text = data.decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def create(config: Config, setup: Setup) -> ExecCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults for a program that cannot be run."""
    environment, faults = {}, []
    for key, value in config.environment.items():
        try:
            environment[key] = value if isinstance(value, str) else setup.sources.secret(value).decode("utf-8")
        except UnicodeDecodeError:
            faults.append(Problem(setup.where("environment", key), "the secret is not UTF-8 text"))
    program, *arguments = config.command
    if "/" in program:
        program = str(setup.sources.resolve(program))
    if shutil.which(program, path=environment.get("PATH", DEFAULT_ENVIRONMENT["PATH"])) is None:
        faults.append(Problem(setup.where("command"), f"{program} is not a program that this user may run"))
    if faults:
        raise ConfigurationFaults(*faults)
    capabilities = Capability.NONE
    for operation in config.operations:
        capabilities |= _CAPABILITIES[operation]
    settings = ExecSettings(
        command=(program, *arguments),
        deadline=config.deadline.total_seconds(),
        concurrency=config.concurrency,
        capabilities=capabilities,
        environment=environment,
        forms=frozenset(map(RequestForm, config.forms)),
    )
    return ExecCA(setup, settings)
