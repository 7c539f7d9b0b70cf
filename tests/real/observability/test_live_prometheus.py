"""Every query of every rule and dashboard, asked of a Prometheus server that watches a running city; and what that city logs and traces."""

from __future__ import annotations

import json
import re
import sqlite3

import yaml

from citykit.operations.http import PATHS
from infra.observability import RULES, dashboards
from services.demo.parking import PARKERS
from simulation.neighbourhood import RESIDENT
from tests.real.observability.conftest import Watched

ANSWERED_S = 400.0
RECORDED = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load((RULES / "recording.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
NOTHING_YET = {
    RECORDED["service_rpc:city_rpc_failures:rate5m"]: "no call fails in a well city",
    "increase(city_bus_dead_letters_total[1h])": "no record is given up in a well city",
    "increase(city_bus_rebalances_total[10m])": "the embedded bus has no rebalances",
    "increase(city_bus_consumers_replaced_total[1h])": "the embedded bus replaces no consumer",
    "increase(city_bus_retries_total[10m])": "no batch fails in a well city",
    "increase(city_job_failures_total[10m])": "no job fails in a well city",
    "sum by (contract) (rate(city_ledger_conflicts_total[5m]))": "nobody writes one key at once",
    "sum by (code) (rate(city_peer_transactions_total[5m]))": "the embedded ledger is no peer",
    "histogram_quantile(0.99, sum by (contract, le) (rate(city_chaincode_seconds_bucket[5m])))": "and has no chaincode",
    "min by (contract) (city_chaincode_peers)": "nor any peer of it",
    "max by (group) (city_forecasting_coverage_ratio)": "the first training of a new city ends minutes after its start",
    "max(city_time_seconds) - on () group_right () max by (group) (city_forecasting_trained_seconds)": "as above",
    **dict.fromkeys(
        (query for _, query in dashboards.queries([dashboards.ROLLOUTS])), "no operator rolls out an embedded city"
    ),
}
"""Query -> why a city that is well answers nothing to it."""
OF_SPEED = {"CityLoopLate", "CityRpcSlow", "CityLedgerSlow"}
"""True on a machine that has more to do than to run the city; no test measures time."""


def queries() -> set[str]:
    return {query for _, query in dashboards.queries()} | set(RECORDED.values())


def test_every_exception_is_a_query() -> None:
    assert NOTHING_YET.keys() - queries() == set()


def test_the_process_becomes_alive_and_ready_with_all_its_parts(watched: Watched) -> None:
    watched.until(lambda: watched.get(watched.operations, "/readyz")[0] == 200, "ready", 120)
    parts = watched.get(watched.operations, "/readyz")[1]["parts"]
    stores = {f"store.{name}" for name in ("identity", "metering", "notary", "parking", "payments", "forecasting")}
    assert parts == dict.fromkeys(stores | {"bus", "ledger"}, "ready")
    assert watched.get(watched.operations, "/livez") == (200, {"status": "alive", "parts": {}})
    assert PATHS == ("/livez", "/metrics", "/readyz")


def test_every_query_of_rules_and_dashboards_has_an_answer(watched: Watched) -> None:
    open_ = queries() - NOTHING_YET.keys()
    last: set[str] = set()

    def answered() -> bool:
        nonlocal last
        watched.get(watched.dashboard, "/readyz")  # so that HTTP is measured
        last = {query for query in open_ if not watched.ask(query)}
        return not last

    try:
        watched.until(answered, "an answer to every query", ANSWERED_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; without an answer: {sorted(last)}") from None


def test_every_alert_can_be_asked_and_none_fires_in_a_well_city(watched: Watched) -> None:
    alerts = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in (rule for group in alerts for rule in group["rules"]):
        assert watched.ask(rule["expr"]) is not None
    status, body = watched.get(watched.prometheus, "/api/v1/rules")
    assert status == 200
    health = {rule["name"]: rule["health"] for group in body["data"]["groups"] for rule in group["rules"]}
    assert len(health) == len({rule["alert"] for group in alerts for rule in group["rules"]} | RECORDED.keys())
    assert set(health.values()) == {"ok"}
    firing = {one["metric"]["alertname"] for one in watched.ask('ALERTS{alertstate="firing"}')}
    assert firing - OF_SPEED == set()


def test_logs_are_json_with_traces_and_without_anything_personal(watched: Watched) -> None:
    """Searched for: residents' logins, everybody's passwords, every pairwise subject, number plates, tokens."""
    watched.city.stop()
    text = watched.city.log.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len(lines) > 0
    assert all({"time", "level", "process", "service", "event"} <= line.keys() for line in lines)
    logins = json.loads((watched.state / "city" / "demo-logins.json").read_text(encoding="utf-8"))
    connection = sqlite3.connect(watched.state / "city" / "identity" / "identity.db")
    subjects = [str(row[0]) for row in connection.execute("SELECT subject FROM subjects")]
    connection.close()
    residents = {RESIDENT, *PARKERS}
    assert len(subjects) > len(residents) > 1
    personal = [*(entry["password"] for entry in logins.values()), *subjects, "Bearer ", "SIM "]
    spans = (watched.state / "spans.jsonl").read_text(encoding="utf-8")
    for where in ("\n".join(json.dumps(line) for line in lines), spans):
        assert [one for one in personal if one in where] == []
        assert [one for one in residents if re.search(rf"\b{re.escape(one)}\b", where)] == []


def test_spans_name_the_hops_of_facts_and_decisions(watched: Watched) -> None:
    lines = (watched.state / "spans.jsonl").read_text(encoding="utf-8").splitlines()
    names = {json.loads(line)["name"] for line in lines if line.endswith("}")}
    assert {"metering.ingest", "bus.handle", "notary.integrate", "notary.anchor", "ledger.submit"} <= names
