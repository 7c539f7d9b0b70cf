"""What is there: services, canaries and Jobs as the API server tells of them, in the plan's words. Called by `reconcile` before every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from operators.city.act import created
from operators.city.kube import Api, Object, annotations_of, labels_of, name_of
from operators.city.manifests import (
    APPLIED,
    CANARY,
    CITY_PART,
    MANIFESTS,
    NAME,
    OPERATOR,
    PART_OF,
    ROUTED,
    SERVICE,
    STABLE,
    TRACK,
    WEIGHT,
    WORKLOADS,
    canary_name,
)
from operators.city.model import CitySpec, Progress, Running, State

CRASHES = 5
"""Restarts after which a crash loop is a failure: a service may wait for its database, and ends while it does."""
_POD_FAULTS: Mapping[str, float] = {
    "ImagePullBackOff": 15.0,
    "ErrImagePull": 30.0,
    "ErrImageNeverPull": 5.0,
    "InvalidImageName": 0.0,
    "CreateContainerConfigError": 60.0,
    "CreateContainerError": 60.0,
    "RunContainerError": 60.0,
}
"""Reasons for which a container waits, and the pod's age in seconds from which each is taken for lasting."""
_UNSCHEDULABLE_S = 60.0
_CONFIG_MAP_S = 10.0
_CONTRACTS = "contracts.yaml"
_REASONS_MAX = 3


@dataclass(frozen=True)
class Seen:
    """The objects of one look.

    Attributes:
        config_maps: names of those that are there, of those asked for.
        contracts: those of them that hold a `contracts.yaml`.
    """

    workloads: Sequence[Object]
    replica_sets: Sequence[Object]
    pods: Sequence[Object]
    jobs: Sequence[Object]
    config_maps: frozenset[str]
    contracts: frozenset[str] = frozenset()


class Observer:
    """Reads the cluster.

    Args:
        api: the API server.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, tuple[float, bool]] = {}

    async def look(self, config_maps: Iterable[str], now_s: float) -> Seen:
        """Reads everything at about one moment. Pods are read only while something is not done.

        Raises:
            Unavailable: nothing can be said; the caller must not act on an older look.
        """
        ours = {PART_OF: CITY_PART, APPLIED: OPERATOR}
        workloads = [{**one, "kind": kind} for kind in WORKLOADS for one in await self._api.list(kind, ours)]
        jobs = await self._api.list("Job", {APPLIED: OPERATOR})
        waiting = [one for one in workloads if _rolled(one)[0] is not Progress.DONE]
        unfinished = any(_job(one) is Progress.RUNNING for one in jobs)
        replica_sets = await self._api.list("ReplicaSet", {PART_OF: CITY_PART}) if waiting else []
        pods = await self._api.list("Pod", {PART_OF: CITY_PART}) if waiting or unfinished else []
        running = {annotations_of(one).get(MANIFESTS, "") for one in workloads} - {""}
        there = frozenset([name for name in {*config_maps, *running} if await self._is_there(name, now_s)])
        contracts = frozenset(name for name in there if self._known[name][1])
        return Seen(workloads, replica_sets, pods, jobs, there, contracts)

    async def _is_there(self, name: str, now_s: float) -> bool:
        """A ConfigMap found is not asked for again for a while: its name holds the hash of its data, so it does not change."""
        if name in self._known and now_s - self._known[name][0] < _CONFIG_MAP_S:
            return True
        found = await self._api.get("ConfigMap", name)
        if found is None:
            self._known.pop(name, None)
            return False
        self._known[name] = now_s, _CONTRACTS in (found.get("data") or {})
        return True


def wanted_config_maps(spec: CitySpec, state: State) -> frozenset[str]:
    """ConfigMaps the rollout may need: where it leads and where it goes back to."""
    names = [spec.prepare, state.last_good_prepare, *(one.target.manifests for one in spec.services)]
    names += [one.manifests for one in state.last_good]
    if state.rollout is not None:
        goal, origin = state.rollout.goal, state.rollout.origin
        names += [state.rollout.prepare, state.rollout.origin_prepare]
        names += [*(one.target.manifests for one in goal), *(one.manifests for one in origin)]
    return frozenset(filter(None, names))


def tracks(
    seen: Seen, refused: Mapping[tuple[str, str], str], now: datetime, weight: int = 100
) -> dict[str, dict[str, Running]]:
    """By track, by service: what runs. What was refused counts as failed, with the refusal's sentence.

    Args:
        refused: by (object, ConfigMap), as `act.Actor` keeps it.
        weight: that was asked of the canary in hand.
    """
    found: dict[str, dict[str, Running]] = {STABLE: {}, CANARY: {}}
    for one in seen.workloads:
        track = CANARY if labels_of(one).get(TRACK) == CANARY else STABLE
        service = labels_of(one).get(SERVICE, "")
        if name_of(one) == (canary_name(service) if track == CANARY else service):
            found[track][service] = running(one, seen, now)
    for (name, manifests), why in refused.items():
        if manifests:
            _refuse(found, name, Running(manifests, Progress.FAILED, weight, why))
    return found


def _refuse(found: dict[str, dict[str, Running]], name: str, failed: Running) -> None:
    service = name.removesuffix(f"-{CANARY}")
    found[CANARY if name != service else STABLE][service] = failed


def running(workload: Object, seen: Seen, now: datetime) -> Running:
    """One workload: done, on its way with the reason, or failed with the reason."""
    notes = annotations_of(workload)
    manifests, weight = notes.get(MANIFESTS, ""), int(notes.get(WEIGHT, "100"))
    routed = int(notes[ROUTED]) if ROUTED in notes else None
    progress, reason = _rolled(workload)
    if progress is Progress.DONE:
        return Running(manifests, progress, weight, routed=routed)
    lasting, passing = _faults(_newest_pods(workload, seen), now)
    if lasting:
        return Running(manifests, Progress.FAILED, weight, "; ".join(lasting[:_REASONS_MAX]), routed)
    if passing:
        reason = f"{reason}; {'; '.join(passing[:_REASONS_MAX])}"
    return Running(manifests, progress, weight, reason, routed)


def _rolled(workload: Object) -> tuple[Progress, str]:
    spec, status = workload.get("spec", {}), workload.get("status") or {}
    wanted = int(spec.get("replicas", 1))
    if int(status.get("observedGeneration", 0)) < int(workload["metadata"].get("generation", 1)):
        return Progress.RUNNING, "the cluster has not begun to replace its pods yet"
    for condition in status.get("conditions") or []:
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Progress.FAILED, f"its pods did not become ready in time: {condition.get('message', '')}".rstrip(
                ": "
            )
    updated, available = int(status.get("updatedReplicas", 0)), int(status.get("availableReplicas", 0))
    if updated < wanted:
        return Progress.RUNNING, f"{updated} of {wanted} pods are of the new version"
    if int(status.get("replicas", 0)) > updated:
        return Progress.RUNNING, f"{int(status['replicas']) - updated} pods of the old version are still there"
    if available < wanted:
        return Progress.RUNNING, f"{available} of {wanted} pods are ready"
    return Progress.DONE, ""


def _newest_pods(workload: Object, seen: Seen) -> list[Object]:
    """The pods of the newest template: what an old pod suffers from says nothing of the new version."""
    name = name_of(workload)
    if workload["kind"] == "StatefulSet":
        revision = (workload.get("status") or {}).get("updateRevision")
        return [one for one in seen.pods if _is_of(one, "controller-revision-hash", revision)]
    number = annotations_of(workload).get(_REVISION)
    for one in seen.replica_sets:
        owned = any(owner.get("name") == name for owner in one["metadata"].get("ownerReferences") or [])
        if owned and annotations_of(one).get(_REVISION) == number:
            return [pod for pod in seen.pods if _is_of(pod, "pod-template-hash", labels_of(one).get("pod-template-hash"))
                    and labels_of(pod).get(NAME) == labels_of(one).get(NAME)]  # fmt: skip
    return []


_REVISION = "deployment.kubernetes.io/revision"


def _is_of(pod: Object, label: str, value: str | None) -> bool:
    return value is not None and labels_of(pod).get(label) == value


def _faults(pods: Iterable[Object], now: datetime) -> tuple[list[str], list[str]]:
    """(what will not pass by itself, what may), a sentence each."""
    lasting: list[str] = []
    passing: list[str] = []
    for pod in pods:
        age_s = (now - created(pod)).total_seconds()
        for text, lasts in _pod_faults(pod, age_s):
            (lasting if lasts else passing).append(text)
    return lasting, passing


def _pod_faults(pod: Object, age_s: float) -> list[tuple[str, bool]]:
    status, name = pod.get("status") or {}, name_of(pod)
    found = [
        (f"pod {name} finds no node: {one.get('message', '')}", age_s >= _UNSCHEDULABLE_S)
        for one in status.get("conditions") or []
        if one.get("type") == "PodScheduled" and one.get("reason") == "Unschedulable"
    ]
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return found + [fault for one in containers for fault in _container_fault(name, one, age_s)]


def _container_fault(pod: str, container: Mapping[str, Any], age_s: float) -> list[tuple[str, bool]]:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    if reason == "CrashLoopBackOff":
        restarts = int(container.get("restartCount", 0))
        code = ((container.get("lastState") or {}).get("terminated") or {}).get("exitCode")
        ended = "" if code is None else f", last with exit code {code}"
        return [(f"{container['name']} in pod {pod} ended {restarts} times{ended}", restarts >= CRASHES)]
    if reason in _POD_FAULTS:
        text = (
            f"{container['name']} in pod {pod} cannot start ({reason}: {message})"
            if message
            else f"{reason} in pod {pod}"
        )
        return [(text, age_s >= _POD_FAULTS[reason])]
    return []


def jobs(seen: Seen, refused: Mapping[str, str], now: datetime) -> dict[str, tuple[Progress, str]]:
    """By name: how far each Job is, and why it failed or waits."""
    found = {name_of(one): _job_with_reason(one, seen, now) for one in seen.jobs}
    return found | {name: (Progress.FAILED, why) for name, why in refused.items()}


def _job_with_reason(job: Object, seen: Seen, now: datetime) -> tuple[Progress, str]:
    progress = _job(job)
    if progress is Progress.FAILED:
        return (
            progress,
            f"the Job {name_of(job)} failed: {_job_message(job)}; `kubectl logs job/{name_of(job)}` says why",
        )
    if progress is Progress.RUNNING:
        pods = [one for one in seen.pods if labels_of(one).get("job-name") == name_of(job)]
        lasting, passing = _faults(pods, now)
        if lasting:
            return Progress.FAILED, "; ".join(lasting[:_REASONS_MAX])
        return progress, "; ".join(passing[:_REASONS_MAX])
    return progress, ""


def _job(job: Object) -> Progress:
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            return Progress.DONE if condition["type"] == "Complete" else Progress.FAILED
    return Progress.RUNNING


def _job_message(job: Object) -> str:
    found = [
        one.get("message") or one.get("reason") for one in job["status"]["conditions"] if one.get("type") == "Failed"
    ]
    return str(found[0] or "no reason given").rstrip(".") if found else "no reason given"


def utc_now() -> datetime:
    return datetime.now(UTC)
