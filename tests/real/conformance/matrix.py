"""A channel with two chaincodes on each shim and a client of each kind, and how a cell of the matrix is tried. Used on every kind of peer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from citykit.ledger.fabric.gateway import Gateway
from infra.native import Native
from tests.real.conformance.drivers import Driver, OwnDriver, program_driver
from tests.real.conformance.parts import Parts
from tests.real.conformance.scenarios import LACKS, Cell, Scenario
from tests.unit.ledger.devpeer_network import CLIENTS

CLIENT_PARTS, SHIM_PARTS = ("ours", "node", "go"), ("ours", "node", "go")
CHAINCODES = tuple(f"{shim}-{name}" for shim in SHIM_PARTS for name in ("a", "b"))
MEMBERS = {one.name: one.msp_id for one in CLIENTS}


@dataclass(frozen=True)
class City:
    """What runs.

    Attributes:
        peer: what it runs on, for the table.
        gateway: our client of a member.
        programs: official chaincodes by name.
        received, height, settled: see `Cell`.
    """

    peer: str
    gateway: Callable[[str], Gateway]
    height: Callable[[], Awaitable[int]]
    settled: Callable[[], Awaitable[None]]
    received: Callable[[str], Mapping[str, int]] | None = None
    drivers: dict[str, Driver] = field(default_factory=dict)
    programs: dict[str, Native] = field(default_factory=dict)

    @asynccontextmanager
    async def clients(self, parts: Parts, members: Mapping[str, Any], folder: Path) -> AsyncIterator[None]:
        """Starts the official clients.

        Args:
            members: name -> address, tls_ca, msp_id, certificate, key and, where the peer asks for it, tls_certificate, tls_key.
        """
        settings = folder / "client.json"
        settings.write_text(json.dumps({"channel": "city", "members": members}))
        self.drivers["ours"] = OwnDriver(self.gateway)
        async with (
            program_driver(parts.clients["node"], settings, parts) as node,
            program_driver(parts.clients["go"], settings, parts) as go,
        ):
            self.drivers.update(node=node, go=go)
            yield

    def chaincode(self, parts: Parts, name: str, paths: Mapping[str, Any], folder: Path) -> Native:
        """Starts an official chaincode, without waiting for it."""
        settings = folder / f"{name}.json"
        settings.write_text(json.dumps(paths))
        port = int(paths["address"].rpartition(":")[2])
        native = self.programs[name] = Native(parts.chaincode(language(name), settings, port), folder)
        native.start()
        return native


def language(chaincode: str) -> str:
    return chaincode.partition("-")[0]


async def try_cell(city: City, client: str, shim: str, scenario: Scenario, record: Callable[[str, str], None]) -> None:
    """One scenario in one cell. Where a part lacks what it takes, the scenario must fail, so that the entry goes once the part learns it."""
    name = scenario.__name__
    record("cell", f"{city.peer}/{client}/{shim}/{name}")
    missing = LACKS.get((f"{shim} shim", name)) or LACKS.get((f"{client} client", name))
    cell = Cell(
        city.drivers[client], f"{shim}-a", f"{shim}-b", f"{name}-{client}-", city.received, city.height, city.settled
    )
    if not missing:
        await scenario(cell)
        return
    record("lacks", missing)
    if name == "batches" and city.received is None:
        return  # only the development peer tells whether batches were used
    with pytest.raises((AssertionError, KeyError)):
        await scenario(cell)
