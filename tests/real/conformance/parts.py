"""The official parts and our small programs on them, built into the cache: npm packages by the lock, Go modules by go.sum. Used by the matrix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault
from infra.native import Program, cache_folder, listens

HERE = Path(__file__).parent
NODE_MINIMUM = 20
_BUILD_S = 900


@dataclass(frozen=True)
class Parts:
    """How each program is started; its settings file is added."""

    clients: dict[str, list[str]]
    chaincodes: dict[str, list[str]]
    node_path: Path

    def environment(self) -> dict[str, str]:
        return {"NODE_PATH": str(self.node_path), "CORE_CHAINCODE_LOGGING_LEVEL": "error"}

    def chaincode(self, language: str, settings: Path, port: int) -> Program:
        """The scenario chaincode in a language, as a program."""
        argv = [*self.chaincodes[language], str(settings)]
        return Program(settings.stem, argv, lambda: listens(port), env=self.environment(), ready_s=60.0)


def install() -> Parts:
    """Installs and builds what is missing.

    Raises:
        EnvironmentFault: no Node of version 20, no npm, no Go; or the registry does not answer.
    """
    folder = cache_folder() / "conformance"
    modules = _node_modules(folder)
    built = _go_programs(folder)
    node = _required("node", f"Node {NODE_MINIMUM}")
    return Parts(
        {"node": [node, str(HERE / "node" / "client.js")], "go": [str(built / "client")]},
        {"node": [node, str(HERE / "node" / "chaincode.js")], "go": [str(built / "chaincode")]},
        modules,
    )


def versions() -> dict[str, str]:
    """What the official parts are, as locked."""
    locked: dict[str, Any] = json.loads((HERE / "node" / "package-lock.json").read_text())["packages"]
    found = {
        f"npm {n}": str(locked[f"node_modules/{n}"]["version"]) for n in ("@hyperledger/fabric-gateway", "fabric-shim")
    }
    for line in (HERE / "go" / "go.mod").read_text().splitlines():
        words = line.split()
        if len(words) >= 2 and ("fabric-gateway" in words[0] or "fabric-chaincode-go" in words[0]):
            found[f"go {words[0].split('/', 2)[2]}"] = words[1]
    return found


def _node_modules(folder: Path) -> Path:
    """The packages of the lock, in a folder named by its hash."""
    lock = HERE / "node" / "package-lock.json"
    target = folder / f"node-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not (target / "done").exists():
        npm = _required("npm", "npm")
        _check_node()
        target.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / name, target / name)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], target)
        (target / "done").touch()
    return target / "node_modules"


def _go_programs(folder: Path) -> Path:
    """The Go programs; Go itself builds nothing that did not change."""
    go = _required("go", "Go 1.25")
    target = folder / "go"
    target.mkdir(parents=True, exist_ok=True)
    _run([go, "build", "-mod=readonly", "-o", f"{target}/", "./..."], HERE / "go")
    return target


def _check_node() -> None:
    said = subprocess.run([_required("node", "Node"), "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.strip().lstrip("v").partition(".")[0]) < NODE_MINIMUM:
        raise EnvironmentFault(f"Node {NODE_MINIMUM} or newer is needed, the PATH has {said.strip()}")


def _required(name: str, what: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise EnvironmentFault(f"{what} is needed for the official parts, and no {name} is on the PATH; install it")
    return found


def _run(argv: list[str], folder: Path) -> None:
    done = subprocess.run(
        argv,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
        env={**os.environ, "GOFLAGS": ""},
    )
    if done.returncode != 0:
        raise EnvironmentFault(f"{' '.join(argv[:3])} failed:\n{(done.stdout + done.stderr)[-2000:]}")


if __name__ == "__main__":
    install()
    print("\n".join(f"{name} {version}" for name, version in versions().items()))
    sys.exit(0)
