"""What the City's status keeps of rollouts, as JSON and back. The status is all the operator remembers. Pure; used by `reconcile` and `report`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from citykit.errors import Damaged
from operators.city.model import Canary, Direction, Past, Rollout, ServiceSpec, Stage, State, Target

REASON_MAX = 500
HISTORY_MAX = 50


def write_state(state: State) -> dict[str, Any]:
    """The fields `rollout`, `lastGood`, `history`, `refused` and `refusedGeneration` of the status."""
    return {
        "rollout": _rollout(state.rollout) if state.rollout else None,
        "lastGood": {
            "version": state.last_good_version,
            "prepare": state.last_good_prepare,
            "services": [_target(one) for one in state.last_good],
        },
        "history": [_past(one) for one in state.history[-HISTORY_MAX:]],
        "refused": state.refused,
        "refusedGeneration": state.refused_generation,
    }


def read_state(status: Mapping[str, Any]) -> State:
    """The reverse. What is absent is as before the first rollout.

    Raises:
        Damaged: something is there that we did not write. Beginning anew over a rollout that is under way would be worse than standing still.
    """
    try:
        return _read_state(status)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(
            f"the City's status cannot be read ({type(error).__name__}: {error}); somebody else wrote into it. Take out what is wrong with"
            " `kubectl edit city --subresource=status`; without `rollout` the one under way is forgotten and begun anew"
        ) from error


def _read_state(status: Mapping[str, Any]) -> State:
    good = status.get("lastGood") or {}
    rollout = status.get("rollout")
    return State(
        rollout=_read_rollout(rollout) if rollout else None,
        last_good=tuple(map(_read_target, good.get("services") or [])),
        last_good_version=str(good.get("version") or ""),
        last_good_prepare=str(good.get("prepare") or ""),
        history=tuple(map(_read_past, status.get("history") or [])),
        refused=str(status.get("refused") or ""),
        refused_generation=int(status.get("refusedGeneration") or 0),
    )


def _rollout(one: Rollout) -> dict[str, Any]:
    return {
        "id": one.identity,
        "generation": one.generation,
        "started": _time(one.started),
        "goal": [_service(item) for item in one.goal],
        "version": one.goal_version,
        "prepare": one.prepare,
        "origin": [_target(item) for item in one.origin],
        "originVersion": one.origin_version,
        "originPrepare": one.origin_prepare,
        "direction": one.direction.value,
        "stage": one.stage.value,
        "promoted": list(one.promoted),
        "service": one.service,
        "weight": one.weight,
        "since": _time(one.since) if one.since else None,
        "reason": one.reason[:REASON_MAX],
        "admitted": one.admitted,
        "changed": list(one.changed),
        "standing": one.standing,
        "looked": _time(one.looked) if one.looked else None,
        "hurried": one.hurried,
        "contracts": one.contracts,
        "originContracts": one.origin_contracts,
        "restore": one.restore,
        "pausedAt": _time(one.paused_at) if one.paused_at else None,
        "pausedSeconds": one.paused_s,
    }


def _read_rollout(found: Mapping[str, Any]) -> Rollout:
    return Rollout(
        identity=str(found["id"]),
        generation=int(found["generation"]),
        started=_read_time(found["started"]),
        goal=tuple(map(_read_service, found.get("goal") or [])),
        goal_version=str(found.get("version") or ""),
        prepare=str(found.get("prepare") or ""),
        origin=tuple(map(_read_target, found.get("origin") or [])),
        origin_version=str(found.get("originVersion") or ""),
        origin_prepare=str(found.get("originPrepare") or ""),
        direction=Direction(found.get("direction") or Direction.FORWARD),
        stage=Stage(found.get("stage") or Stage.PREFLIGHT),
        promoted=tuple(found.get("promoted") or []),
        service=str(found.get("service") or ""),
        weight=int(found.get("weight") or 0),
        since=_read_time(found["since"]) if found.get("since") else None,
        reason=str(found.get("reason") or ""),
        admitted=bool(found.get("admitted", True)),
        changed=tuple(found.get("changed") or []),
        standing=bool(found.get("standing")),
        looked=_read_time(found["looked"]) if found.get("looked") else None,
        hurried=str(found.get("hurried") or ""),
        contracts=bool(found.get("contracts")),
        origin_contracts=bool(found.get("originContracts")),
        restore=bool(found.get("restore")),
        paused_at=_read_time(found["pausedAt"]) if found.get("pausedAt") else None,
        paused_s=float(found.get("pausedSeconds") or 0.0),
    )


def _service(one: ServiceSpec) -> dict[str, Any]:
    canary = {"steps": list(one.canary.steps), "pauseSeconds": one.canary.pause_s} if one.canary else None
    return {**_target(one.target), "dependsOn": list(one.depends_on), "canary": canary}


def _read_service(found: Mapping[str, Any]) -> ServiceSpec:
    canary = found.get("canary")
    read = Canary(tuple(canary["steps"]), float(canary["pauseSeconds"])) if canary else None
    return ServiceSpec(_read_target(found), tuple(found.get("dependsOn") or []), read)


def _target(one: Target) -> dict[str, str]:
    return {"name": one.name, "version": one.version, "manifests": one.manifests}


def _read_target(found: Mapping[str, Any]) -> Target:
    return Target(str(found["name"]), str(found.get("version") or ""), str(found["manifests"]))


def _past(one: Past) -> dict[str, str]:
    return {
        "id": one.identity,
        "from": one.from_version,
        "to": one.to_version,
        "outcome": one.outcome,
        "reason": one.reason[:REASON_MAX],
        "started": _time(one.started),
        "finished": _time(one.finished),
    }


def _read_past(found: Mapping[str, Any]) -> Past:
    texts = {name: str(found.get(name) or "") for name in ("id", "from", "to", "outcome", "reason")}
    return Past(
        identity=texts["id"],
        from_version=texts["from"],
        to_version=texts["to"],
        outcome=texts["outcome"],
        reason=texts["reason"],
        started=_read_time(found["started"]),
        finished=_read_time(found["finished"]),
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read_time(text: str) -> datetime:
    return datetime.fromisoformat(text)
