"""One reading's trace, from the package on the wire to the anchor on the ledger, in the spans a city writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from citykit import telemetry
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


async def test_a_reading_can_be_followed_from_package_to_anchor(tmp_path: Path, spans: Path) -> None:
    home = device()
    async with metering_city(tmp_path / "state") as there:
        await there.register(home)
        await there.send(home.package([0], [usual(0)]))
        await there.city.settle()
    found: list[dict[str, Any]] = [json.loads(line) for line in spans.read_text(encoding="utf-8").splitlines()]
    ingest = next(item for item in found if item["name"] == "metering.ingest")
    integrate = next(
        item
        for item in found
        if item["name"] == "notary.integrate" and item["attributes"]["log"] == "metering.readings"
    )
    anchors = [item for item in found if item["name"] == "notary.anchor"]
    trace = ingest["trace_id"]
    assert len(trace) == 32
    assert any(link.startswith(trace) for link in integrate["links"])
    assert any(link.startswith(trace) for anchor in anchors for link in anchor["links"])


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
