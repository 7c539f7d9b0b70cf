"""Figures of payments (`city bench`): transfers sent by another process over gRPC to a served, durable payments.

Each function returns {"name", "value", "unit", "floor", "aim", "how"}. Nothing here is a test: what it prints depends on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from city.payments.v1 import payments_service_pb2 as pb
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from citykit.access import ServiceTokens, bearer_interceptors_of
from citykit.clock import ReplayClock
from citykit.ids import seeded_randomness
from citykit.keys import service_token_seed
from citykit.loop import run_to_end
from citykit.run import Process, running
from citykit.settings import CitySettings
from citykit.state import socket_path
from services.payments.contract import CONTRACTS
from services.payments.main import build
from services.world import embedded_world

START = 1_475_535_600
ACCOUNTS = 1_000
Figure = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """`requests` of `linked` transfers each, by `callers` that wait for each answer."""

    requests: int
    linked: int
    callers: int


BATCHES = Load(requests=1_200, linked=100, callers=4)
SINGLE = Load(requests=12_000, linked=1, callers=64)


def payments_batches() -> Figure:
    """Transfers a second in linked batches of 100."""
    return _figure("payments-batches", BATCHES, 5_000, 20_000)


def payments_single() -> Figure:
    """Transfers a second, each its own request, from 64 callers: group commit."""
    return _figure("payments-single", SINGLE, 800, 2_000)


BENCHES = (payments_batches, payments_single)


def _figure(name: str, load: Load, floor: int, aim: int) -> Figure:
    rate = run_to_end(_measured(load))
    how = (
        f"{load.requests:,} requests of {load.linked} linked transfers between {ACCOUNTS:,} accounts under balance rules, from"
        f" {load.callers} callers in another process over gRPC on the same cores, each waiting for its answer; checked, posted,"
        " committed to (two salted postings a transfer), in SQLite (synchronous=FULL) and the outbox before each answer"
    )
    return {"name": name, "value": round(rate, 1), "unit": "transfers/s", "floor": floor, "aim": aim, "how": how}


async def _measured(load: Load) -> float:
    with tempfile.TemporaryDirectory() as folder:
        async with _served(Path(folder)) as process:
            await _open(process)
            token = ServiceTokens(service_token_seed(process.world.root_key), "bench").token("payments")
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.payments.bench", f"unix:{socket_path(process.world.state)}", str(load.requests), str(load.linked),
                str(load.callers), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await client.communicate(token.encode())
            books = await PaymentsServiceStub(process.dial("bench", "payments")).GetBooks(pb.GetBooksRequest())
        found = json.loads(output)
        if books.sum_minor or books.transfers != found["transfers"] + ACCOUNTS:
            raise RuntimeError(f"the books hold {books.transfers} transfers and are {books.sum_minor} apart")
        return float(found["transfers"] / found["seconds"])


@contextlib.asynccontextmanager
async def _served(state: Path) -> AsyncIterator[Process]:
    settings, clock = CitySettings(), ReplayClock(START)
    async with (
        embedded_world(state / "city", settings, clock, seeded_randomness(5), CONTRACTS) as world,
        running(world, {"payments": build}) as process,
    ):
        yield process


async def _open(process: Process) -> None:
    """A fund without limit, and accounts that may spend what they were given."""
    stub = PaymentsServiceStub(process.dial("bench", "payments"))
    fund = pb.Account(id="bench/fund", currency="GBP", rule=pb.BALANCE_RULE_FREE)
    within = pb.BALANCE_RULE_DEBITS_WITHIN_CREDITS
    accounts = [pb.Account(id=_account(n), currency="GBP", rule=within) for n in range(ACCOUNTS)]
    await stub.CreateAccounts(pb.CreateAccountsRequest(request_id="fund", accounts=[fund]))
    await stub.CreateAccounts(pb.CreateAccountsRequest(request_id="accounts", accounts=accounts))
    given = [_transfer(f"given-{n}", "bench/fund", _account(n), 10**9) for n in range(ACCOUNTS)]
    await stub.CreateTransfers(pb.CreateTransfersRequest(request_id="given", transfers=given))


def _account(number: int) -> str:
    return f"bench/{number:04d}"


def _transfer(id_: str, debit: str, credit: str, amount: int) -> pb.Transfer:
    return pb.Transfer(
        id=id_,
        kind=pb.TRANSFER_KIND_POSTED,
        debit_account=debit,
        credit_account=credit,
        amount_minor=amount,
        currency="GBP",
        reference="bench",
    )


def _requests(load: Load) -> list[pb.CreateTransfersRequest]:
    dice = random.Random(1)  # noqa: S311 - a load, reproducible
    made: list[pb.CreateTransfersRequest] = []
    for number in range(load.requests):
        transfers = []
        for place in range(load.linked):
            debit, credit = dice.sample(range(ACCOUNTS), 2)
            transfers.append(
                _transfer(f"t-{number}-{place}", _account(debit), _account(credit), dice.randrange(1, 500))
            )
        made.append(pb.CreateTransfersRequest(request_id=f"r-{number}", transfers=transfers))
    return made


async def _client(socket: str, token: str, load: Load) -> None:
    """The other process, which reads its token from its input; the requests are made beforehand."""
    requests = _requests(load)
    async with grpc.aio.insecure_channel(socket, interceptors=bearer_interceptors_of(token)) as channel:
        stub = PaymentsServiceStub(channel)
        begun = time.perf_counter()
        await asyncio.gather(*(_caller(stub, requests[at :: load.callers]) for at in range(load.callers)))
        seconds = time.perf_counter() - begun
    print(json.dumps({"transfers": load.requests * load.linked, "seconds": seconds}))


async def _caller(stub: Any, requests: Sequence[pb.CreateTransfersRequest]) -> None:
    for request in requests:
        await stub.CreateTransfers(request)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_to_end(_client(sys.argv[1], sys.stdin.read(), Load(*map(int, sys.argv[2:5]))))
    else:
        for bench in BENCHES:
            print(json.dumps(bench()))
