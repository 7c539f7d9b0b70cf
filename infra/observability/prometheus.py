"""Starts a Prometheus server on loopback that scrapes the processes of a city. Called by `make up` and by the tests."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.native import Program, free_port

RULES = Path(__file__).parent / "rules"
_RULE_FILES = ("recording.yml", "alerts.yml")
_CONFIG = Path(__file__).parent / "prometheus.yml"
_TARGETS = "targets.json"
_RETENTION = "15d"
_PROBE_S = 2.0


@dataclass(frozen=True)
class Target:
    """A process to scrape.

    Attributes:
        process: its name; the label `process` of all its series.
        address: `host:port` of its CITY_OBSERVABILITY_PORT.
    """

    process: str
    address: str


def install(cache: Path) -> None:
    """Says what to do where the server is absent: it comes as a system package, not into `cache`.

    Raises:
        EnvironmentFault: no `prometheus` or no `promtool` on the PATH.
    """
    for name in ("prometheus", "promtool"):
        if shutil.which(name) is None:
            raise EnvironmentFault(
                f"there is no program `{name}`; install Debian's package prometheus (`apt-get install prometheus`, then"
                " `systemctl disable --now prometheus`), or leave the part out"
            )


def program(state: Path, targets: Sequence[Target], port: int = 0, every: str = "15s") -> Program:
    """The server. Its page is at the root of its port, where rules and alerts are shown too.

    Args:
        state: its data and configuration; written anew each time.
        port: 0 takes a free one.
        every: how often targets are scraped and rules computed, as Prometheus writes durations.
    """
    state.mkdir(parents=True, exist_ok=True)
    chosen = port or free_port()
    write_configuration(state, targets, every)
    argv = [
        "prometheus",
        f"--config.file={state / 'prometheus.yml'}",
        f"--storage.tsdb.path={state / 'data'}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address=127.0.0.1:{chosen}",
        "--log.level=warn",
    ]
    return Program("prometheus", argv, lambda: answers(chosen), cwd=state, ready_s=30.0)


def write_configuration(folder: Path, targets: Sequence[Target], every: str = "15s") -> None:
    """Puts configuration, rules and targets into a folder from which a server can run."""
    for name in _RULE_FILES:
        shutil.copyfile(RULES / name, folder / name)
    text = _CONFIG.read_text(encoding="utf-8").replace("interval: 15s", f"interval: {every}")
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    found = [{"targets": [one.address], "labels": {"process": one.process}} for one in targets]
    (folder / _TARGETS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def port_of(program_: Program) -> int:
    """The port a program of ours listens on."""
    (address,) = [word for word in program_.argv if word.startswith("--web.listen-address=")]
    return int(address.rpartition(":")[2])


def answers(port: int) -> bool:
    """Whether a server there is ready. May raise OSError while it is not."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=_PROBE_S) as answer:
        return bool(answer.status == 200)  # noqa: PLR2004 - HTTP's OK
