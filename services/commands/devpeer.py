"""The development peer as the city's ledger: body of `city serve ledger`, and the specification the city's processes are given.

It is the ledger of `LEDGER=dev`: not Fabric, one operator, for trials.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from citykit import telemetry
from citykit.errors import InvalidArgument
from citykit.ledger.chaincode.convention import CHANNEL, SUBMITTER_ATTRIBUTE, chaincode_name
from citykit.ledger.devpeer import Chaincode, Client, DevelopmentPeer, Specification, read_specification, require_trial
from citykit.ledger.devpeer.carried import adopt
from citykit.ledger.devpeer.specification import NOTE
from citykit.operations.health import DRAINING, SERVING, Health, Part
from citykit.operations.http import own_port
from citykit.operations.pulse import Pulse
from citykit.settings import CitySettings, ObservabilitySettings
from services.registry import SERVICES, contracts

ORGANISATION = "CityMSP"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `city serve ledger` takes."""
    parser.add_argument(
        "--state", type=Path, default=Path(".city/ledger-peer"), help="folder of ledger and certificates"
    )
    parser.add_argument("--specification", type=Path, help="JSON file; without it --chaincode and --port are used")
    parser.add_argument(
        "--chaincode", action="append", default=[], metavar="NAME=HOST:PORT", help="where a contract's chaincode serves"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=int, default=0, help="0: a free one at the first start, then the same")
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="identities made ahead by `city provision secrets`; newer ones are taken over",
    )
    parser.add_argument("--trial", action="store_true", help="serve in mode cluster too, for a trial")


def serve_ledger(arguments: argparse.Namespace, settings: CitySettings) -> int:
    """Serves until SIGTERM or Ctrl-C.

    Raises:
        FailedPrecondition: mode cluster without --trial; the state folder is another ledger's than --identity.
        InvalidArgument: a chaincode that is no contract of the city, or none for one that is; an --identity that is none.
    """
    if arguments.specification:
        wanted = read_specification(arguments.specification)
    else:
        addresses = dict(_address(one) for one in arguments.chaincode)
        wanted = city_specification(addresses, settings, host=arguments.host, port=arguments.port)
    require_trial(settings.general.mode, trial=arguments.trial)
    telemetry.configure(settings.telemetry, "ledger")
    if arguments.identity:
        adopt(arguments.state, arguments.identity.read_bytes())
    asyncio.run(_serve(arguments.state, wanted, settings.observability))
    return 0


async def _serve(state: Path, wanted: Specification, settings: ObservabilitySettings) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        peer = DevelopmentPeer(state, wanted)
        pulse = Pulse(settings.stalled_s)
        parts = [Part("chaincodes", peer.require_chaincodes), Part("disk", peer.require_writing)]
        health = Health(parts, pulse, settings.probe_s)
        stack.push_async_callback(health.close)
        if settings.port:
            stack.enter_context(own_port(settings.host, settings.port, health))
        beating = pulse.keep("operations/beat", pulse.beat())
        stack.callback(beating.cancel)
        stack.push_async_callback(peer.stop)
        await peer.start()
        health.state = SERVING
        print(f"development peer on {peer.address}: {NOTE}; profile {state / 'profile.json'}", flush=True)
        await ended.wait()
        health.state = DRAINING


def city_specification(
    addresses: Mapping[str, str], settings: CitySettings, *, host: str = "127.0.0.1", port: int = 0, tls: bool = True
) -> Specification:
    """The city's channel: a chaincode for each contract, a client for each service.

    Args:
        addresses: contract name -> host:port of its chaincode.
        tls: whether chaincodes serve TLS.
    """
    names = [chaincode_name(contract) for contract in contracts()]
    wrong = sorted(set(addresses) ^ set(names))
    if wrong:
        raise InvalidArgument(f"--chaincode NAME=HOST:PORT once for each of {', '.join(names)}; look at {wrong[0]!r}")
    return Specification(
        channel=CHANNEL,
        organisations=(ORGANISATION,),
        chaincodes=tuple(Chaincode(name, addresses[name], tls=tls) for name in names),
        clients=tuple(Client(name, ORGANISATION, {SUBMITTER_ATTRIBUTE: name}) for name in SERVICES),
        host=host,
        port=port,
        block_max=settings.ledger.block_max,
        block_wait_ms=settings.ledger.block_wait_ms,
    )


def _address(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    if not name or ":" not in address:
        raise InvalidArgument(f"--chaincode is NAME=HOST:PORT, not {text!r}")
    return name, address
