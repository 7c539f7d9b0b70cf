"""The sandbox payment provider of the demo: a real HTTP server beside the city, with mild faults, whose books outlive a kill. Used by `city.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from citykit.settings import CitySettings
from services.serving import LOOPBACK
from simulation.faults import PROVIDER_DOWN, Faults
from simulation.provider import SandboxProvider
from simulation.provider_faults import ProviderFaults
from simulation.provider_journal import kept_books

MILD = ProviderFaults(
    refuse_calls=0.02, fail_after=0.02, drop_after=0.02, answer_late=0.02, lose_callbacks=0.05, double_callbacks=0.05,
    delay_callbacks=0.05, hold_callbacks=0.05, late_s=0.3,
)  # fmt: skip
_LOOK_S = 0.25


@contextlib.asynccontextmanager
async def sandbox(
    state: Path, seed: int, port: int, settings: CitySettings
) -> AsyncIterator[tuple[SandboxProvider, CitySettings]]:
    """The provider, and the settings with which payments finds it.

    Args:
        port: the dashboard's, below which callbacks are taken.
    """
    secret = _secret(state / "provider-secret")
    callback = f"http://{LOOPBACK}:{port}/api/v1/payments/callbacks"
    with kept_books(state / "simulation" / "provider.jsonl") as books:
        async with SandboxProvider(
            seed=seed, secret=secret.read_bytes(), callback=callback, faults=MILD, books=books
        ) as provider:
            found = replace(settings.payments, provider_url=provider.url, provider_secret_file=str(secret))
            yield provider, replace(settings, payments=found)


async def follow(provider: SandboxProvider, faults: Faults) -> None:
    """Takes the provider down while that fault is on; until cancelled."""
    while True:
        provider.outage = faults.on(PROVIDER_DOWN, "provider")
        await asyncio.sleep(_LOOK_S)


def _secret(path: Path) -> Path:
    """The file with the shared key; made at the first start, readable by the owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        unfinished.replace(path)
    return path
