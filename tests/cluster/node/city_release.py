"""A city in real pods as the stories of this folder know it: its images, its release, and what they ask of it."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.kubernetes.asking import until
from infra.kubernetes.node import Node
from services.registry import SERVICES
from tests.cluster.conftest import Tool
from tools.project import ROOT

HOMES = 5
FIRST, NEXT, BROKEN = "0.1.0", "0.2.0", "0.3.0"
"""Two builds of this checkout under two versions: there is no earlier release yet. Of the third there is no image."""
WAIT_S = 600.0
_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)")


@dataclass
class City:
    """The release, and the ways into it.

    Attributes:
        kubectl, helm: in its namespace.
        values: a file with what every `upgrade` sets.
    """

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
        ]
        self.helm("upgrade", "--install", "city", str(ROOT / "helm/city"), "--timeout", "5m", *words, *more)

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

    def images(self) -> set[str]:
        """Of the services, as their Deployments say."""
        return {
            container["image"]
            for one in self.kubectl.read("get", "deployments")["items"]
            if one["metadata"]["name"] in SERVICES
            for container in one["spec"]["template"]["spec"]["containers"]
        }

    def load(self, name: str, for_s: float) -> None:
        """Begins a Job that is a resident and some meters for a while; `loaded` tells what it found."""
        self.job(
            name,
            ["trial", "load", "--url", "http://gateway:8080", "--for", f"{for_s:.0f}s", "--homes", str(HOMES), "--state", "/var/lib/city"],
        )  # fmt: skip

    def job(self, name: str, args: Sequence[str]) -> None:
        """Another Job like the trial's, with other arguments."""
        made = copy.deepcopy(self._trial())
        pod = made["spec"]["template"]
        labels = {
            key: value for key, value in pod["metadata"]["labels"].items() if key.startswith("app.kubernetes.io/")
        }
        pod["metadata"] = {"labels": labels}
        pod["spec"]["containers"][0]["args"] = list(args)
        spec = {"backoffLimit": 0, "template": pod}
        self.kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})

    def set_up(self) -> str:
        """What the trial's Job printed at its end."""
        return self.ended(self._trial()["metadata"]["name"])

    def _trial(self) -> dict[str, Any]:
        """The Job of this revision."""
        jobs: list[dict[str, Any]] = self.kubectl.read("get", "jobs")["items"]
        return next(one for one in jobs if one["metadata"]["name"].startswith("trial-"))

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

    def keep_secret(self, name: str, key: str, file: Path) -> Path:
        """Writes one value of a secret down."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.kubectl.read("get", "secret", name)["data"][key]))
        return file

    def back_up(self, target: Path, keys: Path) -> None:
        """As docs/OPERATIONS.md says it, from outside of the cluster.

        Args:
            keys: a folder that gets the administrator's password.
        """
        password = self.keep_secret("postgres-admin", "password", keys / "postgres")
        root = self.keep_secret("admin-tls", "ca.crt", keys / "ca.crt")
        with forwarded(self.kubectl, "pod/postgres-0", [5432]) as ports:
            named = {
                "HOST": "postgres",
                "PORT": str(ports[5432]),
                "PASSWORD_FILE": str(password),
                "TLS_ROOT": str(root),
            }
            settings = {f"CITY_POSTGRES_{name}": value for name, value in named.items()}
            done = subprocess.run(
                [sys.executable, "-m", "services", "db", "backup", str(target)],
                cwd=ROOT, env={**os.environ, **settings, "PGHOSTADDR": "127.0.0.1"}, capture_output=True, text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def check_a_bill(self, folder: Path) -> str:
        """As a resident does, from outside of the cluster; what the verifier printed."""
        key = self.keep_secret("city-root-key", "root", folder / "root")
        port = self.node.forward_service(self.kubectl.namespace, "gateway", 8080)
        argv = [
            sys.executable, "-m", "services", "trial", "check", "--url", f"http://127.0.0.1:{port}", "--root-key-file", str(key),
            "--out", str(folder / "out"),
        ]  # fmt: skip
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def a_city(node: Node, kubectl: Tool, helm: Tool, namespace: str, values: Mapping[str, Any], folder: Path) -> City:
    """A city that may be installed: its namespace under the restricted policy, the definition of cities, its values.

    Args:
        values: all that are not the trial profile's.
    """
    file = folder / f"{namespace}.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    restricted_namespace(kubectl, namespace)
    helm("upgrade", "--install", "city-crds", str(ROOT / "helm/city-crds"))
    return City(node, kubectl.within(namespace), helm.within(namespace), file)


def restricted_namespace(kubectl: Tool, name: str) -> None:
    """A namespace that takes pods under the restricted policy only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def trial_values(node: Node, out: Path) -> dict[str, Any]:
    """Builds the images of both versions, gives them to the node, and returns the values that name them."""
    built = [*_built(out, FIRST, "city", "forecasting", "kafka", "postgres"), *_built(out, NEXT, "city", "forecasting")]
    node.add_images([Path(one["archive"]) for one in built])
    kafka, postgres = (
        next(one["reference"] for one in built if f"/{name}:" in one["reference"]) for name in ("kafka", "postgres")
    )
    return {
        "image": {"registry": "localhost", "pullPolicy": "Never"},
        "kafka": {"image": {"repository": "kafka", "tag": kafka.rpartition(":")[2]}},
        "postgres": {"image": {"repository": "postgres", "tag": postgres.rpartition(":")[2]}},
        "operator": {"enabled": True},
        "trial": {"homes": HOMES},
    }


def _built(out: Path, version: str, *names: str) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "infra.image", "build", "--json", "--out", str(out), "--version", version, *names]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def forwarded(kubectl: Tool, target: str, ports: Sequence[int]) -> Iterator[dict[int, int]]:
    """Ports of loopback that lead into a pod, to its own loopback too."""
    argv = [
        str(kubectl.path), "--kubeconfig", str(kubectl.kubeconfig), "--namespace", kubectl.namespace, "port-forward", target,
        "--address", "127.0.0.1", *(f":{port}" for port in ports),
    ]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            found: dict[int, int] = {}
            for line in process.stdout:
                said = _FORWARDED.match(line)
                assert said, f"{target}: {line}"
                found[int(said[2])] = int(said[1])
                if len(found) == len(ports):
                    break
            assert len(found) == len(ports), f"no way to {target}"
            yield found
        finally:
            process.terminate()
