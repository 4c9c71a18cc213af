"""An enrollment is one trace: its steps are spans below the client's, and its log lines name it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from gateway.asn1.scep import PkiStatus
from gateway.tracing.otlp import OtlpTracer
from tests.flow.scep.service import Client, Device, Service, start_service

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=planted", "baggage": "who=planted"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def traced(tmp_path: Path, exporter: InMemorySpanExporter) -> AsyncIterator[Service]:
    tracer = OtlpTracer("test:1", SimpleSpanProcessor(exporter), {})
    service = await start_service(tmp_path, tracer=tracer)
    yield service
    await service.close()
    tracer.close()


async def client_of(service: Service, session: aiohttp.ClientSession) -> Client:
    client = Client(session, f"{service.url}/scep/demo")
    await client.fetch_ra()
    return client


def of_trace(exporter: InMemorySpanExporter, trace: str) -> list[ReadableSpan]:
    """Return the spans of one trace in the order in which they began."""
    found = [one for one in exporter.get_finished_spans() if format(one.context.trace_id, "032x") == trace]
    return sorted(found, key=lambda one: one.start_time or 0)


async def test_an_enrollment_is_one_trace(traced: Service, exporter: InMemorySpanExporter) -> None:
    challenge = await traced.new_challenge()
    async with aiohttp.ClientSession(headers=PARENT) as session:
        client = await client_of(traced, session)
        assert not exporter.get_finished_spans()
        with capture_logs(processors=[merge_contextvars]) as logs:
            reply = await client.enroll(Device(), challenge)
    assert reply.status is PkiStatus.SUCCESS
    root, *steps = of_trace(exporter, TRACE)
    assert root.name == "scep.PKIOperation"
    assert root.parent is not None
    assert root.parent.span_id == 0xB7AD6B7169203331
    assert [step.name for step in steps] == ["decode", "authenticate", "policy", "store", "upstream.issue", "store", "encode"]
    assert {step.parent.span_id for step in steps if step.parent} == {root.context.span_id}
    facts = dict(root.attributes or {})
    assert (facts["profile"], facts["outcome"], facts["operation"]) == ("demo", "issued", "PKCSReq")
    [line] = [line for line in logs if line["event"] == "scep"]
    assert (line["trace_id"], line["request_id"]) == (TRACE, facts["request_id"])
    told = "".join(one.to_json() for one in exporter.get_finished_spans())
    assert challenge not in told
    assert "planted" not in told


async def test_a_refusal_says_why_and_a_message_that_is_none_is_traced_too(
    traced: Service, exporter: InMemorySpanExporter
) -> None:
    async with aiohttp.ClientSession() as session:
        client = await client_of(traced, session)
        reply = await client.enroll(Device(), "PLANTED-CHALLENGE-OF-NOBODY")
        assert reply.status is PkiStatus.FAILURE
        assert (await client.post(b"nonsense"))[0] == 400
    refused, malformed = [one for one in exporter.get_finished_spans() if one.name == "scep.PKIOperation"]
    assert dict(refused.attributes or {})["reason"] == "credential_invalid"
    assert malformed.parent is None
    assert "PLANTED" not in "".join(one.to_json() for one in exporter.get_finished_spans())


async def test_what_goes_on_without_its_client_stays_in_its_trace(traced: Service, exporter: InMemorySpanExporter) -> None:
    """The task that issues outlives a connection; requests on the next one are traces of their own."""
    async with aiohttp.ClientSession() as session:
        client = await client_of(traced, session)
        challenges = [await traced.new_challenge() for _ in range(4)]
        exporter.clear()
        devices = [Device(subject=f"CN=device-{number}") for number in range(4)]
        pairs = zip(devices, challenges, strict=True)
        replies = await asyncio.gather(
            *(client.enroll(device, challenge, transaction=device.subject) for device, challenge in pairs)
        )
    assert {reply.status for reply in replies} == {PkiStatus.SUCCESS}
    roots = [one for one in exporter.get_finished_spans() if one.name == "scep.PKIOperation"]
    traces = {format(one.context.trace_id, "032x") for one in roots}
    assert len(traces) == 4
    for trace in traces:
        assert [one.name for one in of_trace(exporter, trace)].count("upstream.issue") == 1
