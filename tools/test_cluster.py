"""`make test-cluster`: the chart and the operator on a real API server; `--node`, which is `make test-node`: on real pods.

`python -m tools.test_cluster [--node] [PYTEST ARGUMENTS]`. Installs what is missing, says how long the builds took, runs the tests; a table at the
end says what ran and what did not, and why. Exit codes: pytest's; 3 where the machine lacks something.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.kubernetes import packages, tools
from infra.kubernetes.install import API_TIER, NODE_TIER, install
from infra.native import cache_folder
from tools.project import ROOT

BUILD_LIMIT_S = 900
"""From an empty cache, on two cores in CI. Told, not judged."""
_API = ("tests/cluster/render", "tests/cluster/api")
_NODE = ("tests/cluster/node",)
_NODE_WORD = "--node"
_ENVIRONMENT = 3


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    on_node = _NODE_WORD in arguments
    words = [word for word in arguments if word != _NODE_WORD]
    try:
        prepare(on_node)
    except EnvironmentFault as fault:
        print(f"{_name(on_node)}: {fault.message}", file=sys.stderr)
        return _ENVIRONMENT
    chosen = words or [
        *(folder for folder in (_NODE if on_node else _API) if (ROOT / folder).is_dir()),
        "--durations=15",
    ]
    # one process: two would start two clusters
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *chosen]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 - our own words
    print(f"{_name(on_node)}: {time.monotonic() - began:.0f} s")
    return code


def prepare(on_node: bool) -> None:
    """Installs programs, and packages for the node tier.

    Raises:
        EnvironmentFault: something cannot be had, or this machine can have no node.
    """
    if on_node and packages.missing_packages():
        print(f"installing {', '.join(packages.install())}", flush=True)
    if on_node and (reason := packages.refusal()):
        raise EnvironmentFault(f"not run: {reason}")
    build(cache_folder(), on_node)


def build(cache: Path, on_node: bool) -> None:
    """Builds what the tier needs and says how long it took."""
    tools.install(cache)
    began = time.monotonic()
    took = install(cache, [*API_TIER, *(NODE_TIER if on_node else ())], _say)
    each = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()) or "nothing, all was in the cache"
    print(f"built: {each}; {time.monotonic() - began:.0f} s (budget of a cold build {BUILD_LIMIT_S} s)", flush=True)
    if time.monotonic() - began > BUILD_LIMIT_S:
        print("the build took longer than its budget: cache the folder that it is kept in", file=sys.stderr)


def _name(on_node: bool) -> str:
    return "make test-node" if on_node else "make test-cluster"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
