"""Volumes for claims: a folder of this machine each, as a provisioner would make them. For tests and trials on one node.

There is no CSI driver here; a thread looks at the claims and answers them with `hostPath` volumes of the class `local`, which is the default.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.kubernetes.asking import Asking, Object
from infra.kubernetes.looking import Looking

CLASS = "local"
_OURS = "provable.city/volumes"
_VOLUMES = "/api/v1/persistentvolumes"
_CLAIMS = "/api/v1/persistentvolumeclaims"


def answering(folder: Path, open_api: Callable[[], Asking]) -> Looking:
    """A thread that answers claims; not started yet.

    Args:
        folder: where the volumes' folders are; they are writable for every user, since a pod's may be any.
        open_api: a client of the thread's own.
    """
    return Looking("volumes", open_api, lambda api: look(api, folder))


def look(api: Asking, folder: Path) -> None:
    """Makes a volume for each claim of our class that has none, and removes those whose claim is gone."""
    claims = [one for one in api.items(_CLAIMS) if one["spec"].get("storageClassName") == CLASS]
    volumes = {one["metadata"]["name"]: one for one in api.items(f"{_VOLUMES}?labelSelector={_OURS}")}
    for claim in claims:
        name = volume_name(claim)
        if not claim["spec"].get("volumeName") and name not in volumes:
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o777)
            api.create(_VOLUMES, volume(claim, place))
    for name, found in volumes.items():
        if (found.get("status") or {}).get("phase") in ("Released", "Failed"):
            api.delete(f"{_VOLUMES}/{name}")
            shutil.rmtree(folder / name, ignore_errors=True)


def storage_class() -> Object:
    """The class `local`, used where a claim names none."""
    notes = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": notes},
        "provisioner": _OURS,
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "Immediate",
    }


def volume_name(claim: Object) -> str:
    return f"local-{claim['metadata']['uid']}"


def volume(claim: Object, place: Path) -> Object:
    """A volume for this claim and no other."""
    metadata, spec = claim["metadata"], claim["spec"]
    wanted: dict[str, Any] = {key: metadata[key] for key in ("namespace", "name", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "labels": {_OURS: "true"}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(place), "type": "DirectoryOrCreate"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **wanted},
        },
    }
