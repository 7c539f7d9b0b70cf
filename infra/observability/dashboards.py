"""What the Grafana dashboards show, and their JSON. `python -m infra.observability.dashboards` writes the files; a test compares them.

A panel is a question somebody asks: its description says what a good answer looks like.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "grafana"
_SCHEMA = 39
_COLUMNS, _WIDTH, _HEIGHT = 3, 8, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Query:
    """PromQL, and how its lines are named."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        good: what it looks like when all is well.
        unit: Grafana's name of it.
    """

    title: str
    good: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    panels: tuple[Panel, ...]


def panel(title: str, good: str, unit: str, *queries: tuple[str, str]) -> Panel:
    return Panel(title, good, unit, tuple(Query(expr, legend) for expr, legend in queries))


def p99(metric: str, by: str) -> str:
    return f"histogram_quantile(0.99, sum by ({by}, le) (rate({metric}_bucket[5m])))"


CITY = Dashboard(
    "city-overview",
    "City: calls and processes",
    (
        panel("Invariants", "all 1", "none", ("min by (service, invariant) (city_invariant_holds)", "{{service}} {{invariant}}")),
        panel("Processes", "all 1", "none", ('up{job="city"}', "{{process}}")),
        panel("Parts", "all 1", "none", ("min by (process, part) (city_part_ready)", "{{process}} {{part}}")),
        panel("Calls", "as many as the hour of the day brings", "reqps", ("service_rpc:city_rpc:rate5m", "{{service}}.{{rpc}}")),
        panel("Failing calls", "0; refusals of what is wrong are no failures", "percentunit",
              ("service_rpc:city_rpc_failures:ratio5m", "{{service}}.{{rpc}}")),
        panel("Calls, slowest in a hundred", "under 0.1 s but for streams and runs", "s",
              ("service_rpc:city_rpc_seconds:p99_5m", "{{service}}.{{rpc}}")),
        panel("Refusals", "what callers do wrong", "reqps",
              ('sum by (service, code) (rate(city_rpc_seconds_count{code!="OK"}[5m]))', "{{service}} {{code}}")),
        panel("HTTP", "mostly 200", "reqps", ("sum by (status) (rate(city_http_seconds_count[5m]))", "{{status}}")),
        panel("HTTP, slowest in a hundred", "under 0.5 s", "s", (p99("city_http_seconds", "route"), "{{route}}")),
        panel("Open live streams", "as many as dashboards are open", "none", ("city_http_live_streams", "{{process}}")),
        panel("Memory", "flat after the first hours", "bytes", ("process_resident_memory_bytes", "{{process}}")),
        panel("Processor", "under the cores there are", "none", ("rate(process_cpu_seconds_total[5m])", "{{process}}")),
        panel("Event loop, late", "under 0.05 s", "s", ("process:city_loop_delay_seconds:p99_5m", "{{process}}")),
        panel("Open files", "far under the limit", "none", ("process_open_fds / process_max_fds", "{{process}}")),
        panel("Failing jobs", "0", "none", ("increase(city_job_failures_total[10m])", "{{service}} {{job}}")),
        panel("Oldest good run of a job", "minutes; an hour for the prunes", "s",
              ("time() - min by (service, job) (city_job_succeeded_seconds)", "{{service}} {{job}}")),
        panel("Logins", "mostly done", "reqps", ("sum by (outcome) (rate(city_identity_logins_total[5m]))", "{{outcome}}")),
        panel("City time", "goes on", "dateTimeAsIso", ("max(city_time_seconds) * 1000", "city time")),
    ),
)  # fmt: skip
BUS = Dashboard(
    "city-bus-stores",
    "City: bus and stores",
    (
        panel("Outboxes", "near 0; grows while the bus is away", "none", ("max by (service) (city_outbox_messages)", "{{service}}")),
        panel("Published", "follows the load", "reqps", ("sum by (topic) (rate(city_bus_published_total[5m]))", "{{topic}}")),
        panel("Handled", "follows what is published", "reqps", ("topic_group:city_bus_handled:rate5m", "{{group}} {{topic}}")),
        panel("Lag", "near 0", "none", ("max by (topic, group) (city_bus_lag)", "{{group}} {{topic}}")),
        panel("A batch, slowest in a hundred", "under the session time of the bus", "s", (p99("city_bus_handle_seconds", "group"), "{{group}}")),
        panel("Handed over again", "0; grows while a part is away", "none", ("increase(city_bus_retries_total[10m])", "{{group}} {{topic}}")),
        panel("Dead letters", "0", "none", ("increase(city_bus_dead_letters_total[1h])", "{{group}} {{topic}}")),
        panel("Consumers replaced", "0: each one stopped getting records", "none",
              ("increase(city_bus_consumers_replaced_total[1h])", "{{group}}")),
        panel("Rebalances", "0 but for starts and stops", "none", ("increase(city_bus_rebalances_total[10m])", "{{group}}")),
        panel("Units that wait for the writer", "near 0", "none", ("max by (store) (city_store_queue)", "{{store}}")),
        panel("A commit, slowest in a hundred", "under 0.1 s", "s", ("store:city_store_commit_seconds:p99_5m", "{{store}}")),
        panel("Commits", "follows the load", "reqps", ("sum by (store) (rate(city_store_commit_seconds_count[5m]))", "{{store}}")),
    ),
)  # fmt: skip
LEDGER = Dashboard(
    "city-ledger",
    "City: ledger and logs",
    (
        panel("Transactions", "one every two seconds for anchors, others as decisions come", "reqps",
              ("contract_outcome:city_ledger_submit:rate5m", "{{contract}} {{outcome}}")),
        panel("A transaction, slowest in a hundred", "under 2 s", "s", ("contract:city_ledger_submit_seconds:p99_5m", "{{contract}}")),
        panel("Conflicts", "near 0", "reqps", ("sum by (contract) (rate(city_ledger_conflicts_total[5m]))", "{{contract}}")),
        panel("Blocks", "grows", "none", ("max(city_ledger_blocks)", "blocks")),
        panel("Transactions of the development peer", "mostly VALID", "reqps",
              ("sum by (code) (rate(city_peer_transactions_total[5m]))", "{{code}}")),
        panel("A chaincode's answer, slowest in a hundred", "under 0.1 s", "s", (p99("city_chaincode_seconds", "contract"), "{{contract}}")),
        panel("Peers connected to a chaincode", "one an organisation", "none", ("min by (contract) (city_chaincode_peers)", "{{contract}}")),
        panel("Entries", "grows with the facts", "none", ("max by (log) (city_log_entries)", "{{log}}")),
        panel("Entries without an anchor", "those of the last seconds", "none", ("log:city_log_waiting:entries", "{{log}}")),
        panel("Age of the newest anchor", "seconds where facts come", "s", ("log:city_log_anchored:age_seconds", "{{log}}")),
        panel("Entries a second", "follows the facts", "reqps", ("sum by (log) (rate(city_log_entries[5m]))", "{{log}}")),
    ),
)  # fmt: skip
SERVICES = Dashboard(
    "city-services",
    "City: what the services do",
    (
        panel("Device packages", "accepted, few others", "reqps",
              ("sum by (outcome, reason) (rate(city_metering_packages_total[5m]))", "meters {{outcome}} {{reason}}"),
              ("sum by (outcome, reason) (rate(city_parking_packages_total[5m]))", "parking {{outcome}} {{reason}}")),
        panel("Readings", "accepted, few in quarantine", "reqps", ("sum by (outcome) (rate(city_metering_readings_total[5m]))", "{{outcome}}")),
        panel("Bills", "a step after each month", "none", ("max(city_metering_bills_total)", "bills")),
        panel("Reservations", "held ones become confirmed or expire", "none", ("max by (state) (city_parking_reservations)", "{{state}}")),
        panel("Bays promised twice", "0", "none", ("max(city_parking_double_bookings)", "bays")),
        panel("Books: debits less credits", "0", "none", ("max(city_payments_imbalance_minor)", "minor units")),
        panel("Payments without a certain outcome", "first ones for moments; again: 0", "none",
              ("max by (asked) (city_payments_waiting)", "asked {{asked}}")),
        panel("Forecasts: share inside the band of 80 %", "0.75 to 0.85", "percentunit",
              ("max by (group) (city_forecasting_coverage_ratio)", "{{group}}")),
        panel("Forecasts: age of the models, city time", "under 8 days", "s",
              ("max(city_time_seconds) - on () group_right () max by (group) (city_forecasting_trained_seconds)", "{{group}}")),
    ),
)  # fmt: skip
ROLLOUTS = Dashboard(
    "city-rollouts",
    "City: rollouts",
    (
        panel("Phase of the City", "Ready; others while something is rolled out", "none", ("max by (phase) (city_operator_phase)", "{{phase}}")),
        panel("Rollouts ended", "Succeeded", "none", ("sum by (outcome) (increase(city_operator_rollouts_total[1h]))", "{{outcome}}")),
        panel("Operators that act", "1", "none", ("sum(city_operator_leading)", "leading")),
        panel("Steps", "few; many while something is rolled out", "reqps", ("sum by (step) (rate(city_operator_steps_total[5m]))", "{{step}}")),
        panel("Rounds", "mostly done", "reqps", ("sum by (outcome) (rate(city_operator_rounds_total[5m]))", "{{outcome}}")),
        panel("A round, slowest in a hundred", "under 2 s", "s", (p99("city_operator_round_seconds", "process"), "{{process}}")),
        panel("Reaction to a change, slowest in a hundred", "under 2 s", "s", (p99("city_operator_reaction_seconds", "process"), "{{process}}")),
        panel("Events not written", "0", "none", ("max(city_operator_events_dropped)", "events")),
    ),
)  # fmt: skip
DASHBOARDS = (CITY, BUS, LEDGER, SERVICES, ROLLOUTS)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """The JSON that Grafana imports."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["provable-city"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Source", "type": "datasource", "query": "prometheus", "current": {}}]
        },
        "panels": [_panel(number, one) for number, one in enumerate(dashboard.panels)],
    }


def files(dashboards: Sequence[Dashboard] = DASHBOARDS) -> dict[str, str]:
    """File name -> text."""
    return {f"{one.uid}.json": json.dumps(document(one), indent=1) + "\n" for one in dashboards}


def queries(dashboards: Sequence[Dashboard] = DASHBOARDS) -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every panel."""
    for dashboard in dashboards:
        for one in dashboard.panels:
            for query in one.queries:
                yield f"{dashboard.title} / {one.title}", query.expr


def _panel(number: int, one: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": one.title,
        "description": f"Good: {one.good}.",
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for at, query in enumerate(one.queries)
        ],
    }


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
