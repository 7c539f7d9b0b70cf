"""A city in real pods, rolled out by its operator: it comes up, a bill is checked from outside, an upgrade under load loses nothing, a broken one
goes back, pods are killed, and at the end nothing is left. One story, told in order: each test goes on where the one before ended.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.helm.flows import read_flows
from infra.kubernetes.asking import until
from infra.kubernetes.node import Node
from services.registry import SERVICES
from tests.cluster.conftest import Tool
from tools.project import ROOT

NAMESPACE, HOMES = "city", 5
FIRST, NEXT, BROKEN = "0.1.0", "0.2.0", "0.3.0"
"""Two builds of this checkout under two versions: there is no earlier release yet. Of the third there is no image."""
WAIT_S = 600.0
KILLS_S = float(os.environ.get("NODE_KILLS_S", "600"))
"""How long pods are killed, one each ten seconds; fewer while it is worked on."""
_MEMORY_MB = 3_072
_GONE_S = 120.0
"""Pods take their time to end."""
pytestmark = pytest.mark.timeout(2_400)


@dataclass
class City:
    """The release, and the ways into it."""

    node: Node
    kubectl: Tool
    helm: Tool
    values: Path

    def upgrade(self, version: str, *more: str) -> None:
        """Helm's part; the operator does the rest."""
        words = [
            "-f",
            str(ROOT / "helm/city/profiles/trial.yaml"),
            "-f",
            str(self.values),
            "--set",
            f"version={version}",
            *more,
        ]
        self.helm("upgrade", "--install", "city", str(ROOT / "helm/city"), "--timeout", "5m", *words)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.read("get", "city", "city").get("status") or {}
        return found

    def reaches(self, phase: str, version: str) -> dict[str, Any]:
        """Waits until the City says so."""

        def there() -> bool:
            said = self.status()
            return said.get("phase") == phase and (said.get("lastGood") or {}).get("version") == version

        try:
            until(there, f"the city does not become {phase} with {version}", WAIT_S)
        except Exception as error:
            pods = self.kubectl("get", "pods")
            raise AssertionError(f"{error}\n{json.dumps(self.status(), indent=1)[:3_000]}\n{pods}") from error
        return self.status()

    def job(self, name: str, args: Sequence[str]) -> None:
        """Another Job like the trial's, with other arguments."""
        made = copy.deepcopy(
            next(one for one in self.kubectl.read("get", "jobs")["items"] if "trial" in one["metadata"]["name"])
        )
        pod = made["spec"]["template"]
        labels = {
            key: value for key, value in pod["metadata"]["labels"].items() if key.startswith("app.kubernetes.io/")
        }
        pod["metadata"] = {"labels": labels}
        pod["spec"]["containers"][0]["args"] = list(args)
        spec = {"backoffLimit": 0, "template": pod}
        self.kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})

    def ended(self, name: str) -> str:
        """What a Job's pod printed at its end."""

        def done() -> bool:
            conditions = self.kubectl.read("get", "job", name)["status"].get("conditions") or []
            return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)

        until(done, f"the Job {name} does not end", WAIT_S)
        return self.kubectl("logs", f"job/{name}")

    def loaded(self, name: str) -> dict[str, Any]:
        """What the load found."""
        found: dict[str, Any] = json.loads(self.ended(name).strip().splitlines()[-1])
        print(name, found)
        return found


@pytest.fixture(scope="module")
def city(node: Node, kubectl: Tool, helm: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    out = tmp_path_factory.mktemp("images")
    built = [*_built(out, FIRST, "city", "forecasting", "kafka", "postgres"), *_built(out, NEXT, "city", "forecasting")]
    node.add_images([Path(one["archive"]) for one in built])
    kafka, postgres = (
        next(one["reference"] for one in built if f"/{name}:" in one["reference"]) for name in ("kafka", "postgres")
    )
    values = {
        "image": {"registry": "localhost", "pullPolicy": "Never"},
        "kafka": {"image": {"repository": "kafka", "tag": kafka.rpartition(":")[2]}},
        "postgres": {"image": {"repository": "postgres", "tag": postgres.rpartition(":")[2]}},
        "operator": {"enabled": True},
        "trial": {"homes": HOMES},
    }
    file = out / "values.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    helm("install", "city-crds", str(ROOT / "helm/city-crds"))
    yield City(node, kubectl.within(NAMESPACE), helm.within(NAMESPACE), file)


def _built(out: Path, version: str, *names: str) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "infra.image", "build", "--json", "--out", str(out), "--version", version, *names]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_trial_comes_up(city: City) -> None:
    began = time.monotonic()
    city.upgrade(FIRST)
    said = city.reaches("Ready", FIRST)
    print(f"from `helm install` to all ready: {time.monotonic() - began:.0f} s")
    assert {one["name"] for one in said["services"]} == set(SERVICES)
    assert "bills for" in city.ended("trial-1")
    city.helm("test", "city", "--timeout", "3m")


def test_a_bill_is_checked_from_outside(city: City, tmp_path: Path) -> None:
    secret = city.kubectl.read("get", "secret", "city-root-key")["data"]["root"]
    key = tmp_path / "root"
    key.write_bytes(base64.b64decode(secret))
    port = city.node.forward_service(NAMESPACE, "gateway", 8080)
    argv = [
        sys.executable, "-m", "services", "trial", "check", "--url", f"http://127.0.0.1:{port}", "--root-key-file", str(key),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "everything holds" in done.stdout, done.stdout + done.stderr


def test_every_flow_of_the_table_connects_and_no_other(city: City) -> None:
    """Asked from inside each pod that has an interpreter: TCP to each other pod, on every port of the table and two that nobody serves."""
    pods = {one["metadata"]["labels"]["app.kubernetes.io/name"]: one for one in _running(city)}
    flows = [one for one in read_flows() if one.source in pods and one.target in pods and one.protocol == "TCP"]
    wanted = {(one.source, one.target, one.port) for one in flows if not one.implicit}
    ports = sorted({port for _, _, port in wanted} | {9464, 22, 8443})
    city.node.firewall.apply()
    found: dict[tuple[str, str, int], str] = {}
    for source, one in pods.items():
        targets = [[name, pod["status"]["podIP"]] for name, pod in pods.items() if name != source]
        said = city.kubectl(
            "exec", one["metadata"]["name"], "-c", one["spec"]["containers"][0]["name"], "--",
            "/usr/bin/python3.11", "-I", "-c", _CONNECT, json.dumps(targets), json.dumps(ports),
        )  # fmt: skip
        found |= {(source, name, port): how for name, port, how in json.loads(said)}
    let_in = {pair for pair, how in found.items() if how in ("connects", "closed")}
    allowed = {pair for pair in wanted if pair[0] != pair[1]}
    print(f"{len(found)} pairs of pods and ports asked: {len(let_in)} let through, {len(found) - len(let_in)} refused")
    assert let_in == allowed
    assert {pair for pair in allowed if found[pair] == "closed"} == set(), "allowed, and nobody serves there"


_CONNECT = """
import errno, json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def tried(pair):
    (name, address), port = pair
    try:
        socket.create_connection((address, port), 3).close()
        how = "connects"
    except OSError as error:
        how = "closed" if error.errno == errno.ECONNREFUSED else "refused"
    return name, port, how

pairs = [(target, port) for target in json.loads(sys.argv[1]) for port in json.loads(sys.argv[2])]
with ThreadPoolExecutor(64) as pool:  # of many refusals some are silent, and each of those takes its three seconds
    print(json.dumps(list(pool.map(tried, pairs))))
"""


def _running(city: City) -> list[dict[str, Any]]:
    pods: list[dict[str, Any]] = city.kubectl.read("get", "pods", "--field-selector=status.phase=Running")["items"]
    return [one for one in pods if "app.kubernetes.io/name" in one["metadata"].get("labels", {})]


def test_it_rests_in_three_gigabytes(city: City) -> None:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    of_pods = sum(_resident_mb(pid) for pid in pids if _in_a_pod(pid))
    print(f"resident memory of all pods: {of_pods:.0f} MB")
    assert 500 < of_pods < _MEMORY_MB


def _in_a_pod(pid: int) -> bool:
    try:
        return "kubepods" in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return False


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_048_576


def test_an_upgrade_under_load_loses_nothing(city: City) -> None:
    city.job(
        "load-upgrade",
        [
            "trial",
            "load",
            "--url",
            "http://gateway:8080",
            "--for",
            "150s",
            "--homes",
            str(HOMES),
            "--state",
            "/var/lib/city",
        ],
    )
    city.upgrade(NEXT)
    city.reaches("Ready", NEXT)
    found = city.loaded("load-upgrade")
    assert found["packages"] > 100 and found["operations"] > 50
    assert (found["lost"], found["refused"]) == ([], {})
    assert found["failed"] == 0, found["failures"]


def test_a_broken_version_goes_back_by_itself(city: City) -> None:
    every = (
        "serviceDefaults.preStopSeconds=4"  # all services get other manifests, so those before metering are promoted
    )
    city.upgrade(NEXT, "--set", f"services.metering.version={BROKEN}", "--set", every)
    said = city.reaches("RolledBack", NEXT)
    assert "metering" in said["message"], said
    wanted = {f"localhost/{name}:{NEXT}" for name in ("provable-city", "provable-city-forecasting")}
    running = {
        container["image"]
        for one in city.kubectl.read("get", "deployments")["items"]
        if one["metadata"]["name"] in SERVICES
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert running == wanted
    city.helm("test", "city", "--timeout", "3m")


def test_killed_pods_lose_nothing(city: City) -> None:
    city.upgrade(NEXT)
    city.reaches("Ready", NEXT)
    for_s = f"{KILLS_S + 60:.0f}s"
    city.job(
        "load-kills",
        [
            "trial",
            "load",
            "--url",
            "http://gateway:8080",
            "--for",
            for_s,
            "--homes",
            str(HOMES),
            "--state",
            "/var/lib/city",
        ],
    )
    ends = time.monotonic() + KILLS_S
    names = itertools.cycle([*SERVICES, "ledger", "kafka", "postgres"])
    while time.monotonic() < ends:
        city.kubectl(
            "delete",
            "pod",
            "--selector",
            f"app.kubernetes.io/name={next(names)}",
            "--grace-period=0",
            "--force",
            "--wait=false",
        )
        time.sleep(10)
    found = city.loaded("load-kills")
    assert found["packages"] > 100
    assert found["operations"] - found["failed"] > 50, "a resident got through in between"
    assert (found["lost"], found["refused"]) == ([], {})
    city.reaches("Ready", NEXT)


def test_uninstalled_it_leaves_volumes_and_secrets_only(city: City) -> None:
    of_the_story = ("load-upgrade", "load-kills")
    city.kubectl("delete", "jobs", *of_the_story, "--ignore-not-found")
    city.helm("uninstall", "city", "--timeout", "5m")
    kinds = "all,configmaps,cities,networkpolicies,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
    of_kubernetes = {"configmap/kube-root-ca.crt", "serviceaccount/default"}

    def left() -> set[str]:
        return set(city.kubectl("get", kinds, "--output=name").split()) - of_kubernetes

    end = time.monotonic() + _GONE_S
    while (found := left()) and time.monotonic() < end:
        time.sleep(1)
    assert found == set()
    kept = city.kubectl.read("get", "pvc,secrets")["items"]
    assert {one["kind"] for one in kept} == {"PersistentVolumeClaim", "Secret"}
