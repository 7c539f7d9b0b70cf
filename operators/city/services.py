"""Moves the services of a rollout to its goal, one by one, each tried, judged and only then promoted. Pure; called by `plan`."""

from __future__ import annotations

from operators.city.beginning import frozen
from operators.city.going_back import turn_back
from operators.city.model import (
    ApplyCanary,
    ApplyStable,
    Ask,
    Judgement,
    Progress,
    Remove,
    RemoveCanary,
    Running,
    Save,
    ServiceSpec,
    Step,
    Verdict,
    Wait,
    WeighRoutes,
)
from operators.city.scene import Scene, because, seconds, sentence

INVARIANTS_S = 120.0
"""How long a judgement may take where no analysis says longer."""


def move_services(scene: Scene) -> Step:
    """The next step of the service in hand, or of the next one, or the end."""
    rollout, name, stray = scene.rollout, scene.rollout.service, scene.stray()
    if stray is not None:
        return stray
    if not name:
        return _take(scene)
    if rollout.hurried and rollout.hurried != name and not scene.world.promote:
        return scene.save(hurried="")  # the annotation is gone; the next one counts again
    service = scene.goal.get(name)
    if service is None:
        return _remove(scene, name)
    return _try(scene, service) if rollout.weight < 100 else _replace(scene, service)  # noqa: PLR2004 - percent


# --- between two --------------------------------------------------------------------------------------


def _take(scene: Scene) -> Step:
    service = next((one for one in scene.rollout.goal if _is_due(scene, one)), None)
    if service is not None:
        return _begin(scene, service)
    superfluous = _superfluous(scene)
    if superfluous:
        held = frozen(scene.world, {superfluous[0]})
        return held or scene.begun(
            f"{superfluous[0]} is removed", service=superfluous[0], weight=0, changed=_with(scene, superfluous[0])
        )
    return _succeeded(scene)


def _is_due(scene: Scene, service: ServiceSpec) -> bool:
    """Not yet promoted, and not known to be there already."""
    name = service.target.name
    if name in scene.rollout.promoted:
        return False
    return name in scene.rollout.changed or not _is_restored(scene, service) or not _runs(scene, service)


def _is_restored(scene: Scene, service: ServiceSpec) -> bool:
    """Whether the goal is what ran well before: then it is put back and not tried."""
    known = scene.origin.get(service.target.name)
    return known is not None and known.manifests == service.target.manifests


def _runs(scene: Scene, service: ServiceSpec) -> bool:
    stable = scene.world.stable.get(service.target.name)
    return stable is not None and stable.manifests == service.target.manifests


def _begin(scene: Scene, service: ServiceSpec) -> Step:
    name = service.target.name
    held = frozen(scene.world, {name}) or scene.missing(service.target.manifests) or _unready_needs(scene, service)
    if held is not None:  # until the rollout's own deadline
        return held
    steps = service.canary.steps if service.canary else ()
    tried = steps and name in scene.origin and not _is_restored(scene, service)
    weight = steps[0] if tried else 100
    event = f"{name} {service.target.version}: {f'{weight} % try it' if tried else 'replaces what runs'}"
    return scene.begun(event, service=name, weight=weight, changed=_with(scene, name), standing=_stands(scene, service))


def _unready_needs(scene: Scene, service: ServiceSpec) -> Wait | None:
    """Services it depends on that are not well, though nobody changes them now."""
    for name in service.depends_on:
        found = scene.world.stable.get(name)
        if name in scene.goal and (found is None or found.progress is not Progress.DONE):
            why = because(found.reason) if found is not None else ""
            text = f"{service.target.name} has to wait for {name}, which it depends on and which is not ready{why}"
            return Wait(sentence(text), "Progressing")
    return None


def _stands(scene: Scene, service: ServiceSpec) -> bool:
    return _runs(scene, service) and scene.world.stable[service.target.name].progress is not Progress.DONE


def _with(scene: Scene, name: str) -> tuple[str, ...]:
    return (*(one for one in scene.rollout.changed if one != name), name)


def _superfluous(scene: Scene) -> list[str]:
    """Services the goal does not have, those that depend on others first."""
    order = {one.name: number for number, one in enumerate(scene.rollout.origin)}
    names = sorted(set(scene.world.stable) - set(scene.goal))
    return sorted(names, key=lambda name: -order.get(name, len(order)))


def _succeeded(scene: Scene) -> Save:
    rollout = scene.rollout
    return scene.ended(
        "Succeeded",
        "",
        f"{rollout.goal_version} runs",
        last_good=tuple(one.target for one in rollout.goal),
        last_good_version=rollout.goal_version,
        last_good_prepare=rollout.prepare,
        refused="",
    )


# --- one service --------------------------------------------------------------------------------------


def _try(scene: Scene, service: ServiceSpec) -> Step:
    """A canary at the weight in hand."""
    name, target, weight = service.target.name, service.target, scene.rollout.weight
    canary = scene.world.canary.get(name)
    placed = canary is not None and (canary.manifests, canary.weight) == (target.manifests, weight)
    unready = _unready(scene, service, canary, placed=placed, at=f"{name} at {weight} %")
    if unready is not None:
        return unready
    if canary is None or not placed:
        return ApplyCanary(target, weight)
    if canary.routed not in (None, weight):
        return WeighRoutes(target, weight)
    return _judged(scene, service, f"{name} at {weight} %", _heavier(scene, service))


def _heavier(scene: Scene, service: ServiceSpec) -> Save:
    weight = scene.rollout.weight
    more = [one for one in service.canary.steps if one > weight] if service.canary else []
    if not more or scene.rollout.hurried == service.target.name:
        event = f"{service.target.name} {service.target.version} is promoted"
        return scene.begun(event, weight=100, standing=_stands(scene, service))
    return scene.begun(f"{service.target.name} {service.target.version}: {more[0]} % try it", weight=more[0])


def _replace(scene: Scene, service: ServiceSpec) -> Step:
    """All of it at the goal, and looked at."""
    name, stable = service.target.name, scene.world.stable.get(service.target.name)
    placed = _runs(scene, service)
    unready = _unready(scene, service, stable, placed=placed, at=name)
    if unready is not None:
        return unready
    if not placed:
        return ApplyStable(service.target)
    if name in scene.world.canary:
        return RemoveCanary(name)
    done = _promoted(scene, name)
    return done if _is_restored(scene, service) else _judged(scene, service, name, done)


def _promoted(scene: Scene, name: str) -> Save:
    hurried = scene.rollout.hurried if scene.world.promote else ""
    promoted = (*scene.rollout.promoted, name)
    return scene.begun(f"{name} is done", promoted=promoted, service="", weight=0, standing=False, hurried=hurried)


def _remove(scene: Scene, name: str) -> Step:
    """Takes it away until it is gone, or until the rollout's own deadline."""
    if name not in scene.world.stable and name not in scene.world.canary:
        return scene.begun(f"{name} is gone", service="", weight=0)
    return Remove(name)


# --- ready, judged ------------------------------------------------------------------------------------


def _unready(scene: Scene, service: ServiceSpec, found: Running | None, *, placed: bool, at: str) -> Step | None:
    """What to do while the step's pods are not all ready; None: they are, or have to be made."""
    spec, rollout = scene.spec, scene.rollout
    ours = found is not None and found.manifests == service.target.manifests
    if found is not None and ours and found.progress is Progress.FAILED and not rollout.standing:
        return turn_back(scene, f"{at} failed{because(found.reason)}")
    if found is not None and placed and found.progress is Progress.DONE:
        return None
    if rollout.looked is not None:
        return scene.begun(f"the pods of {at} are no longer ready; it is looked at anew when they are")
    missing = None if placed else scene.missing(service.target.manifests)
    if not scene.overrun(spec.ready_s):
        wait = Wait(
            sentence(f"{at} is not ready yet{because(found.reason if found else '')}"), "Progressing", again_s=1.0
        )
        return wait if placed else missing
    if not placed and missing is None:  # decided long ago and not done: the operator was away, so its time begins now
        return scene.begun(f"{at} is taken up again")
    reason = missing.reason if missing is not None else found.reason if found is not None else ""
    return turn_back(scene, f"{at} was not ready within {seconds(spec.ready_s)}{because(reason)}")


def _judged(scene: Scene, service: ServiceSpec, at: str, following: Save) -> Step:
    """What the gates say of it. All is ready."""
    rollout, world, name = scene.rollout, scene.world, service.target.name
    if rollout.looked is None:
        return scene.save(looked=world.now)
    if rollout.hurried == name:
        return following
    if world.promote and not rollout.hurried:
        return scene.save(f"a person promotes {name}: the gates are asked no more about it", hurried=name)
    return Ask(name) if world.judgement is None else _followed(scene, service, at, world.judgement, following)


def _followed(scene: Scene, service: ServiceSpec, at: str, said: Judgement, following: Save) -> Step:
    looked_s = (scene.world.now - (scene.rollout.looked or scene.world.now)).total_seconds()
    if said.verdict is Verdict.FAILED:
        return turn_back(scene, f"{at} is not good{because(said.reason)}")
    if said.verdict is Verdict.UNKNOWN and service.target.name in scene.origin:
        return _undecided(scene, at, looked_s, said.reason)
    pause_s = _pause_s(scene, service)
    if looked_s < pause_s:
        text = f"{at} is looked at for {seconds(pause_s)}{because(said.reason)}"
        return Wait(sentence(text), "Progressing", again_s=1.0)
    return following


def _pause_s(scene: Scene, service: ServiceSpec) -> float:
    return service.canary.pause_s if service.canary and scene.rollout.weight < 100 else 0.0  # noqa: PLR2004 - percent


def _undecided(scene: Scene, at: str, looked_s: float, reason: str) -> Step:
    """Waits, but not for ever: the gates have deadlines of their own, which a crash of the operator begins anew; this one it does not.

    Nobody waits for a service that is new: it has had no traffic that could be judged, so only what is plainly bad stops it.
    """
    limit_s = max([INVARIANTS_S, *(one.deadline_s + one.count * one.interval_s for one in scene.spec.analyses)])
    if looked_s > limit_s + scene.spec.ready_s:
        return turn_back(
            scene, f"{at} could not be judged within {seconds(limit_s + scene.spec.ready_s)}{because(reason)}"
        )
    return Wait(sentence(f"{at} is being judged{because(reason)}"), "Progressing", again_s=1.0)
