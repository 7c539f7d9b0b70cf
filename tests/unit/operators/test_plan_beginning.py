"""When a rollout begins, and each reason why it does not yet, as people read it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from operators.city.model import (
    Direction,
    Freeze,
    Past,
    Progress,
    RemoveCanary,
    Running,
    Stage,
    State,
    Target,
    Window,
)
from operators.city.plan import rollout_identity
from operators.city.scene import next_identity
from tests.unit.operators.planned import NOW, ORDER, city, done, good, hand, later, saved, step, target, waited, world

FAILED = replace(
    good(),
    refused="g2-1-aa",
    refused_generation=2,
    history=(Past("g2-1-aa", "1.0", "2.0", "RolledBack", "bad", NOW, NOW),),
)


def test_what_runs_as_wanted_rests() -> None:
    found = waited(step(city("1.0"), good(), world()))
    assert (found.phase, found.reason) == ("Ready", "1.0 runs, and all 3 services are ready.")
    assert rollout_identity(city("1.0"), 2, good()) == ""


def test_a_service_that_is_not_well_is_told_of() -> None:
    stable = {**world().stable, "metering": Running("metering-1.0", Progress.RUNNING, reason="1 of 2 pods are ready.")}
    found = waited(step(city("1.0"), good(), world(stable=stable)))
    assert (found.phase, found.reason) == (
        "Waiting",
        "1.0 is rolled out, but metering is not ready: 1 of 2 pods are ready.",
    )


def test_a_canary_of_nothing_is_taken_away() -> None:
    assert step(city("1.0"), good(), world(canary={"metering": done("metering", "2.0")})) == RemoveCanary("metering")


def test_it_begins_dependencies_first_with_all_that_resuming_needs() -> None:
    seen = world(contracts=frozenset(["prepare-1.0", "prepare-2.0"]))
    found = hand(step(city("2.0"), good(), seen))
    assert [one.target.name for one in found.goal] == list(ORDER)
    assert (found.identity, found.generation, found.started) == (rollout_identity(city("2.0"), 2, good()), 2, NOW)
    assert (found.goal_version, found.prepare, found.stage) == ("2.0", "prepare-2.0", Stage.PREFLIGHT)
    assert (found.origin, found.origin_version, found.origin_prepare) == (good().last_good, "1.0", "prepare-1.0")
    assert found.contracts and found.origin_contracts and found.admitted
    ordered = hand(step(city("2.0", order=("identity", "metering", "gateway")), good(), world()))
    assert [one.target.name for one in ordered.goal] == list(ORDER)


def test_without_jobs_it_begins_at_the_services() -> None:
    assert hand(step(city("2.0", prepare=""), good(), world())).stage is Stage.SERVICES


def test_the_identity_holds_generation_try_and_goal() -> None:
    first = next_identity(city("2.0"), 2, good())
    assert first.startswith("g2-1-")
    assert next_identity(city("2.0"), 2, FAILED).startswith("g2-2-")
    assert next_identity(city("2.0"), 3, FAILED).startswith("g3-1-")
    assert next_identity(city("3.0"), 2, good()) != first, (
        "a City that was made anew does not take the Jobs of another goal for its own"
    )


def test_a_first_installation_has_nothing_to_go_back_to_and_needs_no_window() -> None:
    shut = Window((6,), "02:00", 60)
    found = hand(step(city("2.0", windows=(shut,)), State(), world(stable={})))
    assert found.origin == ()


def test_a_city_made_anew_adopts_what_runs_well_and_can_be_had_again() -> None:
    stable = {
        **world().stable,
        "metering": Running("metering-1.0", Progress.FAILED),
        "gateway": Running("gateway-gone", Progress.DONE),
    }
    assert hand(step(city("2.0"), State(), world(stable=stable))).origin == (Target("identity", "", "identity-1.0"),)


def test_what_a_failed_installation_left_is_no_way_back() -> None:
    failed = State(refused="g1-1-aa", refused_generation=1)
    assert hand(step(city("2.0"), failed, world())).origin == ()


# --- waits --------------------------------------------------------------------------------------------


def test_paused() -> None:
    found = waited(step(city("2.0", paused=True), good(), world()))
    assert found.phase == "Paused"
    assert "paused" in found.reason


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"metering-2.0"}, "the ConfigMap metering-2.0 is not there; run `helm upgrade` again"),
        ({"metering-2.0", "prepare-2.0"}, "the ConfigMaps metering-2.0, prepare-2.0 are not there"),
        ({"metering-1.0"}, "the ConfigMap metering-1.0 is not there"),
    ],
)
def test_data_that_is_missing_for_the_way_there_or_back(lost: set[str], said: str) -> None:
    found = waited(step(city("2.0"), good(), world(available=world().available - lost)))
    assert found.phase == "Waiting"
    assert said in found.reason


def test_approvals_are_counted_and_named() -> None:
    spec = city("2.0", approvals=2)
    assert "0 of 2 approvals of the rollout g2-1-" in waited(step(spec, good(), world())).reason
    one = waited(step(spec, good(), world(approved_by=frozenset(["ada"])))).reason
    assert "1 of 2" in one
    assert "(ada)" in one
    assert hand(step(spec, good(), world(approved_by=frozenset(["ada", "bob"]))))
    assert "0 of 2" in waited(step(spec, State(), world(stable={}))).reason, "for a first installation, too"


def test_a_freeze_holds_until_its_end_and_the_last_one_is_told() -> None:
    freezes = (Freeze(NOW, later(60), "short"), Freeze(NOW, later(7_200), "elections."))
    found = waited(step(city("2.0", freezes=freezes), good(), world())).reason
    assert found == "frozen until 2026-12-01 14:00 UTC: elections."
    assert hand(step(city("2.0", freezes=freezes), good(), world(now=later(7_200))))


def test_a_service_that_would_change_may_ask_to_be_left_alone() -> None:
    frozen = {"metering": "the month is closed until 2026-12-02 00:00 UTC"}
    found = waited(step(city("2.0"), good(), world(frozen=frozen))).reason
    assert found == "metering asks to be left alone: the month is closed until 2026-12-02 00:00 UTC."
    same = replace(city("2.0"), services=tuple(one if one.target.name != "metering" else replace(one, target=target("metering", "1.0"))
                                               for one in city("2.0").services))  # fmt: skip
    assert hand(step(same, good(), world(frozen=frozen))), "it is not touched"
    without = city("2.0", "identity", "gateway")
    assert "metering asks" in waited(step(without, good(), world(frozen=frozen))).reason, "it would be removed"


def test_outside_the_windows_the_next_opening_is_told_in_its_zone() -> None:
    spec = city("2.0", windows=(Window((2,), "02:00", 60, "Europe/Berlin"),))
    found = waited(step(spec, good(), world())).reason
    assert found == "outside the maintenance windows; the next one opens on Wed 2026-12-02 at 02:00 Europe/Berlin."
    open_at = datetime(2026, 12, 2, 1, 30, tzinfo=UTC)
    assert hand(step(spec, good(), world(now=open_at)))
    never = city("2.0", windows=(Window((), "02:00", 60),))
    assert waited(step(never, good(), world())).reason == "outside the maintenance windows; none opens."


# --- drift ----------------------------------------------------------------------------------------------


def test_what_somebody_changed_is_put_back_without_new_approvals_but_in_a_window() -> None:
    edited = {**world().stable, "metering": Running("metering-x", Progress.DONE)}
    assert hand(step(city("1.0", approvals=2), good(), world(stable=edited))).goal_version == "1.0"
    shut = (Window((6,), "02:00", 60),)
    assert "outside" in waited(step(city("1.0", windows=shut), good(), world(stable=edited))).reason
    lost = {name: one for name, one in world().stable.items() if name != "metering"}
    assert hand(step(city("1.0", windows=shut), good(), world(stable=lost))), "what is gone does not wait for the night"


def test_a_service_nobody_wants_any_more_is_a_reason() -> None:
    more = {**world().stable, "voting": done("voting", "1.0")}
    assert hand(step(city("1.0"), good(), world(stable=more))).goal_version == "1.0"


# --- refused --------------------------------------------------------------------------------------------


def test_what_went_back_is_not_tried_again_by_itself() -> None:
    found = waited(step(city("2.0"), FAILED, world()))
    assert found.phase == "RolledBack"
    assert "g2-1-aa to 2.0 was rolled back: bad; mend it and upgrade again, or `city rollout retry`." in found.reason
    again = saved(step(city("2.0"), FAILED, world(retry=True)))
    assert again.refused == ""
    assert again.rollout and again.rollout.identity.startswith("g2-2-")
    assert hand(step(city("2.0"), FAILED, world(), generation=3)).identity.startswith("g3-1-"), (
        "a new generation begins"
    )


def test_what_failed_says_so() -> None:
    past = replace(FAILED.history[0], outcome="Failed", reason="")
    found = waited(step(city("2.0"), replace(FAILED, history=(past,)), world()))
    assert found.phase == "Failed"
    assert "g2-1-aa to 2.0 failed; mend" in found.reason
    lost = waited(step(city("2.0"), replace(FAILED, history=()), world()))
    assert lost.phase == "Failed"
    assert "the rollout g2-1-aa failed" in lost.reason


def test_while_the_goal_is_refused_what_somebody_changed_goes_back_to_what_ran_well() -> None:
    edited = {**world().stable, "metering": Running("metering-x", Progress.DONE), "voting": done("voting", "1.0")}
    found = hand(step(city("2.0"), FAILED, world(stable=edited)))
    assert found.direction is Direction.BACK
    assert found.changed == ("voting", "metering")
    assert found.service == "voting"
    assert "somebody changed that" in found.reason
    for held in (city("2.0", paused=True), city("2.0", freezes=(Freeze(NOW, later(60), "x"),))):
        assert waited(step(held, FAILED, world(stable=edited))).phase == "RolledBack"
    first = replace(FAILED, last_good=())
    assert waited(step(city("2.0"), first, world(stable=edited))).phase == "RolledBack", (
        "there is nothing to go back to"
    )
