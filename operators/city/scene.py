"""What every part of the plan looks at: one rollout under way with all that is known, and the sentences the parts share. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from operators.city.model import (
    CitySpec,
    Past,
    RemoveCanary,
    Rollout,
    Save,
    ServiceSpec,
    State,
    Target,
    Wait,
    World,
)
from operators.city.order import dependencies_first

REASON_MAX = 500
"""Characters of a reason that is kept."""
CONTRACTS_KEY = "contracts.yaml"
_TRY = re.compile(r"g(\d+)-(\d+)")
_DIGEST = 6


@dataclass(frozen=True)
class Scene:
    """One rollout under way."""

    spec: CitySpec
    generation: int
    state: State
    world: World
    rollout: Rollout

    @property
    def origin(self) -> dict[str, Target]:
        return {one.name: one for one in self.rollout.origin}

    @property
    def goal(self) -> dict[str, ServiceSpec]:
        return {one.target.name: one for one in self.rollout.goal}

    def overrun(self, limit_s: float) -> bool:
        """Whether the step in hand takes longer than that."""
        return self.world.now - (self.rollout.since or self.rollout.started) > timedelta(seconds=limit_s)

    def save(self, event: str = "", **changes: Any) -> Save:
        """The rollout with these changes; what the state refuses stays."""
        return Save(replace(self.state, rollout=replace(self.rollout, **changes)), event)

    def begun(self, event: str = "", **changes: Any) -> Save:
        """As `save`, and a new step begins."""
        return self.save(event, since=self.world.now, looked=None, **changes)

    def ended(self, outcome: str, reason: str, event: str, **changes: Any) -> Save:
        """The rollout is over."""
        history = recorded(self.state, self.rollout, outcome, reason, self.world.now, self.spec.history_limit)
        return Save(replace(self.state, rollout=None, history=history, **changes), event)

    def stray(self) -> RemoveCanary | None:
        """A canary of a service that is not in hand: left over from a look that did not show it."""
        names = sorted(set(self.world.canary) - {self.rollout.service})
        return RemoveCanary(names[0]) if names else None

    def missing(self, name: str) -> Wait | None:
        """A ConfigMap that is needed and not there."""
        return None if name in self.world.available else Wait(gone([name]), "Waiting")


def wanted(spec: CitySpec) -> tuple[ServiceSpec, ...]:
    """The services in the order of a rollout."""
    by_name = {one.target.name: one for one in spec.services}
    order = spec.order or dependencies_first(list(by_name), {name: one.depends_on for name, one in by_name.items()})
    return tuple(by_name[name] for name in order if name in by_name)


def targets(services: Iterable[ServiceSpec]) -> frozenset[Target]:
    return frozenset(one.target for one in services)


def is_last_good(spec: CitySpec, state: State) -> bool:
    """Whether the resource asks for what last ran well."""
    same = targets(spec.services) == frozenset(state.last_good)
    return same and (spec.version, spec.prepare) == (state.last_good_version, state.last_good_prepare)


def next_identity(spec: CitySpec, generation: int, state: State) -> str:
    """Of the next try: the generation, the number of the try, and a digest of the goal.

    The digest is there for a City that was deleted and made anew: its generations begin at 1 again, and the Jobs of the old one must not be taken
    for its own.
    """
    known = [state.refused, *(past.identity for past in state.history)]
    known += [state.rollout.identity] if state.rollout else []
    tries = [int(found[2]) for found in map(_TRY.match, known) if found and int(found[1]) == generation]
    text = "\n".join(
        [spec.version, spec.prepare, *sorted(f"{one.name} {one.manifests}" for one in targets(spec.services))]
    )
    return f"g{generation}-{max(tries, default=0) + 1}-{sha256(text.encode()).hexdigest()[:_DIGEST]}"


def recorded(state: State, rollout: Rollout, outcome: str, reason: str, now: datetime, limit: int) -> tuple[Past, ...]:
    """The history with one more."""
    past = Past(
        rollout.identity,
        rollout.origin_version,
        rollout.goal_version,
        outcome,
        reason[:REASON_MAX],
        rollout.started,
        now,
    )
    return (*state.history, past)[-max(limit, 1) :]


def way_back(
    world: World, changed: tuple[str, ...], goal: tuple[ServiceSpec, ...], origin: tuple[Target, ...]
) -> tuple[str, ...]:
    """What may have been changed, or is seen to run something else than before; what others depend on last.

    Removals were the last things done, so they are undone first, and among them what others depend on comes first.
    """
    before, after = {one.name: one.manifests for one in origin}, [one.target.name for one in goal]
    runs = {name: one.manifests for name, one in world.stable.items()}
    names = {*changed, *(name for name in before if runs.get(name) != before[name])}
    names |= set(runs) - set(before)
    strange = [*reversed(changed), *sorted(runs)]
    foreign = [name for name in dict.fromkeys(strange) if name in names and name not in after and name not in before]
    removed = [name for name in before if name in names and name not in after]
    return (*foreign, *removed, *(name for name in reversed(after) if name in names))


# --- sentences ----------------------------------------------------------------------------------------


def sentence(text: str) -> str:
    """With one full stop at its end, whatever the reason in it ended with."""
    return text.rstrip(" .;:,") + "."


def because(reason: str) -> str:
    """A reason as the end of a clause."""
    found = reason.rstrip(" .;:,")
    return f": {found}" if found else ""


def gone(names: Iterable[str]) -> str:
    listed = list(names)
    what = f"the ConfigMap {listed[0]} is" if len(listed) == 1 else f"the ConfigMaps {', '.join(listed)} are"
    return (
        f"{what} not there; run `helm upgrade` again with the version that has {'it' if len(listed) == 1 else 'them'}."
    )


def seconds(duration_s: float) -> str:
    return f"{duration_s:g} s"
