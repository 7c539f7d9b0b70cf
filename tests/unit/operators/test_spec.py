"""The City's `spec`: what is read from it, and what is refused with its field and what to do."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from citykit.errors import InvalidArgument
from operators.city.model import Analysis, Canary, CitySpec, Freeze, ServiceSpec, Target, Window
from operators.city.spec import SERVICES_MAX, read_spec

FULL: dict[str, Any] = {
    "version": "1.4.0-rc1",
    "profile": "city",
    "paused": True,
    "services": [
        {"name": "metering", "version": "1.4.0", "manifests": "metering-1.4.0-ab12cd34", "dependsOn": ["identity"],
         "canary": {"steps": [25, 50], "pauseSeconds": 60}},
        {"name": "identity", "version": "1.4.0", "manifests": "identity-1.4.0-ab12cd34"},
    ],
    "order": ["identity", "metering"],
    "prepare": {"manifests": "prepare-1.4.0-ab12cd34"},
    "gates": {
        "prometheus": {"url": "http://prometheus.monitoring:9090"},
        "analyses": [
            {"name": "errors", "query": "rate(errors)", "successCondition": "result <= 0.01", "failureCondition": "result > 0.1 or result < 0",
             "intervalSeconds": 5, "count": 2, "deadlineSeconds": 60},
            {"name": "lag", "query": "lag", "successCondition": "result < 5"},
        ],
        "invariants": {"enabled": False},
    },
    "windows": [
        {"days": ["Sat", "Mon"], "start": "02:00", "minutes": 120, "zone": "Europe/Berlin"},
        {"start": "23:30", "minutes": 60},
    ],
    "freezes": [{"from": "2026-12-24T00:00:00+01:00", "until": "2026-12-27T00:00:00Z", "reason": "holidays"}],
    "approvals": {"required": 2},
    "timeouts": {"readySeconds": 120, "deadlineSeconds": 1800},
    "historyLimit": 5,
}  # fmt: skip
SMALL: dict[str, Any] = {"version": "1", "services": [{"name": "identity", "version": "1", "manifests": "identity-1"}]}


def test_everything_is_read() -> None:
    services = (
        ServiceSpec(Target("metering", "1.4.0", "metering-1.4.0-ab12cd34"), ("identity",), Canary((25, 50), 60.0)),
        ServiceSpec(Target("identity", "1.4.0", "identity-1.4.0-ab12cd34")),
    )
    assert read_spec(FULL) == CitySpec(
        version="1.4.0-rc1",
        services=services,
        order=("identity", "metering"),
        profile="city",
        paused=True,
        prepare="prepare-1.4.0-ab12cd34",
        analyses=(
            Analysis("errors", "rate(errors)", "result <= 0.01", "result > 0.1 or result < 0", 5.0, 2, 60.0),
            Analysis("lag", "lag", "result < 5"),
        ),
        prometheus_url="http://prometheus.monitoring:9090",
        invariants=False,
        windows=(Window((0, 5), "02:00", 120, "Europe/Berlin"), Window((0, 1, 2, 3, 4, 5, 6), "23:30", 60)),
        freezes=(Freeze(datetime(2026, 12, 23, 23, tzinfo=UTC), datetime(2026, 12, 27, tzinfo=UTC), "holidays"),),
        approvals=2,
        ready_s=120.0,
        deadline_s=1_800.0,
        history_limit=5,
    )


def test_what_is_left_out_or_null_has_the_stated_default() -> None:
    plain = CitySpec("1", (ServiceSpec(Target("identity", "1", "identity-1")),))
    assert read_spec(SMALL) == plain
    assert read_spec({**SMALL, "order": None, "gates": None, "prepare": {"manifests": ""}, "windows": None}) == plain
    again = copy.deepcopy(SMALL)
    again["services"][0]["canary"] = {"steps": [10]}
    assert read_spec(again).services[0].canary == Canary((10,), 30.0)
    moment = datetime(2026, 12, 24, tzinfo=UTC)
    yaml = {**SMALL, "freezes": [{"from": moment, "until": "2026-12-25T00:00:00Z", "reason": "x"}]}
    assert read_spec(yaml).freezes[0].begins == moment


GONE = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """FULL with another value at a path like `services.0.name`."""
    body = copy.deepcopy(FULL)
    *way, last = [int(one) if one.isdigit() else one for one in path.split(".")]
    found: Any = body
    for one in way:
        found = found[one]
    if value is GONE:
        del found[last]
    else:
        found[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "field", "said"),
    [
        ("version", GONE, "spec.version", "must be a version like 1.4.0, not None"),
        ("version", "a b", "spec.version", "must be a version like 1.4.0"),
        ("version", "x" * 500, "spec.version", "not 'xxx"),
        ("rings", 3, "spec.rings", "older than the resource; upgrade the operator first"),
        ("gates.rings", 3, "spec.gates.rings", "older than the resource"),
        ("services.0.rings", 3, "spec.services[0].rings", "older than the resource"),
        ("profile", "huge", "spec.profile", "must be one of trial, small, city, region, not 'huge'"),
        ("paused", "yes", "spec.paused", "must be true or false, not 'yes'"),
        ("services", [], "spec.services", "names no service"),
        ("services", {}, "spec.services", f"must be a list of at most {SERVICES_MAX}"),
        ("services", ["x"] * (SERVICES_MAX + 1), "spec.services", "must be a list of at most"),
        ("services.0", "metering", "spec.services[0]", "must be an object"),
        ("services.0.name", "identity", "spec.services", "names identity twice"),
        ("services.0.name", "Metering", "spec.services[0].name", "must be a DNS label"),
        ("services.0.manifests", "a/b", "spec.services[0].manifests", "must be the name of a ConfigMap"),
        ("services.0.dependsOn", ["parking"], "spec.services[metering].dependsOn", "names parking, which is no service of this city"),
        ("services.0.dependsOn", [7], "spec.services[0].dependsOn", "must be a list of names"),
        ("services.1.dependsOn", ["metering"], "spec.services", "in a circle: metering -> identity -> metering"),
        ("services.1.dependsOn", ["identity"], "spec.services", "in a circle: identity -> identity"),
        ("services.0.canary.steps", [50, 25], "spec.services[0].canary.steps", "each higher than the one before, not [50, 25]"),
        ("services.0.canary.steps", [25, 25], "spec.services[0].canary.steps", "each higher"),
        ("services.0.canary.steps", [100], "spec.services[0].canary.steps", "percents from 1 to 99"),
        ("services.0.canary.steps", [True], "spec.services[0].canary.steps", "percents from 1 to 99"),
        ("services.0.canary.pauseSeconds", -1, "spec.services[0].canary.pauseSeconds", "must be a number from 0 to 3600"),
        ("order", ["identity"], "spec.order", "must name every service once; look at metering"),
        ("order", ["identity", "identity", "metering"], "spec.order", "look at a service twice"),
        ("order", ["metering", "identity"], "spec.order", "has metering before identity, which it depends on"),
        ("prepare", "x", "spec.prepare", "must be an object"),
        ("prepare.manifests", "A", "spec.prepare.manifests", "must be the name of a ConfigMap"),
        ("gates.prometheus", {}, "spec.gates.prometheus.url", "is missing"),
        ("gates.prometheus.url", "prometheus:9090", "spec.gates.prometheus.url", "must be an http or https address"),
        ("gates.analyses.0.query", " ", "spec.gates.analyses[0].query", "must be a PromQL query"),
        ("gates.analyses.0.query", GONE, "spec.gates.analyses[0].query", "must be a PromQL query"),
        ("gates.analyses.0.successCondition", "result", "spec.gates.analyses[0].successCondition", "must be comparisons like"),
        ("gates.analyses.0.successCondition", GONE, "spec.gates.analyses[0].successCondition", "not None"),
        ("gates.analyses.0.failureCondition", "", "spec.gates.analyses[0].failureCondition", "must be comparisons like"),
        ("gates.analyses.0.count", 0, "spec.gates.analyses[0].count", "must be a number from 1 to 100"),
        ("gates.analyses.0.count", 1.5, "spec.gates.analyses[0].count", "must be a whole number, not 1.5"),
        ("gates.analyses.0.intervalSeconds", "5", "spec.gates.analyses[0].intervalSeconds", "must be a number"),
        ("gates.analyses.1.name", "errors", "spec.gates.analyses", "names errors, twice"),
        ("gates.analyses.1.name", "invariants", "spec.gates.analyses", "invariants"),
        ("gates.invariants.enabled", 1, "spec.gates.invariants.enabled", "must be true or false"),
        ("windows.0.days", ["Caturday"], "spec.windows[0].days", "has Caturday; days are Mon, Tue"),
        ("windows.0.start", "25:00", "spec.windows[0].start", "must be a time like 02:00"),
        ("windows.0.minutes", GONE, "spec.windows[0].minutes", "must be a number from 1 to 1440"),
        ("windows.0.zone", "Mars/Olympus", "spec.windows[0].zone", "Mars/Olympus is no IANA time zone"),
        ("windows.0.zone", "Europe", "spec.windows[0].zone", "is no IANA time zone"),
        ("windows.0.zone", "../etc", "spec.windows[0].zone", "must be an IANA time zone"),
        ("freezes.0.until", "2026-12-24T00:00:00+01:00", "spec.freezes[0].until", "must lie after `from`"),
        ("freezes.0.from", "2026-12-24T00:00:00", "spec.freezes[0].from", "must be a time with its zone"),
        ("freezes.0.from", "soon", "spec.freezes[0].from", "must be a time with its zone like 2026-12-24T00:00:00Z, not 'soon'"),
        ("freezes.0.reason", "", "spec.freezes[0].reason", "must be a reason people understand"),
        ("approvals.required", 3, "spec.approvals.required", "must be a number from 0 to 2"),
        ("approvals.required", True, "spec.approvals.required", "must be a number from 0 to 2"),
        ("timeouts.readySeconds", 1, "spec.timeouts.readySeconds", "must be a number from 10 to 86400"),
        ("timeouts.deadlineSeconds", float("nan"), "spec.timeouts.deadlineSeconds", "must be a number from 60 to 86400"),
        ("historyLimit", 0, "spec.historyLimit", "must be a number from 1 to 50"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_field_with_what_to_do(path: str, value: Any, field: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_spec(changed(path, value))
    assert raised.value.field == field
    assert raised.value.message.startswith(field)
    assert said in raised.value.message
    assert len(raised.value.message) < 400
