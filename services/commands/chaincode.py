"""`city serve chaincode --places FILE`: the contracts as chaincode services for an organisation's peers, in a process of their own.

`services.commands.serve` adds the arguments and calls `run_chaincode`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from citykit import telemetry
from citykit.errors import Unavailable
from citykit.ledger.chaincode import Serving, read_places, serve
from citykit.operations.health import DRAINING, SERVING, Health, Part
from citykit.operations.http import own_port
from citykit.operations.pulse import Pulse
from citykit.run import keep_out_of_collections
from citykit.settings import CitySettings, read_settings
from services.registry import contracts

_LOG = telemetry.logger("chaincode")


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "--places", type=Path, required=True, metavar="FILE",
        help="JSON with id, address and TLS files of each chaincode: the development peer's profile.json, or what `city ledger network deploy` wrote",
    )  # fmt: skip


def run_chaincode(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; then running transactions end.

    Raises:
        InvalidArgument, EnvironmentFault: see `citykit.ledger.chaincode.serve`.
    """
    settings = read_settings(os.environ)
    telemetry.configure(settings.telemetry, "chaincode")
    asyncio.run(_serve(arguments.places, settings))
    return 0


async def _serve(places: Path, settings: CitySettings) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        pulse = Pulse(settings.observability.stalled_s)
        serving: list[Serving] = []
        health = Health([Part("chaincodes", lambda: _listening(serving))], pulse, settings.observability.probe_s)
        stack.push_async_callback(health.close)
        if settings.observability.port:
            stack.enter_context(own_port(settings.observability.host, settings.observability.port, health))
        beating = pulse.keep("operations/beat", pulse.beat())
        stack.callback(beating.cancel)
        served = serve(contracts(), read_places(places), operator=settings.fabric.msp)
        serving.append(await stack.enter_async_context(served))
        for name, server in serving[0].servers.items():
            telemetry.CHAINCODE_PEERS.labels(name).set_function(partial(getattr, server, "streams"))
        health.state = SERVING
        keep_out_of_collections()
        print(f"chaincodes: {', '.join(f'{name} on {port}' for name, port in serving[0].ports.items())}", flush=True)
        await ended.wait()
        health.state = DRAINING


async def _listening(serving: list[Serving]) -> None:
    if not serving or not all(serving[0].ports.values()):
        raise Unavailable("a chaincode is not served yet")
