"""A trial of a city that runs in processes of its own: homes with signed readings of a whole month, a bill, and its check from outside.

Used by `city trial`. Unlike the demo of `city run` it starts nothing and keeps no clock: the city's time is the machine's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import grpc
import grpc.aio
import httpx

from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from citykit.absent import AbsentBus, AbsentLedger
from citykit.clock import RealClock
from citykit.edge import city_error
from citykit.errors import Damaged, EnvironmentFault, FailedPrecondition, Unavailable
from citykit.ids import system_randomness
from citykit.keys import derive_key, read_root_key
from citykit.network import tls_network
from citykit.run import Process, World
from citykit.settings import CitySettings
from services.demo.bootstrap import PEOPLE, Bootstrap
from simulation.car_parks import CarParks
from simulation.neighbourhood import RESIDENT, Neighbourhood
from simulation.uplink import METERING, Counts, Uplink

CALLER = "demo"
"""Whose certificate the trial shows; CITY_SERVICES_CALLERS names it."""
LOTS = 5
BILLING_S = 300.0
_CLIENT = "dashboard"
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')
_ANCHOR_TRIES, _ANCHOR_POLL_S = 120, 0.5
_ANSWER_TRIES, _ANSWER_POLL_S = 300, 3.0
_VERIFY_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What a trial plays.

    Attributes:
        begins, ends: the month that is billed; `ends` exclusive.
    """

    seed: int
    homes: int
    begins: date
    ends: date

    def neighbourhood(self) -> Neighbourhood:
        return Neighbourhood(self.seed, None, self.homes, self.begins, self.ends)


def plan_of(today: date, seed: int, homes: int) -> Plan:
    """The month before last: whole, and old enough that no reading of it is waited for."""
    ends = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    return Plan(seed, homes, (ends - timedelta(days=1)).replace(day=1), ends)


def password(root_key: bytes, login: str) -> str:
    """Of the trial's people: who holds the city's root key can know it, nobody else."""
    return base64.urlsafe_b64encode(derive_key(root_key, CALLER, f"password/{login}")).decode().rstrip("=")


@asynccontextmanager
async def client_of(settings: CitySettings, state: Path) -> AsyncIterator[Process]:
    """A process that serves nothing and calls the city's services as `demo`.

    Raises:
        SettingsError, EnvironmentFault: addresses, certificates or the root key are not there; says which.
    """
    if not settings.services.root_key_file:
        raise EnvironmentFault("a trial needs the city's root key: set CITY_SERVICES_ROOT_KEY_FILE")
    world = World(
        settings=settings,
        clock=RealClock(),
        randomness=system_randomness,
        ledger=AbsentLedger(),
        bus=AbsentBus(),
        open_store=_no_store,
        network=tls_network(settings.services),
        state=state,
        root_key=read_root_key(Path(settings.services.root_key_file)),
        whole=False,
    )
    process = Process(world, (), {})
    try:
        yield process
    finally:
        await process.close_channels()


def _no_store(*_: Any) -> Any:
    raise EnvironmentFault("a trial keeps nothing")


async def set_up(process: Process, plan: Plan, state: Path, say: Callable[[str], None]) -> None:
    """People, devices, tariff, contracts, the month's readings and its bills. Each step can be repeated.

    Raises:
        FailedPrecondition: no home could be billed.
    """
    neighbourhood = plan.neighbourhood()
    dial = partial(process.dial, CALLER)
    logins = _write_logins(state / "trial-logins.json", process.world.root_key)
    await Bootstrap(dial, neighbourhood, CarParks(plan.seed, None, LOTS), logins, plan.begins.isoformat()).run()
    say(f"{plan.homes} homes have meters and contracts from {plan.begins} on")
    counts = await send_month(process, neighbourhood)
    say(f"{counts.readings} readings in {counts.packages} signed packages were accepted")
    request = metering.RunBillingRequest(
        request_id=f"trial-billing-{plan.begins}", from_date=plan.begins.isoformat(), to_date=plan.ends.isoformat()
    )
    answer = await MeteringServiceStub(dial("metering")).RunBilling(request, timeout=BILLING_S)
    if not answer.run:
        raise FailedPrecondition(f"no home could be billed; the first reason: {', '.join(answer.left_out[:1])}")
    say(f"{answer.bills} bills for {plan.begins} to {plan.ends} in {answer.run}")


async def patiently(act: Callable[[], Awaitable[None]], say: Callable[[str], None]) -> None:
    """Does it once the city answers; a city that is being rolled out takes its time. What was done before is not done twice."""
    for number in range(_ANSWER_TRIES):
        try:
            return await act()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise city_error(error) from None
            if number == 0:
                say("the city does not answer yet; waiting")
            await asyncio.sleep(_ANSWER_POLL_S)
    raise Unavailable("the city did not answer in time; `kubectl get pods` shows what is not ready")


async def send_month(process: Process, neighbourhood: Neighbourhood) -> Counts:
    """All readings up to the end of the month that the city does not hold yet."""
    counts = Counts()
    uplink = Uplink(METERING, counts)
    devices = [neighbourhood.device(meter) for meter in neighbourhood.meters]
    channel = process.anonymous("metering", through=CALLER)
    await uplink.resume(channel, devices)
    until = neighbourhood.live_from
    await uplink.send(channel, (device.sign(found) for device in devices for found in device.due(until)))
    if counts.rejected:
        raise FailedPrecondition(f"readings were refused: {dict(counts.rejected)}")
    return counts


def _write_logins(path: Path, root_key: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    logins = {who: {"login": login, "password": password(root_key, login)} for who, (login, _) in PEOPLE.items()}
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(logins, file)
    return path


class Outside:
    """A resident with a browser and a small program: everything over the gateway's HTTP.

    Args:
        client: with the gateway's address as its base.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.headers: dict[str, str] = {}

    async def log_in(self, login: str, secret: str) -> None:
        """The authorization code flow with PKCE (RFC 7636), as the dashboard does it."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code", "client_id": _CLIENT, "redirect_uri": "/", "scope": "openid", "state": "trial",
            "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        page = _good(await self._client.get(f"/oidc/authorize?{urlencode(asked)}"))
        form = {unescape(name): unescape(value) for name, value in _HIDDEN.findall(page.text)}
        answer = await self._client.post("/oidc/authorize", data=form | {"login": login, "password": secret})
        code = parse_qs(urlsplit(answer.headers.get("location", "")).query).get("code", [""])[0]
        if not code:
            raise FailedPrecondition(f"the login {login} was refused ({answer.status_code}); was the trial set up?")
        grant = {
            "grant_type": "authorization_code", "client_id": _CLIENT, "redirect_uri": "/", "code": code, "code_verifier": verifier,
        }  # fmt: skip
        tokens = _good(await self._client.post("/oidc/token", data=grant)).json()
        self.headers = {"authorization": f"Bearer {tokens['access_token']}"}

    async def get(self, path: str) -> httpx.Response:
        return _good(await self._client.get(path, headers=self.headers))

    async def newest_bill(self) -> dict[str, Any]:
        """The newest bill, once it can be proven."""
        bill: dict[str, Any] = {}
        for _ in range(_ANCHOR_TRIES):
            bills = (await self.get("/api/v1/bills")).json()["bills"]
            if not bills:
                raise FailedPrecondition("this resident has no bill; run `city trial set-up` first")
            bill = max(bills, key=lambda one: str(one["from_date"]))
            if bill["provable"]:
                return bill
            await asyncio.sleep(_ANCHOR_POLL_S)
        raise Unavailable(f"the bill {bill['id']} was not anchored in time; look at the notary and the ledger")


async def check(client: httpx.AsyncClient, secret: str, out: Path, login: str = RESIDENT) -> str:
    """Logs in, fetches the newest bill's bundle and the trust file, and has the offline verifier check them.

    Returns:
        What the verifier said, line by line.

    Raises:
        Damaged: the verifier found something wrong.
    """
    outside = Outside(client)
    await outside.log_in(login, secret)
    bill = await outside.newest_bill()
    out.mkdir(parents=True, exist_ok=True)
    trust, bundle = out / "trust.json", out / f"{bill['id']}.json"
    trust.write_bytes((await outside.get("/trust.json")).content)
    bundle.write_bytes((await outside.get(f"/api/v1/bills/{bill['id']}/bundle")).content)
    return await _verified(bundle, trust)


async def _verified(bundle: Path, trust: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "verifier", str(bundle), "--trust", str(trust),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(_VERIFY_S):
        output, _ = await process.communicate()
    said = output.decode(errors="replace")
    if process.returncode:
        raise Damaged(f"the verifier refuses the bill {bundle.stem}:\n{said}")
    return said


def _good(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    said: Mapping[str, Any] = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    raise Unavailable(
        f"{answer.request.url.path} answered {answer.status_code}: {said.get('detail', 'no reason given')}"
    )
