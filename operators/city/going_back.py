"""The way back: what may have been changed returns to what ran before, the last first. Pure; called by `plan` and `services`.

Migrations are not undone: they only add, and the version before runs on what they left. Contracts are put back after the services.
"""

from __future__ import annotations

from dataclasses import replace

from operators.city.model import (
    ApplyStable,
    Direction,
    Progress,
    Remove,
    RemoveCanary,
    RunJob,
    Save,
    Stage,
    Step,
    Target,
    Wait,
    job_name,
)
from operators.city.scene import CONTRACTS_KEY, REASON_MAX, Scene, because, next_identity, seconds, sentence, way_back

STUCK = "mend it, then `city rollout retry` goes on with it"


def turn_back(scene: Scene, reason: str, *, aborted: bool = False) -> Save:
    """The rollout goes no further. Where nothing was changed it ends here; a first installation does so too, and what is there stays for a look."""
    rollout, reason = scene.rollout, reason.rstrip(" .")[:REASON_MAX]
    if not rollout.origin:
        return _refused(
            scene, "Failed", f"{reason}; nothing ran before, so there is nothing to go back to"[:REASON_MAX]
        )
    left = way_back(scene.world, rollout.changed, rollout.goal, rollout.origin)
    if not left and not _restores(scene):
        return _refused(
            scene, "RolledBack" if aborted else "Failed", f"{reason}; no service had been changed"[:REASON_MAX]
        )
    return scene.begun(
        f"rolls back to {rollout.origin_version or 'what ran before'}: {reason}",
        direction=Direction.BACK,
        reason=reason,
        changed=left,
        service=next(iter(left), ""),
        weight=0,
        standing=False,
        paused_at=None,
    )


def _refused(scene: Scene, outcome: str, reason: str) -> Save:
    event = f"the rollout {scene.rollout.identity} to {scene.rollout.goal_version} ended, {outcome}: {reason}"
    return scene.ended(outcome, reason, event, refused=scene.rollout.identity, refused_generation=scene.generation)


def _restores(scene: Scene) -> bool:
    return scene.rollout.restore and scene.rollout.origin_contracts


def go_back(scene: Scene) -> Step:
    """The next step of the way back."""
    rollout = scene.rollout
    if scene.state.refused == rollout.identity and scene.world.retry:
        return _again(scene)
    stray = scene.stray()
    if stray is not None:
        return stray
    if rollout.service:
        return _return(scene, rollout.service)
    if _restores(scene):
        if rollout.stage is not Stage.RESTORE:
            return scene.begun(stage=Stage.RESTORE)
        left = _contracts(scene)
        if left is not None:
            return left
    return _refused(scene, "RolledBack", rollout.reason)


def _again(scene: Scene) -> Save:
    """Under another identity, so that Jobs can run anew and what the cluster refused is asked again."""
    identity = next_identity(scene.spec, scene.rollout.generation, scene.state)
    step = scene.begun(f"tries again to roll back, as {identity}", identity=identity)
    return replace(step, state=replace(step.state, refused=""))


def _return(scene: Scene, name: str) -> Step:
    """One service to what it was, or away if it was not. It does not wait for its own freeze: what failed is worse than what disturbs."""
    target, stable = scene.origin.get(name), scene.world.stable.get(name)
    tried = name in scene.world.canary
    placed = stable is not None and target is not None and stable.manifests == target.manifests
    done = stable is None if target is None else (placed and stable is not None and stable.progress is Progress.DONE)
    if done and not tried:
        return _returned(scene, name)
    if target is not None and not placed and not tried:
        return _replaced(scene, target)
    if scene.overrun(scene.spec.ready_s):
        reason = stable.reason if stable is not None and placed else ""
        return _stuck(scene, f"{name} did not go back within {seconds(scene.spec.ready_s)}{because(reason)}")
    if tried:
        return RemoveCanary(name)
    if target is None:
        return Remove(name)
    why = because(stable.reason) if stable is not None else ""
    return Wait(sentence(f"{name} goes back to {_named(target)}{why}"), "RollingBack", again_s=1.0)


def _replaced(scene: Scene, target: Target) -> Step:
    """The time it has begins when it can be done: the operator may have been away since it was decided."""
    missing, overrun = _missing(scene, target.manifests), scene.overrun(scene.spec.ready_s)
    if missing is not None:
        return _stuck(scene, missing.reason) if overrun else missing
    return scene.begun(f"{target.name} goes back to {_named(target)}") if overrun else ApplyStable(target)


def _named(target: Target) -> str:
    return target.version or target.manifests


def _returned(scene: Scene, name: str) -> Save:
    left = tuple(one for one in scene.rollout.changed if one != name)
    step = scene.begun(f"{name} is back", changed=left, service=next(iter(left), ""))
    return replace(step, state=replace(step.state, refused=""))


def _missing(scene: Scene, name: str) -> Wait | None:
    found = scene.missing(name)
    return found and replace(found, phase="RollingBack")


def _contracts(scene: Scene) -> Step | None:
    """None: they are back."""
    name = job_name(scene.rollout, Stage.RESTORE)
    match scene.world.jobs.get(name, Progress.ABSENT):
        case Progress.DONE:
            return None
        case Progress.FAILED:
            return _stuck(scene, f"the Job {name} failed")
        case Progress.RUNNING:
            return Wait(f"the Job {name} puts the contracts back.", "RollingBack", again_s=1.0)
    missing = _missing(scene, scene.rollout.origin_prepare)
    if missing is not None:
        return _stuck(scene, missing.reason) if scene.overrun(scene.spec.ready_s) else missing
    return RunJob(name, scene.rollout.origin_prepare, CONTRACTS_KEY)


def _stuck(scene: Scene, why: str) -> Step:
    """It stays where it is until a person says `retry`, or until what it waits for is there after all."""
    identity, why = scene.rollout.identity, why.rstrip(" .")
    if scene.state.refused == identity:
        return Wait(f"the roll back {identity} cannot go on: {why}; {STUCK}.", "Failed")
    stopped = replace(scene.state, refused=identity, refused_generation=scene.generation)
    return Save(stopped, f"the roll back {identity} cannot go on: {why}")
