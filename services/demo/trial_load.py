"""A trial's load: homes go on sending and a resident goes on asking, while somebody upgrades the city or kills its pods. Used by `city trial load`.

Devices and people behave as theirs do: a device takes its chain up again where the city holds it, a person's program asks once more under the same
key when a connection broke. What is counted as failed is what even so was refused or lost.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import httpx

from citykit.errors import CityError
from citykit.run import Process
from services.demo.trial import CALLER, Outside, Plan
from simulation.calendar import SLOT_S
from simulation.device import Device
from simulation.uplink import METERING, Counts, Uplink

PAUSE_S = 0.2
"""Between two rounds of each caller."""
TRIES, RETRY_S = 3, 1.0
LOGIN_TRIES, RENEW_S = 60, 600.0
"""Nobody starts without having logged in, and whoever has been in for so long does it again: access tokens live 15 minutes."""
_SLOTS_AT_ONCE = 2


@dataclass
class Load:
    """What was tried and what became of it.

    Attributes:
        operations, failed: of the resident's program; `failures` says which and why.
        slowest_s: the longest an operation took.
        acknowledged: device -> the highest sequence number that the city said it has.
    """

    operations: int = 0
    failed: int = 0
    retried: int = 0
    slowest_s: float = 0.0
    packages: int = 0
    interruptions: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """For people and tests."""
        return {
            "operations": self.operations,
            "failed": self.failed,
            "retried": self.retried,
            "slowest_s": round(self.slowest_s, 1),
            "packages": self.packages,
            "interruptions": self.interruptions,
            "lost": self.lost,
            "refused": self.refused,
            "failures": dict(self.failures.most_common(5)),
        }


async def load(process: Process, client: httpx.AsyncClient, plan: Plan, login: str, secret: str, for_s: float) -> Load:
    """Runs for so long, then looks whether the city holds all it acknowledged."""
    found = Load()
    until = time.monotonic() + for_s
    outside = Outside(client)
    await logged_in(outside, login, secret)
    await asyncio.gather(_devices(process, plan, until, found), _resident(outside, client, login, secret, until, found))
    await _compare(process, found)
    return found


# --- devices ----------------------------------------------------------------------------------------------


async def _devices(process: Process, plan: Plan, until: float, found: Load) -> None:
    """Sends the slots since the billed month, a few at a time; after an interruption goes on from what the city holds."""
    neighbourhood = plan.neighbourhood()
    devices = [neighbourhood.device(meter) for meter in neighbourhood.meters]
    channel = process.anonymous("metering", through=CALLER)
    counts = Counts()
    uplink = Uplink(METERING, counts)
    known, at = False, 0
    while time.monotonic() < until:
        try:
            if not known:
                await uplink.resume(channel, devices)
                at = max(at, *(_slot_of(one, plan) for one in devices))
                known = True
            at = min(at + _SLOTS_AT_ONCE * SLOT_S, int(datetime.now(UTC).timestamp()) // SLOT_S * SLOT_S)
            await uplink.send(channel, (one.sign(part) for one in devices for part in one.due(at)))
        except grpc.aio.AioRpcError:
            found.interruptions += 1
            known = False
            await asyncio.sleep(RETRY_S)
            continue
        found.acknowledged.update({one.id: one.sequence for one in devices})
        await asyncio.sleep(PAUSE_S)
    found.packages = counts.packages
    found.refused = {reason: number for reason, number in counts.rejected.items() if reason != "duplicate"}


def _slot_of(device: Device, plan: Plan) -> int:
    """Where a device stands: after the month it sends one slot a package."""
    live = plan.neighbourhood().live_from
    month = -(-(live - device.start) // (48 * SLOT_S))
    return live + max(0, device.sequence - month) * SLOT_S


async def _compare(process: Process, found: Load) -> None:
    """What was acknowledged must be there."""
    from city.metering.v1 import metering_service_pb2 as metering  # noqa: PLC0415 - beside its use
    from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub  # noqa: PLC0415

    stub = MeteringServiceStub(process.anonymous("metering", through=CALLER))
    request = metering.ListChainHeadsRequest(devices=sorted(found.acknowledged))
    answer = await stub.ListChainHeads(request, timeout=60, wait_for_ready=True)
    heads = {head.device: int(head.sequence) for head in answer.heads}
    found.lost = [name for name, sequence in sorted(found.acknowledged.items()) if heads.get(name, 0) < sequence]


# --- a resident -------------------------------------------------------------------------------------------


async def logged_in(outside: Outside, login: str, secret: str) -> None:
    """Raises: what the last of LOGIN_TRIES tries came to."""
    for number in range(LOGIN_TRIES):
        try:
            await outside.log_in(login, secret)
        except (httpx.HTTPError, CityError):
            if number + 1 == LOGIN_TRIES:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            return


async def _resident(
    outside: Outside, client: httpx.AsyncClient, login: str, secret: str, until: float, found: Load
) -> None:
    """Reads bills and usage, agrees to something and takes it back, again and again."""
    reads = ("/api/v1/bills", "/api/v1/me", "/trust.json", "/api/v1/parking/lots", "/api/v1/payments")
    number, renew = 0, time.monotonic() + RENEW_S
    while time.monotonic() < until:
        if time.monotonic() > renew:
            await logged_in(outside, login, secret)
            renew = time.monotonic() + RENEW_S
        path = reads[number % len(reads)]
        await _patiently(found, lambda path=path: outside.get(path))  # type: ignore[misc]  # the path of this round
        if number % len(reads) == 0:
            await _agree(outside, client, found)
        number += 1
        await asyncio.sleep(PAUSE_S)


async def _agree(outside: Outside, client: httpx.AsyncClient, found: Load) -> None:
    consent: dict[str, Any] = {}

    async def record() -> None:
        body = {"purpose": "trial", "recipient": "forecasting"}
        consent.update((await _post(outside, client, "/api/v1/me/consents", body, key)).json())

    async def withdraw() -> None:
        await _post(outside, client, f"/api/v1/me/consents/{consent['id']}/withdrawal", None, key)

    for act in (record, withdraw):
        key = str(uuid.uuid4())
        if act is record or consent:
            await _patiently(found, act)


async def _post(
    outside: Outside, client: httpx.AsyncClient, path: str, body: dict[str, str] | None, key: str
) -> httpx.Response:
    answer = await client.post(path, json=body, headers={**outside.headers, "idempotency-key": key})
    answer.raise_for_status()
    return answer


async def _patiently(found: Load, act: Callable[[], Awaitable[object]]) -> None:
    """One operation: a broken connection is tried again, an answer is an answer."""
    began = time.monotonic()
    found.operations += 1
    for number in range(TRIES):
        try:
            await act()
            break
        except httpx.TransportError as error:
            if number + 1 == TRIES:
                _failed(found, error)
            else:
                found.retried += 1
                await asyncio.sleep(RETRY_S)
        except Exception as error:  # whatever it is, the operation failed, and is told
            _failed(found, error)
            break
    found.slowest_s = max(found.slowest_s, time.monotonic() - began)


def _failed(found: Load, error: Exception) -> None:
    found.failed += 1
    found.failures[str(error)[:200] or type(error).__name__] += 1
