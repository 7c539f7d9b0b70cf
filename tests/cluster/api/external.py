"""An adapter of metrics as the API server reaches it: `external.metrics.k8s.io` says what the test wants, `metrics.k8s.io` that the pods are idle."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from infra.certificates import issue, new_authority
from operators.city.kube import KubeApi, Object
from tests.cluster.conftest import Tool

EXTERNAL, RESOURCE = "external.metrics.k8s.io", "metrics.k8s.io"
VERSION = "v1beta1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
IDLE = "1m"
"""Of a processor, for each container."""
_NAME, _PORT, _DAYS = "adapter", 443, 1.0


@dataclass
class Adapter:
    """The knobs.

    Attributes:
        values: what an external metric is, as Kubernetes writes quantities: `800m`.
        away: nothing is answered but 503.
        asked: how often each external metric was asked for, with its selector: `name{selector}`.
    """

    api: KubeApi
    values: dict[str, str] = field(default_factory=dict)
    away: bool = False
    asked: Counter[str] = field(default_factory=Counter)


class _Answering:
    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def application(self) -> web.Application:
        made = web.Application(middlewares=[self._present])
        for group, kind, resource in ((EXTERNAL, "ExternalMetricValueList", "*"), (RESOURCE, "PodMetrics", "pods")):
            made.router.add_get(f"/apis/{group}/{VERSION}", _discovery(f"{group}/{VERSION}", kind, resource))
        made.router.add_get(f"/apis/{EXTERNAL}/{VERSION}/namespaces/{{namespace}}/{{name}}", self._external)
        made.router.add_get(f"/apis/{RESOURCE}/{VERSION}/namespaces/{{namespace}}/pods", self._pods)
        return made

    @web.middleware
    async def _present(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=503, text="away") if self._adapter.away else await handler(request)

    async def _external(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self._adapter.asked[f"{name}{{{request.query.get('labelSelector', '')}}}"] += 1
        value = self._adapter.values.get(name)
        found = [] if value is None else [{"metricName": name, "metricLabels": {}, "timestamp": _now(), "value": value}]
        return web.json_response(_listed(f"{EXTERNAL}/{VERSION}", "ExternalMetricValueList", found))

    async def _pods(self, request: web.Request) -> web.Response:
        labels = dict(one.split("=", 1) for one in request.query["labelSelector"].split(","))
        found = [_idle(one) for one in await self._adapter.api.list("Pod", labels)]
        return web.json_response(_listed(f"{RESOURCE}/{VERSION}", "PodMetricsList", found))


def _idle(pod: Object) -> Object:
    usage = [{"name": one["name"], "usage": {"cpu": IDLE, "memory": "1Mi"}} for one in pod["spec"]["containers"]]
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "labels")}
    return {"metadata": metadata, "timestamp": _now(), "window": "1s", "containers": usage}


def _discovery(version: str, kind: str, resource: str) -> Handler:
    found = {"name": resource, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
    document = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [found]}

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document)

    return answer


def _listed(version: str, kind: str, found: list[Object]) -> Object:
    return {"kind": kind, "apiVersion": version, "metadata": {}, "items": found}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.asynccontextmanager
async def adapter(api: KubeApi, kubectl: Tool, folder: Path) -> AsyncIterator[Adapter]:
    """Serves until the block ends, and is known to the API server until then."""
    knobs, address = Adapter(api), own_address()
    authority = new_authority("test", _DAYS)
    runner = web.AppRunner(_Answering(knobs).application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    host = f"{_NAME}.{api.namespace}.svc"
    shown = issue(authority, host, _DAYS)
    (folder / "adapter.pem").write_bytes(shown.certificate + shown.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "adapter.pem")
    site = web.TCPSite(runner, address, 0, ssl_context=context)
    await site.start()
    port = int(runner.addresses[0][1])
    services = [_api_service(group, api.namespace, authority.certificate) for group in (EXTERNAL, RESOURCE)]
    names = [one["metadata"]["name"] for one in services]
    try:
        await asyncio.to_thread(kubectl.apply, *_reached(api.namespace, address, port), *services)
        # an API server that knows a group nobody serves any more deletes no namespace
        try:
            for name in names:
                await asyncio.to_thread(
                    kubectl, "wait", "--for=condition=Available", "--timeout=60s", f"apiservice/{name}"
                )
            yield knobs
        finally:
            await asyncio.to_thread(kubectl, "delete", "apiservice", *names)
    finally:
        await site.stop()
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()  # closed in good order, it would wait for the API server longer than our loop runs
        await runner.cleanup()


def own_address() -> str:
    """An address of this machine that is none of loopback, which no endpoint may have."""
    found = [one.address for every in psutil.net_if_addrs().values() for one in every if one.family == socket.AF_INET]
    outer = [one for one in found if not one.startswith(("127.", "169.254."))]
    if not outer:
        pytest.skip("the machine has no address but loopback, which the API server takes for no endpoint")
    return outer[0]


def _reached(namespace: str, address: str, port: int) -> list[Object]:
    """A Service that leads to the address."""
    metadata = {"name": _NAME, "namespace": namespace}
    ports = [{"name": "https", "port": _PORT, "targetPort": port}]
    labels = {"kubernetes.io/service-name": _NAME}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]


def _api_service(group: str, namespace: str, authority: bytes) -> Object:
    spec = {
        "group": group,
        "version": VERSION,
        "service": {"namespace": namespace, "name": _NAME, "port": _PORT},
        "caBundle": base64.b64encode(authority).decode(),
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    name = f"{VERSION}.{group}"
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec}
