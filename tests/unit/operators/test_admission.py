"""What the webhook refuses before it is stored, and what it lets through: above all, whoever deletes."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from citykit.errors import EnvironmentFault, Unavailable
from infra.certificates import ensure_certificates
from infra.native import free_port
from operators.city.admission import PATH, Admission, Renewing, serving
from operators.city.kube import Object
from tests.unit.operators.fake_api import FakeApi

SPEC: Object = {
    "version": "1.1.0",
    "profile": "trial",
    "services": [{"name": "metering", "version": "1.1.0", "manifests": "metering-1.1.0-aa"}],
    "prepare": {"manifests": "prepare-1.1.0-aa"},
}


@pytest.fixture
def api() -> FakeApi:
    found = FakeApi()
    for name in ("metering-1.1.0-aa", "prepare-1.1.0-aa"):
        found.put({"kind": "ConfigMap", "metadata": {"name": name}})
    return found


def city(spec: Object | None = None, *, approvals: list[str] | None = None, **more: Any) -> Object:
    notes = {"provable.city/approvals": json.dumps(approvals)} if approvals is not None else {}
    return {"metadata": {"name": "city", "annotations": notes}, "spec": SPEC if spec is None else spec, **more}


async def reviewed(api: FakeApi, new: Object, old: Object | None = None, user: str = "ada") -> tuple[bool, str]:
    request: Object = {"uid": "u", "operation": "UPDATE" if old else "CREATE", "object": new, "oldObject": old}
    answer = await Admission(api).review({"request": {**request, "userInfo": {"username": user}}})
    assert answer["response"]["uid"] == "u"
    return answer["response"]["allowed"], answer["response"].get("status", {}).get("message", "")


async def test_a_city_whose_data_is_there_is_let_in(api: FakeApi) -> None:
    assert await reviewed(api, city()) == (True, "")
    assert await reviewed(api, city(), city({**SPEC, "version": "1.0.0"})) == (True, "")


async def test_a_version_that_does_not_exist_is_refused(api: FakeApi) -> None:
    del api.objects["ConfigMap", "metering-1.1.0-aa"]
    allowed, said = await reviewed(api, city())
    assert not allowed
    assert "metering-1.1.0-aa does not exist" in said
    assert "helm upgrade" in said


async def test_a_second_city_is_refused(api: FakeApi) -> None:
    api.put({"kind": "City", "metadata": {"name": "other"}})
    allowed, said = await reviewed(api, city())
    assert not allowed
    assert "has the City other already" in said


@pytest.mark.parametrize(
    "spec",
    [
        {**SPEC, "services": [{**SPEC["services"][0], "dependsOn": ["metering"]}]},
        {**SPEC, "rings": 3},
        {},
    ],
)
async def test_a_spec_that_cannot_be_is_refused(api: FakeApi, spec: Object) -> None:
    allowed, said = await reviewed(api, city(spec))
    assert not allowed
    assert said


async def test_a_downgrade_beyond_the_last_version_is_refused(api: FakeApi) -> None:
    old = city({**SPEC, "version": "1.3.0"}, status={"lastGood": {"version": "1.3.0"}})
    allowed, said = await reviewed(api, city(), old)
    assert not allowed
    assert "restore a backup" in said


async def test_an_approval_is_in_ones_own_name(api: FakeApi) -> None:
    old = city()
    assert (await reviewed(api, city(approvals=["g1:ada"]), old, "ada"))[0]
    allowed, said = await reviewed(api, city(approvals=["g1:ada"]), old, "ben")
    assert not allowed
    assert "their own approval only" in said
    assert not (await reviewed(api, city(approvals=["g1:ben"]), user="ada"))[0], "nor when the City is made"


async def test_what_is_not_looked_at_again(api: FakeApi) -> None:
    """A City that is being deleted, one whose spec stays, and its status."""
    api.objects.clear()
    going = city()
    going["metadata"]["deletionTimestamp"] = "2026-05-04T12:00:00Z"
    assert (await reviewed(api, going, city({})))[0]
    assert (await reviewed(api, city(), city()))[0]
    answer = await Admission(api).review({"request": {"uid": "u", "operation": "DELETE", "oldObject": city()}})
    assert answer["response"]["allowed"]
    answer = await Admission(api).review(
        {"request": {"uid": "u", "operation": "UPDATE", "subResource": "status", "object": {}}}
    )
    assert answer["response"]["allowed"]


async def test_without_an_api_server_nothing_is_let_in(api: FakeApi) -> None:
    api.failing = Unavailable("the API server does not answer")
    allowed, said = await reviewed(api, city())
    assert not allowed
    assert said.endswith("nothing was changed, try again")


async def test_it_is_served_over_tls_and_shows_renewed_certificates(api: FakeApi, tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["operator"])
    folder, port = tmp_path / "operator", free_port()
    async with serving(Admission(api), folder, "127.0.0.1", port) as renewing:
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=context) as client:
            review = {"request": {"uid": "u", "operation": "CREATE", "object": city(), "userInfo": {"username": "ada"}}}
            assert (await client.post(PATH, json=review)).json()["response"] == {"uid": "u", "allowed": True}
            assert (await client.post(PATH, content=b"nonsense")).status_code == 400
            assert (await client.post(PATH, json=[1])).status_code == 400
        with pytest.raises(EnvironmentFault, match="cannot be used for the webhook"):
            async with serving(Admission(api), folder, "127.0.0.1", port):
                pass
        (folder / "tls.crt").write_text("nonsense")
        with pytest.raises(EnvironmentFault, match="operator-tls"):
            renewing.look()


def test_without_a_certificate_it_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="operator-tls"):
        Renewing(tmp_path)
