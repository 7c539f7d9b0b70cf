"""Does what the plan says: applies, runs, removes. Every act can be done again after a crash and then changes nothing. Called by `reconcile`.

No object of a service is owned by the City: deleting the resource must not take a running city down (`finalize` says what takes it away), and
volumes belong to nobody here. The workload of a service is applied last, so that its annotation says: all else of this version is there too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from citykit.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied
from citykit.telemetry import logger
from operators.city.kube import CITY, MANAGER, Api, Object, annotations_of, api_version, labels_of, name_of
from operators.city.manifests import (
    APPLICABLE,
    APPLIED,
    CITY_PART,
    OPERATOR,
    PART_OF,
    ROLLOUT,
    ROUTED,
    SERVICE,
    WORKLOADS,
    canary_name,
    canary_of,
    in_order,
    job_of,
    marked,
    read_documents,
    stable_name,
    stale,
    track_services,
    weighed,
    workload,
)
from operators.city.model import ApplyCanary, ApplyStable, Remove, RemoveCanary, RunJob, State, Target, WeighRoutes

HELD = "provable.city/held"
"""Annotation of an autoscaler that stands still while a canary is compared: the bounds it gets back."""
HANDOVER = f"{MANAGER}-handover"
"""Field manager of `spec.replicas` between us and an autoscaler that is new."""
ROUTES = ("HTTPRoute", "GRPCRoute")
OPTIONAL = (*ROUTES, "ServiceMonitor", "Ingress")
"""Kinds a cluster, or our role in it, may lack."""
FRESH_S = 600.0
"""A ConfigMap younger than this is left alone: helm writes them before it changes the City."""
JOBS_KEPT = 3
"""Rollouts whose Jobs stay, for their logs."""

Act = ApplyCanary | WeighRoutes | ApplyStable | RemoveCanary | Remove | RunJob
Fence = Callable[[], None]
"""Raises where we lead no more; asked before every write."""


class Actor:
    """Acts in one namespace.

    Attributes:
        refused: what cannot be done whatever is tried again, by (object, ConfigMap), with the sentence why. `observe` reports it as failed.
        refused_jobs: the same, by Job.
    """

    def __init__(self, api: Api, fence: Fence = lambda: None) -> None:
        self._api = Fenced(api, fence)
        self.refused: dict[tuple[str, str], str] = {}
        self.refused_jobs: dict[str, str] = {}

    def forget(self) -> None:
        """A new rollout begins: what was refused may have been mended."""
        self.refused.clear()
        self.refused_jobs.clear()

    async def act(self, step: Act, city: Object) -> None:
        """Does one step.

        Raises:
            Unavailable, Conflict: to be tried again. Refusals are kept in `refused` instead.
        """
        try:
            await self._do(step, city)
        except (InvalidArgument, PermissionDenied, NotFound) as error:
            self._refuse(step, error.message)
        else:
            self._done(step)

    def _done(self, step: Act) -> None:
        """What was refused of the object before is of no interest any more."""
        name = canary_name(step.service) if isinstance(step, RemoveCanary) else _key(step)[0]
        self.refused = {key: why for key, why in self.refused.items() if key[0] != name}

    def _refuse(self, step: Act, why: str) -> None:
        if isinstance(step, RunJob):
            self.refused_jobs[step.name] = why
        else:
            self.refused[_key(step)] = why
        logger("operator").warning("step-refused", extra={"fields": {"step": type(step).__name__, "why": why}})

    async def _do(self, step: Act, city: Object) -> None:
        match step:
            case ApplyStable(target):
                await self._apply_stable(target)
            case ApplyCanary(target, weight):
                await self._apply_canary(target, weight)
            case WeighRoutes(target, weight):
                await self._weigh_routes(target, weight)
            case RemoveCanary(service):
                await self.remove_canary(service)
            case Remove(service):
                await self.remove(service)
            case RunJob():
                await self._run_job(step, city)

    # --- a service -------------------------------------------------------------------------------

    async def _apply_stable(self, target: Target) -> None:
        documents = await self._documents(target)
        await self._apply_all([marked(one, target) for one in in_order(documents) if one["kind"] not in WORKLOADS])
        await self._free_autoscalers(target.name, anew=_autoscalers_of(documents))
        await self._apply_workload(marked(workload(documents, target), target))
        await self.prune(target, documents)

    async def _apply_all(self, documents: Iterable[Object]) -> None:
        for one in documents:
            await self._api.apply(one)

    async def _apply_workload(self, document: Object) -> None:
        """Where an autoscaler is new, the number of replicas first goes to nobody in particular: leaving a field out would reset it to one."""
        if "replicas" not in document["spec"]:
            live = await self._api.get(document["kind"], name_of(document))
            if live is not None and _owns_replicas(live):
                handed = {key: document[key] for key in ("apiVersion", "kind")}
                handed |= {"metadata": {"name": name_of(document)}, "spec": {"replicas": live["spec"]["replicas"]}}
                await self._api.apply(handed, HANDOVER)
        await self._api.apply(document)

    async def prune(self, target: Target, documents: Iterable[Object]) -> None:
        """Takes away what an earlier version of the service had and this one has not."""
        kept = frozenset((one["kind"], name_of(one)) for one in documents)
        for one in await self._of_service(target.name):
            if stale(one, kept):
                await self._api.delete(one["kind"], name_of(one))

    async def remove(self, service: str) -> None:
        """Everything of a service; its volumes stay."""
        await self.remove_canary(service)
        for one in await self._of_service(service):
            await self._api.delete(one["kind"], name_of(one))

    async def tidy(self, state: State) -> None:
        """Ends what a crash may have left between two calls: called when nothing is under way."""
        for target in state.last_good:
            found = await self._api.get("ConfigMap", target.manifests)
            live = await self._of_service(target.name)
            if found is not None and any(_made_from(one, target) for one in live):
                await self.prune(target, read_documents(found))

    # --- a canary --------------------------------------------------------------------------------

    async def _apply_canary(self, target: Target, weight: int) -> None:
        documents = await self._documents(target)
        stable = await self._api.get("Deployment", target.name)
        replicas = int((stable or {}).get("spec", {}).get("replicas") or 1)
        made = canary_of(documents, target, weight, replicas)
        await self._hold_autoscalers(target.name, replicas)
        if await self._routes(target.name, weight):
            await self._apply_all(track_services(documents, target))
            before = await self._api.get("Deployment", canary_name(target.name))
            made["metadata"]["annotations"][ROUTED] = annotations_of(before or {}).get(ROUTED, "0")
        await self._api.apply(made)

    async def _weigh_routes(self, target: Target, weight: int) -> None:
        for kind, name, patch in await self._routes(target.name, weight):
            await self._api.patch(kind, name, patch)
        routed = {"metadata": {"annotations": {ROUTED: str(weight)}}}
        await self._api.patch("Deployment", canary_name(target.name), routed)

    async def remove_canary(self, service: str) -> None:
        """Gives its traffic back, takes it away, lets the autoscaler go on."""
        for kind, name, patch in await self._routes(service, 0):
            await self._api.patch(kind, name, patch)
        await self._api.delete("Deployment", canary_name(service))
        for name in (canary_name(service), stable_name(service)):
            await self._api.delete("Service", name)
        await self._free_autoscalers(service)

    async def _routes(self, service: str, weight: int) -> list[tuple[str, str, Object]]:
        found = [one for kind in ROUTES for one in await self._listed(kind, {PART_OF: CITY_PART})]
        patches = [(one["kind"], name_of(one), weighed(one, service, weight)) for one in found]
        return [(kind, name, patch) for kind, name, patch in patches if patch is not None]

    async def _hold_autoscalers(self, service: str, replicas: int) -> None:
        for one in await self._autoscalers(service):
            if HELD not in annotations_of(one):
                bounds = {key: one["spec"].get(key) for key in ("minReplicas", "maxReplicas")}
                held = {"minReplicas": replicas, "maxReplicas": replicas}
                await self._patch_autoscaler(one, held, json.dumps(bounds))

    async def _free_autoscalers(self, service: str, anew: frozenset[str] | None = None) -> None:
        """Gives back the bounds of before.

        Args:
            anew: names whose bounds have been applied anew, and nobody else is freed. Not earlier: whoever gives up in between needs the old ones.
        """
        for one in await self._autoscalers(service):
            held = annotations_of(one).get(HELD)
            if held is not None and (anew is None or name_of(one) in anew):
                await self._patch_autoscaler(one, json.loads(held) if anew is None else {}, None)

    async def _patch_autoscaler(self, found: Object, spec: Object, held: str | None) -> None:
        patch: Object = {"metadata": {"annotations": {HELD: held}}}
        await self._api.patch("HorizontalPodAutoscaler", name_of(found), {**patch, "spec": spec} if spec else patch)

    async def _autoscalers(self, service: str) -> list[Object]:
        found = await self._api.list("HorizontalPodAutoscaler", {PART_OF: CITY_PART})
        return [one for one in found if one["spec"]["scaleTargetRef"].get("name") == service]

    # --- jobs ------------------------------------------------------------------------------------

    async def _run_job(self, step: RunJob, city: Object) -> None:
        config_map = await self._config_map(step.manifests)
        made = job_of(config_map, step.key, step.name, _under_way(city))
        made["metadata"]["ownerReferences"] = [_owner(city)]
        try:
            await self._api.create(made)
        except AlreadyExists:
            return  # begun before a crash

    # --- what is left over -------------------------------------------------------------------------

    async def collect(self, kept: frozenset[str], versions: frozenset[str], rollouts: Iterable[str]) -> list[str]:
        """Deletes data of versions nobody needs any more, and Jobs of rollouts long past. Returns the names.

        Args:
            kept: ConfigMaps that are wanted, last good or running.
            versions: those in the history.
            rollouts: identities, the newest last.
        """
        gone: list[str] = []
        for one in await self._api.list("ConfigMap", {PART_OF: CITY_PART}):
            if _collectable(one) and name_of(one) not in kept and _version_of(one) not in versions:
                await self._api.delete("ConfigMap", name_of(one))
                gone.append(name_of(one))
        newest = tuple(rollouts)[-JOBS_KEPT:]
        for one in await self._api.list("Job", {APPLIED: OPERATOR}):
            if labels_of(one).get(ROLLOUT) not in newest:
                await self._api.delete("Job", name_of(one))
                gone.append(name_of(one))
        return gone

    # --- reading ---------------------------------------------------------------------------------

    async def _documents(self, target: Target) -> list[Object]:
        return read_documents(await self._config_map(target.manifests))

    async def _config_map(self, name: str) -> Object:
        found = await self._api.get("ConfigMap", name)
        if found is None:
            raise NotFound(
                f"the ConfigMap {name} does not exist; `helm upgrade` to the version that has it writes it again"
            )
        return found

    async def _of_service(self, service: str) -> list[Object]:
        labels = {SERVICE: service, APPLIED: OPERATOR}
        return [one for kind in APPLICABLE for one in await self._listed(kind, labels)]

    async def _listed(self, kind: str, labels: dict[str, str]) -> list[Object]:
        try:
            found = await self._api.list(kind, labels)
        except (NotFound, PermissionDenied):
            if kind in OPTIONAL:
                return []
            raise
        return [{**one, "kind": kind} for one in found]


class Fenced:
    """An `Api` that writes only while we lead."""

    def __init__(self, api: Api, fence: Fence) -> None:
        self._api = api
        self._fence = fence
        self.get = api.get
        self.list = api.list
        self.apply = self._guarded(api.apply)
        self.create = self._guarded(api.create)
        self.patch = self._guarded(api.patch)
        self.replace = self._guarded(api.replace)
        self.delete = self._guarded(api.delete)

    def _guarded(self, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def checked(*arguments: Any, **options: Any) -> Any:
            self._fence()
            return await verb(*arguments, **options)

        return checked


def _under_way(city: Object) -> str:
    return str(((city.get("status") or {}).get("rollout") or {}).get("id") or "none")


def _key(step: Act) -> tuple[str, str]:
    match step:
        case ApplyStable(target):
            return target.name, target.manifests
        case ApplyCanary(target, _) | WeighRoutes(target, _):
            return canary_name(target.name), target.manifests
        case RunJob(name, manifests, _):
            return name, manifests
        case Remove(service):
            return service, ""
        case RemoveCanary(service):
            return canary_name(service), ""


def _owner(city: Object) -> Object:
    metadata = city["metadata"]
    return {"apiVersion": api_version(CITY), "kind": CITY, "name": metadata["name"], "uid": metadata["uid"]}


def _owns_replicas(live: Object) -> bool:
    for entry in live["metadata"].get("managedFields") or []:
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply":
            return "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
    return False


def _made_from(found: Object, target: Target) -> bool:
    return found["kind"] in WORKLOADS and annotations_of(found).get("provable.city/manifests") == target.manifests


def _autoscalers_of(documents: Iterable[Object]) -> frozenset[str]:
    return frozenset(name_of(one) for one in documents if one["kind"] == "HorizontalPodAutoscaler")


def _version_of(config_map: Object) -> str:
    return labels_of(config_map).get("provable.city/version", "")


def _collectable(config_map: Object) -> bool:
    """One of the chart's data, and not just written."""
    age_s = (datetime.now(UTC) - created(config_map)).total_seconds()
    return bool(_version_of(config_map)) and age_s > FRESH_S


def created(found: Object) -> datetime:
    """When the server made it."""
    text = found.get("metadata", {}).get("creationTimestamp")
    return datetime.fromisoformat(str(text).replace("Z", "+00:00")) if text else datetime.now(UTC)
