"""A caller's trace reaches the chaincode over Fabric's protocols, and never the ledger (docs/adr/0007)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from citykit import telemetry
from citykit.ledger.channel import open_channel_ledger
from citykit.operations.observed import ObservedLedger
from tests.real.ledger.trial import running_peer, settings_for


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("city"))
    return exporter


def place(span: ReadableSpan | None) -> tuple[int, int]:
    assert span is not None
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


async def test_a_transactions_trace_goes_on_in_the_chaincode_and_not_on_the_ledger(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    async with running_peer(tmp_path) as peer:
        channel = await open_channel_ledger(settings_for(peer))
        ledger = ObservedLedger(channel)
        try:
            with telemetry.span("notary.anchor") as asking:
                trace = f"{asking.get_span_context().trace_id:032x}"
                first = await ledger.submit("counter", "add", {"key": "a", "by": 1}, submitter="tester", request_id="r")
            with telemetry.span("notary.anchor"):  # another trace: the same act all the same
                args = {"key": "a", "by": 1}
                assert await ledger.submit("counter", "add", args, submitter="tester", request_id="r") == first
            kept = json.dumps([await ledger.block(number) for number in range(await ledger.height())])
            kept += json.dumps(await ledger.evidence(first.transaction))
        finally:
            await channel.close()
    found = spans.get_finished_spans()
    submit = next(span for span in found if span.name == "ledger.submit")
    chaincode = next(span for span in found if span.name == "chaincode/counter.add")
    assert submit.attributes is not None and chaincode.attributes is not None
    assert submit.attributes["transaction"] == chaincode.attributes["transaction"] == first.transaction
    assert chaincode.parent is not None
    assert (chaincode.parent.trace_id, chaincode.parent.span_id) == place(submit)
    assert f"{place(submit)[0]:032x}" == trace
    assert first.transaction in kept
    assert trace not in kept and "traceparent" not in kept
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert first.transaction.encode() in stored or bytes.fromhex(first.transaction) in stored
    assert trace.encode() not in stored
