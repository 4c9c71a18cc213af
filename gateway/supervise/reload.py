"""Reload in two phases: read and judge once, have every worker build and prove it, and only when all are ready commit it.

Until the commit nothing that serves has changed; from the commit on, no worker serves anything else: one that does not follow is
killed, also one that drains, and what replaces it starts from the bytes that were accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from gateway.errors import ConfigurationError
from gateway.supervise.acceptance import Accepted, NeedsRestartError, compare, read_next, utc_now
from gateway.supervise.control import Abort, Commit, Prepare, cut, show_problems
from gateway.supervise.observers import Observers
from gateway.supervise.outcome import CONFIGURATION, FAILED, NEEDS_RESTART, Outcome
from gateway.supervise.plan import Plan
from gateway.supervise.process import WorkerProcess, WorkerRefusedError, WorkerSilentError
from gateway.supervise.workers import COMMIT_SECONDS, Workers

log = structlog.get_logger(__name__)

PREPARE_SECONDS = 45.0
"""How long a worker may take to build and prove a generation, new upstream CAs included."""
DRAINING_SECONDS = 3.0
"""How long one may take that only finishes what it has; nobody waits for it longer."""
SOMEONE_SECONDS = 30.0
"""How long a reload waits for a worker when none serves at the moment."""
PAUSE_SECONDS = 0.5
"""Between two reloads: however many signals come, most of the machine is left to requests."""
MAX_DETAIL = 2000
"""Characters of an audit row's text."""
MAX_ACTORS = 8
HANGUP = "SIGHUP"


@dataclass(eq=False, slots=True)
class _Round:
    """One reload that has not begun: all who ask meanwhile share it."""

    ended: asyncio.Future[Outcome]
    actors: list[str] = field(default_factory=list)


class _RefusedError(Exception):
    """A reload ends without a change."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Reloads:
    """Runs one reload at a time; at most one more waits, for everybody who asked since the running one began."""

    def __init__(self, plan: Plan, workers: Workers, observers: Observers, replace: Callable[[WorkerProcess], None]) -> None:
        """`replace` starts another worker in the place of one that does not answer, without waiting for it."""
        self._plan = plan
        self._workers = workers
        self._observers = observers
        self._replace = replace
        self._last = workers.accepted.generation
        """The last number that a worker was told: an audit row may have it, also when that generation was given up."""
        self._waiting: _Round | None = None
        self._wanted = asyncio.Event()

    def ask(self, actor: str) -> asyncio.Future[Outcome]:
        """Have the configuration read again; the future is shared with others who asked, and cancelled when the service ends."""
        if self._waiting is None:
            self._waiting = _Round(asyncio.get_running_loop().create_future())
            self._wanted.set()
        if actor not in self._waiting.actors and len(self._waiting.actors) < MAX_ACTORS:
            self._waiting.actors.append(actor)
        return self._waiting.ended

    async def run(self) -> None:
        """Run the reloads that are asked for, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            begun, self._waiting = self._waiting, None
            if begun is not None:
                try:
                    outcome = await self._reload(", ".join(begun.actors))
                    if not begun.ended.done():
                        begun.ended.set_result(outcome)
                finally:
                    begun.ended.cancel()
                await asyncio.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """Nothing is reloaded any more: tell those who wait."""
        if self._waiting is not None:
            self._waiting.ended.cancel()

    async def _reload(self, actor: str) -> Outcome:
        self._observers.tell(lambda observer: observer.reloading())
        try:
            outcome = await self._try(actor)
        except _RefusedError as refused:
            outcome = await self._refuse(actor, refused.reason, str(refused))
        except Exception as error:
            log.exception("a reload failed unexpectedly")
            outcome = await self._refuse(actor, FAILED, f"the reload failed unexpectedly: {type(error).__name__}")
        self._observers.tell(lambda observer: observer.reloaded(outcome))
        return outcome

    async def _try(self, actor: str) -> Outcome:
        old = self._workers.accepted
        new = await self._read(old)
        if new.packed == old.packed:
            text = f"nothing has changed: generation {old.generation} stays in force"
            log.info("reload: nothing has changed", generation=old.generation, actor=actor)
            return Outcome(ok=True, generation=old.generation, text=text)
        changes = compare(old, new)
        names = _shorten(", ".join(changes.names) or "comments or spelling only")
        # Outside of the lock, without which a worker that is being started could not begin to serve.
        await self._workers.someone(SOMEONE_SECONDS)
        async with self._workers.changing:
            prepared = await self._prepare(new)
            await self._record_or_abort(new, prepared, actor, names)
            # Decided: from here on this is in force, also for workers that are started or die now.
            self._workers.accepted = new
            await self._commit(new, prepared)
        log.info("configuration reloaded", generation=new.generation, actor=actor, changed=names)
        return Outcome(ok=True, generation=new.generation, text=f"generation {new.generation} is in force", changes=changes)

    async def _read(self, old: Accepted) -> Accepted:
        try:
            return await asyncio.to_thread(read_next, self._plan.path, self._plan.environ, old, self._last + 1, utc_now())
        except ConfigurationError as error:
            raise _RefusedError(CONFIGURATION, show_problems(error.problems)) from error
        except NeedsRestartError as error:
            raise _RefusedError(NEEDS_RESTART, show_problems(error.fields)) from error
        except OSError as error:
            # Of this machine, and not of the file: what was read is judged in memory.
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or type(error).__name__
            raise _RefusedError(FAILED, f"the configuration cannot be judged at present: {what}") from error

    async def _prepare(self, new: Accepted) -> tuple[WorkerProcess, ...]:
        """Have every worker build and prove it; returns those that will commit it. Nothing is kept when one refuses.

        A worker that drains still answers on open connections: it follows when it can do so soon, but is no objection.
        """
        serving, draining = self._workers.serving(), self._workers.draining()
        if not serving:
            raise _RefusedError(FAILED, "no worker serves at the moment that could prove the configuration")
        question, asked = Prepare(new.generation, new.packed), (*serving, *draining)
        patience = dict.fromkeys(serving, PREPARE_SECONDS) | dict.fromkeys(draining, DRAINING_SECONDS)
        self._last = new.generation
        try:
            results = await asyncio.gather(*(worker.ask(question, patience[worker]) for worker in asked), return_exceptions=True)
        except asyncio.CancelledError:
            self._abort(new, asked)
            raise
        refusals = {worker: r for worker, r in zip(asked, results, strict=True) if isinstance(r, BaseException)}
        objections = {worker: refused for worker, refused in refusals.items() if worker in serving}
        if objections:
            self._abort(new, asked)
            for worker, refused in objections.items():
                # It lives, and a thread of it hangs.
                if worker.lives and isinstance(refused, WorkerSilentError):
                    self._replace(worker)
            raise _objection(tuple(objections.values()))
        return tuple(worker for worker in asked if worker not in refusals)

    def _abort(self, new: Accepted, asked: tuple[WorkerProcess, ...]) -> None:
        for worker in asked:
            worker.channel.send(Abort(new.generation))

    async def _record_or_abort(self, new: Accepted, prepared: tuple[WorkerProcess, ...], actor: str, names: str) -> None:
        """Write the audit row first: a configuration whose row cannot be written is not put in force."""
        try:
            await self._workers.record("configuration.reloaded", actor, "done", names, new.generation)
        except WorkerRefusedError as refused:
            self._abort(new, prepared)
            raise _RefusedError(FAILED, f"the audit trail cannot be written: {refused}") from refused

    async def _commit(self, new: Accepted, prepared: tuple[WorkerProcess, ...]) -> None:
        """Put it in force everywhere; a worker that does not follow must not go on with what was in force before."""
        for worker in self._workers.draining():
            if worker not in prepared:
                log.warning("a worker that drains cannot follow the reload and is killed", worker=worker.name)
                worker.kill()
        question = Commit(new.generation)
        results = await asyncio.gather(*(worker.ask(question, COMMIT_SECONDS) for worker in prepared), return_exceptions=True)
        for worker, result in zip(prepared, results, strict=True):
            if isinstance(result, BaseException):
                log.error("a worker did not follow the reload and is replaced", worker=worker.name, cause=str(result))
                worker.kill()
            else:
                worker.generation = new.generation

    async def _refuse(self, actor: str, reason: str, text: str) -> Outcome:
        generation = self._workers.accepted.generation
        log.error("configuration refused: what was in force stays", generation=generation, actor=actor, reason=reason, cause=text)
        await self._record_refusal(actor, _shorten(text))
        return Outcome(ok=False, generation=generation, text=text, reason=reason)

    async def _record_refusal(self, actor: str, text: str) -> None:
        """Write the audit row; where the workers that were there could not, those that took their places may."""
        for tries_left in (1, 0):
            try:
                await self._workers.record("configuration.refused", actor, "refused", text)
            except WorkerRefusedError as refused:
                if tries_left and await self._workers.someone(SOMEONE_SECONDS):
                    continue
                log.error("the refused reload has no audit row", cause=str(refused))  # noqa: TRY400
            return


def _objection(refusals: tuple[BaseException, ...]) -> _RefusedError:
    """Say each thing once: workers that build the same usually find the same wrong."""
    for refusal in refusals:
        if not isinstance(refusal, WorkerRefusedError):
            raise refusal
    configuration = any(isinstance(refusal, WorkerRefusedError) and refusal.code == 3 for refusal in refusals)
    return _RefusedError(CONFIGURATION if configuration else FAILED, cut("\n".join(dict.fromkeys(map(str, refusals)))))


def _shorten(text: str) -> str:
    return cut(text, MAX_DETAIL)
