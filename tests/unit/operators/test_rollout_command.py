"""`city rollout`: says where it stands, writes one annotation, and where there is nothing to steer it says so."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from citykit.errors import Conflict, FailedPrecondition, NotFound
from operators.city.approvals import APPROVALS, approvers
from operators.city.kube import KubeApi, Object
from operators.city.reconcile import promotes
from services.commands.rollout import acted, lines
from tests.unit.operators.fake_api import FakeApi
from tests.unit.operators.planned import under_way

STATUS: Object = {
    "phase": "Progressing",
    "message": "metering: 1 of 2 pods are ready",
    "rollout": {"id": "g4", "generation": 4},
    "services": [
        {"name": "metering", "version": "1.1", "phase": "Canary", "message": "25 %"},
        {"name": "payments", "version": "1.0", "phase": "Ready"},
    ],
    "history": [
        {
            "id": "g3",
            "from": "0.9",
            "to": "1.0",
            "outcome": "Succeeded",
            "reason": "",
            "finished": "2026-05-04T12:00:00Z",
        }
    ],
}


class Asked(FakeApi):
    """With the server's answer who one is."""

    async def review(self, group: str, kind: str, plural: str, spec: Object) -> Object:
        assert (group, kind) == ("authentication.k8s.io", "SelfSubjectReview")
        return {"userInfo": {"username": "ada"}}


@pytest.fixture
def api() -> Asked:
    found = Asked()
    found.put({"kind": "City", "metadata": {"name": "city"}, "spec": {"version": "1.1"}, "status": STATUS})
    return found


async def act(api: Asked, action: str) -> dict[str, Any]:
    return await acted(cast(KubeApi, api), action)


def notes_of(api: Asked) -> dict[str, str]:
    return dict(api.objects["City", "city"]["metadata"].get("annotations") or {})


async def test_status_for_people_and_for_programs(api: Asked) -> None:
    found = await act(api, "status")
    assert lines("status", found) == [
        "city in city: Progressing",
        "  metering: 1 of 2 pods are ready",
        "  rollout g4, generation 4",
        "  metering  1.1         Canary: 25 %",
        "  payments  1.0         Ready",
    ]
    assert json.loads(json.dumps(found))["rollout"]["id"] == "g4"


async def test_history(api: Asked) -> None:
    found = await act(api, "history")
    assert lines("history", found) == ["2026-05-04T12:00:00Z  g3  0.9 -> 1.0  Succeeded"]
    assert lines("history", {"history": []}) == ["nothing was rolled out yet"]


@pytest.mark.parametrize(("action", "annotation"), [("promote", "promote"), ("abort", "abort"), ("pause", "paused")])
async def test_steering_names_the_rollout(api: Asked, action: str, annotation: str) -> None:
    found = await act(api, action)
    assert notes_of(api) == {f"provable.city/{annotation}": "g4"}
    assert lines(action, found) == [found["did"]]


async def test_resuming_takes_the_pause_away(api: Asked) -> None:
    await act(api, "pause")
    await act(api, "resume")
    assert notes_of(api) == {}
    api.objects["City", "city"]["spec"]["paused"] = True
    with pytest.raises(FailedPrecondition, match=r"spec\.paused"):
        await act(api, "resume")


async def test_approving_is_in_ones_own_name(api: Asked) -> None:
    await act(api, "approve")
    await act(api, "approve")
    assert approvers(notes_of(api)[APPROVALS], "g4") == {"ada"}


async def test_retrying_names_what_was_refused(api: Asked) -> None:
    with pytest.raises(FailedPrecondition, match="nothing to retry"):
        await act(api, "retry")
    api.objects["City", "city"]["status"] = {**STATUS, "refused": "g3"}
    await act(api, "retry")
    assert notes_of(api) == {"provable.city/retry": "g3"}


@pytest.mark.parametrize("action", ["promote", "abort", "approve"])
async def test_without_a_rollout_there_is_nothing_to_steer(api: Asked, action: str) -> None:
    api.objects["City", "city"]["status"] = {"phase": "Ready"}
    with pytest.raises(FailedPrecondition, match=f"nothing to {action}"):
        await act(api, action)


async def test_without_a_city_it_says_where_it_looked(api: Asked) -> None:
    api.objects.clear()
    with pytest.raises(NotFound, match="--namespace"):
        await act(api, "status")


async def test_a_change_in_between_is_read_again(api: Asked) -> None:
    left = [2]

    def changed(verb: str, kind: str, name: str) -> None:
        if left[0]:
            left[0] -= 1
            api.put(api.objects["City", "city"])

    api.before = changed
    await act(api, "promote")
    assert notes_of(api)["provable.city/promote"] == "g4"
    left[0] = 99
    with pytest.raises(Conflict):
        await act(api, "abort")


async def test_promoting_names_the_service_in_hand(api: Asked) -> None:
    api.objects["City", "city"]["status"]["rollout"]["service"] = "metering"
    said = (await act(api, "promote"))["did"]
    assert notes_of(api) == {"provable.city/promote": "g4/metering"}
    assert "metering" in said


@pytest.mark.parametrize(
    ("note", "service", "promoted"),
    [
        ("g4", "metering", True),
        ("g4/metering", "metering", True),
        ("g4/identity", "metering", False),
        ("g3/metering", "metering", False),
        ("g4/", "metering", False),
        ("", "metering", False),
    ],
)
def test_a_note_promotes_the_service_it_names_or_any(note: str, service: str, promoted: bool) -> None:
    assert promotes(note, "g4", under_way(service=service)) is promoted
