"""Traces are sent where somebody asks for them and OpenTelemetry is there; else nothing is loaded and nothing is done."""

import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from gateway.errors import Reason, Rejection
from gateway.tracing import Tracer, note, open_tracer, request_span, span
from gateway.tracing.otlp import OtlpTracer

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> Iterator[Tracer]:
    tracer = OtlpTracer("worker:1", SimpleSpanProcessor(spans), {})
    yield tracer
    tracer.close()


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="nobody-asks"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, id="empty"),
        pytest.param(ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, id="disabled"),
        pytest.param(ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, id="no-exporter"),
    ],
)
def test_nobody_asks_for_traces(environ: Mapping[str, str]) -> None:
    assert open_tracer("worker:1", environ) is None
    with request_span(None, "request", PARENT), span("part"):
        note(outcome="issued")


def test_nothing_is_loaded_unless_somebody_asks() -> None:
    code = (
        "import sys, gateway.supervise.worker, gateway.tracing as t; "
        "assert t.open_tracer('w', {}) is None; assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_opentelemetry_it_is_said_and_nothing_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.tracing.otlp", None)
    with capture_logs() as logs:
        assert open_tracer("worker:1", ENDPOINT) is None
    assert [line["command"] for line in logs] == ["pip install 'pki-gateway[otel]'"]


def test_a_request_is_below_its_clients_span_and_parts_are_below_it(tracer: Tracer, spans: InMemorySpanExporter) -> None:
    with request_span(tracer, "request", PARENT):
        assert get_contextvars()["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        with span("part"), span("detail"):
            pass
        note(outcome="issued", reason=None)
    assert "trace_id" not in get_contextvars()
    detail, part, request = spans.get_finished_spans()
    assert (detail.name, part.name, request.name) == ("detail", "part", "request")
    assert request.parent is not None
    assert part.parent is not None
    assert detail.parent is not None
    assert request.parent.span_id == 0xB7AD6B7169203331
    assert part.parent.span_id == request.context.span_id
    assert detail.parent.span_id == part.context.span_id
    assert dict(request.attributes or {}) == {"outcome": "issued"}
    assert request.resource.attributes["service.name"] == "pki-gateway"
    assert request.resource.attributes["service.instance.id"] == "worker:1"


@pytest.mark.parametrize(
    "header",
    [None, "", "nonsense", PARENT + "-x", "00-" + "a" * 600, PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)],
)
def test_a_parent_that_is_none_begins_a_trace(tracer: Tracer, spans: InMemorySpanExporter, header: str | None) -> None:
    with request_span(tracer, "request", header):
        pass
    [request] = spans.get_finished_spans()
    assert request.parent is None


def test_requests_one_after_the_other_have_nothing_in_common(tracer: Tracer, spans: InMemorySpanExporter) -> None:
    for _ in range(2):
        with request_span(tracer, "request", None):
            pass
    with span("outside"):
        pass
    one, two = spans.get_finished_spans()
    assert one.context.trace_id != two.context.trace_id


def test_what_ends_a_part_is_named_by_its_kind(tracer: Tracer, spans: InMemorySpanExporter) -> None:
    with request_span(tracer, "request", None):
        with pytest.raises(Rejection), span("refused"):
            raise Rejection(Reason.CREDENTIAL_USED, "told", "planted")
        with pytest.raises(OSError), span("failed"):
            raise OSError("planted")
        note(failed=True)
    refused, failed, request = spans.get_finished_spans()
    assert (dict(refused.attributes or {}), refused.status.status_code) == ({"reason": "credential_used"}, StatusCode.UNSET)
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "OSError")
    assert request.status.status_code is StatusCode.ERROR
    assert "planted" not in "".join(one.to_json() for one in spans.get_finished_spans())


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({"OTEL_SERVICE_NAME": "ra-north"}, "ra-north", id="variable"),
        pytest.param({"OTEL_RESOURCE_ATTRIBUTES": "service.name=ra-south"}, "ra-south", id="attribute"),
    ],
)
def test_the_service_has_the_name_that_it_is_given(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], name: str
) -> None:
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    tracer = OtlpTracer("worker:1", SimpleSpanProcessor(spans), environ)
    with request_span(tracer, "request", None):
        pass
    tracer.close()
    [request] = spans.get_finished_spans()
    assert request.resource.attributes["service.name"] == name
