"""An API server in memory: versions, generations, labels and merging as far as the operator relies on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from citykit.errors import AlreadyExists, CityError, Conflict, NotFound
from operators.city.kube import MANAGER, Object, api_version

Calls = list[tuple[str, str, str]]
Names = list[str]


class FakeApi:
    """Objects by (kind, name).

    Attributes:
        calls: (verb, kind, name) of every write.
        failing: raised by every call while it is set.
        before: called before each write; may raise or change what is stored.
        pruned: fields of a status that the definition does not have.
    """

    def __init__(self, namespace: str = "city") -> None:
        self.namespace = namespace
        self.objects: dict[tuple[str, str], Object] = {}
        self.calls: Calls = []
        self.failing: CityError | None = None
        self.before: Callable[[str, str, str], None] = lambda verb, kind, name: None
        self.refusals: dict[tuple[str, str], CityError] = {}
        self.pruned: set[str] = set()
        self._version = 0

    def put(self, document: Object, age_s: float = 0.0) -> Object:
        """Stores an object as it is."""
        made = copy.deepcopy(document)
        made.setdefault("apiVersion", api_version(made["kind"]))
        stamp = datetime.now(UTC) - timedelta(seconds=age_s)
        metadata = made.setdefault("metadata", {})
        metadata.setdefault("creationTimestamp", stamp.strftime("%Y-%m-%dT%H:%M:%SZ"))
        metadata.setdefault("uid", f"uid-{len(self.objects)}")
        metadata.setdefault("generation", 1)
        self._stamp(made)
        self.objects[made["kind"], metadata["name"]] = made
        return made

    async def get(self, kind: str, name: str) -> Object | None:
        self._asked()
        return copy.deepcopy(self.objects.get((kind, name)))

    async def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        self._asked()
        if error := self.refusals.get(("list", kind)):
            raise error
        wanted = (labels or {}).items()
        return [
            {key: value for key, value in copy.deepcopy(one).items() if key not in ("kind", "apiVersion")}
            for (found, _), one in self.objects.items()
            if found == kind and wanted <= (one["metadata"].get("labels") or {}).items()
        ]

    async def apply(self, document: Object, manager: str = MANAGER) -> Object:
        kind, name = document["kind"], document["metadata"]["name"]
        self._wrote("apply", kind, name)
        found = self.objects.get((kind, name))
        if found is None:
            return copy.deepcopy(self.put(document))
        return self._changed(found, document)

    async def create(self, document: Object) -> Object:
        kind, name = document["kind"], document["metadata"]["name"]
        self._wrote("create", kind, name)
        if (kind, name) in self.objects:
            raise AlreadyExists(f"{kind} {name} exists")
        return copy.deepcopy(self.put(document))

    async def patch(self, kind: str, name: str, patch: Object) -> Object:
        self._wrote("patch", kind, name)
        found = self._found(kind, name)
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise Conflict(f"{kind} {name} changed")
        return self._changed(found, patch)

    async def replace(self, document: Object, *, status: bool = False, pretend: bool = False) -> Object:
        kind, name = document["kind"], document["metadata"]["name"]
        if pretend:
            left = {key: value for key, value in document["status"].items() if key not in self.pruned}
            return {**copy.deepcopy(document), "status": left}
        self._wrote("replace-status" if status else "replace", kind, name)
        found = self._found(kind, name)
        if document["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind} {name} changed")
        if status:
            found["status"] = copy.deepcopy(document.get("status"))
        else:
            kept = found.get("status")
            found.clear()
            found.update(copy.deepcopy(document), **({"status": kept} if kept else {}))
        self._stamp(found)
        self._finalised(found)
        return copy.deepcopy(found)

    async def delete(self, kind: str, name: str) -> bool:
        self._wrote("delete", kind, name)
        found = self.objects.get((kind, name))
        if found is None:
            return False
        if found["metadata"].get("finalizers"):
            found["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            self._stamp(found)
        else:
            del self.objects[kind, name]
        return True

    def names(self, kind: str) -> Names:
        return sorted(name for found, name in self.objects if found == kind)

    def _changed(self, found: Object, patch: Object) -> Object:
        before = copy.deepcopy(found.get("spec"))
        merge(found, {key: value for key, value in patch.items() if key != "status"})
        if found.get("spec") != before:
            found["metadata"]["generation"] += 1
        self._stamp(found)
        self._finalised(found)
        return copy.deepcopy(found)

    def _finalised(self, found: Object) -> None:
        metadata = found["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.objects.pop((found["kind"], metadata["name"]), None)

    def _stamp(self, found: Object) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)

    def _found(self, kind: str, name: str) -> Object:
        if (kind, name) not in self.objects:
            raise NotFound(f"no {kind} {name}")
        return self.objects[kind, name]

    def _asked(self) -> None:
        if self.failing is not None:
            raise self.failing

    def _wrote(self, verb: str, kind: str, name: str) -> None:
        self._asked()
        self.before(verb, kind, name)
        if error := self.refusals.get((verb, kind)):
            raise error
        self.calls.append((verb, kind, name))


def merge(into: Any, patch: Mapping[str, Any]) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


class Cluster:
    """What the controllers of a cluster do: after `settle` every Deployment is rolled out, unless its pods are said to fail."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        self.broken: dict[str, str] = {}

    def settle(self) -> None:
        """`broken` maps a workload's manifests to the reason its pods cannot start."""
        for (kind, _), one in list(self._api.objects.items()):
            if kind in ("Deployment", "StatefulSet"):
                self._roll(one)
            elif kind == "Job" and not one.get("status"):
                one["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    def _roll(self, workload: Object) -> None:
        metadata, wanted = workload["metadata"], int(workload["spec"].get("replicas", 1))
        status = {"observedGeneration": metadata["generation"], "replicas": wanted, "updatedReplicas": wanted}
        manifests = metadata["annotations"]["provable.city/manifests"]
        if manifests in self.broken:
            condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
            workload["status"] = {**status, "conditions": [{**condition, "message": self.broken[manifests]}]}
        else:
            workload["status"] = {**status, "availableReplicas": wanted}


def service_documents(
    service: str, version: str, *, kind: str = "Deployment", autoscaled: bool = False
) -> list[Object]:
    """What the chart renders for one service, shortened."""
    labels = {
        "app.kubernetes.io/name": service,
        "app.kubernetes.io/part-of": "provable-city",
        "app.kubernetes.io/version": version,
        "provable.city/track": "stable",
    }
    selector = {"app.kubernetes.io/name": service, "provable.city/track": "stable"}
    spec: Object = {
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": service, "image": f"localhost/provable-city:{version}"}]},
        },
    }
    if not autoscaled:
        spec["replicas"] = 2
    found: list[Object] = [
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": service, "labels": labels}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": service, "labels": labels},
            "spec": {"clusterIP": "None", "selector": {"app.kubernetes.io/name": service}, "ports": [{"port": 50051}]},
        },
    ]
    if autoscaled:
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": service}
        scaling = {"scaleTargetRef": reference, "minReplicas": 2, "maxReplicas": 6}
        found.append(
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": service, "labels": labels},
                "spec": scaling,
            }
        )
    return found
