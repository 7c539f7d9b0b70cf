"""A few requests to an API server, for those who start one: is it ready, create this, change that. Tests of the city use kubectl or lightkube."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from citykit.errors import EnvironmentFault

Object = dict[str, Any]
_TIMEOUT_S = 10.0
_POLL_S = 0.1
_PLURALS = {"Node": "nodes", "Namespace": "namespaces", "Service": "services", "EndpointSlice": "endpointslices"} | {
    "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "StorageClass": "storageclasses",
    "PersistentVolume": "persistentvolumes", "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods",
}  # fmt: skip
_NOT_FOUND, _CONFLICT = 404, 409
MANAGER = "provable-city-cluster"
"""The field manager of what is applied here."""


class Asking:
    """A client with the certificate of a kubeconfig that has everything inside.

    Errors of the connection are raised as OSError, so that a poll of readiness may go on.
    """

    def __init__(self, kubeconfig: Path) -> None:
        cluster, user = read_kubeconfig(kubeconfig)
        # trust_env: a proxy for the outside world knows no loopback
        self._client = httpx.Client(
            base_url=cluster["server"], verify=client_context(cluster, user), timeout=_TIMEOUT_S, trust_env=False
        )

    def close(self) -> None:
        self._client.close()

    def ready(self, path: str = "/readyz") -> bool:
        """Whether it answers 200 there. May raise OSError while it does not answer at all."""
        return self._ask("GET", path).is_success

    def get(self, path: str) -> Object | None:
        """An object or a list; None where there is none.

        Raises:
            EnvironmentFault: it is refused.
        """
        answer = self._ask("GET", path)
        return None if answer.status_code == _NOT_FOUND else _checked(answer)

    def items(self, path: str) -> list[Object]:
        """The objects of a list; empty where the kind is not there."""
        return list((self.get(path) or {}).get("items") or [])

    def apply(self, document: Mapping[str, Any]) -> Object:
        """Server-side apply, taking fields over from others.

        Raises:
            EnvironmentFault: it is refused; with what the API server said.
        """
        headers = {"Content-Type": "application/apply-patch+yaml"}
        parameters = {"fieldManager": MANAGER, "force": "true"}
        answer = self._ask("PATCH", path_of(document), json.dumps(document).encode(), headers, parameters)
        return _checked(answer)

    def patch_status(self, path: str, status: Mapping[str, Any]) -> Object:
        """Changes an object's status."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return _checked(self._ask("PATCH", f"{path}/status", json.dumps({"status": status}).encode(), headers))

    def create(self, path: str, document: Mapping[str, Any]) -> Object | None:
        """Creates an object; None where one of its name is there."""
        answer = self._ask("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})
        return None if answer.status_code == _CONFLICT else _checked(answer)

    def delete(self, path: str) -> None:
        """Asks for an object's end and does not wait for it; one that is not there is no error."""
        answer = self._ask("DELETE", path)
        if answer.status_code != _NOT_FOUND:
            _checked(answer)

    def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, content=content, headers=headers, params=parameters)
        except httpx.TransportError as error:
            raise OSError(f"{method} {path}: {error}") from error


def path_of(document: Mapping[str, Any]) -> str:
    """Where an object of one of the kinds used here lives.

    Raises:
        KeyError: another kind.
    """
    version, metadata = str(document["apiVersion"]), document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{space}/{_PLURALS[document['kind']]}/{metadata['name']}"


def until(holds: Callable[[], bool], what: str, limit_s: float) -> None:
    """Polls until it holds; an OSError counts as not yet.

    Raises:
        EnvironmentFault: it does not within the limit.
    """
    end = time.monotonic() + limit_s
    while not _holds(holds):
        if time.monotonic() > end:
            raise EnvironmentFault(f"{what}: not within {limit_s:.0f} s")
        time.sleep(_POLL_S)


def _holds(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except OSError:
        return False


def _checked(answer: httpx.Response) -> Object:
    if not answer.is_success:
        said = answer.text[:500]
        raise EnvironmentFault(f"the API server refused {answer.request.method} {answer.request.url.path}: {said}")
    return dict(answer.json())


def read_kubeconfig(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The one cluster and the one user of a file as `pki.write_kubeconfig` writes it."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return document["clusters"][0]["cluster"], document["users"][0]["user"]


def client_context(cluster: Mapping[str, str], user: Mapping[str, str]) -> ssl.SSLContext:
    """TLS as that user, who trusts that cluster's authority alone."""
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode("ascii")
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile(prefix="provable-city-", suffix=".pem") as pair:  # ssl reads files only
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
