"""Metrics, logs and traces of every process. Every metric name of the city stands here, with unit and meaning."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from citykit.errors import CityError
from citykit.settings import TelemetrySettings

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)

# --- every process -------------------------------------------------------------------------------
LOOP_DELAY = Histogram(
    "city_loop_delay_seconds", "How late the event loop came to what was due, seconds", registry=REGISTRY, buckets=_SECONDS
)  # fmt: skip
PART_READY = Gauge(
    "city_part_ready", "1: this part of the process answers; 0: it does not", ["part"], registry=REGISTRY
)
INVARIANT_HOLDS = Gauge(
    "city_invariant_holds", "1: what must always hold holds; 0: it does not", ["service", "invariant"], registry=REGISTRY
)  # fmt: skip
INVARIANT_CHECKED = Gauge(
    "city_invariant_checked_seconds", "Unix time of the newest look at an invariant", ["service", "invariant"], registry=REGISTRY
)  # fmt: skip
RPC_SECONDS = Histogram(
    "city_rpc_seconds", "Time a gRPC call took, seconds", ["service", "rpc", "code"], registry=REGISTRY, buckets=_SECONDS
)  # fmt: skip
JOB_FAILURES = Counter("city_job_failures", "Runs of a job that failed", ["service", "job"], registry=REGISTRY)
JOB_SUCCEEDED = Gauge(
    "city_job_succeeded_seconds", "Unix time of a job's newest good run", ["service", "job"], registry=REGISTRY
)  # fmt: skip
STORE_QUEUE = Gauge("city_store_queue", "Units of work that wait for the writer", ["store"], registry=REGISTRY)
STORE_COMMIT_SECONDS = Histogram(
    "city_store_commit_seconds", "Time one commit of a group of units took, seconds", ["store"], registry=REGISTRY, buckets=_SECONDS
)  # fmt: skip
OUTBOX_MESSAGES = Gauge("city_outbox_messages", "Messages waiting for the bus", ["service"], registry=REGISTRY)
BUS_PUBLISHED = Counter("city_bus_published", "Messages published", ["topic"], registry=REGISTRY)
BUS_HANDLED = Counter("city_bus_handled", "Records handled", ["topic", "group"], registry=REGISTRY)
BUS_RETRIES = Counter("city_bus_retries", "Batches or records handed over again", ["topic", "group"], registry=REGISTRY)
BUS_DEAD_LETTERS = Counter("city_bus_dead_letters", "Records given up", ["topic", "group"], registry=REGISTRY)
BUS_LAG = Gauge("city_bus_lag", "Records a group has not committed yet", ["topic", "group"], registry=REGISTRY)
BUS_REBALANCES = Counter(
    "city_bus_rebalances", "Changes of the partitions a consumer owns", ["group"], registry=REGISTRY
)
BUS_REPLACED = Counter(
    "city_bus_consumers_replaced", "Consumers replaced because nothing came though records waited", ["group"],
    registry=REGISTRY,
)  # fmt: skip
BUS_HANDLE_SECONDS = Histogram(
    "city_bus_handle_seconds", "Time a handler took for one batch, seconds", ["group"], registry=REGISTRY, buckets=_SECONDS
)  # fmt: skip
LEDGER_SECONDS = Histogram(
    "city_ledger_submit_seconds", "Time from submitting a transaction to knowing that it is committed, seconds",
    ["contract", "function", "outcome"], registry=REGISTRY, buckets=(0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)  # fmt: skip
LEDGER_CONFLICTS = Counter(
    "city_ledger_conflicts", "Transactions committed as invalid because what they read had changed", ["contract"], registry=REGISTRY
)  # fmt: skip
LEDGER_BLOCKS = Gauge("city_ledger_blocks", "Blocks of the channel", registry=REGISTRY)
PEER_TRANSACTIONS = Counter(
    "city_peer_transactions", "Transactions the development peer committed, by validation code", ["code"], registry=REGISTRY
)  # fmt: skip
CHAINCODE_SECONDS = Histogram(
    "city_chaincode_seconds", "Time a contract took as chaincode, with what it asked of the peer, seconds", ["contract", "status"],
    registry=REGISTRY, buckets=_SECONDS,
)  # fmt: skip
CHAINCODE_PEERS = Gauge(
    "city_chaincode_peers", "Peers connected to a contract's chaincode", ["contract"], registry=REGISTRY
)
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

PARKING_RESERVATIONS = Gauge(
    "city_parking_reservations", "Reservations by state; `held` are bays held and not confirmed yet", ["state"], registry=REGISTRY
)  # fmt: skip
PARKING_DOUBLE_BOOKINGS = Gauge("city_parking_double_bookings", "Bays promised twice: 0", registry=REGISTRY)

# --- payments ------------------------------------------------------------------------------------
PAYMENTS_IMBALANCE = Gauge(
    "city_payments_imbalance_minor", "How far debits and credits are apart, minor units: 0", registry=REGISTRY
)  # fmt: skip
PAYMENTS_WAITING = Gauge(
    "city_payments_waiting", "Operations at the provider whose outcome is not certain: `first` was asked once, `again` more often",
    ["asked"], registry=REGISTRY,
)  # fmt: skip

# --- forecasting ---------------------------------------------------------------------------------
FORECASTING_COVERAGE = Gauge(
    "city_forecasting_coverage_ratio", "Share of measured values inside the band of 80 %, when its model was trained",
    ["group"], registry=REGISTRY,
)  # fmt: skip
FORECASTING_TRAINED = Gauge(
    "city_forecasting_trained_seconds", "City time of the newest training, unix seconds", ["group"], registry=REGISTRY
)

# --- identity ------------------------------------------------------------------------------------
IDENTITY_LOGINS = Counter("city_identity_logins", "Logins by outcome: done or refused", ["outcome"], registry=REGISTRY)

# --- notary --------------------------------------------------------------------------------------
LOG_ENTRIES = Gauge("city_log_entries", "Entries integrated", ["log"], registry=REGISTRY)
LOG_ANCHORED_ENTRIES = Gauge("city_log_anchored_entries", "Entries anchored on the ledger", ["log"], registry=REGISTRY)
LOG_ANCHORED_AT = Gauge(
    "city_log_anchored_seconds", "Unix time (machine time) of a log's newest anchor", ["log"], registry=REGISTRY
)  # fmt: skip

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
    with tracer.start_as_current_span(
        name, context=context, links=linked, attributes=attributes, record_exception=False
    ) as current:
        yield current


def _records() -> bool:
    """False where spans go nowhere, which is the default: then they cost nothing."""
    silent = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return not (silent and isinstance(tracer, trace.ProxyTracer))


def traceparent() -> str:
    """W3C traceparent of the current span; empty without one."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def mark_failed(code: str) -> None:
    """Says in the current span with which code its work ends."""
    current = trace.get_current_span()
    current.set_attribute("code", code)
    current.set_status(trace.StatusCode.ERROR)


def span_context(parent: str) -> trace.SpanContext:
    """The span a W3C traceparent names."""
    return trace.get_current_span(propagate.extract({"traceparent": parent})).get_span_context()


def configure(settings: TelemetrySettings, process: str, *, ids: bool = False) -> None:
    """Sets up logs and traces; once per process, by the composition root.

    Args:
        process: its name, in every log line and span.
        ids: calls get trace ids, and log lines name them, even where no span is written: what many processes log of one call is found by
            it. Costs some 15 µs a span.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(process) if settings.log_format == "json" else _TextFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for noisy in ("alembic", "uvicorn.access", "uvicorn.error", "asyncio", "httpx", "kafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of each tenth of a second that a busy machine takes.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    if settings.trace_file or ids:
        provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.trace_ratio if settings.trace_file else 0.0),
            resource=Resource.create({"service.name": process}),
        )
        if settings.trace_file:
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
        fields["trace_id"], fields["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = _told(record.exc_info[1])
    return fields


def _told(error: BaseException) -> str:
    """Kind and place of a fault; its text only where it is ours: others' may hold personal data (a database's quotes the row)."""
    if isinstance(error, CityError):
        return f"{type(error).__name__}: {error.message}"
    innermost = traceback.extract_tb(error.__traceback__)[-1:]
    return " at ".join([type(error).__name__, *(f"{Path(at.filename).name}:{at.lineno}" for at in innermost)])


def _event(record: logging.LogRecord) -> str:
    """What happened. Of what libraries say, the first line: the rest of asyncio's quotes the error."""
    return record.getMessage().partition("\n")[0]


class _JsonFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "service": getattr(record, "service", record.name),
            "event": _event(record),
            **_fields(record),
        }
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        return f"{record.levelname:7} {getattr(record, 'service', record.name)} {_event(record)} {fields}".rstrip()


class JsonLinesExporter(SpanExporter):
    """Finished spans as JSON lines: name, process, trace_id, span_id, parent_id, links, start_ns, end_ns, attributes, failed."""

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
        "process": item.resource.attributes.get("service.name", ""),
        "trace_id": f"{context.trace_id:032x}" if context else "",
        "span_id": f"{context.span_id:016x}" if context else "",
        "parent_id": f"{item.parent.span_id:016x}" if item.parent else "",
        "links": [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in item.links],
        "start_ns": item.start_time,
        "end_ns": item.end_time,
        "attributes": dict(item.attributes or {}),
        "failed": item.status.status_code is trace.StatusCode.ERROR,
    }
