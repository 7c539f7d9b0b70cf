"""The values a rollout is planned from: what is wanted (the City resource), what is there (the cluster), what comes next (a step).

Standard library only. `spec.py` reads the first from the resource, `observe.py` the second from the cluster, `plan.py` decides the third,
`act.py` does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

# --- what is wanted -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A service at a version.

    Attributes:
        manifests: the ConfigMap that holds its objects; its name ends in the hash of what it holds, so another name is another target.
    """

    name: str
    version: str
    manifests: str


@dataclass(frozen=True)
class Canary:
    """Shares of the replicas that try a new version first.

    Attributes:
        steps: percent, ascending, each from 1 to 99.
        pause_s: seconds each step is looked at before the next.
    """

    steps: tuple[int, ...]
    pause_s: float = 30.0


@dataclass(frozen=True)
class ServiceSpec:
    """One service of the city.

    Attributes:
        depends_on: services that must have been promoted before.
        canary: None: replaced at once, then analysed.
    """

    target: Target
    depends_on: tuple[str, ...] = ()
    canary: Canary | None = None


@dataclass(frozen=True)
class Analysis:
    """A question to Prometheus with the conditions its answer is judged by.

    Attributes:
        success, failure: comparisons of `result` with a number, `result <= 0.01`; empty: never met.
        interval_s, count: asked so often, this many times; each must succeed.
        deadline_s: an answer that is neither success nor failure is waited for so long, then it counts as failed.
    """

    name: str
    query: str
    success: str
    failure: str = ""
    interval_s: float = 10.0
    count: int = 3
    deadline_s: float = 120.0


@dataclass(frozen=True)
class Window:
    """Local times at which a rollout may begin; days as 0 (Monday) to 6."""

    days: tuple[int, ...]
    start: str
    minutes: int
    zone: str = "UTC"


@dataclass(frozen=True)
class Freeze:
    """A time in which nothing is begun."""

    begins: datetime
    ends: datetime
    reason: str


@dataclass(frozen=True)
class CitySpec:
    """The City resource's `spec`, checked.

    Attributes:
        services: in the resource's order.
        order: an explicit order of all services; empty: derived from `depends_on`.
        prepare: ConfigMap with the Jobs `preflight.yaml`, `migrate.yaml` and perhaps `contracts.yaml`; empty: none.
        approvals: people who must approve before anything changes.
        ready_s: how long a service may take until its pods are ready.
        deadline_s: how long a whole rollout may take until it is rolled back.
    """

    version: str
    services: tuple[ServiceSpec, ...]
    order: tuple[str, ...] = ()
    profile: str = "trial"
    paused: bool = False
    prepare: str = ""
    analyses: tuple[Analysis, ...] = ()
    prometheus_url: str = ""
    invariants: bool = True
    windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    approvals: int = 0
    ready_s: float = 300.0
    deadline_s: float = 3_600.0
    history_limit: int = 10


# --- what is there ------------------------------------------------------------------------------------


class Progress(StrEnum):
    """How far something that was asked for has come."""

    ABSENT = "absent"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Running:
    """Pods of one service on one track.

    Attributes:
        manifests: which ConfigMap they were made from.
        weight: percent of the replicas, 100 on the stable track.
        progress: DONE when all are ready and none of an older version is left.
        reason: why not, in a sentence.
        routed: percent that the routes give a canary; None: no route leads to its service.
    """

    manifests: str
    progress: Progress
    weight: int = 100
    reason: str = ""
    routed: int | None = None


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """Not yet, or no answer: wait until the deadline."""


@dataclass(frozen=True)
class Judgement:
    """What the gates say of the step in hand."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class World:
    """The cluster at one moment. A reading may be old or lack something: the plan must be right for any.

    Attributes:
        available: ConfigMaps that are there.
        contracts: those of `available` that hold a `contracts.yaml`.
        stable, canary: what runs, by service.
        jobs: by the names `job_name` gives.
        judgement: of what `rollout` has in hand; None: not asked yet.
        frozen: reasons services give to be left alone (`GetFreeze`), by service.
        approved_by: people who approved this rollout, each once.
        promote, abort, retry: whether an annotation asks it of this rollout.
    """

    now: datetime
    available: frozenset[str] = frozenset()
    contracts: frozenset[str] = frozenset()
    stable: Mapping[str, Running] = field(default_factory=dict)
    canary: Mapping[str, Running] = field(default_factory=dict)
    jobs: Mapping[str, Progress] = field(default_factory=dict)
    judgement: Judgement | None = None
    frozen: Mapping[str, str] = field(default_factory=dict)
    approved_by: frozenset[str] = frozenset()
    promote: bool = False
    abort: bool = False
    retry: bool = False


# --- what was done so far: kept in the resource's status ------------------------------------------------


class Direction(StrEnum):
    FORWARD = "forward"
    BACK = "back"


class Stage(StrEnum):
    """Stages of a rollout, in their order."""

    PREFLIGHT = "preflight"
    MIGRATE = "migrate"
    CONTRACTS = "contracts"
    SERVICES = "services"
    RESTORE = "restore"
    """Going back only, after the services: the contracts of what ran before, by a compatible sequence."""


@dataclass(frozen=True)
class Rollout:
    """A rollout under way; all that resuming it needs.

    Attributes:
        identity: names it; derived from the generation, the number of tries and the goal, so that it is the same after a crash.
        goal: where it leads, dependencies first. Fixed at its beginning: a later change of the resource ends it and begins another.
        origin: what ran before, where it goes back to; empty at the first installation.
        promoted: services that run the goal's version, in the order they were promoted.
        service: in hand; empty between two.
        weight: of the canary in hand, percent; 100: promoted, being looked at; 0: nothing of it applied yet.
        since: when the step in hand began.
        reason: why it goes back.
        admitted: whether it may change anything. One that took over from another (the resource changed) needs its own approvals first.
        changed: services it, or one it took over from, may have changed, in that order; going back: those still to go back, next first.
        standing: the service in hand was at its goal before it was taken in hand: what its pods suffered before does not count.
        looked: since when all pods of the step in hand are ready and the gates look at it.
        hurried: the service whose remaining looks a person skipped (`promote`).
        contracts, origin_contracts: whether `prepare` and `origin_prepare` have a Job for contracts.
        restore: whether contracts may have been changed.
        paused_at: since when it is paused; None: it is not.
        paused_s: how long it was paused before, which no time limit counts.
    """

    identity: str
    generation: int
    started: datetime
    goal: tuple[ServiceSpec, ...]
    goal_version: str
    prepare: str = ""
    origin: tuple[Target, ...] = ()
    origin_version: str = ""
    origin_prepare: str = ""
    direction: Direction = Direction.FORWARD
    stage: Stage = Stage.PREFLIGHT
    promoted: tuple[str, ...] = ()
    service: str = ""
    weight: int = 0
    since: datetime | None = None
    reason: str = ""
    admitted: bool = True
    changed: tuple[str, ...] = ()
    standing: bool = False
    looked: datetime | None = None
    hurried: str = ""
    contracts: bool = False
    origin_contracts: bool = False
    restore: bool = False
    paused_at: datetime | None = None
    paused_s: float = 0.0


@dataclass(frozen=True)
class Past:
    """A rollout that ended: `Succeeded`, `RolledBack`, `Failed` (nothing to go back to, or nothing changed) or `Superseded` (another took over)."""

    identity: str
    from_version: str
    to_version: str
    outcome: str
    reason: str
    started: datetime
    finished: datetime


@dataclass(frozen=True)
class State:
    """The status as far as the plan reads it.

    Attributes:
        last_good: what every service ran when a rollout last succeeded.
        refused: identity of the last rollout that went back or failed, or cannot go back; it is not begun again without `retry`.
        refused_generation: the resource's generation at that time; a newer one begins without `retry`.
    """

    rollout: Rollout | None = None
    last_good: tuple[Target, ...] = ()
    last_good_version: str = ""
    last_good_prepare: str = ""
    history: tuple[Past, ...] = ()
    refused: str = ""
    refused_generation: int = 0


# --- what comes next ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wait:
    """Nothing to do now. `reason` is one readable sentence; `phase` the resource's; look again after `again_s` at the latest."""

    reason: str
    phase: str
    again_s: float = 2.0


@dataclass(frozen=True)
class RunJob:
    """Start one of the Jobs of a stage, under `name`, from a ConfigMap's key."""

    name: str
    manifests: str
    key: str


@dataclass(frozen=True)
class ApplyCanary:
    """Bring up the canary of a service, or give it more or fewer pods."""

    target: Target
    weight: int


@dataclass(frozen=True)
class WeighRoutes:
    """Have the routes to a service give its canary, whose pods are ready, this percent."""

    target: Target
    weight: int


@dataclass(frozen=True)
class ApplyStable:
    """Replace a service by this target."""

    target: Target


@dataclass(frozen=True)
class RemoveCanary:
    service: str


@dataclass(frozen=True)
class Remove:
    """Take away a service that the goal does not have, or that had no version to go back to."""

    service: str


@dataclass(frozen=True)
class Ask:
    """Have the gates judge the service in hand."""

    service: str


@dataclass(frozen=True)
class Save:
    """Write this state into the status, then look again. Each step is saved before the next is taken, so that any crash resumes."""

    state: State
    event: str = ""
    """For the resource's events; empty: none."""


Step = Wait | RunJob | ApplyCanary | WeighRoutes | ApplyStable | RemoveCanary | Remove | Ask | Save


def job_name(rollout: Rollout, stage: Stage) -> str:
    """Unique to the rollout and the stage, so that a Job is never run twice for one and never mistaken for another's."""
    return f"{stage.value}-{rollout.identity}"
