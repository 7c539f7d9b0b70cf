"""Whether a rollout is needed, and what it has to wait for before it may change anything. Pure; called by `plan`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from operators.city.model import (
    CitySpec,
    Direction,
    Progress,
    RemoveCanary,
    Rollout,
    Save,
    Stage,
    State,
    Step,
    Target,
    Wait,
    World,
)
from operators.city.scene import because, gone, is_last_good, next_identity, sentence, wanted, way_back
from operators.city.windows import freeze_at, is_open, next_opening

RETRY = "mend it and upgrade again, or `city rollout retry`"


def begin(spec: CitySpec, generation: int, state: State, world: World) -> Step:
    """No rollout is under way: begin one, or say why not."""
    if world.canary:  # nothing tries anything now, so this is left over
        return RemoveCanary(min(world.canary))
    if not _needed(spec, state, world):
        return _resting(spec, world)
    if state.refused and state.refused_generation >= generation and not world.retry:
        return _put_back(spec, generation, state, world) or _refused(state)
    if spec.paused:
        return Wait(f"paused: the rollout to {spec.version} is not begun until `city rollout resume`.", "Paused")
    identity = next_identity(spec, generation, state)
    origin = origin_of(state, world)
    held = hold(spec, world, identity, origin, approved=is_last_good(spec, state)) or _closed(
        spec, state, world, origin
    )
    return held or _begun(spec, generation, state, world, identity, origin)


def _begun(
    spec: CitySpec, generation: int, state: State, world: World, identity: str, origin: tuple[Target, ...]
) -> Save:
    rollout = Rollout(
        identity,
        generation,
        started=world.now,
        goal=wanted(spec),
        goal_version=spec.version,
        prepare=spec.prepare,
        origin=origin,
        origin_version=state.last_good_version,
        origin_prepare=state.last_good_prepare,
        stage=Stage.PREFLIGHT if spec.prepare else Stage.SERVICES,
        since=world.now,
        contracts=spec.prepare in world.contracts,
        origin_contracts=state.last_good_prepare in world.contracts,
    )
    return Save(replace(state, rollout=rollout, refused=""), f"the rollout {identity} to {spec.version} begins")


def origin_of(state: State, world: World) -> tuple[Target, ...]:
    """What a rollout goes back to: what last ran well. Where nothing is known of that (the City was made anew) what runs well now.

    After a failed first installation there is nothing: what runs is what failed.
    """
    if state.last_good or state.history or state.refused:
        return state.last_good
    well = {name: one.manifests for name, one in world.stable.items() if one.progress is Progress.DONE}
    return tuple(Target(name, "", well[name]) for name in sorted(well) if well[name] in world.available)


def _needed(spec: CitySpec, state: State, world: World) -> bool:
    return not is_last_good(spec, state) or bool(drifted(spec, world))


def drifted(spec: CitySpec, world: World) -> list[str]:
    """Services that do not run what the resource asks for, and those it does not have."""
    names = {one.target.name: one.target.manifests for one in spec.services}
    other = [name for name in names if name not in world.stable or world.stable[name].manifests != names[name]]
    return other + sorted(set(world.stable) - set(names))


def _resting(spec: CitySpec, world: World) -> Wait:
    unready = [
        f"{one.target.name} is not ready{because(found.reason)}"
        for one in spec.services
        if (found := world.stable[one.target.name]).progress is not Progress.DONE
    ]
    if unready:
        return Wait(sentence(f"{spec.version} is rolled out, but {'; '.join(unready)}"), "Waiting")
    return Wait(f"{spec.version} runs, and all {len(spec.services)} services are ready.", "Ready", again_s=15.0)


def _put_back(spec: CitySpec, generation: int, state: State, world: World) -> Save | None:
    """What is wanted is refused, and what ran well before is no longer what runs: somebody changed it. It goes back to that, as a rollout does."""
    left = way_back(world, (), wanted(spec), state.last_good)
    if not state.last_good or not left or spec.paused or freeze_at(spec.freezes, world.now) is not None:
        return None
    begun = _begun(
        spec, generation, state, world, next_identity(spec, generation, state), state.last_good
    ).state.rollout
    reason = f"{', '.join(left)} did not run what ran well before; somebody changed that"
    rollout = begun and replace(begun, direction=Direction.BACK, reason=reason, changed=left, service=left[0])
    return Save(replace(state, rollout=rollout, refused=""), f"puts back {', '.join(left)}")


def _refused(state: State) -> Wait:
    past = state.history[-1] if state.history else None
    if past is None:
        return Wait(f"the rollout {state.refused} failed; {RETRY}.", "Failed")
    did = "was rolled back" if past.outcome == "RolledBack" else "failed"
    text = f"the rollout {past.identity} to {past.to_version} {did}{because(past.reason)}; {RETRY}."
    return Wait(text, "RolledBack" if past.outcome == "RolledBack" else "Failed")


# --- what it waits for --------------------------------------------------------------------------------


def hold(spec: CitySpec, world: World, identity: str, origin: tuple[Target, ...], *, approved: bool) -> Wait | None:
    """Why nothing may be begun: data that is missing, people who did not approve, freezes.

    All hold for a first installation, too: approvals say who decides what runs here, and a freeze is somebody's explicit word, and ends by itself.

    Args:
        approved: what is wanted was approved before: putting back what somebody changed needs no new approvals.
    """
    missing = sorted(_data(spec, origin) - world.available)
    if missing:
        return Wait(gone(missing), "Waiting")
    if not approved and len(world.approved_by) < spec.approvals:
        return Wait(_unapproved(spec, world, identity), "Waiting")
    freeze = freeze_at(spec.freezes, world.now)
    if freeze is not None:
        return Wait(sentence(f"frozen until {_moment(freeze.ends)}{because(freeze.reason)}"), "Waiting")
    changing = {one.target.name for one in spec.services if one.target not in origin}
    changing |= {one.name for one in origin} - {one.target.name for one in spec.services}
    return frozen(world, changing)


def _data(spec: CitySpec, origin: tuple[Target, ...]) -> set[str]:
    """ConfigMaps a rollout needs: of where it leads and, so that there is a way back, of where it comes from."""
    names = {one.target.manifests for one in spec.services} | {one.manifests for one in origin}
    return names | ({spec.prepare} if spec.prepare else set())


def frozen(world: World, services: set[str]) -> Wait | None:
    """A service that asks to be left alone."""
    for name in sorted(services.intersection(world.frozen)):
        return Wait(sentence(f"{name} asks to be left alone{because(world.frozen[name])}"), "Waiting")
    return None


def _unapproved(spec: CitySpec, world: World, identity: str) -> str:
    by = f" ({', '.join(sorted(world.approved_by))})" if world.approved_by else ""
    there = f"{len(world.approved_by)} of {spec.approvals} approvals of the rollout {identity} to {spec.version} are there{by}"
    return f"{there}; another person gives one with `city rollout approve`."


def _closed(spec: CitySpec, state: State, world: World, origin: tuple[Target, ...]) -> Wait | None:
    """Outside the windows. They are there so that nobody is disturbed: they hold nothing up where nothing runs yet, or where a service that ran well
    is gone. A rollout that has begun goes on when its window ends: a city between two versions is what nobody wants to find in the morning.
    """
    repair = is_last_good(spec, state) and any(one.name not in world.stable for one in origin)
    if not origin or repair or not spec.windows or is_open(spec.windows, world.now):
        return None
    opening = next_opening(spec.windows, world.now)
    when = f"the next one opens on {opening[0]:%a %Y-%m-%d at %H:%M} {opening[1]}" if opening else "none opens"
    return Wait(f"outside the maintenance windows; {when}.", "Waiting")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()
