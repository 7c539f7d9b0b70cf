"""`city trial set-up | check | load | manufacturer`: homes, readings and a bill for a city that runs elsewhere; its check from outside."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from citykit import telemetry
from citykit.keys import read_root_key
from citykit.settings import read_settings
from services.commands.run import count, seconds
from services.demo.trial import check, client_of, password, patiently, plan_of, set_up
from simulation.neighbourhood import RESIDENT, Neighbourhood

SEED, HOMES = 7, 10
_ANSWER_S = 30.0


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("trial", help="homes, readings and a bill for a city that runs elsewhere")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    begin = acts.add_parser("set-up", help="people, meters, contracts, last month's readings, bills; can be repeated")
    begin.add_argument("--state", type=Path, default=Path(".city/trial"), help="folder for the trial's logins")
    begin.add_argument("--homes", type=count, default=HOMES, help=f"how many homes; {HOMES} unless said")
    begin.set_defaults(run=_set_up)
    look = acts.add_parser("check", help=f"log in as {RESIDENT} and check the newest bill with the offline verifier")
    look.add_argument("--url", required=True, help="where the gateway is reached, for instance https://city.example")
    look.add_argument("--ca", type=Path, metavar="FILE", help="authority of the gateway's certificate (PEM)")
    look.add_argument("--root-key-file", type=Path, required=True, help="the city's root key: the logins come from it")
    look.add_argument("--out", type=Path, default=Path(".city/trial/out"), help="folder for the bill and trust.json")
    look.set_defaults(run=_check)
    press = acts.add_parser(
        "load", help="send readings and ask over HTTP for a while; exit code 1 where anything failed or was lost"
    )
    press.add_argument("--url", required=True, help="where the gateway is reached")
    press.add_argument(
        "--for", dest="for_s", type=seconds, default=60.0, metavar="TIME", help="60s, 5m; 60s unless said"
    )
    press.add_argument("--state", type=Path, default=Path(".city/trial"))
    press.add_argument("--homes", type=count, default=HOMES, help="as `set-up` was told")
    press.set_defaults(run=_load)
    maker = acts.add_parser("manufacturer", help="the value of CITY_IDENTITY_MANUFACTURERS under which meters come in")
    maker.set_defaults(run=_manufacturer)
    for one in (begin, press, maker):
        one.add_argument("--seed", type=int, default=SEED, help="the same seed gives the same homes")


def _set_up(arguments: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    telemetry.configure(settings.telemetry, "trial")

    async def act() -> None:
        plan = plan_of(datetime.now(UTC).date(), arguments.seed, arguments.homes)
        async with client_of(settings, arguments.state) as process:
            await patiently(lambda: set_up(process, plan, arguments.state, _say), _say)

    asyncio.run(act())
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _check(arguments: argparse.Namespace) -> int:
    secret = password(read_root_key(arguments.root_key_file), RESIDENT)
    trusted = ssl.create_default_context(cafile=arguments.ca)

    async def act() -> str:
        async with httpx.AsyncClient(base_url=arguments.url, verify=trusted, timeout=_ANSWER_S) as client:
            return await check(client, secret, arguments.out)

    print(asyncio.run(act()), end="")
    return 0


def _load(arguments: argparse.Namespace) -> int:
    from services.demo.trial_load import load  # noqa: PLC0415 - its own libraries

    settings = read_settings(os.environ)
    telemetry.configure(settings.telemetry, "trial")
    secret = password(read_root_key(Path(settings.services.root_key_file)), RESIDENT)

    async def act() -> dict[str, Any]:
        plan = plan_of(datetime.now(UTC).date(), arguments.seed, arguments.homes)
        limits = httpx.Limits(max_keepalive_connections=0)  # a client that comes anew each time
        async with (
            client_of(settings, arguments.state) as process,
            httpx.AsyncClient(base_url=arguments.url, timeout=_ANSWER_S, limits=limits) as client,
        ):
            return (await load(process, client, plan, RESIDENT, secret, arguments.for_s)).told()

    found = asyncio.run(act())
    print(json.dumps(found))
    return 1 if found["failed"] or found["lost"] or found["refused"] else 0


def _manufacturer(arguments: argparse.Namespace) -> int:
    print(*(f"{name}={key.hex()}" for name, key in Neighbourhood(arguments.seed, None, 1).manufacturers.items()))
    return 0
