"""A city of three services for tests of the plan: what it wants, where it stands, what is seen of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from operators.city.model import (
    Canary,
    CitySpec,
    Progress,
    Rollout,
    Running,
    Save,
    ServiceSpec,
    Stage,
    State,
    Step,
    Target,
    Wait,
    World,
)
from operators.city.plan import next_step

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)  # a Tuesday
NEEDS = {"metering": ("identity",), "gateway": ("metering",)}
NAMES = ("gateway", "metering", "identity")
ORDER = ("identity", "metering", "gateway")


def target(name: str, version: str) -> Target:
    return Target(name, version, f"{name}-{version}")


def city(version: str, *names: str, **more: Any) -> CitySpec:
    named = names or NAMES
    services = tuple(
        ServiceSpec(
            target(name, version), tuple(one for one in NEEDS.get(name, ()) if one in named), Canary((25, 50), 10.0)
        )
        for name in named
    )
    return replace(CitySpec(version, services, prepare=f"prepare-{version}"), **more)


def done(name: str, version: str) -> Running:
    return Running(f"{name}-{version}", Progress.DONE)


def world(version: str = "1.0", **more: Any) -> World:
    """All runs well at a version; all data is there."""
    data = {f"{name}-{one}" for name in (*ORDER, "voting") for one in ("1.0", "2.0", "3.0")}
    data |= {f"prepare-{one}" for one in ("1.0", "2.0", "3.0")}
    return replace(World(NOW, frozenset(data), stable={name: done(name, version) for name in ORDER}), **more)


def good(version: str = "1.0", *names: str) -> State:
    """A rollout to it succeeded."""
    services = tuple(target(name, version) for name in names or ORDER)
    return State(last_good=services, last_good_version=version, last_good_prepare=f"prepare-{version}")


def under_way(**changes: Any) -> State:
    """From 1.0 to 2.0, at the services."""
    goal = {one.target.name: one for one in city("2.0").services}
    state = good()
    rollout = Rollout(
        "g2-1-aa",
        2,
        NOW,
        tuple(goal[name] for name in ORDER),
        "2.0",
        "prepare-2.0",
        state.last_good,
        "1.0",
        "prepare-1.0",
        stage=Stage.SERVICES,
        since=NOW,
    )
    return replace(state, rollout=replace(rollout, **changes))


def step(spec: CitySpec, state: State, seen: World, generation: int = 2) -> Step:
    return next_step(spec, generation, state, seen)


def waited(found: Step) -> Wait:
    assert isinstance(found, Wait), found
    assert found.reason.endswith(".")
    return found


def saved(found: Step) -> State:
    assert isinstance(found, Save), found
    return found.state


def hand(found: Step) -> Rollout:
    """The rollout that is saved."""
    rollout = saved(found).rollout
    assert rollout is not None, found
    return rollout


def later(duration_s: float) -> datetime:
    return NOW + timedelta(seconds=duration_s)
