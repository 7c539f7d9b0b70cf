"""What comes next: from what is wanted, what was done and what is there to one step. Pure and total; called by `reconcile` for every step.

The same state and world give the same step, every step can be done twice, and every change of the state is saved before what follows from it is
done: so the operator may die anywhere. `beginning` says when a rollout may begin, `services` moves them one by one, `going_back` returns.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from operators.city.beginning import begin, hold
from operators.city.going_back import go_back, turn_back
from operators.city.model import (
    CitySpec,
    Direction,
    Progress,
    RemoveCanary,
    Rollout,
    RunJob,
    Save,
    Stage,
    State,
    Step,
    Wait,
    World,
    job_name,
)
from operators.city.scene import Scene, is_last_good, next_identity, recorded, seconds, targets, wanted
from operators.city.services import move_services

_AFTER = {Stage.PREFLIGHT: Stage.MIGRATE, Stage.MIGRATE: Stage.CONTRACTS, Stage.CONTRACTS: Stage.SERVICES}


def rollout_identity(spec: CitySpec, generation: int, state: State) -> str:
    """Of the rollout under way, or of the one that would begin; empty: the resource asks for what last ran well.

    A rollout that only puts back what somebody changed in the cluster has none before it begins: it needs no approvals.
    """
    if state.rollout is not None:
        return state.rollout.identity
    return "" if is_last_good(spec, state) else next_identity(spec, generation, state)


def next_step(spec: CitySpec, generation: int, state: State, world: World) -> Step:
    """The one thing to do now."""
    if state.rollout is None:
        return begin(spec, generation, state, world)
    scene = Scene(spec, generation, state, world, state.rollout)
    if state.rollout.direction is Direction.BACK:
        return go_back(scene)  # a pause does not hold it up: half rolled back is no state to look around in
    return _forward(scene)


def _forward(scene: Scene) -> Step:
    stop = _stopped(scene)
    if stop:
        return _running(scene, f"{stop}; it cannot be undone, so its end is awaited") or turn_back(
            scene, stop, aborted=scene.world.abort
        )
    return _pause(scene) or _superseded(scene) or _admitted(scene) or _staged(scene)


def _stopped(scene: Scene) -> str:
    """Why the rollout has to go back whatever its step says; empty: it has not."""
    rollout, limit_s = scene.rollout, scene.spec.deadline_s
    if scene.world.abort:
        return f"the rollout {rollout.identity} was aborted by a person"
    taken = (rollout.paused_at or scene.world.now) - rollout.started - timedelta(seconds=rollout.paused_s)
    if taken > timedelta(seconds=limit_s):
        return f"the rollout {rollout.identity} did not end within {seconds(limit_s)}"
    return ""


def _running(scene: Scene, why: str, stages: tuple[Stage, ...] = (Stage.MIGRATE, Stage.CONTRACTS)) -> Wait | None:
    """A Job that must not be left alone."""
    name = job_name(scene.rollout, scene.rollout.stage)
    if scene.rollout.stage in stages and scene.world.jobs.get(name) is Progress.RUNNING:
        return Wait(f"the Job {name} is running: {why}.", "Progressing", again_s=1.0)
    return None


# --- held up by people --------------------------------------------------------------------------------


def _pause(scene: Scene) -> Step | None:
    """Nothing is judged and nothing begun meanwhile, and no time limit counts it; `abort` still goes back."""
    rollout, now = scene.rollout, scene.world.now
    if scene.spec.paused:
        if rollout.paused_at is None:
            return scene.save(f"the rollout {rollout.identity} is paused", paused_at=now)
        where = f" at {rollout.service}" if rollout.service else ""
        return Wait(f"the rollout {rollout.identity} is paused{where}; `city rollout resume` goes on.", "Paused")
    if rollout.paused_at is None:
        return None
    length = max(now - rollout.paused_at, timedelta())
    return scene.save(
        f"the rollout {rollout.identity} goes on",
        paused_at=None,
        paused_s=rollout.paused_s + length.total_seconds(),
        since=rollout.since and rollout.since + length,
        looked=rollout.looked and rollout.looked + length,
    )


def _superseded(scene: Scene) -> Step | None:
    """The resource asks for something else now. What is in hand is brought to an end where nothing is half done, then another rollout goes on from
    here; it goes back to where the first one came from.
    """
    spec, rollout = scene.spec, scene.rollout
    aims = (targets(rollout.goal), rollout.goal_version, rollout.prepare)
    if (targets(spec.services), spec.version, spec.prepare) == aims:
        return None
    settled = _settling(scene)
    if settled is not None:
        return settled
    if is_last_good(spec, scene.state):
        return turn_back(scene, f"the City asks for {spec.version} again", aborted=True)
    return _taken_over(scene)


def _settling(scene: Scene) -> Step | None:
    name, why = scene.rollout.service, f"{scene.spec.version} is wanted now, and follows as soon as this has ended"
    running = _running(scene, why, tuple(_AFTER))
    if running is not None or not name:
        return running
    if name in scene.world.canary:
        return RemoveCanary(name)
    service, stable = scene.goal.get(name), scene.world.stable.get(name)
    replaced = service is not None and stable is not None and stable.manifests == service.target.manifests
    if replaced and stable and stable.progress is Progress.RUNNING and not scene.overrun(scene.spec.ready_s):
        return Wait(f"{name} becomes ready first: {why}.", "Progressing")
    return None


def _taken_over(scene: Scene) -> Save:
    spec, old, now = scene.spec, scene.rollout, scene.world.now
    identity = next_identity(spec, scene.generation, scene.state)
    new = Rollout(
        identity,
        scene.generation,
        started=now,
        goal=wanted(spec),
        goal_version=spec.version,
        prepare=spec.prepare,
        origin=old.origin,
        origin_version=old.origin_version,
        origin_prepare=old.origin_prepare,
        stage=Stage.PREFLIGHT if spec.prepare else Stage.SERVICES,
        since=now,
        admitted=False,
        changed=old.changed,
        origin_contracts=old.origin_contracts,
        restore=old.restore,
    )
    reason = f"{spec.version} was wanted before it had ended; {identity} went on from there"
    history = recorded(scene.state, old, "Superseded", reason, now, spec.history_limit)
    return Save(
        replace(scene.state, rollout=new, history=history), f"the rollout {identity} takes over from {old.identity}"
    )


def _admitted(scene: Scene) -> Step | None:
    """One that took over needs data, approvals and no freeze, as any does. Windows do not matter: something is under way already."""
    rollout, world = scene.rollout, scene.world
    if rollout.admitted:
        return None
    held = hold(scene.spec, world, rollout.identity, rollout.origin, approved=False)
    if held is not None:
        return held
    return scene.begun("", admitted=True, contracts=rollout.prepare in world.contracts)


# --- stages -------------------------------------------------------------------------------------------


def _staged(scene: Scene) -> Step:
    stage = scene.rollout.stage
    if stage not in _AFTER:
        return move_services(scene)
    if stage is Stage.CONTRACTS and not scene.rollout.contracts:
        return scene.begun(stage=Stage.SERVICES)
    name = job_name(scene.rollout, stage)
    match scene.world.jobs.get(name, Progress.ABSENT):
        case Progress.DONE:
            return _next_stage(scene, _AFTER[stage])
        case Progress.FAILED:
            return turn_back(scene, f"the Job {name} failed")
        case Progress.RUNNING:
            return Wait(f"the Job {name} is running.", "Progressing", again_s=1.0)
    return _start(scene, name, f"{stage.value}.yaml")


def _start(scene: Scene, name: str, key: str) -> Step:
    missing = scene.missing(scene.rollout.prepare)
    if missing is None:
        return RunJob(name, scene.rollout.prepare, key)
    return turn_back(scene, missing.reason) if scene.overrun(scene.spec.ready_s) else missing


def _next_stage(scene: Scene, stage: Stage) -> Save:
    identity = scene.rollout.identity
    restore = scene.rollout.restore or (stage is Stage.CONTRACTS and scene.rollout.contracts)
    return scene.begun(f"the rollout {identity} comes to the stage {stage.value}", stage=stage, restore=restore)
