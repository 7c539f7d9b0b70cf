"""One reading's trace, from the package on the wire to the anchor on the ledger, in the spans a city writes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from city.metering.v1 import metering_service_pb2 as pb
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit import telemetry
from citykit.errors import NotFound
from citykit.settings import TelemetrySettings
from tests.system.metering_city import device, metering_city, usual


@pytest.fixture
def spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where finished spans go, as `CITY_TELEMETRY_TRACE_FILE` would have it."""
    path = tmp_path / "spans.jsonl"
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(telemetry.JsonLinesExporter(path)))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("city"))
    return path


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def one(found: list[dict[str, Any]], name: str, **attributes: str) -> dict[str, Any]:
    """The only span of that name with those attributes."""
    (span,) = [item for item in found if item["name"] == name and attributes.items() <= item["attributes"].items()]
    return span


def place(span: dict[str, Any]) -> str:
    return f"{span['trace_id']}-{span['span_id']}"


async def test_a_reading_can_be_followed_from_package_to_anchor(tmp_path: Path, spans: Path) -> None:
    """Device's span > RPC > ingest ~ (message) ~ batch > log ~ anchor > transaction; `>` is a parent, `~` a link: a batch has many producers."""
    home = device()
    async with metering_city(tmp_path / "state") as there:
        await there.register(home)
        with telemetry.span("device.send"):
            package = home.package([0], [usual(0)])
            call = there.stub("nobody").Ingest(metadata=[("traceparent", telemetry.traceparent())])
            await call.write(pb.IngestRequest(packages=[package]))
            await call.read()
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
        await there.city.settle()
        head = await NotaryServiceStub(there.city.dial("notary")).GetHead(
            notary.GetHeadRequest(log="metering.readings")
        )
    found = written(spans)
    sent, rpc, ingest = one(found, "device.send"), one(found, "metering.Ingest"), one(found, "metering.ingest")
    assert (rpc["parent_id"], ingest["parent_id"]) == (sent["span_id"], rpc["span_id"])
    assert sent["trace_id"] == rpc["trace_id"] == ingest["trace_id"]
    batch = one(found, "bus.handle", group="notary", topic="city.metering.readings.v1")
    integrate = one(found, "notary.integrate", log="metering.readings")
    assert batch["links"] == [place(ingest)]
    assert integrate["parent_id"] == batch["span_id"]
    anchors = [item for item in found if item["name"] == "notary.anchor" and place(ingest) in item["links"]]
    transactions = {
        item["attributes"]["transaction"]: item["parent_id"] for item in found if item["name"] == "ledger.submit"
    }
    assert transactions[head.head.anchor_transaction] in {item["span_id"] for item in anchors}
    assert not any(item["failed"] for item in found)


def test_logs_are_events_with_fields(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "text"):
        telemetry.configure(TelemetrySettings(log_format=form), "test")
        telemetry.logger("metering").info("package-rejected", extra={"fields": {"reason": "bad-signature"}})
        line = capsys.readouterr().err.strip()
        assert "package-rejected" in line
        if form == "json":
            fields = json.loads(line)
            assert (fields["event"], fields["service"], fields["reason"]) == (
                "package-rejected",
                "metering",
                "bad-signature",
            )


async def test_a_refused_call_says_so_in_its_span(tmp_path: Path, spans: Path) -> None:
    async with metering_city(tmp_path / "state") as there:
        with pytest.raises(grpc.aio.AioRpcError):
            await there.stub("nobody").ListBills(pb.ListBillsRequest())
    refused = one(written(spans), "metering.ListBills")
    assert (refused["failed"], refused["attributes"]["code"]) == (True, "UNAUTHENTICATED")


def test_a_log_line_within_a_span_names_it(capsys: pytest.CaptureFixture[str], spans: Path) -> None:
    telemetry.configure(TelemetrySettings(log_format="json"), "test")
    with telemetry.span("metering.ingest"):
        telemetry.logger("metering").info("package-rejected")
    line, span = json.loads(capsys.readouterr().err), one(written(spans), "metering.ingest")
    assert (line["trace_id"], line["span_id"]) == (span["trace_id"], span["span_id"])


def test_a_process_of_its_own_names_traces_in_its_log_though_it_writes_no_span() -> None:
    script = """
from citykit import telemetry
from citykit.settings import TelemetrySettings
telemetry.configure(TelemetrySettings(log_format="json"), "metering", ids=True)
with telemetry.span("call"):
    telemetry.logger("metering").info("package-rejected")
    print(telemetry.traceparent())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert (line["process"], line["event"]) == ("metering", "package-rejected")
    carried, _, flags = done.stdout.strip().rpartition("-")
    assert carried == f"00-{line['trace_id']}-{line['span_id']}"
    assert int(flags, 16) & 1 == 0  # not recorded anywhere
    assert line["time"].endswith("+00:00")


def test_texts_of_foreign_errors_stay_out_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """A database's error quotes the row, asyncio's report of it quotes the error."""
    for form in ("json", "text"):
        telemetry.configure(TelemetrySettings(log_format=form), "test")
        for error in (ValueError("row (ada lovelace)"), NotFound("no such device; register it")):
            try:
                raise error
            except Exception:
                logging.getLogger("asyncio").exception("Task exception was never retrieved\nfuture: <%r>", error)
        written_ = capsys.readouterr().err
        assert "lovelace" not in written_
        assert "ValueError at test_traces.py:" in written_
        assert "NotFound: no such device; register it" in written_
