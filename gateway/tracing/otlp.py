"""Spans made by OpenTelemetry's SDK and sent by OTLP over HTTP; the only module that imports it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

from gateway.errors import Rejection
from gateway.tracing import CURRENT, Fact

SERVICE = "pki-gateway"
CLOSE_MILLISECONDS = 2000
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
"""W3C Trace Context §3.2; whatever else a stranger sends would be a line in the log of OpenTelemetry's own making."""


class OtlpTracer:
    """Makes spans for one worker."""

    def __init__(self, worker: str, processor: SpanProcessor, environ: Mapping[str, str]) -> None:
        named = (
            {}
            if environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
            else {SERVICE_NAME: SERVICE}
        )
        resource = Resource.create({SERVICE_INSTANCE_ID: worker, **named})
        self._processor = processor
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(SERVICE)
        self._parents = TraceContextTextMapPropagator()

    @classmethod
    def exporting(cls, worker: str, environ: Mapping[str, str]) -> OtlpTracer:
        """Send to where OpenTelemetry's variables say, from a thread of its own, never waited for by a request."""
        return cls(worker, BatchSpanProcessor(OTLPSpanExporter()), environ)

    @contextmanager
    def request(self, name: str, traceparent: str | None) -> Iterator[None]:
        """Begin the span of a request, and have every log line that is written for it name the trace.

        Of what a client says, the parent alone is taken: `tracestate` and `baggage` would carry any text to the collector.
        """
        known = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else ""
        parent = self._parents.extract({"traceparent": known}, Context())
        begun = self._tracer.start_as_current_span(
            name, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        )
        with begun as span, bound_contextvars(trace_id=format_trace_id(span.get_span_context().trace_id)):
            before = CURRENT.set(self)
            try:
                yield
            finally:
                CURRENT.reset(before)

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Begin a span; what ends it early is named by its kind, never by its words."""
        begun = self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)
        with begun as span:
            try:
                yield
            except Rejection as refusal:
                span.set_attribute("reason", refusal.reason.value)
                raise
            except BaseException as error:
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise

    def note(self, facts: Mapping[str, Fact], *, failed: bool) -> None:
        """Add facts to the current span."""
        span = get_current_span()
        span.set_attributes({name: fact for name, fact in facts.items() if fact is not None})
        if failed:
            span.set_status(StatusCode.ERROR)

    def close(self) -> None:
        """Send what is left, for a few seconds at most: a collector that hangs must not hold up the end of a worker."""
        self._processor.force_flush(CLOSE_MILLISECONDS)
        self._provider.shutdown()
