"""The City's status as people read it: phase, the reason for every wait, conditions, services, evidence. Written by `reconcile`; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from operators.city.gates import Evidence
from operators.city.kube import Object
from operators.city.model import (
    Canary,
    CitySpec,
    Past,
    Progress,
    Rollout,
    Running,
    ServiceSpec,
    State,
    Target,
    Verdict,
    World,
)
from operators.city.plan import rollout_identity
from operators.city.status import write_state

MESSAGE_MAX = 1_000
EVIDENCE_MAX = 10


@dataclass(frozen=True)
class Report:
    """The phase and one readable sentence."""

    phase: str
    message: str


def composed(
    before: Mapping[str, Any],
    generation: int,
    report: Report,
    state: State,
    world: World,
    spec: CitySpec,
    evidence: Sequence[Evidence],
    failed_jobs: Sequence[str],
) -> Object:
    """The whole status.

    Args:
        before: the status as it was read; times of conditions that did not change, and evidence of before a crash, are kept.
        failed_jobs: why Jobs failed.
    """
    message = "; ".join([report.message, *(why for why in failed_jobs if why not in report.message)])
    said = Report(report.phase, message[:MESSAGE_MAX])
    return {
        **write_state(state),
        "next": "" if state.rollout else rollout_identity(spec, generation, state),
        "observedGeneration": generation,
        "phase": said.phase,
        "message": said.message,
        "conditions": conditions(before.get("conditions") or [], said, generation, world.now),
        "services": [_service(name, spec, state, world) for name in _names(spec, world)],
        "evidence": _evidence(before.get("evidence") or [], evidence),
    }


def refused_status(before: Mapping[str, Any], generation: int, why: str, now: datetime) -> Object:
    """A resource that cannot be read: nothing is changed until it is mended."""
    said = Report("Failed", f"{why}; nothing is changed until the resource is mended"[:MESSAGE_MAX])
    return {
        **before,
        "observedGeneration": generation,
        "phase": said.phase,
        "message": said.message,
        "conditions": conditions(before.get("conditions") or [], said, generation, now),
    }


def conditions(before: Sequence[Mapping[str, Any]], said: Report, generation: int, now: datetime) -> list[Object]:
    """`Ready`, `Progressing` and `Failed`; `lastTransitionTime` moves only when the status does."""
    truths = {
        "Ready": said.phase in ("Ready", "Idle"),
        "Progressing": said.phase in ("Progressing", "RollingBack"),
        "Failed": said.phase in ("Failed", "RolledBack"),
    }
    return [_condition(kind, truth, before, said, generation, now) for kind, truth in truths.items()]


def _condition(
    kind: str, truth: bool, before: Sequence[Mapping[str, Any]], said: Report, generation: int, now: datetime
) -> Object:
    status = "True" if truth else "False"
    kept = next((one for one in before if one.get("type") == kind and one.get("status") == status), None)
    return {
        "type": kind,
        "status": status,
        "reason": said.phase,
        "message": said.message,
        "observedGeneration": generation,
        "lastTransitionTime": kept["lastTransitionTime"] if kept else now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _names(spec: CitySpec, world: World) -> list[str]:
    wanted = [one.target.name for one in spec.services]
    return [*wanted, *sorted(set(world.stable) - set(wanted))]


def _service(name: str, spec: CitySpec, state: State, world: World) -> Object:
    stable, canary = world.stable.get(name), world.canary.get(name)
    known = [one.target for one in spec.services] + list(state.last_good)
    if state.rollout is not None:
        known += [*(one.target for one in state.rollout.goal), *state.rollout.origin]
    version = next((one.version for one in known if stable and one.manifests == stable.manifests), "")
    manifests = stable.manifests if stable else ""
    phase, message = _told(stable, canary)
    return {"name": name, "version": version, "manifests": manifests, "phase": phase, "message": message}


def _told(stable: Running | None, canary: Running | None) -> tuple[str, str]:
    if stable is None and canary is None:
        return "Absent", ""
    if canary is not None:
        said = f": {canary.reason}" if canary.reason else ""
        return "Canary", f"{canary.weight} % try {canary.manifests}{said}"
    if stable is None:
        return "Absent", ""
    return {Progress.DONE: "Ready", Progress.FAILED: "Failed"}.get(stable.progress, "Progressing"), stable.reason


def _evidence(before: Sequence[Object], now: Sequence[Evidence]) -> list[Object]:
    new = [
        {
            "at": one.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "step": one.step,
            "gate": one.gate,
            "verdict": one.verdict.value,
            "reason": one.reason[:300],
        }
        for one in now
    ]
    return [*(one for one in before if one not in new), *new][-EVIDENCE_MAX:]


def specimen(now: datetime) -> Object:
    """A status with every field there can be: what does not come back of it, the City's definition does not keep."""
    target = Target("a", "1", "a-1")
    rollout = Rollout(
        "g1-1-a", 1, now, (ServiceSpec(target, ("a",), Canary((50,), 1.5)),), "1", "p", (target,), "1", "p",
        promoted=("a",), service="a", weight=50, since=now, reason="r",
    )  # fmt: skip
    past = Past("g1-1-a", "1", "2", "Succeeded", "r", now, now)
    state = State(rollout, (target,), "1", "p", (past,), "g1-1-a", 1)
    said = Report("Failed", "m")
    return {
        **write_state(state),
        "next": "g2-1-a",
        "observedGeneration": 1,
        "phase": said.phase,
        "message": said.message,
        "conditions": conditions([], said, 1, now),
        "services": [{"name": "a", "version": "1", "manifests": "a-1", "phase": "Ready", "message": "m"}],
        "evidence": _evidence([], [Evidence(now, "a at 50 %", "g", Verdict.FAILED, "r")]),
    }


def lost(written: Any, kept: Any, where: str = "status") -> str:
    """The first field that did not come back; empty: all did."""
    if isinstance(written, Mapping):
        missing = [f"{where}.{key}" for key, value in written.items() if value is not None and key not in (kept or {})]
        inner = (lost(value, kept[key], f"{where}.{key}") for key, value in written.items() if value is not None)
        return missing[0] if missing else next(filter(None, inner), "")
    if isinstance(written, list):
        inner = (lost(one, other, f"{where}[]") for one, other in zip(written, kept, strict=False))
        return next(filter(None, inner), "")
    return ""


def same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether there is nothing to write."""
    return bool(_without_empty(before) == _without_empty(after))


def _without_empty(found: Any) -> Any:
    """The API server leaves out what is null; so it is no difference."""
    if isinstance(found, Mapping):
        return {key: _without_empty(value) for key, value in found.items() if value is not None}
    return [_without_empty(one) for one in found] if isinstance(found, list) else found
