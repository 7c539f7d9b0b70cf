"""The demo's control over gRPC, and `city data` as it is typed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from city.simulation.v1 import simulation_service_pb2 as pb
from citykit.clock import ReplayClock
from citykit.errors import InvalidArgument
from services.__main__ import main
from services.commands.progress import Bars
from simulation import catalogue
from simulation.car_parks import CarParks
from simulation.control import Control
from simulation.faults import FAULTS, Faults
from simulation.neighbourhood import Neighbourhood

CITY = Neighbourhood(7, None, meters=40)
PARKS = CarParks(7, None, lots=3)


async def test_the_map_the_replay_and_the_faults() -> None:
    clock = ReplayClock(1_478_563_200)
    faults = Faults([meter.device_id for meter in CITY.meters])
    control = Control(CITY, PARKS, clock, faults, lambda: "live")
    shown = await control.GetNeighbourhood(pb.GetNeighbourhoodRequest(), None)
    assert (len(shown.meters), shown.time_zone, shown.synthetic) == (40, "Europe/London", True)
    assert [(lot.lot, lot.kind) for lot in shown.car_parks] == [(f"p0{n}", "simulated") for n in (1, 2, 3)]
    assert (await control.SetFaults(pb.SetFaultsRequest(faults=["stuck"]), None)).faults == ["stuck"]
    replay = await control.GetReplay(pb.GetReplayRequest(), None)
    assert (replay.city_time.seconds, replay.phase, list(replay.faults)) == (1_478_563_200, "live", ["stuck"])
    assert list(replay.faults_available) == list(FAULTS)
    assert len(replay.faulted_devices) == 2
    with pytest.raises(InvalidArgument, match="the faults are"):
        await control.SetFaults(pb.SetFaultsRequest(faults=["nonsense"]), None)
    assert faults.active == ("stuck",)


@pytest.fixture
def parking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hourly_parking.csv"
    rows = "SystemCodeNumber,Capacity,Occupancy,LastUpdated\nA,10,4,t1\nA,10,-1,t2\n"
    path.write_text(rows, encoding="utf-8")
    monkeypatch.setattr(catalogue, "path_of", lambda name, report: path)
    return path


def test_data_is_pulled_and_exported(parking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "export", "birmingham-parking", str(tmp_path / "out.csv")]) == 0
    assert "1 rows written" in capsys.readouterr().out
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines() == [
        "series,time,value,capacity",
        "A,t1,4,10",
    ]
    assert main(["data", "export", "birmingham-parking", str(tmp_path / "out.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
    assert main(["data", "pull", "birmingham-parking", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "birmingham-parking", "path": str(parking)}]
    assert main(["data", "export", "cairns-gtfs", str(tmp_path / "x.csv")]) == 2
    assert "no series" in capsys.readouterr().err


def test_without_a_terminal_progress_is_a_line_at_each_quarter() -> None:
    out = io.StringIO()
    bars = Bars(None, Console(file=out, width=80))
    for done in range(101):
        bars.report("days", done, 100)
    bars.say("ready")
    lines = out.getvalue().splitlines()
    assert lines[-1] == "ready"
    assert [line.split(": ")[1] for line in lines[:-1]] == ["0/100", "25/100", "50/100", "75/100", "100/100"]


def test_with_a_terminal_progress_is_a_bar() -> None:
    from rich.progress import Progress  # noqa: PLC0415

    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=True, width=80)) as display:
        bars = Bars(display, None)
        bars.report("days", 1, 2)
        bars.report("days", 2, 2)
        bars.say("ready")
    assert "days" in out.getvalue()
    assert "ready" in out.getvalue()
