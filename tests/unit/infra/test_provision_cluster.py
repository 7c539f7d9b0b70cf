"""Secrets over the Kubernetes API: what is asked of it, and what its refusals become. The API here is a small one of our own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from lightkube import Client
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from citykit.errors import EnvironmentFault, InvalidArgument
from infra.provision import Change, Found, provision, remove
from infra.provision.cluster import ClusterSecrets, cluster_secrets
from tests.unit.infra.fake_secrets import NAMESPACE, wanted

SMALL = wanted(groups=("root-key", "postgres", "operator-token"))
SECRET = "s3cret-value"
Answer = Callable[[httpx.Request], httpx.Response]


class Api:
    """The secrets part of an API server: get, create, replace where the version is the last, delete."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.verbs: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.split("/")
        assert path[:6] == ["", "api", "v1", "namespaces", NAMESPACE, "secrets"]
        self.verbs.append(request.method)
        name = path[6] if len(path) > 6 else json.loads(request.content)["metadata"]["name"]
        if request.method == "POST":
            return failure(409, "AlreadyExists") if name in self.kept else self.store(name, request)
        if name not in self.kept:
            return failure(404, "NotFound")
        if request.method == "DELETE":
            return httpx.Response(200, json=self.kept.pop(name))
        if request.method == "PUT":
            asked = json.loads(request.content)["metadata"]["resourceVersion"]
            current = self.kept[name]["metadata"]["resourceVersion"]
            return self.store(name, request) if asked == current else failure(409, "Conflict")
        return httpx.Response(200, json=self.kept[name])

    def store(self, name: str, request: httpx.Request) -> httpx.Response:
        self.version += 1
        document = json.loads(request.content)
        document["metadata"]["resourceVersion"] = str(self.version)
        self.kept[name] = document
        return httpx.Response(200, json=document)


def failure(code: int, reason: str, message: str = f"no, {SECRET}") -> httpx.Response:
    return httpx.Response(code, json={"kind": "Status", "code": code, "reason": reason, "message": message})


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def opened() -> Iterator[Callable[[Answer], ClusterSecrets]]:
    clients: list[Client] = []

    def make(answer: Answer) -> ClusterSecrets:
        config = KubeConfig.from_one(cluster=Cluster(server="http://api.test"), user=User(token="t")).get()
        # A function, for the client copies deeply what is none.
        transport = httpx.MockTransport(lambda request: answer(request))  # noqa: PLW0108
        clients.append(Client(config, transport=transport, trust_env=False))
        return ClusterSecrets(clients[-1], NAMESPACE)

    yield make
    for client in clients:
        client._client.close()  # type: ignore[no-untyped-call]  # lightkube's own


def change(name: str = "postgres-admin", replaces: Found | None = None) -> Change:
    return Change(name, "Opaque", {"password": SECRET.encode()}, "missing", replaces)


def test_it_asks_for_get_create_and_update_only(api: Api, opened: Callable[[Answer], ClusterSecrets]) -> None:
    store = opened(api)
    assert provision(store, SMALL, lambda line: None) == 9
    assert set(api.verbs) == {"GET", "POST"}
    kept = api.kept["postgres-metering"]
    assert kept["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "provable-city-provision"
    assert base64.b64decode(kept["data"]["password"]).decode().isprintable()
    assert provision(store, SMALL, lambda line: None) == 0
    provision(
        store, wanted(groups=("operator-token",), now=SMALL.now.replace(year=SMALL.now.year + 1)), lambda line: None
    )
    assert set(api.verbs) == {"GET", "POST", "PUT"}


def test_another_writer_is_noticed(api: Api, opened: Callable[[Answer], ClusterSecrets]) -> None:
    store = opened(api)
    assert store.write(change())
    assert not store.write(change())
    found = store.read(["postgres-admin"])["postgres-admin"]
    assert found.ours
    assert found.data == {"password": SECRET.encode()}
    assert store.write(change(replaces=found))
    assert not store.write(change(replaces=found))
    api.kept.clear()
    assert not store.write(change(replaces=found))
    store.delete("postgres-admin", found)


def test_what_others_made_is_not_removed(api: Api, opened: Callable[[Answer], ClusterSecrets]) -> None:
    store = opened(api)
    provision(store, SMALL, lambda line: None)
    api.kept["city-root-key"]["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    assert remove(store, SMALL, lambda line: None) == 8
    assert set(api.kept) == {"city-root-key"}


def test_a_refusal_says_what_to_do_and_shows_no_value(opened: Callable[[Answer], ClusterSecrets]) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    cases: list[tuple[Answer, str]] = [
        (lambda request: failure(403, "Forbidden"), r"may not write the secret postgres-admin.*get, create and update"),
        (lambda request: failure(404, "NotFound"), r"refuses to write the secret postgres-admin in trial: NotFound"),
        (lambda request: failure(422, "Invalid"), r"refuses to write the secret postgres-admin in trial: Invalid"),
        (lambda request: httpx.Response(502, text=SECRET), r"cannot be reached \(HTTPStatusError\)"),
        (nobody, r"cannot be reached \(ConnectError\); see that the cluster runs"),
    ]
    for answer, told in cases:
        with pytest.raises(EnvironmentFault, match=told) as refused:
            opened(answer).write(change())
        assert SECRET not in refused.value.message
    with pytest.raises(EnvironmentFault, match="may not get the secret a"):
        opened(lambda request: failure(403, "Forbidden")).read(["a"])


def test_a_secret_that_cannot_be_read_is_named(api: Api, opened: Callable[[Answer], ClusterSecrets]) -> None:
    api.kept["postgres-admin"] = {"metadata": {"name": "postgres-admin"}, "data": {"password": "%%%"}}
    with pytest.raises(InvalidArgument, match="postgres-admin cannot be read"):
        opened(api).read(["postgres-admin"])


def test_without_a_cluster_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    with pytest.raises(EnvironmentFault, match="set KUBECONFIG"):
        cluster_secrets()
