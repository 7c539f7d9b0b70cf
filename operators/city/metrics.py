"""Metrics of the operator, and its health: a process that comes round no more is not alive. Used by `main` and `reconcile`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from prometheus_client import Counter, Gauge, Histogram

from citykit.operations.health import Health, Part
from citykit.operations.http import own_port
from citykit.operations.pulse import Pulse
from citykit.settings import ObservabilitySettings
from citykit.telemetry import REGISTRY

LEADING = Gauge("city_operator_leading", "1: this operator acts; 0: another does, or none", registry=REGISTRY)
ROUNDS = Counter(
    "city_operator_rounds", "Rounds of the reconcile loop, by outcome: done, stale, unavailable, failed", ["outcome"], registry=REGISTRY
)  # fmt: skip
ROUND_SECONDS = Histogram(
    "city_operator_round_seconds", "Time one round took, seconds", registry=REGISTRY, buckets=(0.02, 0.1, 0.5, 2, 10)
)
STEPS = Counter("city_operator_steps", "Steps taken, by kind", ["step"], registry=REGISTRY)
REACTION_SECONDS = Histogram(
    "city_operator_reaction_seconds", "Time from hearing of a change of the City to the round that saw it, seconds",
    registry=REGISTRY, buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)  # fmt: skip
ROLLOUTS = Counter("city_operator_rollouts", "Rollouts ended, by outcome", ["outcome"], registry=REGISTRY)
PHASE = Gauge("city_operator_phase", "1: the phase the City is in", ["phase"], registry=REGISTRY)
EVENTS_DROPPED = Gauge("city_operator_events_dropped", "Events not written, to spare the API server", registry=REGISTRY)

ROUND_MAX_S = 60.0
"""A round that takes longer is stuck: every call in it has a time-out of some seconds."""


@contextlib.asynccontextmanager
async def observed(
    settings: ObservabilitySettings, pulse: Pulse, api: Callable[[], Awaitable[object]]
) -> AsyncIterator[Health]:
    """`/livez`, `/readyz` and `/metrics` until the block ends.

    Args:
        api: asks the API server something small; raises where it does not answer.

    Raises:
        EnvironmentFault: the port is taken.
    """
    health = Health([Part("api-server", api)], pulse, settings.probe_s)
    beat = pulse.keep("operator/beat", pulse.beat())
    try:
        with own_port(settings.host, settings.port, health) if settings.port else contextlib.nullcontext():
            yield health
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
        await health.close()
