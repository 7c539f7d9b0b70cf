"""The way back: the last first, canaries and new services away, contracts after them, no migration; and what happens when it is stuck."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operators.city.model import (
    ApplyStable,
    Direction,
    Progress,
    Remove,
    RemoveCanary,
    RunJob,
    Running,
    Stage,
    State,
    Step,
    World,
)
from tests.unit.operators.planned import (
    NOW,
    ORDER,
    city,
    done,
    good,
    hand,
    later,
    saved,
    step,
    target,
    under_way,
    waited,
    world,
)

TO = city("2.0")
MIXED = {"identity": done("identity", "2.0"), "metering": done("metering", "2.0"), "gateway": done("gateway", "1.0")}


def back(*left: str, **changes: Any) -> State:
    first = left[0] if left else ""
    return under_way(
        **{"direction": Direction.BACK, "changed": left, "service": first, "reason": "errors: result 0.4", **changes}
    )


def test_it_turns_with_the_last_first() -> None:
    state = under_way(promoted=ORDER[:1], changed=ORDER[:2], service="metering", weight=100, hurried="x")
    found = hand(step(TO, state, world(stable=MIXED, abort=True)))
    assert found.changed == ("metering", "identity")
    assert (found.service, found.weight, found.since) == ("metering", 0, NOW)


def test_the_order_back_undoes_removals_first_and_takes_new_ones_away() -> None:
    """voting is new, parking was removed, and the goal before this one had brought x."""
    goal = (*city("2.0", "identity", "metering").services, *city("2.0", "voting").services)
    origin = (*(target(name, "1.0") for name in ("identity", "metering")), target("parking", "1.0"))
    state = under_way(goal=goal, origin=origin, changed=("x", "identity", "metering", "voting", "parking"))
    seen = world(
        stable={**{name: done(name, "2.0") for name in ("identity", "metering", "voting")}, "x": done("x", "1.5")}
    )
    assert hand(step(replace(TO, services=goal), state, replace(seen, abort=True))).changed == (
        "x", "parking", "voting", "metering", "identity",
    )  # fmt: skip


def test_each_service_returns_and_is_waited_for() -> None:
    state = back("metering", "identity")
    assert step(TO, state, world(stable=MIXED)) == ApplyStable(target("metering", "1.0"))
    returning = {**MIXED, "metering": Running("metering-1.0", Progress.RUNNING, reason="1 of 2 pods are ready")}
    waiting = waited(step(TO, state, world(stable=returning)))
    assert (waiting.phase, waiting.reason) == ("RollingBack", "metering goes back to 1.0: 1 of 2 pods are ready.")
    found = hand(step(TO, state, world(stable={**MIXED, "metering": done("metering", "1.0")}, now=later(9))))
    assert (found.changed, found.service, found.since) == (("identity",), "identity", later(9))


def test_a_pause_does_not_hold_it_up() -> None:
    assert step(replace(TO, paused=True), back("metering"), world(stable=MIXED)) == ApplyStable(
        target("metering", "1.0")
    )


def test_canaries_go_first_strays_too() -> None:
    trying = {"metering": Running("metering-2.0", Progress.DONE, 25)}
    assert step(TO, back("metering"), world(canary=trying)) == RemoveCanary("metering")
    assert step(TO, back("identity"), world(canary=trying)) == RemoveCanary("metering")
    assert step(TO, back(), world(canary=trying)) == RemoveCanary("metering")


def test_a_service_that_was_not_there_is_taken_away() -> None:
    state = back("gateway", origin=good("1.0", "identity", "metering").last_good)
    assert step(TO, state, world()) == Remove("gateway")
    gone = {name: one for name, one in world().stable.items() if name != "gateway"}
    assert hand(step(TO, state, world(stable=gone))).service == ""


def test_what_ran_before_without_a_known_version_is_named_by_its_data() -> None:
    state = back("metering", origin=(replace(target("metering", "1.0"), version=""),))
    seen = world(stable={**MIXED, "metering": Running("metering-1.0", Progress.RUNNING)})
    assert waited(step(TO, state, seen)).reason == "metering goes back to metering-1.0."


def test_at_the_end_it_is_refused_and_told() -> None:
    found = saved(step(TO, back(), world(), generation=4))
    assert found.rollout is None
    assert (found.refused, found.refused_generation) == ("g2-1-aa", 4)
    assert (found.history[-1].outcome, found.history[-1].reason) == ("RolledBack", "errors: result 0.4")
    assert found.last_good == good().last_good
    again = waited(step(TO, found, world(), generation=4))
    assert (again.phase, "errors: result 0.4" in again.reason) == ("RolledBack", True)


# --- contracts --------------------------------------------------------------------------------------------


def test_contracts_return_after_the_services() -> None:
    state = back("identity", restore=True, origin_contracts=True)
    assert step(TO, state, world(stable=MIXED)) == ApplyStable(target("identity", "1.0"))
    state = back(restore=True, origin_contracts=True)
    staged = hand(step(TO, state, world()))
    assert staged.stage is Stage.RESTORE
    state = replace(good(), rollout=staged)
    assert step(TO, state, world()) == RunJob("restore-g2-1-aa", "prepare-1.0", "contracts.yaml")
    running = waited(step(TO, state, world(jobs={"restore-g2-1-aa": Progress.RUNNING})))
    assert running.reason == "the Job restore-g2-1-aa puts the contracts back."
    assert saved(step(TO, state, world(jobs={"restore-g2-1-aa": Progress.DONE}))).rollout is None
    without = back(restore=True)
    assert saved(step(TO, without, world())).rollout is None, "the version before had none"


def test_contracts_alone_are_a_reason_to_go_back() -> None:
    state = under_way(stage=Stage.CONTRACTS, contracts=True, restore=True, origin_contracts=True)
    found = hand(step(TO, state, world(jobs={"contracts-g2-1-aa": Progress.FAILED})))
    assert (found.direction, found.changed, found.service) == (Direction.BACK, (), "")


# --- stuck ------------------------------------------------------------------------------------------------

RESTORING = back(restore=True, origin_contracts=True, stage=Stage.RESTORE)
LOST = frozenset[str]()


@pytest.mark.parametrize(
    ("state", "seen", "why"),
    [
        (back("metering"), world(stable={**MIXED, "metering": Running("metering-1.0", Progress.FAILED, reason="it crashes.")}),
         "metering did not go back within 300 s: it crashes"),
        (back("metering"), world(stable=MIXED, available=LOST), "the ConfigMap metering-1.0 is not there"),
        (back("gateway", origin=()), world(), "gateway did not go back within 300 s"),
        (RESTORING, world(available=LOST), "the ConfigMap prepare-1.0 is not there"),
        (RESTORING, world(jobs={"restore-g2-1-aa": Progress.FAILED}), "the Job restore-g2-1-aa failed"),
    ],
)  # fmt: skip
def test_a_way_back_that_is_stuck_says_what_to_do_and_is_tried_again_when_asked(
    state: State, seen: World, why: str
) -> None:
    late = replace(seen, now=later(301))
    if "Job" not in why:
        assert not _is_stuck(step(TO, state, seen))
    stuck = saved(step(TO, state, late))
    assert stuck.rollout == state.rollout
    assert stuck.refused == "g2-1-aa"
    said = waited(step(TO, stuck, late))
    assert said.phase == "Failed"
    assert said.reason.startswith(f"the roll back g2-1-aa cannot go on: {why}")
    assert said.reason.endswith("mend it, then `city rollout retry` goes on with it.")
    again = saved(step(TO, stuck, replace(late, retry=True)))
    assert again.refused == ""
    assert again.rollout
    assert again.rollout.identity.startswith("g2-2-"), "Jobs run anew"
    assert again.rollout.since == later(301)
    assert again.rollout.direction is Direction.BACK


def _is_stuck(found: Step) -> bool:
    return getattr(found, "phase", "") == "Failed"


def test_data_that_is_missing_on_the_way_back_is_waited_for() -> None:
    for state in (back("metering"), RESTORING):
        assert waited(step(TO, state, world(stable=MIXED, available=LOST))).phase == "RollingBack"


def test_a_retry_that_was_meant_for_something_else_does_nothing() -> None:
    assert step(TO, back("metering"), world(stable=MIXED, retry=True)) == ApplyStable(target("metering", "1.0"))


def test_when_it_is_there_after_all_it_goes_on() -> None:
    stuck = replace(back("metering", "identity"), refused="g2-1-aa", refused_generation=2)
    found = saved(step(TO, stuck, world(stable={**MIXED, "metering": done("metering", "1.0")}, now=later(999))))
    assert found.refused == ""
    assert found.rollout
    assert found.rollout.service == "identity"


def test_what_was_decided_while_the_operator_died_has_its_time_from_when_it_is_done() -> None:
    assert hand(step(TO, back("metering"), world(stable=MIXED, now=later(999)))).since == later(999)
