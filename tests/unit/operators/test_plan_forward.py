"""The way there, step by step: Jobs, canaries, judgement, promotion, removal; pauses, people's words, a goal that changes, time that runs out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operators.city.model import (
    Analysis,
    ApplyCanary,
    ApplyStable,
    Ask,
    Direction,
    Freeze,
    Judgement,
    Progress,
    Remove,
    RemoveCanary,
    Rollout,
    RunJob,
    Running,
    Stage,
    State,
    Step,
    Verdict,
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

PASSED, FAILED, UNKNOWN = (
    Judgement(verdict, "errors: result 0.4") for verdict in (Verdict.PASSED, Verdict.FAILED, Verdict.UNKNOWN)
)
TO = city("2.0")


def canary(weight: int, progress: Progress = Progress.DONE, reason: str = "") -> dict[str, Running]:
    return {"identity": Running("identity-2.0", progress, weight, reason)}


def stable(progress: Progress = Progress.DONE, reason: str = "") -> dict[str, Running]:
    return {**world().stable, "identity": Running("identity-2.0", progress, reason=reason)}


def at(weight: int, **changes: Any) -> State:
    """With identity in hand."""
    return under_way(**{"service": "identity", "weight": weight, "changed": ("identity",), **changes})


def looked(weight: int, **changes: Any) -> State:
    return at(weight, **{"looked": NOW, **changes})


# --- stages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "following"),
    [(Stage.PREFLIGHT, Stage.MIGRATE), (Stage.MIGRATE, Stage.CONTRACTS), (Stage.CONTRACTS, Stage.SERVICES)],
)
def test_each_stage_runs_its_job_once(stage: Stage, following: Stage) -> None:
    state, name = under_way(stage=stage, contracts=True), f"{stage.value}-g2-1-aa"
    assert step(TO, state, world()) == RunJob(name, "prepare-2.0", f"{stage.value}.yaml")
    assert waited(step(TO, state, world(jobs={name: Progress.RUNNING}))).reason == f"the Job {name} is running."
    found = hand(step(TO, state, world(jobs={name: Progress.DONE})))
    assert (found.stage, found.since) == (following, NOW)
    assert found.restore == (following is Stage.CONTRACTS), "noted before the Job begins"


def test_without_contracts_there_is_no_job_for_them() -> None:
    assert hand(step(TO, under_way(stage=Stage.CONTRACTS), world())).stage is Stage.SERVICES
    assert not hand(step(TO, under_way(stage=Stage.MIGRATE), world(jobs={"migrate-g2-1-aa": Progress.DONE}))).restore


@pytest.mark.parametrize("stage", [Stage.PREFLIGHT, Stage.MIGRATE])
def test_a_job_that_fails_ends_it_before_anything_changed(stage: Stage) -> None:
    found = saved(step(TO, under_way(stage=stage), world(jobs={f"{stage.value}-g2-1-aa": Progress.FAILED})))
    assert found.rollout is None
    assert (found.refused, found.refused_generation) == ("g2-1-aa", 2)
    assert found.history[-1].outcome == "Failed"
    assert found.history[-1].reason == f"the Job {stage.value}-g2-1-aa failed; no service had been changed"
    assert found.last_good == good().last_good


def test_data_of_jobs_that_goes_missing_is_waited_for_not_for_ever() -> None:
    state, seen = under_way(stage=Stage.PREFLIGHT), world(available=world().available - {"prepare-2.0"})
    assert "prepare-2.0 is not there" in waited(step(TO, state, seen)).reason
    found = saved(step(TO, state, replace(seen, now=later(301))))
    assert "prepare-2.0 is not there" in found.history[-1].reason


# --- canary ---------------------------------------------------------------------------------------------


def test_a_service_is_taken_in_hand_at_its_first_weight() -> None:
    found = hand(step(TO, under_way(), world()))
    assert (found.service, found.weight, found.changed, found.since) == ("identity", 25, ("identity",), NOW)


@pytest.mark.parametrize("seen", [{}, canary(50), {"identity": done("identity", "1.0")}])
def test_the_canary_is_brought_to_its_weight(seen: dict[str, Running]) -> None:
    assert step(TO, at(25), world(canary=seen)) == ApplyCanary(target("identity", "2.0"), 25)


def test_a_canary_becomes_ready_is_looked_at_judged_and_paused_at() -> None:
    unready = waited(step(TO, at(25), world(canary=canary(25, Progress.RUNNING, "0 of 1 pods are ready."))))
    assert unready.reason == "identity at 25 % is not ready yet: 0 of 1 pods are ready."
    assert hand(step(TO, at(25), world(canary=canary(25)))).looked == NOW
    assert step(TO, looked(25), world(canary=canary(25))) == Ask("identity")
    pausing = waited(step(TO, looked(25), world(canary=canary(25), judgement=PASSED)))
    assert pausing.reason == "identity at 25 % is looked at for 10 s: errors: result 0.4."
    found = hand(step(TO, looked(25), world(canary=canary(25), judgement=PASSED, now=later(10))))
    assert (found.weight, found.looked, found.since) == (50, None, later(10))
    last = hand(step(TO, looked(50), world(canary=canary(50), judgement=PASSED, now=later(10))))
    assert (last.weight, last.standing) == (100, False)


@pytest.mark.parametrize(
    ("state", "seen", "said"),
    [
        (at(25), world(canary=canary(25, Progress.FAILED, "it crashes")), "identity at 25 % failed: it crashes"),
        (looked(25), world(canary=canary(25, Progress.FAILED, "it crashes")), "identity at 25 % failed: it crashes"),
        (at(25), world(canary=canary(100, Progress.FAILED, "no")), "identity at 25 % failed: no"),
        (at(25), world(canary=canary(25, Progress.RUNNING, "0 of 1"), now=later(301)), "not ready within 300 s: 0 of 1"),
        (looked(25), world(canary=canary(25), judgement=FAILED), "identity at 25 % is not good: errors: result 0.4"),
        (looked(100), world(stable=stable(), judgement=FAILED), "identity is not good: errors: result 0.4"),
        (at(100), world(stable=stable(Progress.FAILED, "it crashes")), "identity failed: it crashes"),
        (at(100), world(stable=stable(Progress.RUNNING), now=later(301)), "identity was not ready within 300 s"),
    ],
)  # fmt: skip
def test_what_fails_goes_back(state: State, seen: World, said: str) -> None:
    found = hand(step(TO, state, seen))
    assert (found.direction, found.changed, found.service, found.weight) == (
        Direction.BACK,
        ("identity",),
        "identity",
        0,
    )
    assert said in found.reason


def test_what_nobody_can_judge_is_waited_for_and_then_goes_back() -> None:
    spec = replace(TO, analyses=(Analysis("slow", "q", "result < 1", interval_s=10.0, count=3, deadline_s=600.0),))
    seen = world(canary=canary(25), judgement=UNKNOWN)
    assert waited(step(spec, looked(25), replace(seen, now=later(900)))).reason.startswith(
        "identity at 25 % is being judged"
    )
    assert "could not be judged within 930 s" in hand(step(spec, looked(25), replace(seen, now=later(931)))).reason
    assert "could not be judged within 420 s" in hand(step(TO, looked(25), replace(seen, now=later(421)))).reason


def test_pods_that_are_no_longer_ready_are_looked_at_anew() -> None:
    found = hand(step(TO, looked(25), world(canary=canary(25, Progress.RUNNING), now=later(60))))
    assert (found.looked, found.since, found.weight) == (None, later(60), 25)


@pytest.mark.parametrize("weight", [25, 100])
def test_data_that_goes_missing_is_waited_for_then_it_goes_back(weight: int) -> None:
    seen = world(available=world().available - {"identity-2.0"})
    assert "identity-2.0 is not there" in waited(step(TO, at(weight), seen)).reason
    assert "identity-2.0 is not there" in hand(step(TO, at(weight), replace(seen, now=later(301)))).reason
    assert "identity-2.0 is not there" in waited(step(TO, under_way(), seen)).reason


@pytest.mark.parametrize("weight", [25, 100])
def test_what_was_decided_while_the_operator_died_has_its_time_from_when_it_is_done(weight: int) -> None:
    found = hand(step(TO, at(weight), world(now=later(1_000))))
    assert (found.direction, found.since) == (Direction.FORWARD, later(1_000))


# --- promotion ------------------------------------------------------------------------------------------


def test_promotion_replaces_takes_the_canary_away_asks_again_and_goes_on() -> None:
    assert step(TO, at(100), world(canary=canary(50))) == ApplyStable(target("identity", "2.0"))
    waiting = waited(step(TO, at(100), world(stable=stable(Progress.RUNNING, "1 of 2"), canary=canary(50))))
    assert waiting.reason == "identity is not ready yet: 1 of 2."
    assert step(TO, at(100), world(stable=stable(), canary=canary(50))) == RemoveCanary("identity")
    assert hand(step(TO, at(100), world(stable=stable()))).looked == NOW
    assert step(TO, looked(100), world(stable=stable())) == Ask("identity")
    assert "being judged" in waited(step(TO, looked(100), world(stable=stable(), judgement=UNKNOWN))).reason
    found = hand(step(TO, looked(100), world(stable=stable(), judgement=PASSED)))
    assert (found.promoted, found.service, found.weight) == (("identity",), "", 0)
    following = hand(step(TO, replace(good(), rollout=found), world(stable=stable())))
    assert (following.service, following.changed) == ("metering", ("identity", "metering"))


def test_a_stray_canary_is_taken_away_first() -> None:
    assert step(TO, at(25), world(canary={**canary(25), "gateway": done("gateway", "2.0")})) == RemoveCanary("gateway")


def test_what_ran_before_is_put_back_and_not_tried() -> None:
    spec = city("1.0")
    begun = hand(step(spec, good(), world(stable={**world().stable, "metering": Running("metering-x", Progress.DONE)})))
    state = replace(good(), rollout=replace(begun, stage=Stage.SERVICES))
    edited = world(stable={**world().stable, "metering": Running("metering-x", Progress.DONE)})
    taken = hand(step(spec, state, edited))
    assert (taken.service, taken.weight) == ("metering", 100)
    state = replace(state, rollout=taken)
    assert step(spec, state, edited) == ApplyStable(target("metering", "1.0"))
    assert hand(step(spec, state, world())).promoted == ("metering",), "nobody is asked"


def test_a_new_service_has_no_canary_and_nobody_waits_for_what_it_cannot_have_shown() -> None:
    new = State(rollout=replace(under_way().rollout or _none(), origin=()))
    taken = hand(step(TO, new, world(stable={})))
    assert (taken.service, taken.weight) == ("identity", 100)
    state = State(rollout=replace(taken, looked=NOW))
    seen = world(stable={"identity": done("identity", "2.0")})
    assert step(TO, state, seen) == Ask("identity")
    assert hand(step(TO, state, replace(seen, judgement=UNKNOWN))).promoted == ("identity",)
    failed = saved(step(TO, state, replace(seen, judgement=FAILED)))
    assert failed.rollout is None
    assert failed.history[-1].outcome == "Failed"
    assert "nothing ran before, so there is nothing to go back to" in failed.history[-1].reason


def test_pods_that_suffered_before_have_their_time_to_become_ready() -> None:
    """A first installation failed, the cause was mended, it is tried again: its pods are the same."""
    state = State(rollout=replace(under_way().rollout or _none(), origin=()))
    crashing = world(stable={"identity": Running("identity-2.0", Progress.FAILED, reason="it crashes")})
    taken = hand(step(TO, state, crashing))
    assert taken.standing
    state = State(rollout=taken)
    assert "identity is not ready yet: it crashes." in waited(step(TO, state, crashing)).reason
    assert saved(step(TO, state, replace(crashing, now=later(301)))).rollout is None


def test_a_service_waits_for_one_it_depends_on() -> None:
    spec = replace(TO, services=tuple(one for one in TO.services if one.target.name != "identity"))
    unchanged = replace(
        next(one for one in TO.services if one.target.name == "identity"), target=target("identity", "1.0")
    )
    goal = (unchanged, *(next(one for one in TO.services if one.target.name == name) for name in ORDER[1:]))
    spec, state = replace(TO, services=goal), under_way(goal=goal)
    down = {**world().stable, "identity": Running("identity-1.0", Progress.RUNNING, reason="1 of 2")}
    found = waited(step(spec, state, world(stable=down))).reason
    assert found == "metering has to wait for identity, which it depends on and which is not ready: 1 of 2."
    assert hand(step(spec, state, world())).service == "metering"
    promoted = under_way(goal=goal, promoted=("identity",))
    gone = {name: one for name, one in world().stable.items() if name != "identity"}
    assert "has to wait for identity" in waited(step(spec, promoted, world(stable=gone))).reason


def test_a_service_that_asks_to_be_left_alone_in_the_middle_is() -> None:
    assert "identity asks" in waited(step(TO, under_way(), world(frozen={"identity": "counting"}))).reason
    assert hand(step(TO, under_way(), world(frozen={"gateway": "counting"}))).service == "identity"


# --- the end --------------------------------------------------------------------------------------------

PROMOTED = under_way(promoted=ORDER, changed=ORDER)


def test_at_the_end_it_is_the_last_good_version() -> None:
    found = saved(step(replace(TO, history_limit=1), replace(PROMOTED, refused="g1-1-aa"), world("2.0")))
    assert found == State(
        last_good=tuple(target(name, "2.0") for name in ORDER),
        last_good_version="2.0",
        last_good_prepare="prepare-2.0",
        history=found.history,
    )
    past = found.history[-1]
    assert (past.identity, past.from_version, past.to_version, past.outcome) == ("g2-1-aa", "1.0", "2.0", "Succeeded")


def test_services_the_goal_lacks_are_removed_last_those_that_depend_on_others_first() -> None:
    spec = city("2.0", "identity")
    goal = spec.services
    state = under_way(goal=goal, promoted=("identity",))
    seen = world(stable={**stable(), "metering": done("metering", "1.0"), "gateway": done("gateway", "1.0")})
    first = hand(step(spec, state, seen))
    assert (first.service, first.weight, first.changed) == ("gateway", 0, ("gateway",))
    assert "gateway asks" in waited(step(spec, state, replace(seen, frozen={"gateway": "x"}))).reason
    state = replace(state, rollout=first)
    assert step(spec, state, seen) == Remove("gateway")
    assert step(spec, state, replace(seen, stable=stable(), canary={"gateway": done("gateway", "1.0")})) == Remove(
        "gateway"
    )
    gone = {name: one for name, one in seen.stable.items() if name != "gateway"}
    assert hand(step(spec, state, replace(seen, stable=gone))).service == ""
    assert (
        hand(step(spec, under_way(goal=goal, promoted=("identity",)), replace(seen, stable=gone))).service == "metering"
    )


# --- people ---------------------------------------------------------------------------------------------


def test_a_pause_stops_everything_and_counts_for_no_limit() -> None:
    spec = replace(TO, paused=True)
    paused = hand(step(spec, looked(25), world(canary=canary(25))))
    assert paused.paused_at == NOW
    state = replace(good(), rollout=paused)
    seen = world(canary=canary(25, Progress.FAILED), now=later(9_000))
    assert (
        waited(step(spec, state, seen)).reason
        == "the rollout g2-1-aa is paused at identity; `city rollout resume` goes on."
    )
    resumed = hand(step(TO, state, seen))
    assert (resumed.paused_at, resumed.paused_s, resumed.looked, resumed.since) == (
        None,
        9_000.0,
        later(9_000),
        later(9_000),
    )
    on = step(TO, replace(good(), rollout=resumed), world(canary=canary(25), now=later(9_001)))
    assert on == Ask("identity"), "the deadline of 3600 s counts from the end of the pause"
    early = hand(step(spec, under_way(since=None), world()))
    assert waited(step(spec, replace(good(), rollout=early), world())).reason.startswith(
        "the rollout g2-1-aa is paused;"
    )
    assert hand(step(TO, replace(good(), rollout=early), world())).since is None


def test_an_abort_goes_back_even_while_it_is_paused() -> None:
    found = hand(step(replace(TO, paused=True), at(25, paused_at=NOW), world(canary=canary(25), abort=True)))
    assert (found.direction, found.paused_at) == (Direction.BACK, None)
    assert "aborted" in found.reason


def test_an_abort_before_any_change_ends_it() -> None:
    found = saved(step(TO, under_way(stage=Stage.PREFLIGHT), world(abort=True)))
    assert (found.rollout, found.history[-1].outcome) == (None, "RolledBack")


@pytest.mark.parametrize("stage", [Stage.MIGRATE, Stage.CONTRACTS])
def test_what_cannot_be_undone_is_waited_for_and_that_is_said(stage: Stage) -> None:
    name = f"{stage.value}-g2-1-aa"
    state, seen = under_way(stage=stage, contracts=True), world(jobs={name: Progress.RUNNING}, abort=True)
    said = waited(step(TO, state, seen)).reason
    assert f"the Job {name} is running: the rollout g2-1-aa was aborted" in said
    assert "cannot be undone, so its end is awaited" in said
    late = waited(step(TO, state, replace(seen, abort=False, now=later(3_601)))).reason
    assert "did not end within 3600 s" in late
    over = saved(step(TO, state, replace(seen, jobs={name: Progress.DONE})))
    assert over.rollout is None


def test_a_rollout_that_takes_too_long_goes_back() -> None:
    found = hand(step(TO, at(25), world(canary=canary(25), now=later(3_601))))
    assert found.reason == "the rollout g2-1-aa did not end within 3600 s"


def test_promote_skips_the_looks_at_one_service_never_that_it_is_ready() -> None:
    seen = world(canary=canary(25), promote=True)
    assert "not ready" in waited(step(TO, at(25), replace(seen, canary=canary(25, Progress.RUNNING)))).reason
    hurried = hand(step(TO, looked(25), seen))
    assert hurried.hurried == "identity"
    state = replace(good(), rollout=hurried)
    jumped = hand(step(TO, state, seen))
    assert jumped.weight == 100
    state = replace(good(), rollout=replace(jumped, looked=NOW))
    promoted = hand(step(TO, state, replace(seen, stable=stable(), canary={})))
    assert (promoted.promoted, promoted.hurried) == (("identity",), "identity"), "one annotation is for one service"
    state = replace(good(), rollout=replace(promoted, service="metering", weight=25, looked=NOW, changed=ORDER[:2]))
    trying = {"metering": Running("metering-2.0", Progress.DONE, 25)}
    assert step(TO, state, replace(seen, stable=stable(), canary=trying)) == Ask("metering")
    assert hand(step(TO, state, world(stable=stable(), canary=trying))).hurried == "", (
        "the annotation went: the next one counts"
    )
    assert hand(step(TO, replace(state, rollout=replace(promoted, service="identity", weight=100, looked=NOW, promoted=())),
                     world(stable=stable()))).hurried == ""  # fmt: skip


# --- another goal -----------------------------------------------------------------------------------------

NEXT = city("3.0", approvals=1)


def test_a_goal_that_changes_waits_for_what_is_half_done() -> None:
    running = world(jobs={"preflight-g2-1-aa": Progress.RUNNING})
    found = waited(step(NEXT, under_way(stage=Stage.PREFLIGHT), running, generation=3)).reason
    assert found == "the Job preflight-g2-1-aa is running: 3.0 is wanted now, and follows as soon as this has ended."
    assert step(NEXT, looked(25), world(canary=canary(25)), generation=3) == RemoveCanary("identity")
    replacing = world(stable=stable(Progress.RUNNING))
    assert (
        "identity becomes ready first: 3.0 is wanted now" in waited(step(NEXT, at(100), replacing, generation=3)).reason
    )


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (at(25), world()),
        (at(100), world(stable=stable(Progress.RUNNING), now=later(301))),
        (at(100), world(stable=stable(Progress.FAILED))),
        (at(100), world()),
        (
            at(0, service="voting", changed=("voting",)),
            world(stable={**world().stable, "voting": done("voting", "1.0")}),
        ),
        (under_way(changed=("identity",)), world()),
    ],
)
def test_then_another_rollout_goes_on_from_there_and_goes_back_to_the_same_origin(state: State, seen: World) -> None:
    state = replace(
        state,
        rollout=replace(state.rollout or _none(), restore=True, origin_contracts=True, promoted=("x",), hurried="x"),
    )
    after = saved(step(NEXT, state, seen, generation=3))
    found = after.rollout
    assert found
    assert (found.goal_version, found.generation, found.stage, found.service) == ("3.0", 3, Stage.PREFLIGHT, "")
    assert (found.origin, found.origin_version, found.origin_prepare) == (good().last_good, "1.0", "prepare-1.0")
    assert found.changed == (state.rollout or _none()).changed
    assert (found.promoted, found.hurried, found.restore, found.origin_contracts) == ((), "", True, True)
    assert after.history[-1].outcome == "Superseded"
    assert not found.admitted
    waiting = waited(step(NEXT, after, seen, generation=3))
    assert "0 of 1 approvals of the rollout" in waiting.reason
    frozen = replace(NEXT, freezes=(Freeze(NOW, later(9_000), "elections"),))
    approved = replace(seen, approved_by=frozenset(["ada"]), contracts=frozenset(["prepare-3.0"]))
    assert "frozen" in waited(step(frozen, after, approved, generation=3)).reason
    admitted = hand(step(NEXT, after, approved, generation=3))
    assert admitted.admitted
    assert admitted.contracts


def test_without_jobs_it_goes_on_with_the_services() -> None:
    assert hand(step(city("3.0", prepare=""), under_way(), world(), generation=3)).stage is Stage.SERVICES


def test_wanting_back_what_ran_before_goes_back() -> None:
    found = hand(step(city("1.0"), at(100), world(stable=stable()), generation=3))
    assert (found.direction, found.reason) == (Direction.BACK, "the City asks for 1.0 again")


def test_a_new_generation_with_the_same_goal_disturbs_nothing() -> None:
    found: Step = step(replace(TO, history_limit=3), looked(25), world(canary=canary(25)), generation=9)
    assert found == Ask("identity")


def _none() -> Rollout:
    raise AssertionError("there is a rollout")
