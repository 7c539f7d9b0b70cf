"""What the node tier needs of the machine: root, its right to make namespaces, overlayfs, and programs of Debian.

Called by `make test-node`, which installs what is missing, and by `python -m infra.kubernetes up --node`, which only says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""Each with the package of Debian that it is in."""
CNI = Path("/usr/lib/cni")
_PLUGINS, _PLUGINS_PACKAGE = ("bridge", "host-local", "portmap", "loopback"), "containernetworking-plugins"
_CAP_SYS_ADMIN = 21
_INSTALL_S = 600
_ADMIN_FOLDERS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def missing_packages() -> list[str]:
    """Names of Debian's packages, sorted."""
    found = {package for name, package in PROGRAMS.items() if shutil.which(name, path=_ADMIN_FOLDERS) is None}
    if not all((CNI / plugin).exists() for plugin in _PLUGINS):
        found.add(_PLUGINS_PACKAGE)
    return sorted(found)


def refusal(proc: Path = Path("/proc")) -> str:
    """Why no node can be started here, in a sentence that says what to do; empty where one can."""
    if os.geteuid() != 0:
        return "a node with real pods needs root; run it as root, or use the API tier (make test-cluster)"
    if not _may_administer((proc / "self" / "status").read_text(encoding="ascii")):
        return (
            "a node with real pods needs CAP_SYS_ADMIN, which this container lacks; run it on a machine, or privileged"
        )
    if "\toverlay\n" not in (proc / "filesystems").read_text(encoding="ascii"):
        return (
            "the kernel knows no overlayfs, which containers' images are unpacked on; load its module: modprobe overlay"
        )
    if packages := missing_packages():
        return f"programs are missing; install them: apt-get install --no-install-recommends {' '.join(packages)}"
    return ""


def install() -> list[str]:
    """Installs what is missing with apt-get; returns the names.

    Raises:
        EnvironmentFault: there is no apt-get, or it fails.
    """
    wanted = missing_packages()
    if not wanted:
        return []
    if shutil.which("apt-get") is None:
        raise EnvironmentFault(f"there is no apt-get; install what is in Debian's packages {', '.join(wanted)}")
    _apt(["update", "-qq"])
    _apt(["install", "-y", "-qq", "--no-install-recommends", *wanted])
    return wanted


def _apt(words: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603 - our own words
        ["apt-get", *words],  # noqa: S607 - Debian's
        env=environment, capture_output=True, text=True, timeout=_INSTALL_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EnvironmentFault(f"apt-get {words[0]} failed: {(done.stderr or done.stdout).strip()[-600:]}")


def _may_administer(status: str) -> bool:
    (line,) = [line for line in status.splitlines() if line.startswith("CapEff:")]
    return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
