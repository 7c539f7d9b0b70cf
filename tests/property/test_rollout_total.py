"""The plan answers for any state and any look at the cluster, also for those it would never come to by itself."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.city.model import (
    Direction,
    Judgement,
    Progress,
    Rollout,
    Running,
    Stage,
    State,
    Step,
    Verdict,
    Wait,
    World,
)
from operators.city.plan import next_step
from tests.property.simulated_cluster import BEGINS
from tests.property.test_rollout import NAMES, PEOPLE, PHASES, city, target

NAMED = st.sampled_from(["", *NAMES, "voting"])
LISTED = st.lists(NAMED.filter(bool), max_size=3).map(tuple)
TARGETS = st.lists(st.builds(target, NAMED.filter(bool), st.sampled_from(["1.0", "2.0"])), max_size=3).map(tuple)
MOMENTS = st.integers(-9_000, 9_000).map(lambda number: BEGINS + timedelta(seconds=number))
RUNNING = st.builds(
    Running,
    st.sampled_from(["metering-1.0", "metering-2.0"]),
    st.sampled_from(Progress),
    st.integers(0, 100),
    st.just("x"),
)
WORLDS = st.builds(
    World, MOMENTS, st.frozensets(st.sampled_from(["metering-2.0", "prepare-2.0"])), st.just(frozenset(["prepare-2.0"])),
    st.dictionaries(NAMED, RUNNING, max_size=3), st.dictionaries(NAMED, RUNNING, max_size=2),
    st.dictionaries(st.sampled_from(["migrate-g2-1-a", "restore-g2-1-a"]), st.sampled_from(Progress)),
    st.none() | st.builds(Judgement, st.sampled_from(Verdict)), st.dictionaries(NAMED, st.just("x"), max_size=1),
    st.frozensets(st.sampled_from(PEOPLE)), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
ROLLOUTS = st.builds(
    Rollout, st.sampled_from(["g2-1-a", "odd"]), st.integers(0, 3), MOMENTS, st.just(city("2.0").services), st.just("2.0"),
    st.sampled_from(["", "prepare-2.0"]), TARGETS, st.just("1.0"), st.just("prepare-1.0"), st.sampled_from(Direction),
    st.sampled_from(Stage), LISTED, NAMED, st.integers(0, 100), st.none() | MOMENTS, st.just("x"), st.booleans(), LISTED,
    st.booleans(), st.none() | MOMENTS, NAMED, st.booleans(), st.booleans(), st.booleans(), st.none() | MOMENTS, st.floats(0, 9_000),
)  # fmt: skip
STATES = st.builds(
    State,
    st.none() | ROLLOUTS,
    TARGETS,
    st.just("1.0"),
    st.just("prepare-1.0"),
    st.just(()),
    st.sampled_from(["", "g2-1-a"]),
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(state=STATES, world=WORLDS, paused=st.booleans(), generation=st.integers(1, 3))
def test_it_answers_for_any_state_and_any_look(state: State, world: World, paused: bool, generation: int) -> None:
    """Also for what it would never write itself."""
    step = next_step(city("2.0", paused=paused), generation, state, world)
    assert isinstance(step, Step)
    assert not isinstance(step, Wait) or (step.reason.endswith(".") and step.phase in PHASES)
