"""A cluster for the plan of a rollout: does what it is told after a while, fails as the test says, and may be seen as it was or in part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from operators.city.model import (
    ApplyCanary,
    ApplyStable,
    Judgement,
    Progress,
    Remove,
    RemoveCanary,
    Rollout,
    RunJob,
    Running,
    Step,
    Target,
    Verdict,
    World,
)

BEGINS = datetime(2026, 12, 1, tzinfo=UTC)
FULL = 100


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
        broken: ConfigMaps whose pods fail.
        slow: ConfigMaps whose pods never become ready and never fail.
        bad: ConfigMaps whose gates fail, by the weight from which on.
        silent: ConfigMaps the gates cannot judge.
        failing: ConfigMaps and keys whose Jobs fail.
        ready_s: until pods are ready, and a Job is done.
        unsure: times the gates say that they do not know yet.
    """

    broken: frozenset[str] = frozenset()
    slow: frozenset[str] = frozenset()
    bad: Mapping[str, int] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    failing: frozenset[tuple[str, str]] = frozenset()
    ready_s: float = 3.0
    unsure: int = 0


@dataclass(frozen=True)
class Placed:
    """Pods as they are. `since`: when they were made."""

    target: Target
    weight: int
    since: datetime


@dataclass
class Cluster:
    """What really runs.

    Attributes:
        seen: earlier looks, the newest last.
        passed: what the gates let pass, by (rollout, service, ConfigMap, weight).
    """

    faults: Faults = field(default_factory=Faults)
    now: datetime = BEGINS
    stable: dict[str, Placed] = field(default_factory=dict)
    canary: dict[str, Placed] = field(default_factory=dict)
    jobs: dict[str, tuple[RunJob, datetime]] = field(default_factory=dict)
    config_maps: set[str] = field(default_factory=set)
    frozen: dict[str, str] = field(default_factory=dict)
    seen: list[World] = field(default_factory=list)
    asked: dict[tuple[str, str, str, int], int] = field(default_factory=dict)
    passed: set[tuple[str, str, str, int]] = field(default_factory=set)

    def pass_time(self, duration_s: float) -> None:
        self.now += timedelta(seconds=duration_s)

    def look(self) -> World:
        """How it is now."""
        return World(
            now=self.now,
            available=frozenset(self.config_maps),
            contracts=frozenset(name for name in self.config_maps if name.startswith("prepare")),
            stable={name: self._running(one) for name, one in self.stable.items()},
            canary={name: self._running(one) for name, one in self.canary.items()},
            jobs={name: self.job(name) for name in self.jobs},
            frozen=dict(self.frozen),
        )

    def job(self, name: str) -> Progress:
        if name not in self.jobs:
            return Progress.ABSENT
        step, since = self.jobs[name]
        if self.now - since < timedelta(seconds=self.faults.ready_s):
            return Progress.RUNNING
        return Progress.FAILED if (step.manifests, step.key) in self.faults.failing else Progress.DONE

    def _running(self, one: Placed) -> Running:
        manifests = one.target.manifests
        early = self.now - one.since < timedelta(seconds=self.faults.ready_s)
        if early or manifests in self.faults.slow:
            return Running(manifests, Progress.RUNNING, one.weight, "1 of 2 pods are ready")
        if manifests in self.faults.broken:
            return Running(manifests, Progress.FAILED, one.weight, "pod x ended 5 times")
        return Running(manifests, Progress.DONE, one.weight)

    def is_ready(self, name: str, *, tries: bool = False) -> bool:
        """Whether all pods are; `tries`: of the canary."""
        track = self.canary if tries else self.stable
        return name in track and self._running(track[name]).progress is Progress.DONE

    def runs(self) -> dict[str, str]:
        return {name: one.target.manifests for name, one in self.stable.items()}

    def distorted(self, how: str, number: int) -> World:
        """A look that is some rounds old, or lacks something."""
        world = self.look()
        old = self.seen[-1 - number % 3] if len(self.seen) > 2 else world
        names = sorted({*world.stable, *world.canary}) or [""]
        lost = names[number % len(names)]
        match how:
            case "old pods":
                return replace(world, stable=old.stable, canary=old.canary)
            case "old jobs":
                return replace(world, jobs=old.jobs)
            case "lost service":
                return replace(world, stable={name: one for name, one in world.stable.items() if name != lost})
            case "lost canaries":
                return replace(world, canary={})
            case "lost data":
                return replace(world, available=frozenset(), contracts=frozenset())
        return world

    def judge(self, rollout: Rollout) -> Judgement:
        """What the gates say of the step in hand."""
        target = next(one.target for one in rollout.goal if one.target.name == rollout.service)
        key = (rollout.identity, target.name, target.manifests, rollout.weight)
        self.asked[key] = self.asked.get(key, 0) + 1
        if rollout.weight >= self.faults.bad.get(target.manifests, FULL + 1):
            return Judgement(Verdict.FAILED, "errors: result 0.4, and `result > 0.1` is a failure")
        new = target.name not in {one.name for one in rollout.origin}
        if target.manifests in self.faults.silent or self.asked[key] <= self.faults.unsure:
            self.passed |= {key} if new else set()
            return Judgement(Verdict.UNKNOWN, "errors: the query finds no series")
        self.passed.add(key)
        return Judgement(Verdict.PASSED, "errors: result 0")

    def do(self, step: Step) -> None:
        """Does it, or nothing where it is done already."""
        match step:
            case ApplyStable(target):
                self._place(self.stable, target, FULL)
            case ApplyCanary(target, weight):
                self._place(self.canary, target, weight)
            case RemoveCanary(service):
                self.canary.pop(service, None)
            case Remove(service):
                self.stable.pop(service, None)
                self.canary.pop(service, None)
            case RunJob(name):
                self.jobs.setdefault(name, (step, self.now))

    def _place(self, track: dict[str, Placed], target: Target, weight: int) -> None:
        there = track.get(target.name)
        if there is None or (there.target.manifests, there.weight) != (target.manifests, weight):
            track[target.name] = Placed(target, weight, self.now)
