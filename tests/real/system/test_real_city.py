"""The demo on Kafka, PostgreSQL and a development peer, a process for each service: the same dashboard, the same checks, the same bills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from citykit.settings import NotarySettings
from citykit.testing.polling import until
from infra.supervisor import processes
from services.commands.run import demo_settings, read_parts
from services.demo.city import Options
from services.demo.summary import Summary, write_summary
from services.registry import SERVICES
from simulation.car_parks import CarParks
from simulation.neighbourhood import Neighbourhood
from tests.real.system.conftest import Up
from tests.system.test_city_run import free_port, options, run
from tests.system.visitor import Visitor

SEED, SPEED, METERS = 7, 900, 40
CITY = Neighbourhood(SEED, None, meters=METERS)
PARKS = CarParks(SEED, None, lots=4)


@dataclass(frozen=True)
class Ran:
    """What a run left, and what was seen while it ran."""

    state: Path
    seen: dict[str, Any]
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def ran(up: Up) -> Ran:
    """One run with faults, until the visitor has parked and paid; one service is killed meanwhile."""
    real, settings = read_parts(up.state)
    state, port = up.state / "city", free_port()
    seen: dict[str, Any] = {}
    chosen = Options(
        for_s=600, speed=SPEED, seed=SEED, port=port, state=state, faults=("forged", "replayed", "missing", "skew"),
        settings=demo_settings(replace(settings, notary=NotarySettings(anchor_interval_s=0.2)), CITY, port, SPEED),
        neighbourhood=CITY, car_parks=PARKS, real=real,
    )  # fmt: skip

    async def meanwhile(summary: Summary) -> None:
        reservation, check = await Visitor(port).park()
        seen.update(reservation=reservation, check=check)
        before = processes(state / "logs")
        seen["processes"] = sorted(before)
        os.killpg(before["metering"], signal.SIGKILL)
        await until(lambda: summary.proofs_checked == 3, "bill, session and statement checked", limit_s=120)
        await until(lambda: processes(state / "logs")["metering"] != before["metering"], "metering runs again")
        await until(lambda: fetched(port, "/readyz")[0] == 200, "every service answers again", limit_s=120)
        seen["city"] = json.loads(fetched(port, "/api/v1/city")[1])

    summary = asyncio.run(run(chosen, meanwhile))
    write_summary(summary, state / "summary.json")
    return Ran(state, seen, json.loads((state / "summary.json").read_text(encoding="utf-8")))


def fetched(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except OSError:
        return 0, b""


def test_the_visitor_reserves_parks_pays_and_checks(ran: Ran) -> None:
    one = ran.seen["reservation"]
    assert (one["state"], one["payment_state"], one["provable"]) == ("ended", "captured", True)
    assert ran.seen["check"]["ok"] is True


def test_every_service_has_a_process_and_the_page_says_what_it_runs_on(ran: Ran) -> None:
    assert ran.seen["processes"] == sorted(SERVICES)
    assert "A process for each service, on Kafka and PostgreSQL" in ran.seen["city"]["backbone"]
    assert "not Fabric" in ran.seen["city"]["backbone"]


def test_the_run_counts_as_the_embedded_one_does(ran: Ran) -> None:
    counted = ran.summary
    assert counted["bills"] == METERS
    assert (counted["proofs_checked"], counted["proofs_failed"]) == (3, 0)
    assert counted["reservations"] >= counted["payments"] > 0
    assert counted["double_bookings"] == 0
    assert counted["readings"] >= METERS * 35 * 48
    assert {"bad-signature", "from-the-future"} <= set(counted["rejected"])
    assert counted["backbone"].startswith("real: Kafka, 1 broker at ")
    assert "one operator, not Fabric" in counted["backbone"]


def test_the_offline_verifier_accepts_what_the_real_parts_made(ran: Ran) -> None:
    bundles = sorted(map(str, (ran.state / "out" / "bundles").glob("*.json")))
    trust = ran.state / "out" / "trust.json"
    assert len(bundles) == 3
    assert json.loads(trust.read_text(encoding="utf-8"))["ledger"]["kind"] == "development-peer"
    done = subprocess.run(
        [sys.executable, "-m", "verifier", *bundles, "--trust", str(trust), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)


def test_the_embedded_city_makes_the_same_bill(ran: Ran, tmp_path: Path) -> None:
    asyncio.run(run(options(tmp_path, for_s=0.1)))
    assert bill_of(ran.state) == bill_of(tmp_path)


def bill_of(state: Path) -> Any:
    """Ada's first bill but for what each city has of its own: its id and its tariff's transaction."""
    [path] = (state / "out" / "bundles").glob("bill-*.json")
    bill = json.loads(path.read_text(encoding="utf-8"))["bill"]
    own = {"id": "", "tariff": {**bill["tariff"], "transaction": ""}}
    return {**bill, **own}
