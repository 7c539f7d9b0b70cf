"""`city run` as a newcomer has it: a small synthetic city from nothing to a checked bill, a second start, and the commands on what it left."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault
from citykit.settings import CitySettings, NotarySettings
from citykit.state import locked
from citykit.testing.polling import until
from services.__main__ import main
from services.commands.progress import Bars
from services.commands.run import demo_settings
from services.demo.city import DemoCity, Options
from services.demo.periods import closed_periods, next_close
from services.demo.place import Place, read_place, write_place
from services.demo.summary import Summary, memory_watch, write_summary
from services.serving import serving
from simulation.car_parks import CarParks
from simulation.neighbourhood import Neighbourhood
from tests.system.visitor import Visitor

SEED = 7
CITY = Neighbourhood(SEED, None, meters=40)
METERS = 40
PARKS = CarParks(SEED, None, lots=4)
SPEED = 20_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def options(
    state: Path, *, for_s: float = 0.3, faults: tuple[str, ...] = (), port: int = 0, speed: float = SPEED
) -> Options:
    settings = replace(CitySettings(), notary=NotarySettings(anchor_interval_s=0.05))
    return Options(
        for_s=for_s,
        speed=speed,
        seed=SEED,
        port=port or free_port(),
        state=state,
        faults=faults,
        settings=demo_settings(settings, CITY, 1, speed),
        neighbourhood=CITY,
        car_parks=PARKS,
    )


async def run(chosen: Options, meanwhile: Callable[[Summary], Awaitable[None]] | None = None) -> Summary:
    """Runs a demo until its time is over, or until what is done meanwhile is done."""
    summary, stopping = Summary(), asyncio.Event()
    async with memory_watch(summary):
        city = asyncio.create_task(DemoCity(chosen, Bars(None, None), summary).run(stopping))
        if meanwhile is not None:
            doing = asyncio.ensure_future(meanwhile(summary))
            await asyncio.wait({city, doing}, return_when=asyncio.FIRST_COMPLETED)
            stopping.set()
            await city
            await doing
        await city
    return summary


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A city that ran once, with faults, until the visitor and a simulated resident had parked and paid."""
    folder, port = tmp_path_factory.mktemp("city"), free_port()
    faults = ("forged", "replayed", "missing", "skew")

    async def meanwhile(summary: Summary) -> None:
        visitor = Visitor(port)
        reservation, check = await visitor.park()
        await until(lambda: summary.proofs_checked == 3, "bill, session and statement checked", limit_s=90)
        seen = {"reservation": reservation, "check": check, "speeds": sorted(visitor.speeds)}
        (folder / "visitor.json").write_text(json.dumps(seen), encoding="utf-8")

    summary = asyncio.run(run(options(folder, for_s=150, faults=faults, port=port, speed=3_600), meanwhile))
    write_summary(summary, folder / "summary.json")
    return folder


def test_the_visitor_finds_reserves_unlocks_leaves_pays_and_checks(state: Path) -> None:
    seen = json.loads((state / "visitor.json").read_text(encoding="utf-8"))
    one = seen["reservation"]
    assert (one["state"], one["payment_state"], one["provable"]) == ("ended", "captured", True)
    assert 0 < one["amount_minor"] == one["quote_minor"]
    assert seen["check"]["ok"] is True
    assert {"reservation", "access", "passages", "price", "receipts"} <= {
        step["step"] for step in seen["check"]["steps"]
    }
    assert seen["speeds"][0] == 60


def test_one_run_ends_in_a_bill_that_the_verifier_accepts(state: Path) -> None:
    counted = json.loads((state / "summary.json").read_text(encoding="utf-8"))
    assert counted["bills"] == METERS
    assert (counted["proofs_checked"], counted["proofs_failed"]) == (3, 0)
    assert counted["reservations"] >= counted["payments"] > 0
    assert counted["double_bookings"] == 0
    assert counted["readings"] >= METERS * 35 * 48
    assert counted["anchored_entries"] >= counted["packages"] - METERS
    assert counted["peak_memory_mib"] > 10
    assert {"bad-signature", "from-the-future"} <= set(counted["rejected"])
    bundles = sorted((state / "out" / "bundles").glob("*.json"))
    assert [name.split("-")[0] for name in (path.name for path in bundles)] == ["bill", "parking", "statement"]
    done = subprocess.run(
        [sys.executable, "-m", "verifier", *map(str, bundles), "--trust", str(state / "out" / "trust.json"), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True


def test_a_second_start_goes_on_where_the_first_stopped(state: Path) -> None:
    before = read_place(state, Place(0.0, SEED))
    summary = asyncio.run(run(options(state)))
    after = read_place(state, Place(0.0, SEED))
    assert after.city_time > before.city_time
    assert (summary.bills, summary.proofs_checked) == (0, 0)
    assert 0 < summary.packages < METERS * 100


def test_the_commands_read_what_the_city_left(state: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def city(*words: str) -> str:
        assert main([*words, "--state", str(state)]) == 0
        return capsys.readouterr().out

    logs = {row["log"]: row for row in json.loads(city("log", "list", "--json"))}
    assert logs["metering.readings"]["anchored_size"] > METERS * 36
    assert "metering.readings" in city("log", "list")
    assert city("log", "head", "metering.readings").startswith("provable.city/demo/metering.readings\n")
    assert json.loads(city("log", "head", "metering.readings", "--json"))["checkpoint"]
    assert len(json.loads(city("log", "prove", "metering.readings", "3", "--json"))["hashes"]) >= 10
    assert json.loads(city("log", "check", "--json"))["ok"] is True
    assert "0 findings" in city("log", "check")
    headers = json.loads(city("ledger", "blocks", "--json"))
    assert [header["number"] for header in headers] == list(range(len(headers)))
    assert "transactions" in city("ledger", "blocks")
    events = [json.loads(line) for line in city("ledger", "events").splitlines()]
    assert {"anchors", "billing", "devices", "tariffs"} <= {event["contract"] for event in events}
    assert json.loads(city("ledger", "tx", events[0]["transaction"]))["code"] == "VALID"
    assert json.loads(city("ledger", "check", "--json"))["ok"] is True
    assert "blocks verified" in city("ledger", "check")
    exported = tmp_path / "blocks.jsonl"
    assert json.loads(city("ledger", "export", str(exported), "--json"))["blocks"] == len(headers)
    assert "written" in city("ledger", "export", str(exported))
    assert len(exported.read_bytes().splitlines()) == len(headers)
    topics = {row["topic"]: row for row in json.loads(city("bus", "topics", "--json"))}
    assert set(topics["city.metering.readings.v1"]["lag"].values()) == {0}
    assert json.loads(city("bus", "dead-letters")) == []
    assert json.loads(city("bus", "replay", "city.metering.readings.v1"))["replayed"] == 0


def test_wrong_questions_say_what_to_do(state: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, message in (
        (["log", "head", "nope"], "no log"),
        (["log", "prove", "metering.readings", "999999999"], "not in a log"),
        (["ledger", "tx", "00"], "no transaction"),
        (["bus", "replay", "nowhere"], "unknown topic"),
    ):
        assert main([*words, "--state", str(state)]) == 2
        assert message in capsys.readouterr().err
    for words in (["log", "list"], ["log", "check"], ["ledger", "blocks"], ["bus", "topics"]):
        assert main([*words, "--state", str(tmp_path)]) == 2
        assert "--state" in capsys.readouterr().err
    assert main(["serve", "metering", "--state", str(tmp_path)]) == 3
    assert "clock" in capsys.readouterr().err


def test_damage_makes_the_checks_fail_by_name(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, words in (
        (state / "ledger" / "blocks", ["ledger", "check"]),
        (state / "notary" / "logs" / "metering.readings" / "entries", ["log", "check"]),
    ):
        good = path.read_bytes()
        path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
        try:
            assert main([*words, "--state", str(state)]) == 1
            assert "DAMAGED" in capsys.readouterr().out
            assert main([*words, "--state", str(state), "--json"]) == 1
            assert json.loads(capsys.readouterr().out)["ok"] is False
        finally:
            path.write_bytes(good)


def test_two_cities_on_one_directory_another_seed_and_a_taken_port_are_refused(state: Path) -> None:
    with locked(state), pytest.raises(EnvironmentFault, match="already runs"), locked(state):
        pass
    with pytest.raises(EnvironmentFault, match="--seed 7"):
        read_place(state, Place(0.0, 8))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        async def serve() -> None:
            async with serving(lambda: None, taken.getsockname()[1]):
                pass

        with pytest.raises(EnvironmentFault, match="--port"):
            asyncio.run(serve())


def test_the_page_says_it_is_starting_until_the_first_bill_is_there(tmp_path: Path) -> None:
    port = free_port()

    async def watched() -> tuple[list[int], Summary]:
        summary, seen, stopping = Summary(), [], asyncio.Event()
        task = asyncio.create_task(
            DemoCity(options(tmp_path, for_s=60, port=port), Bars(None, None), summary).run(stopping)
        )
        while summary.first_dashboard_s is None and not task.done():
            status = await asyncio.to_thread(asked, port)
            if status:
                seen.append(status)
            await asyncio.sleep(0.02)
        seen.append(await asyncio.to_thread(asked, port))
        stopping.set()
        await task
        return seen, summary

    seen, summary = asyncio.run(watched())
    first = seen.index(200)
    assert set(seen[:first]) <= {503}
    assert set(seen[first:]) == {200}
    assert summary.bills == METERS
    assert summary.first_dashboard_s is not None
    assert list((tmp_path / "out" / "bundles").glob("*.json"))


def asked(port: int) -> int:
    """The status of `/`; 0 where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)
    except OSError:
        return 0


def test_months_close_three_days_after_their_end() -> None:
    assert closed_periods(1_478_217_600 + 3 * 86_400 - 1) == []
    periods = closed_periods(1_478_217_600 + 3 * 86_400)
    assert [(str(start), str(end)) for start, end in periods] == [("2016-10-04", "2016-11-04")]
    assert next_close(1_478_217_600.0) == 1_478_217_600 + 3 * 86_400
    assert len(closed_periods(1_478_217_600 + 95 * 86_400)) == 4


def test_a_place_is_kept_whole(tmp_path: Path) -> None:
    write_place(tmp_path, Place(5.0, 7, ["run-1"], set_up=2))
    assert read_place(tmp_path, Place(0.0, 7)) == Place(5.0, 7, ["run-1"], set_up=2)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--for", "soon"], ["run", "--speed", "0"], ["run", "--speed", "1e9"], ["run", "--port", "0"], ["run", "--port", "x"],
        ["run", "--faults", "nonsense"], ["run", "--nope"], ["nothing"], [], ["serve", "nothing"], ["data", "show"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_unknown_setting_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CITY_BUS_PARTITION", "8")
    assert main(["run", "--synthetic", "--state", str(tmp_path / "x")]) == 2
    assert "unknown setting CITY_BUS_PARTITION" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_settings_and_data_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert "CITY_BUS_PARTITIONS=4" in capsys.readouterr().out
    assert main(["settings", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 10
    assert main(["data", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["data", "list"]) == 0
    assert "Open Government Licence" in capsys.readouterr().out
    assert main(["data", "show", "household-power"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == "CC BY 4.0"
    assert main(["data", "show", "nothing"]) == 2
    assert "there are" in capsys.readouterr().err
