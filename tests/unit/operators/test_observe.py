"""How far something has come, and what is said of it: an old pod's trouble is not the new version's, and what may pass is not a failure yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from citykit.errors import Unavailable
from operators.city.kube import Object
from operators.city.model import CitySpec, Progress, Rollout, ServiceSpec, State, Target
from operators.city.observe import CRASHES, Observer, Seen, jobs, running, tracks, wanted_config_maps
from tests.unit.operators.fake_api import FakeApi

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def deployment(name: str = "metering", *, track: str = "stable", kind: str = "Deployment", **status: Any) -> Object:
    labels = {"provable.city/service": "metering", "provable.city/track": track}
    notes = {"provable.city/manifests": "metering-1.1-bb", "deployment.kubernetes.io/revision": "2"}
    metadata = {"name": name, "generation": 3, "labels": labels, "annotations": notes}
    full = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, **status}
    return {"kind": kind, "metadata": metadata, "spec": {"replicas": 2}, "status": full}


def replica_set(hashed: str, revision: str, owner: str = "metering") -> Object:
    return {
        "metadata": {
            "name": f"metering-{hashed}",
            "labels": {"pod-template-hash": hashed, "app.kubernetes.io/name": "metering"},
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"kind": "Deployment", "name": owner}],
        }
    }


def pod(hashed: str, reason: str = "", restarts: int = 0, age_s: float = 0.0, message: str = "") -> Object:
    stamp = (NOW - timedelta(seconds=age_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"waiting": {"reason": reason, "message": message}} if reason else {"running": {}}
    container = {
        "name": "metering",
        "restartCount": restarts,
        "state": state,
        "lastState": {"terminated": {"exitCode": 3}},
    }
    labels = {"pod-template-hash": hashed, "app.kubernetes.io/name": "metering", "controller-revision-hash": hashed}
    metadata = {"name": f"metering-{hashed}-x", "creationTimestamp": stamp, "labels": labels}
    return {"metadata": metadata, "status": {"containerStatuses": [container]}}


def seen(*workloads: Object, pods: tuple[Object, ...] = (), found_jobs: tuple[Object, ...] = ()) -> Seen:
    return Seen(workloads, [replica_set("old", "1"), replica_set("new", "2")], pods, found_jobs, frozenset())


@pytest.mark.parametrize(
    ("status", "progress", "said"),
    [
        ({}, Progress.DONE, ""),
        ({"observedGeneration": 2}, Progress.RUNNING, "has not begun"),
        ({"updatedReplicas": 1}, Progress.RUNNING, "1 of 2 pods are of the new version"),
        ({"replicas": 3}, Progress.RUNNING, "1 pods of the old version are still there"),
        ({"availableReplicas": 1}, Progress.RUNNING, "1 of 2 pods are ready"),
        (
            {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]},
            Progress.FAILED,
            "did not become ready in time: timed out",
        ),
    ],
)
def test_a_workload_is_done_when_nothing_old_is_left_and_all_is_ready(
    status: dict[str, Any], progress: Progress, said: str
) -> None:
    one = deployment(**status)
    found = running(one, seen(one), NOW)
    assert found.progress is progress
    assert said in found.reason
    assert (found.manifests, found.weight) == ("metering-1.1-bb", 100)


@pytest.mark.parametrize(
    ("reason", "restarts", "age_s", "progress"),
    [
        ("CrashLoopBackOff", 1, 60.0, Progress.RUNNING),
        ("CrashLoopBackOff", CRASHES, 60.0, Progress.FAILED),
        ("ImagePullBackOff", 0, 5.0, Progress.RUNNING),
        ("ImagePullBackOff", 0, 20.0, Progress.FAILED),
        ("InvalidImageName", 0, 0.0, Progress.FAILED),
        ("CreateContainerConfigError", 0, 30.0, Progress.RUNNING),
        ("CreateContainerConfigError", 0, 61.0, Progress.FAILED),
        ("ContainerCreating", 0, 500.0, Progress.RUNNING),
    ],
)
def test_what_may_pass_is_waited_for(reason: str, restarts: int, age_s: float, progress: Progress) -> None:
    one = deployment(availableReplicas=1)
    found = running(one, seen(one, pods=(pod("new", reason, restarts, age_s, "told so"),)), NOW)
    assert found.progress is progress
    if reason not in ("ContainerCreating",):
        assert reason in found.reason or f"ended {restarts} times, last with exit code 3" in found.reason


def test_the_trouble_of_an_old_pod_is_not_the_new_versions() -> None:
    one = deployment(availableReplicas=1)
    found = running(one, seen(one, pods=(pod("old", "ImagePullBackOff", age_s=999.0),)), NOW)
    assert found.progress is Progress.RUNNING


def test_a_stateful_set_knows_its_pods_by_their_revision() -> None:
    one = deployment(kind="StatefulSet", availableReplicas=1, updateRevision="new")
    found = running(one, seen(one, pods=(pod("new", "InvalidImageName"),)), NOW)
    assert found.progress is Progress.FAILED


@pytest.mark.parametrize(("age_s", "progress"), [(10.0, Progress.RUNNING), (90.0, Progress.FAILED)])
def test_a_pod_without_a_node_says_why(age_s: float, progress: Progress) -> None:
    one, waiting = deployment(availableReplicas=1), pod("new", age_s=age_s)
    waiting["status"] = {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}]}
    found = running(one, seen(one, pods=(waiting,)), NOW)
    assert found.progress is progress
    assert "finds no node: 0/3 nodes" in found.reason


def test_tracks_are_kept_apart_and_strangers_left_out() -> None:
    canary = deployment("metering-canary", track="canary")
    canary["metadata"]["annotations"]["provable.city/weight"] = "25"
    found = tracks(seen(deployment(), canary, deployment("stranger")), {}, NOW)
    assert found["stable"]["metering"].weight == 100
    assert found["canary"]["metering"].weight == 25
    assert set(found["stable"]) == {"metering"}


def test_a_refusal_is_a_failure_with_its_sentence() -> None:
    refused = {
        ("metering", "m2"): "no such data",
        ("payments-canary", "p2"): "no canary",
        ("notary", ""): "not removed",
    }
    found = tracks(seen(deployment()), refused, NOW, 25)
    assert found["canary"]["payments"].weight == 25, "else the plan would ask for it again and again"
    assert found["stable"]["metering"].manifests == "m2"
    assert found["stable"]["metering"].reason == "no such data"
    assert found["canary"]["payments"].progress is Progress.FAILED
    assert "notary" not in found["stable"]


@pytest.mark.parametrize(
    ("conditions", "progress"),
    [
        ([], Progress.RUNNING),
        ([{"type": "Complete", "status": "True"}], Progress.DONE),
        (
            [{"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"}],
            Progress.FAILED,
        ),
        ([{"type": "Failed", "status": "False"}], Progress.RUNNING),
    ],
)
def test_jobs(conditions: list[Object], progress: Progress) -> None:
    job: Object = {"metadata": {"name": "migrate-g1"}, "status": {"conditions": conditions}}
    found, reason = jobs(seen(found_jobs=(job,)), {}, NOW)["migrate-g1"]
    assert found is progress
    assert ("backoff limit; `kubectl logs job/migrate-g1`" in reason) == (progress is Progress.FAILED)


def test_a_job_whose_pod_cannot_start_has_failed() -> None:
    job: Object = {"metadata": {"name": "migrate-g1"}, "status": {}}
    stuck = pod("x", "InvalidImageName")
    stuck["metadata"]["labels"] = {"job-name": "migrate-g1"}
    assert jobs(seen(found_jobs=(job,), pods=(stuck,)), {}, NOW)["migrate-g1"][0] is Progress.FAILED
    assert jobs(seen(), {"contracts-g1": "refused"}, NOW) == {"contracts-g1": (Progress.FAILED, "refused")}


async def test_pods_are_read_only_while_something_is_not_done() -> None:
    api = FakeApi()
    labels = {"app.kubernetes.io/part-of": "provable-city", "provable.city/applied-by": "operator"}
    done = deployment()
    done["metadata"]["labels"] |= labels
    done["metadata"]["generation"] = 3
    api.put(done)
    api.put({"kind": "Pod", "metadata": {"name": "p", "labels": labels}})
    observer = Observer(api)
    assert not (await observer.look([], 0.0)).pods
    api.objects["Deployment", "metering"]["status"]["availableReplicas"] = 0
    assert len((await observer.look([], 0.0)).pods) == 1
    api.failing = Unavailable("away")
    with pytest.raises(Unavailable):
        await observer.look([], 0.0)


async def test_data_found_is_not_asked_for_again_at_once_and_data_that_went_is_noticed() -> None:
    api = FakeApi()
    api.put({"kind": "ConfigMap", "metadata": {"name": "m1"}, "data": {"contracts.yaml": "x"}})
    observer = Observer(api)
    first = await observer.look(["m1", "m2"], 0.0)
    assert first.config_maps == first.contracts == {"m1"}
    api.put({"kind": "ConfigMap", "metadata": {"name": "m2"}})
    del api.objects["ConfigMap", "m1"]
    assert (await observer.look(["m1", "m2"], 1.0)).config_maps == {"m1", "m2"}
    assert (await observer.look(["m1", "m2"], 20.0)).config_maps == {"m2"}


def test_data_of_the_way_there_and_of_the_way_back_is_looked_for() -> None:
    target = Target("metering", "1.1", "new")
    rollout = Rollout(
        "g1", 1, NOW, (ServiceSpec(Target("metering", "1.1", "goal")),), "1.1",
        prepare="p2", origin=(Target("metering", "1.0", "old"),), origin_prepare="p1",
    )  # fmt: skip
    spec = CitySpec("1.2", (ServiceSpec(target),), prepare="p3")
    found = wanted_config_maps(spec, State(rollout, last_good=(Target("notary", "1.0", "good"),)))
    assert found == {"new", "goal", "old", "good", "p1", "p2", "p3"}
