"""Volumes for claims: a folder of this machine each, as a provisioner would make them. For tests and trials on one node.

There is no CSI driver here; a thread looks at the claims and answers them with `hostPath` volumes of the class `local`, which is the default.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault
from infra.kubernetes.asking import Asking, Object

CLASS = "local"
_OURS = "provable.city/volumes"
_LOOK_S = 0.5
_VOLUMES = "/api/v1/persistentvolumes"
_CLAIMS = "/api/v1/persistentvolumeclaims"


class Volumes:
    """Answers claims until it is stopped.

    Args:
        folder: where the volumes' folders are; they are writable for every user, since a pod's may be any.
        open_api: a client of the thread's own.
    """

    def __init__(self, folder: Path, open_api: Callable[[], Asking]) -> None:
        self._folder = folder
        self._open_api = open_api
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="volumes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        api = self._open_api()
        while not self._stopping.wait(_LOOK_S):
            try:
                look(api, self._folder)
            except (OSError, EnvironmentFault):  # the API server is away or restarted: look again
                continue
        api.close()


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
