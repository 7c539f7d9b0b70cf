"""The cluster's secrets over the Kubernetes API, from inside a pod or with a kubeconfig. Needs get, create and update (and delete to remove)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Secret

from citykit.errors import EnvironmentFault, InvalidArgument
from infra.provision.wanted import Change, Found

MANAGED_BY, OURS = "app.kubernetes.io/managed-by", "provable-city-provision"
LABELS = {MANAGED_BY: OURS, "app.kubernetes.io/part-of": "provable-city"}
_TIMEOUT_S = 15.0
_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403


class ClusterSecrets:
    """A `SecretStore` of one namespace.

    Args:
        client: of the API server.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def read(self, names: Sequence[str]) -> Mapping[str, Found]:
        return {name: found for name in names if (found := self._one(name)) is not None}

    def write(self, change: Change) -> bool:
        version = change.replaces.version if change.replaces else None
        metadata = ObjectMeta(name=change.name, namespace=self.namespace, labels=dict(LABELS), resourceVersion=version)
        data = {key: base64.b64encode(value).decode() for key, value in change.data.items()}
        secret = Secret(metadata=metadata, type=change.kind, data=data)
        with _translated("write", change.name, self.namespace):
            if version:
                return _done(lambda: self._client.replace(secret), _CONFLICT, _NOT_FOUND)
            return _done(lambda: self._client.create(secret), _CONFLICT)

    def delete(self, name: str, found: Found) -> None:
        with _translated("delete", name, self.namespace):
            _done(lambda: self._client.delete(Secret, name, namespace=self.namespace), _NOT_FOUND)

    def _one(self, name: str) -> Found | None:
        with _translated("get", name, self.namespace):
            try:
                secret = self._client.get(Secret, name, namespace=self.namespace)
            except ApiError as error:
                if error.status.code == _NOT_FOUND:
                    return None
                raise
        metadata = secret.metadata or ObjectMeta()
        ours = (metadata.labels or {}).get(MANAGED_BY) == OURS
        return Found(_decoded(name, secret.data or {}), ours, metadata.resourceVersion or "")


def cluster_secrets(namespace: str = "") -> ClusterSecrets:
    """The secrets of a namespace (empty: the pod's own, or the kubeconfig's).

    Raises:
        EnvironmentFault: neither in a pod nor a kubeconfig.
    """
    try:
        config = KubeConfig.from_env().get()
        client = Client(config, timeout=httpx.Timeout(_TIMEOUT_S), trust_env=False)
    except (ConfigError, OSError, KeyError) as error:
        raise EnvironmentFault(
            f"no cluster is known ({error}): run this in a pod with a service account, or set KUBECONFIG"
        ) from error
    return ClusterSecrets(client, namespace or client.namespace)


def _done(act: Callable[[], Any], *others: int) -> bool:
    """False where another was first."""
    try:
        act()
    except ApiError as error:
        if error.status.code in others:
            return False
        raise
    return True


def _decoded(name: str, data: Mapping[str, str]) -> dict[str, bytes]:
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in data.items()}
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"the secret {name} cannot be read: its data is no base64", field=name) from None


@contextmanager
def _translated(verb: str, name: str, namespace: str) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status.code == _FORBIDDEN:
            raise EnvironmentFault(
                f"may not {verb} the secret {name} in {namespace}: the service account's Role needs get, create and update"
                " on secrets there"
            ) from None
        raise EnvironmentFault(
            f"the API server refuses to {verb} the secret {name} in {namespace}: {error.status.reason or error.status.code}"
        ) from None
    except httpx.HTTPError as error:
        raise EnvironmentFault(
            f"the API server cannot be reached ({type(error).__name__}); see that the cluster runs, then try again"
        ) from None
