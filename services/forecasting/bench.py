"""Figures of forecasting (`city bench forecasting`): what a refresh costs, how long the city's loop waits for one, and how right it is.

Each function returns {"name", "value", "unit", "floor", "aim", "how"}. Nothing here is a test: what it prints depends on the machine.
"""

from __future__ import annotations

import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from services.forecasting.app.book import Book, Row
from services.forecasting.app.snapshot import BLOCK, Snapshot
from services.forecasting.domain.groups import HORIZON

Figure = dict[str, Any]
START = 1_475_535_600
SLOT_S, DAY, WEEK = 1_800, 48, 336
WEEKS = 12
END = START + WEEKS * WEEK * SLOT_S
REFRESHED, ASKED = 1_000, 10_000
_UNTIL = 8 * DAY + HORIZON
_MIB = 1_024
_LEVEL = 80
_ROWS_MIN = 1_000
BACKENDS = ("naive", "smoothing", "profile", "lightgbm")


def forecast_refresh() -> Figure:
    """Core seconds to forecast 1,000 series for 24 hours, training left out."""
    found = _measured()
    return {
        "name": "forecast-refresh",
        "value": round(found["refresh_s"], 2),
        "unit": "core s",
        "floor": 17,
        "aim": 1.5,
        "how": f"{REFRESHED:,} series x {HORIZON} half hours with bands, {WEEKS} weeks of history, {', '.join(BACKENDS)} combined, trained before"
        f" ({found['train_s']:.0f} core s for all, once a week); the process's own time, reading the model included; its peak is"
        f" {found['peak_mib']:.0f} MiB ({found['train_mib']:.0f} MiB while training)",
    }


def forecast_loop() -> Figure:
    """How long the city's loop is busy at once when 10,000 series are asked for."""
    book = _book(ASKED)
    names = book.names("metering/")
    longest = max(_timed(book, names[at : at + BLOCK]) for at in range(0, ASKED, BLOCK))
    return {
        "name": "forecast-loop",
        "value": round(longest * 1_000, 1),
        "unit": "ms",
        "floor": 20,
        "aim": 10,
        "how": f"longest of the {ASKED // BLOCK} snapshots of {BLOCK} series that {ASKED:,} series are handed over in; the loop runs between",
    }


def forecast_coverage() -> Figure:
    """How far the share inside the 80 % bands lies from 80, on series with known noise."""
    found = _measured()
    return {
        "name": "forecast-coverage",
        "value": round(100 * abs(found["inside"] - _LEVEL / 100), 2),
        "unit": "points",
        "floor": 3,
        "aim": 1,
        "how": f"{_LEVEL} % bands of {REFRESHED:,} series for the 24 h after a training, against what comes next of the same process;"
        f" {100 * found['inside']:.1f} % inside, mean of series",
    }


def birmingham_rate() -> Figure:
    """Error as a share of capacity, one week ahead on the open car parks of Birmingham."""
    name, floor, aim = "forecast-birmingham", 0.0516, 0.0484
    lines = _birmingham()
    if lines is None:
        how = "not run: the open data is not here; `city data pull birmingham-parking` says why"
        return {"name": name, "value": None, "unit": "of capacity", "floor": floor, "aim": aim, "how": how}
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found = pool.submit(_backtested, lines).result()
    return {
        "name": name,
        "value": found["choice"]["rate"],
        "unit": "of capacity",
        "floor": floor,
        "aim": aim,
        "how": f"{found['series']} lots with at least 1,000 rows, one week ahead, {found['origins']} weekly origins, all backends combined"
        f" (Prophet alone {found['backends']['prophet']['rate']}, naive {found['backends']['naive']['rate']})",
    }


BENCHES: tuple[Callable[[], Figure], ...] = (forecast_refresh, forecast_loop, forecast_coverage, birmingham_rate)
_known: dict[str, float] = {}


def _measured() -> dict[str, float]:
    """Trains and refreshes once, in processes of their own as in the city; both figures come from it."""
    if not _known:
        book = _book(REFRESHED)
        names = book.names("metering/")
        blocks = [book.snapshot(names[at : at + BLOCK], END) for at in range(0, REFRESHED, BLOCK)]
        with tempfile.TemporaryDirectory() as folder:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                model, train_s, train_mib = pool.submit(_train, blocks, Path(folder)).result()
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                refresh_s, peak_mib, inside = pool.submit(_refresh, blocks, model).result()
        _known.update(train_s=train_s, train_mib=train_mib, refresh_s=refresh_s, peak_mib=peak_mib, inside=inside)
    return _known


def _train(blocks: list[Snapshot], folder: Path) -> tuple[Path, float, float]:
    from services.forecasting.app import compute  # noqa: PLC0415 - in the computing process only

    compute.prepare()
    began = time.process_time()
    trained = compute.join([compute.train(block, BACKENDS, _UNTIL, folder) for block in blocks], folder)
    return trained.path, time.process_time() - began, _peak_mib()


def _refresh(blocks: list[Snapshot], model: Path) -> tuple[float, float, float]:
    from services.forecasting.app import compute  # noqa: PLC0415

    compute.prepare()
    compute.forecast(_one_of(blocks[0]), model, HORIZON)  # imports, and the model's bytes
    began = time.process_time()
    found = [compute.forecast(block, model, HORIZON) for block in blocks]
    taken = time.process_time() - began
    covered = [
        _inside(name, one.bands[_LEVEL], row)
        for block, one in zip(blocks, found, strict=True)
        for row, name in enumerate(block.names)
    ]
    return taken, _peak_mib(), sum(covered) / len(covered)


def _one_of(block: Snapshot) -> Snapshot:
    return Snapshot(block.names[:1], block.first, block.length, block.values[: 4 * block.length], b"")


def _inside(series: str, band: tuple[bytes, bytes], row: int) -> float:
    low, high = (array("q", data)[row * HORIZON : (row + 1) * HORIZON] for data in band)
    truth = _values(int(series[-5:]))[WEEKS * WEEK :]
    return sum(a <= 1_000 * value <= b for a, value, b in zip(low, truth, high, strict=True)) / HORIZON


def _book(series: int) -> Book:
    """Homes with a daily and a weekly pattern of their own, and noise."""
    book = Book("UTC", 120 * DAY)
    first = START // SLOT_S
    for number in range(series):
        values = _values(number if series == REFRESHED else number % 20)[: WEEKS * WEEK]
        book._rows[f"metering/{number:05}"] = Row(first, array("f", values), count=len(values))
    return book


@lru_cache(maxsize=32)
def _values(number: int) -> list[float]:
    dice = random.Random(number)  # noqa: S311 - series, reproducible
    high, peak, noise = 200 + dice.random() * 800, dice.randrange(DAY), 0.1 + 0.2 * dice.random()
    day = [1.2 + math.sin(2 * math.pi * (slot - peak) / DAY) for slot in range(DAY)]
    week = [1.0] * 5 + [0.7 + dice.random()] * 2
    return [
        max(0.0, high * day[slot % DAY] * week[slot // DAY % 7] * (1 + noise * dice.gauss(0, 1)))
        for slot in range(WEEKS * WEEK + HORIZON)
    ]


def _timed(book: Book, names: list[str]) -> float:
    began = time.perf_counter()
    book.snapshot(names, END)
    return time.perf_counter() - began


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MIB if sys.platform != "darwin" else _MIB**2)


def _birmingham() -> list[str] | None:
    """Rows of the lots with at least 1,000 of them, by way of `city data export`; None where the data cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lots.csv"
        asked = [sys.executable, "-m", "services", "data", "export", "birmingham-parking", str(path)]
        if subprocess.run(asked, capture_output=True, check=False).returncode:  # noqa: S603 - this program
            return None
        header, *rows = path.read_text(encoding="utf-8").splitlines()
    counts = Counter(row.partition(",")[0] for row in rows)
    return [header, *(row for row in rows if counts[row.partition(",")[0]] >= _ROWS_MIN)]


def _backtested(lines: list[str]) -> dict[str, Any]:
    from services.forecasting.app.backtesting import Options, backtest_csv  # noqa: PLC0415

    return backtest_csv(lines, Options("30min", WEEK, WEEK, 4, WEEK), lambda what, done, total: None)
