"""The API server as the operator uses it: few verbs, plain documents, errors in the city's words. Used by everything in `operators.city` that acts.

Objects are the JSON the server speaks, as dictionaries. `Api` is what the rest needs of it; `KubeApi` is lightkube's; tests bring one in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import Any, Protocol

import httpx
import yaml
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.async_client import AsyncClient
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.core.resource import ApiInfo, ResourceDef
from lightkube.generic_resource import GenericGlobalResource, GenericNamespacedResource, GenericNamespacedStatus
from lightkube.types import CascadeType, PatchType

from citykit.errors import (
    AlreadyExists,
    CityError,
    Conflict,
    EnvironmentFault,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)

Object = dict[str, Any]

MANAGER = "provable-city-operator"
"""Field manager of everything the operator writes, and the name of its Lease."""
GROUP, VERSION = "provable.city", "v1"
CITY = "City"
TIMEOUT_S = 4.0
"""Of one call. Shorter than what lies between the last moment a leader acts and the first another may: no write of an old leader comes late."""
_PAGE = 500

KINDS: Mapping[str, tuple[str, str, str]] = {
    CITY: (GROUP, VERSION, "cities"),
    "ConfigMap": ("", "v1", "configmaps"),
    "Event": ("", "v1", "events"),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims"),
    "Pod": ("", "v1", "pods"),
    "Service": ("", "v1", "services"),
    "ServiceAccount": ("", "v1", "serviceaccounts"),
    "Deployment": ("apps", "v1", "deployments"),
    "ReplicaSet": ("apps", "v1", "replicasets"),
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
    "Job": ("batch", "v1", "jobs"),
    "Lease": ("coordination.k8s.io", "v1", "leases"),
    "HTTPRoute": ("gateway.networking.k8s.io", "v1", "httproutes"),
    "GRPCRoute": ("gateway.networking.k8s.io", "v1", "grpcroutes"),
    "Ingress": ("networking.k8s.io", "v1", "ingresses"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "ServiceMonitor": ("monitoring.coreos.com", "v1", "servicemonitors"),
}
"""Kind to group, version and plural: every kind the operator knows, namespaced ones only."""


class Api(Protocol):
    """The verbs.

    Every one raises:
        Unavailable: no answer, or the server is not ready. Nothing may be taken for done.
        PermissionDenied: the role lacks something; the message names it.
        InvalidArgument: refused whatever is tried again.
    """

    @property
    def namespace(self) -> str: ...

    async def get(self, kind: str, name: str) -> Object | None:
        """None: there is none."""

    async def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]: ...

    async def apply(self, document: Object, manager: str = MANAGER) -> Object:
        """Server-side apply; fields in the document are the manager's from then on, whoever had them."""

    async def create(self, document: Object) -> Object:
        """Raises: AlreadyExists."""

    async def patch(self, kind: str, name: str, patch: Object) -> Object:
        """A merge patch (RFC 7386); with `metadata.resourceVersion` in it only onto that version. Raises: Conflict, NotFound."""

    async def replace(self, document: Object, *, status: bool = False, pretend: bool = False) -> Object:
        """The whole object, or its status, if nobody changed it since it was read; `pretend`: what it would be. Raises: Conflict, NotFound."""

    async def delete(self, kind: str, name: str) -> bool:
        """Dependents in the background. False: there was none."""


class KubeApi:
    """A namespace of a real API server."""

    def __init__(self, client: AsyncClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        return self._namespace

    @property
    def server(self) -> str:
        return str(self._client.config.cluster.server)

    async def get(self, kind: str, name: str) -> Object | None:
        try:
            with _translated(kind, name):
                return _plain(await self._client.get(_resource(kind), name, namespace=self._namespace))
        except NotFound:
            return None

    async def list(self, kind: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        with _translated(kind, ""):
            found = self._client.list(
                _resource(kind), namespace=self._namespace, labels=dict(labels or {}) or None, chunk_size=_PAGE
            )
            return [_plain(one) async for one in found]

    async def apply(self, document: Object, manager: str = MANAGER) -> Object:
        kind, name = document["kind"], document["metadata"]["name"]
        with _translated(kind, name):
            return _plain(
                await self._client.patch(
                    _resource(kind),
                    name,
                    document,
                    namespace=self._namespace,
                    patch_type=PatchType.APPLY,
                    field_manager=manager,
                    force=True,
                )
            )

    async def create(self, document: Object) -> Object:
        kind = document["kind"]
        with _translated(kind, document["metadata"].get("name", "")):
            client: Any = self._client  # its overloads know no generic kinds
            made = await client.create(_resource(kind)(document), namespace=self._namespace, field_manager=MANAGER)
            return _plain(made)

    async def patch(self, kind: str, name: str, patch: Object) -> Object:
        with _translated(kind, name):
            return _plain(
                await self._client.patch(
                    _resource(kind),
                    name,
                    patch,
                    namespace=self._namespace,
                    patch_type=PatchType.MERGE,
                    field_manager=MANAGER,
                )
            )

    async def replace(self, document: Object, *, status: bool = False, pretend: bool = False) -> Object:
        kind, name = document["kind"], document["metadata"]["name"]
        resource = _resource(kind).Status if status else _resource(kind)
        with _translated(kind, name):
            return _plain(
                await self._client.replace(
                    resource(document), name, namespace=self._namespace, field_manager=MANAGER, dry_run=pretend
                )
            )

    async def delete(self, kind: str, name: str) -> bool:
        try:
            with _translated(kind, name):
                await self._client.delete(
                    _resource(kind), name, namespace=self._namespace, cascade=CascadeType.BACKGROUND
                )
        except NotFound:
            return False
        return True

    async def review(self, group: str, kind: str, plural: str, spec: Object) -> Object:
        """Posts one of the server's own questions (`SelfSubjectReview`) and returns its status."""
        info = ApiInfo(ResourceDef(group, VERSION, kind), plural, ["post"])
        resource: Any = type(kind, (GenericGlobalResource,), {"_api_info": info})
        question = {"apiVersion": f"{group}/{VERSION}", "kind": kind, "metadata": {}, "spec": spec}
        with _translated(kind, ""):
            answer: Object = _plain(await self._client.create(resource(question)))
        return dict(answer.get("status") or {})

    async def close(self) -> None:
        await self._client.close()


@contextlib.asynccontextmanager
async def connected(namespace: str) -> AsyncIterator[KubeApi]:
    """The API server that the pod's service account or the kubeconfig names.

    Args:
        namespace: empty: the one the configuration names.

    Raises:
        EnvironmentFault: neither is there, or it cannot be read.
    """
    api = open_api(namespace)
    try:
        yield api
    finally:
        await api.close()


def open_api(namespace: str, *, proxied: bool = True) -> KubeApi:
    """As `connected`; the caller closes it.

    Args:
        proxied: HTTPS_PROXY and its like hold, as for kubectl; a pod reaches the API server directly.
    """
    try:
        config = KubeConfig.from_env().get()
        client = AsyncClient(
            config, namespace or None, httpx.Timeout(TIMEOUT_S), field_manager=MANAGER, trust_env=proxied
        )
    except (ConfigError, KeyError, OSError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise EnvironmentFault(
            f"no cluster: neither a pod's service account nor a usable kubeconfig was found ({str(error).splitlines()[0]});"
            " set KUBECONFIG to a file with a current context"
        ) from error
    if config is None:
        raise EnvironmentFault(
            "no cluster: the kubeconfig names no current context; `kubectl config use-context` sets one"
        )
    return KubeApi(client, namespace or client.namespace)


def api_version(kind: str) -> str:
    """`apps/v1`."""
    group, version, _ = KINDS[kind]
    return f"{group}/{version}" if group else version


def labels_of(found: Mapping[str, Any]) -> dict[str, str]:
    return dict(found.get("metadata", {}).get("labels") or {})


def annotations_of(found: Mapping[str, Any]) -> dict[str, str]:
    return dict(found.get("metadata", {}).get("annotations") or {})


def name_of(found: Mapping[str, Any]) -> str:
    return str(found["metadata"]["name"])


@lru_cache
def _resource(kind: str) -> Any:
    """lightkube's class for a kind. Not from its registry, where a kind is either generic or typed, whoever comes first."""
    group, version, plural = KINDS[kind]
    definition = ResourceDef(group, version, kind)
    made = type(kind, (GenericNamespacedResource,), {"_api_info": ApiInfo(definition, plural, list(_VERBS))})
    status = ApiInfo(definition, plural, list(_VERBS), parent=definition, action="status")
    made.Status = type(f"{kind}Status", (GenericNamespacedStatus,), {"_api_info": status})  # type: ignore[attr-defined]
    return made


_VERBS = ("get", "list", "post", "put", "patch", "delete")


def _plain(found: Any) -> Object:
    plain: Object = found.to_dict()
    return plain


@contextlib.contextmanager
def _translated(kind: str, name: str) -> Iterator[None]:
    what = f"{kind} {name}".strip()
    try:
        yield
    except ApiError as error:
        raise _meaning(what, int(error.status.code or 0), str(error.status.reason or ""), str(error)) from error
    except httpx.HTTPStatusError as error:
        raise _meaning(what, error.response.status_code, "", error.response.text[:200]) from error
    except httpx.TransportError as error:
        raise Unavailable(f"the API server does not answer ({type(error).__name__}); asked for {what}") from error
    except ConfigError as error:
        raise EnvironmentFault(f"the credentials for the API server cannot be read ({error})") from error


_REFUSED: Mapping[int, type[CityError]] = {
    404: NotFound,
    400: InvalidArgument,
    413: InvalidArgument,
    422: InvalidArgument,
}


def _meaning(what: str, code: int, reason: str, text: str) -> CityError:
    if code in (401, 403):
        return PermissionDenied(f"the API server refuses {what}: {text}")
    if code == 409:  # noqa: PLR2004 - HTTP's Conflict
        kind = AlreadyExists if reason == "AlreadyExists" else Conflict
        return kind(f"the API server refuses {what}: {text}")
    if code in _REFUSED:
        return _REFUSED[code](f"the API server refuses {what}: {text}")
    return Unavailable(f"the API server could not do {what} ({code} {text})")
