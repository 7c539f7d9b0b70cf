"""One control plane for the whole run, with the programs that talk to it; a table at the end says what ran and what did not, and why.

`cluster` is `infra.kubernetes.control_plane.Cluster`. Under xdist each worker has its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from citykit.errors import EnvironmentFault
from infra.kubernetes import crds as definitions
from infra.kubernetes import tools
from infra.kubernetes.control_plane import Cluster, control_plane
from infra.kubernetes.install import API_TIER, program
from infra.native import cache_folder

_COMMAND_S = 300.0
_ESTABLISHED_S = 60.0
_POLL_S = 0.2
_SAID = {"passed": "passed", "failed": "FAILED", "error": "FAILED", "skipped": "not run"}


@dataclass(frozen=True)
class Tool:
    """kubectl or Helm on one cluster.

    Attributes:
        namespace: where it acts unless it is told otherwise; empty: `default`.
    """

    path: Path
    kubeconfig: Path
    home: Path
    namespace: str = ""

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        """What it prints. Fails the test with what it said where it fails."""
        done = self.tried(*words, stdin=stdin)
        assert done.returncode == 0, (
            f"{self.path.name} {' '.join(words)}: {done.stderr.strip()}\n{done.stdout[-2_000:]}"
        )
        return done.stdout

    def tried(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Its exit code and all it said."""
        where = ["--namespace", self.namespace] if self.namespace else []
        argv = [str(self.path), "--kubeconfig", str(self.kubeconfig), *where, *words]
        environment = {**os.environ, "HOME": str(self.home)}
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "KUBECONFIG"):
            environment.pop(name, None)
        return subprocess.run(
            argv, input=stdin, env=environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )

    def read(self, *words: str) -> Any:
        """What it prints, as JSON: `kubectl.read("get", "pods")`."""
        return json.loads(self(*words, "--output", "json"))

    def apply(self, *documents: dict[str, Any]) -> str:
        """Applies objects, server-side."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        return self("apply", "--server-side", "--filename", "-", stdin=json.dumps(listed))

    def within(self, namespace: str) -> Tool:
        """The same in another namespace."""
        return Tool(self.path, self.kubeconfig, self.home, namespace)

    def as_user(self, kubeconfig: Path) -> Tool:
        """The same with the rights of another: `kubectl.as_user(cluster.kubeconfig_for("ada"))`."""
        return Tool(self.path, kubeconfig, self.home, self.namespace)


@dataclass
class Definitions:
    """The resource definitions of others: their files, and on the cluster once they are asked for."""

    kubectl: Tool
    _installed: set[str] = field(default_factory=set)

    def files(self, name: str) -> list[Path]:
        """One of `infra.kubernetes.crds.NAMES`; the test is not run where they cannot be had."""
        try:
            return definitions.files(cache_folder(), name)
        except EnvironmentFault as fault:
            pytest.skip(fault.message)

    def install(self, *names: str) -> None:
        """Returns once the API server serves them."""
        for name in names:
            if name not in self._installed:
                self._apply(self.files(name))
                self._installed.add(name)

    def _apply(self, paths: Sequence[Path]) -> None:
        self.kubectl("apply", "--server-side", *(f"--filename={path}" for path in paths))
        await_established(self.kubectl, *(path.stem for path in paths))


def await_established(kubectl: Tool, *names: str) -> None:
    """Returns once the API server serves these definitions. `kubectl wait` fails on one so new that it has no conditions yet."""
    end = time.monotonic() + _ESTABLISHED_S
    while left := [name for name in names if not _established(kubectl.read("get", "crd", name))]:
        assert time.monotonic() < end, f"not served within {_ESTABLISHED_S:.0f} s: {', '.join(left)}"
        time.sleep(_POLL_S)


def _established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """etcd, API server, controllers, scheduler and three pretended nodes."""
    cache = cache_folder()
    try:
        for binary in API_TIER:
            program(cache, binary.name)
    except EnvironmentFault as fault:
        pytest.skip(fault.message)
    with control_plane(tmp_path_factory.mktemp("cluster"), cache) as started:
        yield started


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Tool:
    """kubectl as the administrator: `kubectl("get", "pods", "-n", namespace)` returns what it prints."""
    return _tool("kubectl", cluster)


@pytest.fixture(scope="session")
def helm(cluster: Cluster) -> Tool:
    """Helm as the administrator: `helm("install", "city", str(chart), "-n", namespace)`."""
    return _tool("helm", cluster)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace; its end is asked for afterwards, not waited for."""
    name = cluster.namespace()
    yield name
    cluster.delete_namespace(name)


@pytest.fixture
def namespaces(cluster: Cluster) -> Iterator[Callable[[], str]]:
    """Makes further namespaces."""
    made: list[str] = []

    def make() -> str:
        made.append(cluster.namespace())
        return made[-1]

    yield make
    for name in made:
        cluster.delete_namespace(name)


@pytest.fixture(scope="session")
def crds(kubectl: Tool) -> Definitions:
    """`crds.install("cert-manager")`, `crds.files("gateway-api")`."""
    return Definitions(kubectl)


def _tool(name: str, cluster: Cluster) -> Tool:
    tools.install(cache_folder())
    home = cluster.folder / "home"
    home.mkdir(exist_ok=True)
    return Tool(tools.tool(cache_folder(), name), cluster.kubeconfig, home)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A row for each file. Nothing is skipped in silence."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, set[str]] = defaultdict(set)
    seconds: dict[str, float] = defaultdict(float)
    for kind, said in _SAID.items():
        for report in terminalreporter.stats.get(kind, ()):
            row = _row(report.nodeid)
            rows[row][said] += 1
            if said == "not run":
                reasons[str(report.longrepr[-1])].add(row)
    for report in (one for reports in terminalreporter.stats.values() for one in reports):
        seconds[_row(getattr(report, "nodeid", ""))] += getattr(report, "duration", 0.0)
    terminalreporter.section("what ran on Kubernetes")
    for row in sorted(rows):
        counts = ", ".join(f"{count} {said}" for said, count in sorted(rows[row].items()))
        terminalreporter.write_line(f"{row:48} {seconds[row]:6.0f} s  {counts}")
    for reason, concerned in sorted(reasons.items()):
        terminalreporter.write_line(f"not run: {', '.join(sorted(concerned))}: {reason.removeprefix('Skipped: ')}")


def _row(nodeid: str) -> str:
    return nodeid.removeprefix("tests/cluster/").partition("::")[0]
