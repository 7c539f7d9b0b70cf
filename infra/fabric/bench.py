"""`city bench ledger`: committed transactions a second on a real Fabric network, our client and our shim; and where the time goes.

256 callers, each with one transaction in flight; two organisations endorse; everything on this machine: client, orderers, two peers, two
chaincodes. A figure without FABRIC_BIN says that it was not run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from citykit.errors import CityError
from citykit.ledger.chaincode import contract_version
from citykit.ledger.channel import ChannelLedger, open_channel_ledger
from citykit.ledger.fabric.commits import Commits
from citykit.ledger.fabric.connection import Deadlines, Tls, connect
from citykit.ledger.fabric.errors import FabricError
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.identity import Identity, read_signer
from citykit.settings import read_settings
from infra.fabric.bench_chaincode import PLAIN
from infra.fabric.bench_contract import Bench
from infra.fabric.binaries import FABRIC_BIN, not_run
from infra.fabric.chaincodes import Chaincodes
from infra.fabric.connection import city_settings
from infra.fabric.crypto import identity, node_tls
from infra.fabric.network import Network, network
from infra.fabric.policies import Policy
from infra.fabric.profiles import CHANNEL

CALLERS = 256
RUNS = 5
RUN_S = 10.0
_WARM_S = 5.0
_ENDORSERS = ("city", "utility")
_CALLER = "bench"
_VALUE = "v" * 100
_MICRO = 1_000_000
Call = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Run:
    """One run: its rate, its latencies, how many calls failed, and the CPU each process took for a transaction (µs)."""

    rate: float
    p50_s: float
    p99_s: float
    failed: int
    cpu_us: dict[str, float]


def ledger_raft1() -> dict[str, Any]:
    """Raft with one orderer."""
    return _figure("ledger-raft1", "raft1", floor=260, aim=400)


def ledger_bft4() -> dict[str, Any]:
    """BFT with four orderers."""
    return _figure("ledger-bft4", "bft4", floor=90, aim=150)


BENCHES = (ledger_raft1, ledger_bft4)


def _figure(name: str, profile: str, *, floor: int, aim: int) -> dict[str, Any]:
    figure = {"name": name, "value": None, "unit": "committed tx/s", "floor": floor, "aim": aim}
    line = not_run(os.environ.get(FABRIC_BIN))
    if line:
        return {**figure, "how": line}
    plain, contract = measure(profile)
    middle = _median(plain)
    return {
        **figure,
        "value": round(middle.rate),
        "how": f"{CALLERS} callers, 2 organisations endorsing, {profile}, our client and our shim, median of {RUNS} runs of"
        f" {RUN_S:.0f} s ({_rates(plain)}); {_said(middle)}; contracts with request ids through the ledger port:"
        f" {_median(contract).rate:.0f} ({_rates(contract)}); {_said(_median(contract))}",
        "load_before": os.getloadavg()[0],
        "runs": [run.rate for run in plain],
    }


def measure(profile: str, runs: int = RUNS, run_s: float = RUN_S) -> tuple[list[Run], list[Run]]:
    """Runs on a fresh network: of the shim alone, and of a contract through the port.

    Raises:
        EnvironmentFault: the network does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="bench-fabric-") as folder:
        net = network(Path(folder), profile)
        try:
            _prepare(net)
            return asyncio.run(_measured(net, runs, run_s))
        finally:
            net.down()


def _prepare(net: Network) -> None:
    """Two chaincodes of city and utility; the auditor's peer, which has no part in it, is stopped."""
    net.up()
    versions = {Bench.name: contract_version(Bench()), PLAIN: "1"}
    policies = {name: Policy(name, _ENDORSERS, len(_ENDORSERS)) for name in versions}
    serve = (sys.executable, "-m", "infra.fabric.bench_chaincode")
    Chaincodes(net, versions, serve, policies).deploy()
    net.stop("peer-auditor")


async def _measured(net: Network, runs: int, run_s: float) -> tuple[list[Run], list[Run]]:
    deadlines = Deadlines(evaluate_s=60, endorse_s=60, submit_s=60, commit_s=120)
    peer = net.plan.peer_of("city")
    roots = node_tls(net.plan, peer).roots.read_bytes()
    settings = {name: text.format(service=_CALLER) for name, text in city_settings(net, [_CALLER]).items()}
    ledger = await open_channel_ledger(read_settings(settings).fabric)
    async with connect(peer.address, tls=Tls(roots), deadlines=deadlines, in_flight_max=2 * CALLERS) as connection:
        files = identity(net.plan, net.plan.organisation("city"), _CALLER)
        member = Identity(files.msp, files.certificate.read_bytes())
        signer = read_signer(files.key.read_bytes())
        commits = Commits(Gateway(connection, CHANNEL, member, signer))
        gateway = Gateway(connection, CHANNEL, member, signer, watch=commits)
        plain = await _runs(net, lambda number: _plain(gateway, number), runs, run_s)
        await commits.close()
        contract = await _runs(net, lambda number: _contract(ledger, number), runs, run_s)
    await ledger.close()
    return plain, contract


async def _plain(gateway: Gateway, number: int) -> object:
    return await gateway.submit(PLAIN, "put", [f"key/{number}".encode(), _VALUE.encode()])


async def _contract(ledger: ChannelLedger, number: int) -> object:
    args = {"key": f"key/{number}", "value": _VALUE}
    return await ledger.submit(Bench.name, "put", args, submitter=_CALLER, request_id=f"r{number}")


@dataclass
class _Tally:
    """How long each call took that committed, and how many failed, since the run began."""

    waits_s: list[float] = field(default_factory=list)
    failed: int = 0


async def _runs(net: Network, call: Call, runs: int, run_s: float) -> list[Run]:
    """Callers that never rest; the first seconds do not count."""
    tally, numbers = _Tally(), itertools.count()
    callers = [asyncio.create_task(_caller(call, numbers, tally)) for _ in range(CALLERS)]
    try:
        await asyncio.sleep(_WARM_S)
        return [await _run(net, tally, run_s) for _ in range(runs)]
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def _caller(call: Call, numbers: itertools.count[int], tally: _Tally) -> None:
    while True:
        begun = time.perf_counter()
        try:
            await call(next(numbers))
        except (CityError, FabricError):
            tally.failed += 1
        else:
            tally.waits_s.append(time.perf_counter() - begun)


async def _run(net: Network, tally: _Tally, run_s: float) -> Run:
    tally.waits_s.clear()
    tally.failed = 0
    before, begun = _cpu_s(net), time.perf_counter()
    await asyncio.sleep(run_s)
    took_s, after = time.perf_counter() - begun, _cpu_s(net)
    waits = sorted(tally.waits_s)
    if not waits:
        return Run(0.0, run_s, run_s, tally.failed, {})
    cpu = {name: (after[name] - before[name]) / len(waits) * _MICRO for name in before}
    return Run(len(waits) / took_s, waits[len(waits) // 2], waits[int(len(waits) * 0.99)], tally.failed, cpu)


def _cpu_s(net: Network) -> dict[str, float]:
    """CPU seconds so far of the client (this process) and of everything that runs, orderers together."""
    found = {"client": sum(psutil.Process().cpu_times()[:2])}
    for name in net.running.names():
        group = "orderers" if name.startswith("orderer") else name
        found[group] = found.get(group, 0.0) + sum(psutil.Process(net.running.pid(name)).cpu_times()[:2])
    return found


def _median(runs: list[Run]) -> Run:
    """The run in the middle, by its rate."""
    middle = statistics.median_low([run.rate for run in runs])
    return next(run for run in runs if run.rate == middle)


def _rates(runs: list[Run]) -> str:
    return ", ".join(f"{run.rate:.0f}" for run in runs)


def _said(run: Run) -> str:
    parts = ", ".join(f"{name} {used:.0f}" for name, used in sorted(run.cpu_us.items(), key=lambda item: -item[1]))
    return f"p50 {run.p50_s:.2f} s, p99 {run.p99_s:.2f} s, {run.failed} failed; CPU µs a transaction: {parts}"
