"""`city forecast backtest` as it is typed: the JSON of the issue, the table, the picture, odd files, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from services.__main__ import main
from services.forecasting.app import backtesting

SIMPLE = ("--backends", "naive,profile")
SHAPE = ("--freq", "1d", "--horizon", "7", "--season", "7", "--origins", "3")
SCORES = {"mae", "rate", "mase", "coverage", "train_ms", "predict_ms"}


def lines_of(series: str, days: int, capacity: int = 100, start: int = 0, constant: bool = False) -> list[str]:
    """A shop that is closed a little on Sundays, from 1 January 2016 on."""
    dice = random.Random(series)
    found = []
    for day in range(start, days):
        value = 50 if constant else 60 - 30 * (day % 7 == 2) + dice.randrange(9)
        month, date = divmod(day, 28)
        found.append(f"{series},{2016 + month // 12}-{1 + month % 12:02}-{1 + date:02},{value},{capacity}")
    return found


def file_of(folder: Path, lines: list[str], *, header: str = "series,time,value,capacity", end: str = "\n") -> str:
    path = folder / "series.csv"
    path.write_text(end.join([header, *lines, ""]), encoding="utf-8", newline="")
    return str(path)


def backtest(capsys: pytest.CaptureFixture[str], path: str, *arguments: str) -> Any:
    assert main(["forecast", "backtest", path, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], path: str, *arguments: str) -> str:
    assert main(["forecast", "backtest", path, *arguments]) == 2
    return capsys.readouterr().err


def test_the_document_is_the_one_of_the_issue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = lines_of("young", 140, start=110)
    path = file_of(tmp_path, [*lines_of("b", 140), *lines_of("a", 140), *late, "a,2016-01-05,-3,100"])
    found = backtest(capsys, path, *SHAPE, *SIMPLE)
    assert set(found) == {"backends", "choice", "origins", "calibration_origins", "series", "left_out", "cleaned"}
    assert set(found["backends"]) == {"naive", "profile"}
    for one in (*found["backends"].values(), found["choice"]):
        assert set(one) == SCORES
        assert set(one["coverage"]) == {"80", "90", "95"}
        assert all(set(level) == {"mean", "within10", "worst"} for level in one["coverage"].values())
    assert (found["series"], found["left_out"], found["cleaned"]) == (2, ["young"], 1)
    assert (found["origins"], found["calibration_origins"]) == (3, 46)
    assert 0 < found["choice"]["mase"] < 1.2 and 0.01 < found["choice"]["rate"] < 0.1


def test_the_table_says_how_many_origins_calibrated_and_the_picture_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = file_of(tmp_path, [*lines_of("a", 70), *lines_of("young", 70, start=60)]), tmp_path / "p.png"
    assert main(["forecast", "backtest", path, *SHAPE, *SIMPLE, "--plot", str(picture)]) == 0
    shown = capsys.readouterr()
    assert "| **choice** |" in shown.out and "1 series, 3 origins, 25 origins before them for the bands" in shown.out
    assert "Left out (under four seasons of history): young." in shown.out
    assert "origins, naive: 28/28" in shown.err
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_file_may_come_with_a_byte_order_mark_and_carriage_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of("a", 70)
    plain = backtest(capsys, file_of(tmp_path, lines), *SHAPE, *SIMPLE)["choice"]["mae"]
    odd = file_of(tmp_path, lines, header="\ufeffseries,time,value,capacity", end="\r\n")
    assert backtest(capsys, odd, *SHAPE, *SIMPLE)["choice"]["mae"] == plain


@pytest.mark.parametrize(
    ("shape", "days"),
    [
        (("--horizon", "20", "--season", "7", "--origins", "2"), 68),
        (("--horizon", "7", "--season", "7", "--origins", "2", "--step", "1"), 36),
        (("--horizon", "7", "--season", "7", "--origins", "1"), 35),
        (("--horizon", "1", "--season", "1", "--origins", "5"), 40),
    ],
)
def test_horizons_beyond_the_season_short_steps_and_barely_four_seasons_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[str, ...], days: int
) -> None:
    found = backtest(capsys, file_of(tmp_path, lines_of("a", days)), "--freq", "1d", *shape, *SIMPLE)
    assert found["series"] == 1 and found["choice"]["mae"] > 0


def test_constant_missing_and_resized_series_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = [line.rsplit(",", 2)[0] + ",," for line in lines_of("missing", 70)]
    resized = [*lines_of("resized", 40), *lines_of("resized", 70, capacity=55, start=40)]
    path = file_of(tmp_path, [*lines_of("constant", 70, constant=True), *empty, *resized])
    found = backtest(capsys, path, *SHAPE, *SIMPLE)
    assert (found["series"], found["left_out"]) == (2, ["missing"])
    assert found["cleaned"] > 0, "values above the smaller capacity"
    alone = backtest(capsys, file_of(tmp_path, lines_of("constant", 70, constant=True)), *SHAPE, *SIMPLE)
    assert (alone["choice"]["mae"], alone["choice"]["mase"], alone["series"]) == (0, None, 1)


@pytest.mark.parametrize(
    ("lines", "arguments", "word"),
    [
        ([*lines_of("a", 70), "a,yesterday,1,2"], (), "line 72: time 'yesterday'"),
        ([], (), "there is no value in the file"),
        (lines_of("a", 20), (), "4 seasons before the first origin"),
        (lines_of("a", 70), ("--backends", "naive,oracle"), "backends are naive, smoothing"),
        (lines_of("a", 70), ("--backends", "naive,naive"), "each at most once"),
        (lines_of("a", 70), ("--plot", "x.doc"), "a plot ends in .png"),
        (lines_of("a", 70), ("--step", "0"), "at least 1"),
        (lines_of("a", 70), ("--freq", "often"), "is no frequency"),
    ],
)
def test_what_cannot_be_done_is_refused_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], arguments: tuple[str, ...], word: str
) -> None:
    path = file_of(tmp_path, lines)
    said = refused(capsys, path, *SHAPE, *SIMPLE, *arguments)
    assert word in said and "series.csv" in said


def test_a_wrong_year_does_not_ask_for_all_the_memory_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtesting, "CELLS_MAX", 1_000)
    said = refused(capsys, file_of(tmp_path, [*lines_of("a", 70), "a,1916-01-01,1,2"]), *SHAPE, *SIMPLE)
    assert "correct times far from the others" in said


def test_an_empty_file_and_one_that_is_no_text_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"")
    assert "line 1: the header is ''" in refused(capsys, str(path), *SHAPE)
    path.write_bytes(b"series,time,value\n\xff,2016-01-01,1\n")
    assert "is not UTF-8 text" in refused(capsys, str(path), *SHAPE)
