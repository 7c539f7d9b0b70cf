"""Kafka, PostgreSQL and a development peer with its chaincodes, as `make up` starts them; started once for this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.native import cache_folder
from infra.parts import Wanted, install
from infra.supervisor import Supervisor
from infra.up import start


@dataclass(frozen=True)
class Up:
    """The parts that run."""

    state: Path
    settings: dict[str, str]
    supervisor: Supervisor


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    wanted = Wanted(tmp_path_factory.mktemp("up"), cache_folder(), fast_start=True)
    install(wanted, print)
    supervisor = Supervisor(wanted.state / "logs", print)
    try:
        yield Up(wanted.state, start(wanted, supervisor, print), supervisor)
    finally:
        supervisor.stop()
