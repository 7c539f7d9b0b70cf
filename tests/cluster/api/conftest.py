"""What the tests of the operator share: a namespace with a city in it, on the control plane of `tests/cluster/conftest.py`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.core.async_client import AsyncClient
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.types import PatchType

from infra.kubernetes.control_plane import Cluster
from operators.city.kube import Object
from tests.cluster.api.rig import Rig, rigged

ROOT = Path(__file__).parents[3]
CRDS = ROOT / "helm" / "city-crds"
NAME = "cities.provable.city"


@pytest.fixture(scope="session")
def city_definition() -> Object:
    """The custom resource's definition, from the chart."""
    for path in sorted(CRDS.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if "kind: CustomResourceDefinition" in text and NAME in text:
            found: Object = next(one for one in yaml.safe_load_all(text) if one["metadata"]["name"] == NAME)
            return found
    raise AssertionError(f"no definition of {NAME} under {CRDS}")


async def define(document: Object) -> None:
    """Applies a definition and waits until the API server serves it."""
    client = AsyncClient()
    try:
        await client.patch(
            CustomResourceDefinition,
            document["metadata"]["name"],
            document,
            patch_type=PatchType.APPLY,
            field_manager="tests",
            force=True,
        )
        await client.wait(CustomResourceDefinition, document["metadata"]["name"], for_conditions=["Established"])
    finally:
        await client.close()


@pytest.fixture
async def rig(
    cluster: Cluster, city_definition: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """A namespace of its own with the means to run a city in it."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    await define(city_definition)
    async with rigged(tmp_path, cluster.kubeconfig, f"city-{uuid.uuid4().hex[:8]}") as made:
        yield made


@pytest.fixture
def widen_schema(rig: Rig, city_definition: Object) -> Callable[[], Awaitable[None]]:
    """Gives the resource one more optional field, as a newer chart of definitions would."""

    async def widen() -> None:
        wider = yaml.safe_load(yaml.safe_dump(city_definition))
        wider["metadata"].setdefault("annotations", {})["provable.city/tested"] = uuid.uuid4().hex
        for version in wider["spec"]["versions"]:
            properties: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            properties["rings"] = {"type": "integer"}
        await define(wider)

    return widen
