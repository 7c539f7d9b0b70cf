"""Metrics, logs and traces of every process. Every metric name of the city stands here, with unit and meaning."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from citykit.settings import TelemetrySettings

REGISTRY = CollectorRegistry()

# --- every process -------------------------------------------------------------------------------
RPC_SECONDS = Histogram(
    "city_rpc_seconds", "Time a gRPC call took, seconds", ["service", "rpc", "code"], registry=REGISTRY,
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
)  # fmt: skip
JOB_FAILURES = Counter("city_job_failures", "Runs of a job that failed", ["service", "job"], registry=REGISTRY)
OUTBOX_MESSAGES = Gauge("city_outbox_messages", "Messages waiting for the bus", ["service"], registry=REGISTRY)
BUS_PUBLISHED = Counter("city_bus_published", "Messages published", ["topic"], registry=REGISTRY)
BUS_HANDLED = Counter("city_bus_handled", "Records handled", ["topic", "group"], registry=REGISTRY)
BUS_RETRIES = Counter("city_bus_retries", "Batches or records handed over again", ["topic", "group"], registry=REGISTRY)
BUS_DEAD_LETTERS = Counter("city_bus_dead_letters", "Records given up", ["topic", "group"], registry=REGISTRY)
CITY_TIME = Gauge("city_time_seconds", "City time, unix seconds", registry=REGISTRY)

# --- gateway -------------------------------------------------------------------------------------
HTTP_SECONDS = Histogram(
    "city_http_seconds", "Time an HTTP request took, seconds", ["route", "method", "status"], registry=REGISTRY,
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10),
)  # fmt: skip
HTTP_LIVE_STREAMS = Gauge("city_http_live_streams", "Server-sent event streams open now", registry=REGISTRY)

# --- metering ------------------------------------------------------------------------------------
METERING_PACKAGES = Counter(
    "city_metering_packages",
    "Device packages by outcome and reason of a refusal",
    ["outcome", "reason"],
    registry=REGISTRY,
)
METERING_READINGS = Counter(
    "city_metering_readings", "Readings stored: accepted or quarantined", ["outcome"], registry=REGISTRY
)
METERING_BILLS = Counter("city_metering_bills", "Bills issued, corrections included", registry=REGISTRY)

# --- parking -------------------------------------------------------------------------------------
PARKING_PACKAGES = Counter(
    "city_parking_packages",
    "Packages of sensors and locks by outcome and reason of a refusal",
    ["outcome", "reason"],
    registry=REGISTRY,
)

# --- identity ------------------------------------------------------------------------------------
IDENTITY_LOGINS = Counter("city_identity_logins", "Logins by outcome: done or refused", ["outcome"], registry=REGISTRY)

# --- notary --------------------------------------------------------------------------------------
LOG_ENTRIES = Gauge("city_log_entries", "Entries integrated", ["log"], registry=REGISTRY)
LOG_ANCHORED_ENTRIES = Gauge("city_log_anchored_entries", "Entries anchored on the ledger", ["log"], registry=REGISTRY)

tracer = trace.get_tracer("city")


@contextmanager
def span(name: str, parent: str | None = None, links: Sequence[str] = (), **attributes: Any) -> Iterator[trace.Span]:
    """A span around the block.

    Args:
        parent: W3C traceparent to go on from; None goes on from the current span.
        links: W3C traceparents of what led here (a batch of messages), at most 32 are kept.
    """
    if not parent and not links and not _records():
        yield trace.get_current_span()  # the context goes on as it is
        return
    context = propagate.extract({"traceparent": parent}) if parent else None
    linked = [trace.Link(found) for found in map(span_context, links[:32]) if found.is_valid]
    with tracer.start_as_current_span(name, context=context, links=linked, attributes=attributes) as current:
        yield current


def _records() -> bool:
    """False where spans go nowhere, which is the default: then they cost nothing."""
    silent = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return not (silent and isinstance(tracer, trace.ProxyTracer))


def traceparent() -> str:
    """W3C traceparent of the current span; empty without one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def span_context(parent: str) -> trace.SpanContext:
    """The span a W3C traceparent names."""
    return trace.get_current_span(propagate.extract({"traceparent": parent})).get_span_context()


def configure(settings: TelemetrySettings, process: str) -> None:
    """Sets up logs and traces; once per process, by the composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.log_format == "json" else _TextFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for noisy in ("alembic", "uvicorn.access", "asyncio", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if settings.trace_file:
        provider = TracerProvider(resource=Resource.create({"service.name": process}))
        provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(Path(settings.trace_file))))
        trace.set_tracer_provider(provider)


def logger(service: str) -> logging.LoggerAdapter[logging.Logger]:
    """Log lines are events with fields: `log.info("package-rejected", extra={"fields": {...}})`."""
    return _ServiceLogger(logging.getLogger(f"city.{service}"), {"service": service})


class _ServiceLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        extra = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, {**kwargs, "extra": extra}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, "fields", {}))
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields["trace_id"] = f"{context.trace_id:032x}"
    if record.exc_info:
        fields["error"] = f"{record.exc_info[0].__name__ if record.exc_info[0] else ''}: {record.exc_info[1]}"
    return fields


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname,
            "service": getattr(record, "service", record.name),
            "event": record.getMessage(),
            **_fields(record),
        }
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        return f"{record.levelname:7} {getattr(record, 'service', record.name)} {record.getMessage()} {fields}".rstrip()


class JsonLinesExporter(SpanExporter):
    """Finished spans as JSON lines: name, trace_id, span_id, parent_id, links, start_ns, end_ns, attributes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self._file.writelines(json.dumps(_span_line(item), default=str) + "\n" for item in spans)
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


def _span_line(item: ReadableSpan) -> dict[str, Any]:
    context = item.get_span_context()
    return {
        "name": item.name,
        "trace_id": f"{context.trace_id:032x}" if context else "",
        "span_id": f"{context.span_id:016x}" if context else "",
        "parent_id": f"{item.parent.span_id:016x}" if item.parent else "",
        "links": [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in item.links],
        "start_ns": item.start_time,
        "end_ns": item.end_time,
        "attributes": dict(item.attributes or {}),
    }
