"""Traces of requests (W3C Trace Context): spans that cost next to nothing where nobody has asked for traces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own variables; one that is set asks for traces."""

Fact = str | int | None


class Tracer(Protocol):
    """Makes the spans of requests."""

    def request(self, name: str, traceparent: str | None) -> AbstractContextManager[object]:
        """Begin the span of a request, below its client's where `traceparent` names one, and make this tracer the current one."""

    def span(self, name: str) -> AbstractContextManager[object]:
        """Begin a span below the current one."""

    def note(self, facts: Mapping[str, Fact], *, failed: bool) -> None:
        """Add facts to the current span."""

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""


CURRENT: ContextVar[Tracer | None] = ContextVar("tracer", default=None)
"""Whoever traces the request that is worked on here, and in tasks that it starts."""
_NOTHING = nullcontext()


def span(name: str) -> AbstractContextManager[object]:
    """Begin a span of the current request, where it is traced."""
    tracer = CURRENT.get()
    return _NOTHING if tracer is None else tracer.span(name)


def request_span(tracer: Tracer | None, name: str, traceparent: str | None) -> AbstractContextManager[object]:
    """Begin the span of a request."""
    return _NOTHING if tracer is None else tracer.request(name, traceparent)


def is_traced() -> bool:
    """Whether the current request is: what only its span would say need not be put together otherwise."""
    return CURRENT.get() is not None


def note(*, failed: bool = False, **facts: Fact) -> None:
    """Say what became of the current request: nothing that a log line must not say, since spans leave this machine."""
    tracer = CURRENT.get()
    if tracer is not None:
        tracer.note(facts, failed=failed)


def open_tracer(worker: str, environ: Mapping[str, str] = os.environ) -> Tracer | None:
    """Return what sends this worker's traces, or None: nothing asks for them, or OpenTelemetry is not there.

    OpenTelemetry is imported here and nowhere else. Traces are no condition of service: what keeps them away is logged.
    """
    if not _wanted(environ):
        return None
    try:
        from gateway.tracing.otlp import OtlpTracer

        return OtlpTracer.exporting(worker, environ)
    except ImportError:
        log.warning("no traces are sent: OpenTelemetry is not installed", command="pip install 'pki-gateway[otel]'")
    except ValueError as error:
        log.warning("no traces are sent: a variable of OpenTelemetry is wrong", cause=type(error).__name__)
    return None


def _wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "otlp" and any(environ.get(name) for name in ENDPOINTS)
