"""What goes over the wire to the API server, and what its answers mean in our words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.core.async_client import AsyncClient

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
from operators.city.kube import MANAGER, KubeApi, Object, api_version, connected


class Server:
    """Answers as it is told and keeps what came."""

    def __init__(self) -> None:
        self.reply: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json=DEPLOYMENT)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.reply(request)

    @property
    def last(self) -> tuple[str, str, dict[str, str]]:
        request = self.requests[-1]
        return request.method, request.url.path, dict(request.url.params)


class Transport(httpx.MockTransport):
    """The one the test knows: lightkube copies its parameters."""

    def __deepcopy__(self, memo: object) -> Transport:
        return self


DEPLOYMENT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "gateway", "resourceVersion": "7"},
}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[KubeApi]:
    config = KubeConfig.from_one(cluster=Cluster(server="http://api.test"), user=User(token="t")).get()
    made = KubeApi(AsyncClient(config, transport=Transport(server)), "city")
    yield made
    await made.close()


def refusal(code: int, reason: str, message: str) -> Callable[[httpx.Request], httpx.Response]:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return lambda _: httpx.Response(code, json=body)


async def test_reading(api: KubeApi, server: Server) -> None:
    assert await api.get("Deployment", "gateway") == DEPLOYMENT
    assert server.last == ("GET", "/apis/apps/v1/namespaces/city/deployments/gateway", {})
    pages = [{"items": [DEPLOYMENT], "metadata": {"continue": "next"}}, {"items": [DEPLOYMENT], "metadata": {}}]
    server.reply = lambda _: httpx.Response(200, json=pages.pop(0))
    assert len(await api.list("ConfigMap", {"a": "b"})) == 2
    last: tuple[str, str, dict[str, str]] = server.last
    method, path, query = last
    assert query == {"labelSelector": "a=b", "limit": "500", "continue": "next"}
    assert (method, path) == ("GET", "/api/v1/namespaces/city/configmaps")
    server.reply = refusal(404, "NotFound", "not there")
    assert await api.get("Deployment", "gateway") is None
    assert api.server == "http://api.test"


async def test_writing(api: KubeApi, server: Server) -> None:
    await api.apply(DEPLOYMENT)
    assert server.last[2] == {"fieldManager": MANAGER, "force": "true"}
    assert server.requests[-1].headers["content-type"] == "application/apply-patch+yaml"
    await api.apply(DEPLOYMENT, "another")
    assert server.last[2]["fieldManager"] == "another"
    await api.create(DEPLOYMENT)
    assert server.last[:2] == ("POST", "/apis/apps/v1/namespaces/city/deployments")
    await api.patch("City", "city", {"metadata": {"annotations": {"a": None}}})
    assert server.last[:2] == ("PATCH", "/apis/provable.city/v1/namespaces/city/cities/city")
    assert json.loads(server.requests[-1].content) == {"metadata": {"annotations": {"a": None}}}
    await api.replace(DEPLOYMENT)
    assert server.last[:2] == ("PUT", "/apis/apps/v1/namespaces/city/deployments/gateway")
    await api.replace({**DEPLOYMENT, "status": {"replicas": 1}}, status=True)
    assert server.last[1].endswith("/deployments/gateway/status")


async def test_deleting(api: KubeApi, server: Server) -> None:
    assert await api.delete("Job", "migrate")
    assert server.last == ("DELETE", "/apis/batch/v1/namespaces/city/jobs/migrate", {"propagationPolicy": "Background"})
    server.reply = refusal(404, "NotFound", "gone")
    assert not await api.delete("Job", "migrate")


async def test_asking_who_one_is(api: KubeApi, server: Server) -> None:
    server.reply = lambda _: httpx.Response(201, json={"status": {"userInfo": {"username": "ada"}}})
    answer = await api.review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", {})
    assert answer == {"userInfo": {"username": "ada"}}
    assert server.last[:2] == ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews")


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (404, "NotFound", NotFound),
        (403, "Forbidden", PermissionDenied),
        (401, "Unauthorized", PermissionDenied),
        (422, "Invalid", InvalidArgument),
        (400, "BadRequest", InvalidArgument),
        (413, "TooLarge", InvalidArgument),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
async def test_refusals_are_words_of_ours_with_the_servers_own(
    api: KubeApi, server: Server, code: int, reason: str, kind: type[CityError]
) -> None:
    server.reply = refusal(code, reason, "the server says so")
    with pytest.raises(kind, match=r"Deployment gateway.*the server says so"):
        await api.apply(DEPLOYMENT)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_no_answer_is_unavailable(api: KubeApi, server: Server, error: type[httpx.TransportError]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("x", request=request)

    server.reply = fail
    with pytest.raises(Unavailable, match=rf"does not answer \({error.__name__}\); asked for City"):
        await api.list("City")


async def test_an_answer_that_is_no_json_is_unavailable(api: KubeApi, server: Server) -> None:
    server.reply = lambda _: httpx.Response(503, text="apiserver not ready", headers={"content-type": "text/plain"})
    with pytest.raises(Unavailable, match="503 apiserver not ready"):
        await api.list("City")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no cluster"),
        ("apiVersion: v1\nclusters: []\ncontexts: []\nusers: []\n", "current context"),
        ("{", "no cluster"),
    ],
)
async def test_without_a_cluster_it_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(EnvironmentFault, match=said):
        async with connected("city"):
            pass


async def test_the_namespace_is_the_kubeconfigs_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry: dict[str, Any] = {"cluster": "x", "user": "x", "namespace": "theirs"}
    document = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "http://api.test"}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": entry}],
    }
    (tmp_path / "config").write_text(json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    async with connected("") as found, connected("ours") as named:
        assert (found.namespace, named.namespace) == ("theirs", "ours")


def test_versions_of_kinds() -> None:
    assert (api_version("Pod"), api_version("Deployment")) == ("v1", "apps/v1")
