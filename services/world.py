"""Assembles the embedded world (ledger, bus, keys) on a state directory. Called by `city run` and by the tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from citykit.bus.local import open_local_bus
from citykit.bus.topics import TOPICS
from citykit.clock import Clock, unix
from citykit.errors import SettingsError
from citykit.ids import Randomness
from citykit.ledger.local import LocalLedger
from citykit.run import World, root_key
from citykit.settings import CitySettings
from services.registry import contracts


@contextlib.asynccontextmanager
async def embedded_world(
    state: Path,
    settings: CitySettings,
    clock: Clock,
    randomness: Randomness,
    contract_objects: Sequence[object] | None = None,
) -> AsyncIterator[World]:
    """The world of one process.

    Raises:
        SettingsError: the settings say `cluster`, where the embedded parts are refused.
    """
    if settings.general.mode == "cluster":
        raise SettingsError(
            "the embedded ledger, bus and store serve one process and are refused in mode `cluster`;"
            " set CITY_GENERAL_MODE=embedded or demo, or use the cluster parts",
            field="CITY_GENERAL_MODE",
        )
    state.mkdir(parents=True, exist_ok=True)
    chosen = contracts() if contract_objects is None else contract_objects
    ledger = await LocalLedger.open(
        state / "ledger", contracts=chosen, clock=lambda: unix(clock), randomness=randomness, settings=settings.ledger
    )
    bus = open_local_bus(state / "bus" / "bus.db", TOPICS, settings.bus)
    try:
        yield World(settings, clock, randomness, ledger, bus, state, root_key(state, randomness))
    finally:
        await bus.close()
        await ledger.close()
