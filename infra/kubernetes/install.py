"""Builds the programs of Kubernetes from Go modules into the cache, one by one, so that the API tier does not wait for the node tier's.

Called by `make test-cluster`, `make test-node` and `python -m infra.kubernetes`. What a program is built from stands in `modules/`: a `go.mod` and a
`go.sum` each. It is built anew when these, the version of Go or the flags change.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import EnvironmentFault

KUBERNETES_VERSION = "1.34.10"
MODULES = Path(__file__).parent / "modules"
_SHORT = ("-s", "-w")
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
_TOLD = (
    f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION}",
    f"-X k8s.io/component-base/version.gitMajor={_MAJOR}",
    f"-X k8s.io/component-base/version.gitMinor={_MINOR}",
    f"-X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES_VERSION}",
)
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
_BUILD_S = 3_600
_ASK_S = 300
_NICE = 10


@dataclass(frozen=True)
class Binary:
    """A program that is built.

    Attributes:
        module: its folder in `modules/`.
        package: what `go build` is given.
        linking: flags of the linker.
    """

    name: str
    module: str
    package: str
    linking: Sequence[str] = _SHORT


def _of_kubernetes(name: str) -> Binary:
    return Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", (*_SHORT, *_TOLD))


API_TIER = (
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    _of_kubernetes("kube-apiserver"),
    _of_kubernetes("kube-controller-manager"),
    _of_kubernetes("kube-scheduler"),
    Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
)
NODE_TIER = (
    _of_kubernetes("kubelet"),
    _of_kubernetes("kube-proxy"),
    Binary("coredns", "coredns", "github.com/coredns/coredns"),
)
BINARIES = {one.name: one for one in (*API_TIER, *NODE_TIER)}


@dataclass(frozen=True)
class Go:
    """The Go on this machine.

    Attributes:
        version: as `go version` prints it.
    """

    path: str
    version: str


def find_go(wanted: tuple[int, int] | None = None) -> Go:
    """The `go` on the PATH.

    Args:
        wanted: the lowest version; by default what `modules/` need.

    Raises:
        EnvironmentFault: none, or an older one.
    """
    lowest = wanted or needed_go()
    need = f"Kubernetes is built with Go {lowest[0]}.{lowest[1]} or newer"
    path = shutil.which("go")
    if path is None:
        raise EnvironmentFault(f"{need}, and there is no `go` on the PATH; install it and put it first on the PATH")
    version = _ask([path, "version"], MODULES).strip()
    found = re.search(r"go(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < lowest:
        raise EnvironmentFault(f"{need}, and {path} is {version!r}; install a newer one and put it first on the PATH")
    return Go(path, version)


def needed_go() -> tuple[int, int]:
    """The highest `go` line of the modules."""
    lines = (re.search(r"^go (\d+)\.(\d+)", path.read_text(encoding="ascii"), re.MULTILINE) for path in _go_mods())
    return max((int(line[1]), int(line[2])) for line in lines if line)


def key(binary: Binary, go_version: str) -> str:
    """What a program is made of, as a name: `go.mod`, `go.sum`, the version of Go and the flags. 16 hexadecimal digits."""
    hashed = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        hashed.update((MODULES / binary.module / name).read_bytes())
    hashed.update("\0".join((go_version, *_FLAGS, *binary.linking)).encode())
    return hashed.hexdigest()[:16]


def program(cache: Path, name: str) -> Path:
    """Where a program lies that was built.

    Raises:
        EnvironmentFault: it was not, or there is no Go to say which one is meant.
    """
    path = _place(cache, BINARIES[name], find_go())
    if not path.exists():
        raise EnvironmentFault(
            f"{name} is not built; build it with `python -m infra.kubernetes build` (or run make test-cluster)"
        )
    return path


def install(
    cache: Path, binaries: Iterable[Binary], say: Callable[[str], None] = lambda line: None
) -> dict[str, float]:
    """Builds what is missing, in order.

    Returns:
        Seconds each build took; programs that were there are not among them.

    Raises:
        EnvironmentFault: Go is absent or too old, a module cannot be had, a build fails.
    """
    go = find_go()
    took: dict[str, float] = {}
    for binary in binaries:
        path = _place(cache, binary, go)
        with _alone(path):
            if path.exists():
                continue
            say(f"building {binary.name} (minutes, once; kept in {path.parent})")
            began = time.monotonic()
            _build(go, binary, path)
            took[binary.name] = time.monotonic() - began
            say(f"built {binary.name} in {took[binary.name]:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
    return took


def module_folder(module: str, version: str) -> Path:
    """The sources of a Go module, downloaded where they are missing and checked against Go's checksum database.

    Raises:
        EnvironmentFault: it cannot be had.
    """
    go = find_go((1, 21))
    told = _ask([go.path, "mod", "download", "-json", f"{module}@{version}"], MODULES, _environment())
    return Path(json.loads(told)["Dir"])


def required_version(folder: str, module: str) -> str:
    """The version of a module that a `go.mod` of `modules/` pins, `v0.8.0`."""
    text = (MODULES / folder / "go.mod").read_text(encoding="ascii")
    found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise EnvironmentFault(f"{folder}/go.mod does not require {module}; correct it")
    return found[1]


def _place(cache: Path, binary: Binary, go: Go) -> Path:
    return cache / "kubernetes" / key(binary, go.version) / "bin" / binary.name


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One at a time builds a program; who waits finds it built."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(go: Go, binary: Binary, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    argv = ["nice", "-n", str(_NICE), go.path, "build", *_FLAGS, "-ldflags", " ".join(binary.linking)]
    try:
        _ask([*argv, "-o", str(part), binary.package], MODULES / binary.module, _environment(), _BUILD_S)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    """No C compiler, no other Go than the one found, nothing from the user's own flags."""
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _ask(argv: Sequence[str], folder: Path, environment: dict[str, str] | None = None, limit_s: float = _ASK_S) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"`{' '.join(argv)}` did not end within {limit_s:.0f} s; try again") from None
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-1_500:]
        raise EnvironmentFault(
            f"`{' '.join(argv)}` failed: {told}\nCheck that Go's module proxy is reached, then try again"
        )
    return done.stdout


def _go_mods() -> list[Path]:
    return sorted(MODULES.glob("*/go.mod"))
