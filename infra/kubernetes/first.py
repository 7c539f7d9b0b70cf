"""The first process inside a node's namespaces: makes a node's network and mounts, then collects ended processes until its standard input is closed.

Started by `infra.kubernetes.namespaces` through unshare; standard library only. When it ends, the kernel ends everything in its namespaces, so a
node never outlives whoever holds the other end of its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

COVERED = ("/var/lib/cni", "/var/lib/kubelet", "/var/log")
"""Folders with fixed names that the programs write to: covered by folders of the node's own. Where one is missing it is made, and stays, empty:
to remove it would uncover it in every other node."""
_LOOK_S = 0.5
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/route_localnet": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    for name in ("--folder", "--hostname", "--address", "--services"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args(words)
    folder = Path(arguments.folder)
    _mounts(folder)
    _network(arguments.hostname, arguments.address, arguments.services)
    (folder / "namespaces.ready").touch()
    _collect()


def _mounts(folder: Path) -> None:
    _run("mount", "--make-rshared", "/")  # containerd and the kubelet share mounts with containers
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in ("netns", "lock", "containerd"):
        Path("/run", name).mkdir()
    for covered in COVERED:
        own = folder / "covered" / covered.strip("/").replace("/", "-")
        own.mkdir(parents=True, exist_ok=True)
        Path(covered).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(own), covered)


def _network(hostname: str, address: str, services: str) -> None:
    socket.sethostname(hostname)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "n0", "type", "bridge")
    _run("ip", "addr", "add", f"{address}/24", "dev", "n0")
    _run("ip", "link", "set", "n0", "up")
    # without a route, the node's own processes (the API server among them) do not reach services
    _run("ip", "route", "add", services, "dev", "n0")
    for name, value in _SYSCTLS.items():
        Path("/proc/sys", name).write_text(value, encoding="ascii")


def _collect() -> None:
    """Until the other end of standard input is closed."""
    while True:
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        if readable and not os.read(0, 1):
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)  # noqa: S603 - our own words


if __name__ == "__main__":
    main()
