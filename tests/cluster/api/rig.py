"""A city in a namespace of the real API server: data as the chart renders it, made by hand, and the operator as the process it is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightkube.core.async_client import AsyncClient
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from citykit.errors import AlreadyExists, Conflict
from infra.native import free_port
from operators.city.kube import CITY, KubeApi, Object, open_api
from tests.cluster.api.programmable import Programmable, programmable

SERVICES = ("identity", "metering", "gateway")
DEPENDS: Mapping[str, list[str]] = {"metering": ["identity"], "gateway": ["metering"]}
WAIT_S = 180.0
"""A machine that does something besides is three times as slow as a quiet one."""
POLL_S = 0.1
_RUN = (sys.executable, "-m", "services", "operator")


@dataclass
class Operator:
    """One `city operator` process."""

    process: asyncio.subprocess.Process
    log: Path
    port: int

    def kill(self) -> None:
        """SIGKILL, as if the machine had gone."""
        if self.process.returncode is None:
            self.process.kill()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    @property
    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Rig:
    """One namespace with its city.

    Attributes:
        kubeconfig: of somebody who may do everything.
        operator_kubeconfig: what the operators get.
    """

    api: KubeApi
    folder: Path
    kubeconfig: Path
    knobs: Programmable
    operators: list[Operator] = field(default_factory=list)
    operator_kubeconfig: Path | None = None

    async def operator(
        self, identity: str = "pod-1", webhook: tuple[Path, int] | None = None, **environment: str
    ) -> Operator:
        """Starts one. The same identity is what a restart in the same pod has.

        Args:
            webhook: folder of its certificate, and its port; None: it serves none.
        """
        log, port = self.folder / f"operator-{len(self.operators)}.log", free_port()
        variables = {key: value for key, value in os.environ.items() if not key.startswith("CITY_")}
        variables |= {
            "KUBECONFIG": str(self.operator_kubeconfig or self.kubeconfig),
            **self.knobs.environment(),
            **environment,
        }
        variables |= {"CITY_OBSERVABILITY_PORT": str(port)}
        folder, webhook_port = webhook or (self.folder, 0)
        arguments = ["--namespace", self.api.namespace, "--identity", identity, "--webhook-port", str(webhook_port)]
        arguments += ["--certificates", str(folder)]
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *_RUN, *arguments, "--token", str(self.knobs.token_file), env=variables, stdout=file, stderr=file
            )
        started = Operator(process, log, port)
        self.operators.append(started)
        return started

    async def served(self, port: int, wait_s: float = WAIT_S) -> None:
        """Until something listens at the port."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"nothing listens at {port}\n{self.told()}")

    async def city(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, str]:
        """Runs the `city` command in our namespace; (exit code, what it said)."""
        variables = {**os.environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services", *arguments, "--namespace", self.api.namespace, env=variables,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return int(process.returncode or 0), said.decode()

    async def version(self, version: str, **options: Any) -> Object:
        """Writes the data of a version and returns the City's spec for it.

        Args:
            options: of `documents`, for the services in `only`; `canary`: its steps; `jobs`: whether there are any; more goes into the spec.
        """
        only = options.pop("only", SERVICES)
        canary, jobs = options.pop("canary", None), options.pop("jobs", False)
        names = options.pop("services", SERVICES)
        rendering = {key: options.pop(key) for key in ("broken", "kind", "replicas") if key in options}
        entries = []
        for name in names:
            chosen = rendering if name in only else {}
            config_map = await self.data(name, version, {"manifests.yaml": documents(name, version, **chosen)})
            entry: Object = {"name": name, "version": version, "manifests": config_map}
            entry |= {"dependsOn": [one for one in DEPENDS.get(name, []) if one in names]}
            if canary:
                entry["canary"] = {"steps": canary, "pauseSeconds": 1}
            entries.append(entry)
        spec: Object = {"version": version, "profile": "trial", "services": entries, **options}
        if jobs:
            keys = {f"{stage}.yaml": [job(stage)] for stage in ("preflight", "migrate")}
            spec["prepare"] = {"manifests": await self.data("prepare", version, keys)}
        return spec

    async def data(self, name: str, version: str, keys: Mapping[str, Sequence[Object]]) -> str:
        """A ConfigMap as the chart writes it; returns its name."""
        data = {key: yaml.safe_dump_all(found) for key, found in keys.items()}
        hashed = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]
        labels = {
            "app.kubernetes.io/part-of": "provable-city",
            "provable.city/service": name,
            "provable.city/version": version,
        }
        metadata = {
            "name": f"{name}-{version}-{hashed}",
            "labels": labels,
            "annotations": {"helm.sh/resource-policy": "keep"},
        }
        with contextlib.suppress(AlreadyExists):
            await self.api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        return str(metadata["name"])

    async def want(self, spec: Object, name: str = "city") -> None:
        """Creates the City or changes what it wants."""
        for _ in range(20):
            found = await self.api.get(CITY, name)
            with contextlib.suppress(Conflict, AlreadyExists):
                if found is None:
                    await self.api.create(
                        {"apiVersion": "provable.city/v1", "kind": CITY, "metadata": {"name": name}, "spec": spec}
                    )
                else:
                    await self.api.replace({**found, "spec": spec})
                return
        raise AssertionError("the City changes all the time")

    async def annotate(self, **values: str | None) -> None:
        notes = {f"provable.city/{key}": value for key, value in values.items()}
        await self.api.patch(CITY, "city", {"metadata": {"annotations": notes}})

    async def status(self, name: str = "city") -> Object:
        found = await self.api.get(CITY, name)
        return dict((found or {}).get("status") or {})

    async def until(self, what: Callable[[Object], bool], said: str, wait_s: float = WAIT_S) -> Object:
        """Polls the status until it is as wanted."""
        end, status = time.monotonic() + wait_s, await self.status()
        while not what(status):
            if time.monotonic() > end:
                raise AssertionError(f"not {said} within {wait_s:g} s: {json.dumps(status, indent=1)}\n{self.told()}")
            await asyncio.sleep(POLL_S)
            status = await self.status()
        return status

    async def running(self, version: str, wait_s: float = WAIT_S) -> Object:
        """Until the version is the last good one and nothing is under way."""

        def arrived(status: Object) -> bool:
            good = (status.get("lastGood") or {}).get("version")
            return good == version and not status.get("rollout") and status.get("phase") in ("Ready", "Idle")

        return await self.until(arrived, f"running {version}", wait_s)

    async def versions(self) -> dict[str, str]:
        """What the pods' templates say, by Deployment."""
        found = await self.api.list("Deployment")
        return {
            one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"]
            for one in found
        }

    def told(self) -> str:
        """The ends of the operators' logs."""
        return "\n".join(
            one.log.read_text(encoding="utf-8")[-4_000:] for one in self.operators[-2:] if one.log.exists()
        )


@contextlib.asynccontextmanager
async def rigged(
    folder: Path, kubeconfig: Path, namespace: str, services: tuple[str, ...] = SERVICES
) -> AsyncIterator[Rig]:
    """A rig; at its end every operator it started is gone.

    Args:
        services: whose invariants can be asked for.
    """
    os.environ["KUBECONFIG"] = str(kubeconfig)
    await _make_namespace(namespace)
    api = open_api(namespace)
    async with programmable(folder, services) as knobs:
        rig = Rig(api, folder, kubeconfig, knobs)
        try:
            yield rig
        finally:
            for one in rig.operators:
                one.kill()
            await asyncio.gather(*(one.process.wait() for one in rig.operators))
            await api.close()


async def _make_namespace(name: str) -> None:
    client = AsyncClient()
    try:
        await client.create(Namespace(metadata=ObjectMeta(name=name)))
    finally:
        await client.close()


def documents(
    service: str, version: str, *, broken: bool = False, kind: str = "Deployment", replicas: int = 2
) -> list[Object]:
    """What the chart renders for a service, shortened. `broken`: its pods find no node, and the Deployment says so after 3 s."""
    labels = {
        "app.kubernetes.io/name": service,
        "app.kubernetes.io/part-of": "provable-city",
        "app.kubernetes.io/version": version,
        "provable.city/track": "stable",
    }
    selector = {"app.kubernetes.io/name": service, "provable.city/track": "stable"}
    pod: Object = {
        "containers": [{"name": service, "image": f"localhost/provable-city:{version}"}],
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
    }
    if broken:
        pod["nodeSelector"] = {"no-such": "node"}
    spec: Object = {
        "replicas": replicas,
        "selector": {"matchLabels": selector},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    spec |= {"progressDeadlineSeconds": 3} if kind == "Deployment" else {"serviceName": service}
    ports = [{"name": "grpc", "port": 50051}]
    headless = {"clusterIP": "None", "selector": {"app.kubernetes.io/name": service}, "ports": ports}
    return [
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": service, "labels": labels}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": service, "labels": labels}, "spec": headless},
    ]


def job(stage: str) -> Object:
    """A Job that a pretended node completes at once."""
    labels = {"app.kubernetes.io/part-of": "provable-city", "app.kubernetes.io/name": stage}
    pod = {
        "restartPolicy": "Never",
        "containers": [{"name": stage, "image": "localhost/provable-city:1"}],
        "tolerations": [{"operator": "Exists"}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": stage, "labels": labels},
        "spec": {"template": template, "backoffLimit": 0},
    }


def gates(prometheus: str, query: str = "errors_total", **analysis: Any) -> Object:
    """One analysis that wants at most 0.01 and fails above 0.1."""
    found = {
        "name": "errors",
        "query": query,
        "successCondition": "result <= 0.01",
        "failureCondition": "result > 0.1",
        "intervalSeconds": 1,
        "count": 2,
        "deadlineSeconds": 20,
        **analysis,
    }
    return {"prometheus": {"url": prometheus}, "analyses": [found], "invariants": {"enabled": True}}
