"""What a service consists of, as the chart hands it over: documents in a ConfigMap, checked, marked and made into a canary. Pure; used by `act`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from citykit.errors import InvalidArgument
from operators.city.kube import Object, annotations_of, api_version, labels_of, name_of
from operators.city.model import Target

MANIFESTS = "provable.city/manifests"
"""Annotation: the ConfigMap an object was made from."""
WEIGHT = "provable.city/weight"
"""Annotation of a canary: the percent that was asked for."""
ROUTED = "provable.city/routed"
"""Annotation of a canary that routes lead to: the percent they give it."""
SERVICE = "provable.city/service"
APPLIED = "provable.city/applied-by"
"""Label of what the operator applied and may therefore take away again."""
OPERATOR = "operator"
ROLLOUT = "provable.city/rollout"
"""Label of a Job: the rollout it belongs to."""
TRACK = "provable.city/track"
STABLE, CANARY = "stable", "canary"
PART_OF = "app.kubernetes.io/part-of"
CITY_PART = "provable-city"
NAME = "app.kubernetes.io/name"
DOCUMENTS = "manifests.yaml"
DOCUMENTS_MAX = 32
TEXT_MAX = 1_000_000
"""Characters; a ConfigMap holds a MiB at most."""

WORKLOADS = ("Deployment", "StatefulSet")
APPLICABLE = (
    *WORKLOADS,
    "Service",
    "ServiceAccount",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "HTTPRoute",
    "GRPCRoute",
    "Ingress",
    "ServiceMonitor",
)
"""Kinds a service may consist of; the operator's role has no others. Volumes are not among them: nothing the operator does takes one away."""
_ORDER = {kind: number for number, kind in enumerate(("ServiceAccount", "Service"))}


def read_documents(config_map: Object, key: str = DOCUMENTS) -> list[Object]:
    """The documents under a key of a ConfigMap.

    Raises:
        InvalidArgument: no such key, no YAML, a kind that no service may consist of, too many.
    """
    name = name_of(config_map)
    text = str((config_map.get("data") or {}).get(key, ""))
    if not text.strip():
        there = ", ".join(sorted(config_map.get("data") or {})) or "nothing"
        raise InvalidArgument(f"the ConfigMap {name} has no {key}; it holds {there}. Render it anew with helm")
    if len(text) > TEXT_MAX:
        raise InvalidArgument(f"{key} in the ConfigMap {name} has {len(text)} characters; {TEXT_MAX} are the most")
    try:
        found = [one for one in yaml.safe_load_all(text) if one]
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise InvalidArgument(f"{key} in the ConfigMap {name} is no YAML{line}; render it anew with helm") from error
    if len(found) > DOCUMENTS_MAX:
        raise InvalidArgument(f"{key} in the ConfigMap {name} has {len(found)} documents; {DOCUMENTS_MAX} are the most")
    for one in found:
        _check(one, name, key)
    return found


def _check(document: Any, config_map: str, key: str) -> None:
    well = (
        isinstance(document, dict) and isinstance(document.get("metadata"), dict) and document["metadata"].get("name")
    )
    if not well:
        raise InvalidArgument(f"a document of {key} in the ConfigMap {config_map} has no kind and metadata.name")
    kind, version = str(document.get("kind", "")), str(document.get("apiVersion", ""))
    allowed = (*APPLICABLE, "Job")
    if kind not in allowed:
        raise InvalidArgument(
            f"{key} in the ConfigMap {config_map} holds a {kind or 'document without kind'}; allowed are {', '.join(allowed)}"
        )
    if version != api_version(kind):
        raise InvalidArgument(
            f"the {kind} in the ConfigMap {config_map} is {version!r}; this operator speaks {api_version(kind)}"
        )


def marked(document: Object, target: Target) -> Object:
    """A copy that says whose it is and from which ConfigMap it came."""
    made = copy.deepcopy(document)
    metadata = made["metadata"]
    metadata["labels"] = {**labels_of(made), PART_OF: CITY_PART, SERVICE: target.name, APPLIED: OPERATOR}
    metadata["annotations"] = {**annotations_of(made), MANIFESTS: target.manifests}
    metadata.pop("namespace", None)  # it goes where the City is
    return made


def in_order(documents: Iterable[Object]) -> list[Object]:
    """What others refer to first."""
    return sorted(documents, key=lambda one: _ORDER.get(one["kind"], len(_ORDER)))


def workload(documents: Sequence[Object], target: Target) -> Object:
    """The one Deployment or StatefulSet of a service.

    Raises:
        InvalidArgument: none, more than one, or one of another name.
    """
    found = [one for one in documents if one["kind"] in WORKLOADS]
    if len(found) != 1 or name_of(found[0]) != target.name:
        names = ", ".join(f"{one['kind']} {name_of(one)}" for one in found) or "none"
        raise InvalidArgument(
            f"the ConfigMap {target.manifests} must hold exactly one Deployment or StatefulSet, named {target.name};"
            f" it holds {names}"
        )
    return found[0]


def canary_of(documents: Sequence[Object], target: Target, weight: int, replicas: int) -> Object:
    """The Deployment that tries a version beside the stable one.

    Args:
        replicas: of the stable track now; the canary gets its share of that number, rounded up.

    Raises:
        InvalidArgument: the service is a StatefulSet, whose pods own volumes and cannot be doubled.
    """
    original = workload(documents, target)
    if original["kind"] != "Deployment":
        raise InvalidArgument(
            f"{target.name} is a StatefulSet and can have no canary; leave out `canary` in its entry of spec.services"
        )
    made = marked(original, target)
    made["metadata"]["name"] = canary_name(target.name)
    made["metadata"]["labels"][TRACK] = CANARY
    made["metadata"]["annotations"][WEIGHT] = str(weight)
    spec = made["spec"]
    spec["replicas"] = share(replicas, weight)
    spec["selector"]["matchLabels"][TRACK] = CANARY
    template = spec["template"].setdefault("metadata", {})
    template["labels"] = {**(template.get("labels") or {}), TRACK: CANARY}
    return made


def canary_name(service: str) -> str:
    return f"{service}-{CANARY}"


def stable_name(service: str) -> str:
    """Of the Service that leaves the canary's pods out."""
    return f"{service}-{STABLE}"


def share(replicas: int, weight: int) -> int:
    """`weight` percent of the replicas, rounded up, at least one."""
    return max(1, math.ceil(max(replicas, 1) * weight / 100))


def weighed(route: Object, service: str, weight: int) -> Object | None:
    """A patch that gives a canary its percent of a route's traffic; 0 gives all back. None: the route has nothing to do with the service.

    Behind the service's own name are the pods of both tracks, so for the time of a canary the route goes to `track_services` instead.
    """
    rules = copy.deepcopy(route.get("spec", {}).get("rules") or [])
    changed = [rule for rule in rules if _shared(rule, service, weight)]
    return {"spec": {"rules": rules}} if changed else None


def _shared(rule: Object, service: str, weight: int) -> bool:
    references = rule.get("backendRefs") or []
    own = (service, stable_name(service), canary_name(service))
    mine = [one for one in references if one.get("name") in own]
    if not mine:
        return False
    plain = {key: value for key, value in mine[0].items() if key != "weight"} | {"name": service}
    shares = [
        {**plain, "name": stable_name(service), "weight": 100 - weight},
        {**plain, "name": canary_name(service), "weight": weight},
    ]
    rule["backendRefs"] = [*(one for one in references if one.get("name") not in own), *(shares if weight else [plain])]
    return True


def track_services(documents: Sequence[Object], target: Target) -> list[Object]:
    """Services that only the stable and only the canary's pods are behind, for routes; none where the service has no Service."""
    found = next((one for one in documents if one["kind"] == "Service" and name_of(one) == target.name), None)
    return [] if found is None else [_track_service(found, target, track) for track in (STABLE, CANARY)]


def _track_service(service: Object, target: Target, track: str) -> Object:
    made = marked(service, target)
    made["metadata"]["name"] = f"{target.name}-{track}"
    made["metadata"]["labels"][TRACK] = CANARY  # both live as long as the canary
    made["spec"]["selector"] = {**made["spec"].get("selector", {}), TRACK: track}
    return made


def job_of(config_map: Object, key: str, name: str, rollout: str) -> Object:
    """The Job under a key of the `prepare` ConfigMap, under a name of its own.

    Raises:
        InvalidArgument: there is not exactly one Job.
    """
    documents = read_documents(config_map, key)
    jobs = [one for one in documents if one["kind"] == "Job"]
    if len(documents) != 1 or len(jobs) != 1:
        raise InvalidArgument(f"{key} in the ConfigMap {name_of(config_map)} must hold exactly one Job")
    made = copy.deepcopy(jobs[0])
    labels = {**labels_of(made), PART_OF: CITY_PART, APPLIED: OPERATOR, ROLLOUT: rollout}
    annotations = {**annotations_of(made), MANIFESTS: name_of(config_map)}
    kept = {key: value for key, value in annotations.items() if not key.startswith("helm.sh/")}
    made["metadata"] = {"name": name, "labels": labels, "annotations": kept}
    return made


def stale(found: Mapping[str, Any], kept: frozenset[tuple[str, str]]) -> bool:
    """Whether an object of a service is of an earlier version: ours, and not among the (kind, name) of the newest."""
    labels = labels_of(found)
    ours = labels.get(APPLIED) == OPERATOR and labels.get(TRACK) != CANARY
    return ours and (found["kind"], name_of(found)) not in kept
