"""Rules and dashboards ask for what the city tells, and nothing else; each alert says what to do and is tested."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from citykit.telemetry import REGISTRY
from infra.observability import RULES, Target, dashboards
from infra.observability.prometheus import write_configuration
from operators.city import metrics as operators_metrics
from tools import readme

OWN = re.compile(r"\b(?:city|process)_[a-z0-9_]+\b|\b[a-z_]+:[a-z0-9_]+:[a-z0-9_]+\b")
LABELS = re.compile(r"\{[^}]*\}|\b(?:by|on|without)\s*\([^)]*\)")
SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created")


def groups(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    return found


RECORDED = {rule["record"]: rule["expr"] for group in groups("recording.yml") for rule in group["rules"]}
ALERTS = {rule["alert"]: rule for group in groups("alerts.yml") for rule in group["rules"]}
CASES = yaml.safe_load((RULES / "cases.test.yml").read_text(encoding="utf-8"))["tests"]


assert operators_metrics.PHASE  # its import puts the operator's metrics beside the services'


def told() -> set[str]:
    """Every metric of the registry, as Prometheus stores it."""
    families = {family.name for family in REGISTRY.collect()}
    return families | {name + suffix for name in families for suffix in SUFFIXES}


def asked(query: str) -> set[str]:
    """The metrics a query reads."""
    return set(OWN.findall(LABELS.sub("", query)))


def every_query() -> Iterator[tuple[str, str]]:
    yield from RECORDED.items()
    yield from ((name, rule["expr"]) for name, rule in ALERTS.items())
    yield from dashboards.queries()


@pytest.mark.parametrize(("where", "query"), list(every_query()))
def test_every_metric_asked_for_is_told_by_the_city(where: str, query: str) -> None:
    names = asked(query)
    assert names or "up{" in query
    assert names - told() - RECORDED.keys() == set()


def test_a_metric_that_nobody_tells_would_be_seen() -> None:
    assert asked('sum by (city_part) (rate(city_nothing_total{a="city_b"}[5m])) / level:city_x:rate5m') == {
        "city_nothing_total",
        "level:city_x:rate5m",
    }


def test_every_metric_of_the_city_is_on_a_dashboard() -> None:
    shown = set[str]()
    for _, query in dashboards.queries():
        shown |= asked(query)
        for name in asked(query) & RECORDED.keys():
            shown |= asked(RECORDED[name]) | {
                n for inner in asked(RECORDED[name]) & RECORDED.keys() for n in asked(RECORDED[inner])
            }
    families = {family.name for family in REGISTRY.collect() if family.name.startswith("city_")}
    missing = {name for name in families if not any(name + suffix in shown for suffix in ("", *SUFFIXES))}
    assert missing == {
        "city_invariant_checked_seconds"
    }  # an alert watches it; a new metric needs a panel in infra/observability/dashboards.py


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "do"}
    assert rule["annotations"]["do"].endswith(".")
    shown = [re.sub(r"\{\{.*?\}\}", "x", command) for command in readme.commands(rule["annotations"]["do"])]
    assert [what for command in shown if (what := readme.wrong(command))] == []


def test_every_alert_has_a_case() -> None:
    named = {case["name"] for case in CASES}
    assert set(ALERTS) - named == set()
    for case in CASES:
        if case["name"] in ALERTS:
            assert any(f'alertname="{case["name"]}"' in test["expr"] for test in case["promql_expr_test"])


def test_dashboards_are_as_described() -> None:
    """`python -m infra.observability.dashboards` writes them."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in dashboards.FOLDER.iterdir()}
    assert kept == dashboards.files()
    for text in kept.values():
        panels = json.loads(text)["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels) > 5
        assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_a_configuration_names_every_process(tmp_path: Path) -> None:
    write_configuration(tmp_path, [Target("metering", "127.0.0.1:9464"), Target("notary", "127.0.0.1:9465")], "1s")
    assert yaml.safe_load((tmp_path / "prometheus.yml").read_text(encoding="utf-8"))["global"] == {
        "scrape_interval": "1s",
        "evaluation_interval": "1s",
    }
    targets = json.loads((tmp_path / "targets.json").read_text(encoding="utf-8"))
    assert {one["labels"]["process"]: one["targets"] for one in targets} == {
        "metering": ["127.0.0.1:9464"],
        "notary": ["127.0.0.1:9465"],
    }
    assert (tmp_path / "alerts.yml").read_bytes() == (RULES / "alerts.yml").read_bytes()
