"""The status as memory: what is written is read as it was, what is absent is as before the first rollout, what is damaged is not guessed at."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citykit.errors import Damaged
from operators.city.model import Canary, Direction, Past, Rollout, ServiceSpec, Stage, State, Target
from operators.city.status import HISTORY_MAX, REASON_MAX, read_state, write_state
from tests.unit.operators.planned import NOW, good, under_way

TEXT = st.text("abc-01.ä", max_size=12)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
TARGETS = st.lists(st.builds(Target, TEXT, TEXT, TEXT), max_size=3).map(tuple)
CANARIES = st.builds(Canary, st.lists(st.integers(1, 99), max_size=3).map(tuple), st.floats(0, 3_600))
SERVICES = st.lists(
    st.builds(ServiceSpec, st.builds(Target, TEXT, TEXT, TEXT), NAMES, st.none() | CANARIES), max_size=3
)
ROLLOUTS = st.builds(
    Rollout, TEXT, st.integers(0, 99), TIMES, SERVICES.map(tuple), TEXT, TEXT, TARGETS, TEXT, TEXT, st.sampled_from(Direction),
    st.sampled_from(Stage), NAMES, TEXT, st.integers(0, 100), st.none() | TIMES, TEXT, st.booleans(), NAMES, st.booleans(),
    st.none() | TIMES, TEXT, st.booleans(), st.booleans(), st.booleans(), st.none() | TIMES, st.floats(0, 1e6),
)  # fmt: skip
PASTS = st.lists(st.builds(Past, TEXT, TEXT, TEXT, TEXT, TEXT, TIMES, TIMES), max_size=3).map(tuple)


@settings(max_examples=60, derandomize=True, database=None)
@given(st.builds(State, st.none() | ROLLOUTS, TARGETS, TEXT, TEXT, PASTS, TEXT, st.integers(0, 99)))
def test_what_is_written_is_read_as_it_was(state: State) -> None:
    assert read_state(json.loads(json.dumps(write_state(state)))) == state


def test_every_field_of_a_rollout_is_kept() -> None:
    written = write_state(under_way())["rollout"]
    assert len(written) == len(fields(Rollout)), "a new field needs a name in the status"


def test_times_are_utc_and_end_in_z() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5)))
    assert write_state(under_way(since=east))["rollout"]["since"] == "2026-12-01T12:00:00Z"


def test_what_is_absent_is_as_before_the_first_rollout() -> None:
    assert read_state({}) == State()
    assert read_state({"rollout": None, "lastGood": None, "history": None, "phase": "Ready"}) == State()
    least: dict[str, Any] = {"id": "g1-1-aa", "generation": 1, "started": "2026-12-01T12:00:00Z"}
    assert read_state({"rollout": least}).rollout == Rollout("g1-1-aa", 1, NOW, (), "")
    pruned = write_state(under_way())
    pruned["rollout"] = {key: value for key, value in pruned["rollout"].items() if value is not None}
    assert read_state(pruned) == under_way(), "the API server leaves out what is null"


def test_what_is_long_is_cut() -> None:
    past = Past("g1-1-aa", "1.0", "2.0", "Failed", "x" * 9_000, NOW, NOW)
    state = replace(under_way(reason="y" * 9_000), history=(past,) * (HISTORY_MAX + 9))
    found = write_state(state)
    assert len(found["history"]) == HISTORY_MAX
    assert len(found["history"][0]["reason"]) == len(found["rollout"]["reason"]) == REASON_MAX
    assert read_state(found).last_good == good().last_good


@pytest.mark.parametrize(
    "status",
    [
        {"rollout": {"id": "g1-1-aa"}},
        {"rollout": {"id": "g1-1-aa", "generation": "x", "started": "2026-12-01T12:00:00Z"}},
        {"rollout": {"id": "g1-1-aa", "generation": 1, "started": "soon"}},
        {"rollout": {"id": "g1-1-aa", "generation": 1, "started": "2026-12-01T12:00:00Z", "stage": "lunch"}},
        {"rollout": "g1-1-aa"},
        {"lastGood": ["identity"]},
        {"history": [{"id": "g1-1-aa"}]},
        {"history": 7},
    ],
)
def test_what_somebody_else_wrote_is_not_guessed_at(status: dict[str, Any]) -> None:
    with pytest.raises(Damaged, match="somebody else wrote into it"):
        read_state(status)
