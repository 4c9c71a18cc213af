"""Who is told what the supervisor sees: the service manager, metrics. None of them can hold it up or bring it down."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from gateway.supervise.outcome import Outcome
from gateway.supervise.process import Ending, WorkerProcess

log = structlog.get_logger(__name__)


class Observer:
    """Is told of what happens; each method does nothing unless a subclass says what. All are called in the supervisor's loop."""

    def serving(self) -> None:
        """The first workers accept connections."""

    def turned(self, alive: bool) -> None:
        """A second has passed; `alive` says whether a worker that accepts connections was heard of lately."""

    def reloading(self) -> None:
        """The configuration is read again."""

    def reloaded(self, outcome: Outcome) -> None:
        """The reload has ended, one way or the other."""

    def worker_started(self, worker: WorkerProcess) -> None:
        """A worker accepts connections."""

    def worker_ended(self, worker: WorkerProcess, ending: Ending) -> None:
        """A worker process is gone."""

    def stopping(self) -> None:
        """The service ends: what is in flight is finished."""


class Observers:
    """Tells all of them; one that fails is logged, and the others are told."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Tell one more."""
        self._observers.append(observer)

    def tell(self, what: Callable[[Observer], None]) -> None:
        """Call `what` with each."""
        for observer in self._observers:
            try:
                what(observer)
            except Exception:
                log.exception("what was seen could not be told", observer=type(observer).__name__)


class WhenServing(Observer):
    """Says something once connections are accepted."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say

    def serving(self) -> None:
        """Say it."""
        self._say()
