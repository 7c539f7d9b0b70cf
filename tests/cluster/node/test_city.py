"""A city in real pods, rolled out by its operator: it comes up, a bill is checked from outside, an upgrade under load loses nothing, a broken one
goes back, pods are killed, and at the end nothing is left. One story, told in order: each test goes on where the one before ended.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from infra.helm.flows import read_flows
from infra.kubernetes.node import Node
from infra.native import Native, cache_folder, free_port
from infra.postgres import Admin, install, programs
from services.__main__ import main
from services.registry import SERVICES
from tests.cluster.conftest import Tool
from tests.cluster.node.city_release import BROKEN, FIRST, HOMES, NEXT, City, a_city

KILLS_S = float(os.environ.get("NODE_KILLS_S", "600"))
"""How long pods are killed, one each ten seconds; fewer while it is worked on."""
_MEMORY_MB = 3_072
_GONE_S = 120.0
"""Pods take their time to end."""
pytestmark = pytest.mark.timeout(2_400)


@pytest.fixture(scope="module")
def city(
    node: Node, kubectl: Tool, helm: Tool, values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> City:
    return a_city(node, kubectl, helm, "city", values, tmp_path_factory.mktemp("city"))


def test_the_trial_comes_up(city: City) -> None:
    began = time.monotonic()
    city.upgrade(FIRST)
    said = city.reaches("Ready", FIRST)
    print(f"from `helm install` to all ready: {time.monotonic() - began:.0f} s")
    assert {one["name"] for one in said["services"]} == set(SERVICES)
    assert "bills for" in city.set_up()
    city.helm("test", "city", "--timeout", "3m")


def test_a_bill_is_checked_from_outside(city: City, tmp_path: Path) -> None:
    assert "everything holds" in city.check_a_bill(tmp_path)


def test_what_is_due_is_renewed_by_schedule(city: City) -> None:
    """A certificate that lacks a key is due, as an old one is."""
    lacking = {"op": "remove", "path": "/data/ca.crt"}
    city.kubectl("patch", "secret", "demo-tls", "--type=json", f"--patch={json.dumps([lacking])}")
    city.kubectl("create", "job", "renewed-now", "--from=cronjob/renewal")
    assert "1 secrets written" in city.ended("renewed-now")
    assert city.kubectl.read("get", "secret", "demo-tls")["data"]["ca.crt"]


def test_a_backup_from_outside_comes_back(city: City, tmp_path: Path) -> None:
    """Restored beside the cluster: every bill of before is in it."""
    city.back_up(tmp_path / "monday", tmp_path / "passwords")
    assert main(["db", "restore", str(tmp_path / "monday"), "--data", str(tmp_path / "data")]) == 0
    port = free_port()
    install(cache_folder())
    [program] = programs(cache_folder(), tmp_path, port, services=SERVICES[:1])
    native = Native(program, tmp_path)
    native.start()
    try:
        native.wait()
        with Admin(port, tmp_path / "passwords").connect() as connection:
            found = connection.execute("SELECT count(DISTINCT contract), count(*) FROM metering.bills").fetchone()
    finally:
        native.stop()
    assert found is not None
    assert found[0] == HOMES
    assert found[1] >= HOMES


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
    city.load("load-upgrade", 150)
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
    assert city.images() == wanted
    city.helm("test", "city", "--timeout", "3m")


def test_killed_pods_lose_nothing(city: City) -> None:
    city.upgrade(NEXT)
    city.reaches("Ready", NEXT)
    city.load("load-kills", KILLS_S + 60)
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
    of_the_story = ("renewed-now", "load-upgrade", "load-kills")
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
