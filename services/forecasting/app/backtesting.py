"""A CSV of series in, the figures of a backtest out. The use case behind `city forecast backtest`.

The arrays and models are imported only when one runs: the `city` command and the embedded city start without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument
from services.forecasting.domain.grid import Grid, GridError, frequency_s
from services.forecasting.domain.observations import Cleaned, RowError, Series, gather, read_rows
from services.forecasting.domain.origins import HISTORY_SEASONS, Origins, OriginsError, rolling_origins

BACKEND_NAMES = ("naive", "smoothing", "profile", "lightgbm", "prophet")
CALIBRATION_ORIGINS = 46
PLOTS = (".png", ".svg", ".pdf")
CELLS_MAX = 60_000_000
"""Series times slots that are held at once."""


@dataclass(frozen=True)
class Options:
    """What was asked: slots throughout; `step` None is one horizon."""

    freq: str
    horizon: int
    season: int
    origins: int
    step: int | None = None
    backends: tuple[str, ...] = BACKEND_NAMES
    plot: Path | None = None


def backtest_csv(lines: Iterable[str], options: Options, report: Callable[[str, int, int], None]) -> dict[str, Any]:
    """The figures (docs/FORECASTING.md).

    Raises:
        InvalidArgument: a row that cannot be read (named by its line), an unknown backend, or too little history.
    """
    _require_known(options)
    try:
        grid = Grid(frequency_s(options.freq), options.season)
        series, cleaned = gather(read_rows(lines), grid)
        kept, left_out, origins = _with_history(series, options)
    except (GridError, RowError, OriginsError) as error:
        raise InvalidArgument(str(error)) from None
    return {**_run(kept, grid, origins, options, report), **_counts(kept, left_out, cleaned)}


def _require_known(options: Options) -> None:
    unknown = [name for name in options.backends if name not in BACKEND_NAMES]
    if unknown or len(set(options.backends)) != len(options.backends):
        raise InvalidArgument(
            f"backends are {', '.join(BACKEND_NAMES)}, each at most once, not {','.join(options.backends)!r}",
            field="backends",
        )
    if options.plot is not None and options.plot.suffix not in PLOTS:
        raise InvalidArgument(f"a plot ends in {', '.join(PLOTS)}, not {options.plot.name!r}", field="plot")


def _with_history(series: Mapping[str, Series], options: Options) -> tuple[dict[str, Series], list[str], Origins]:
    """(series with four seasons before the first test origin, names of the others, origins in columns of the kept panel)."""
    filled = {name: one for name, one in series.items() if one.values}
    if not filled:
        raise OriginsError("there is no value in the file")
    end = max(slot for one in filled.values() for slot in one.values) + 1
    step = options.horizon if options.step is None else options.step
    first_test = end - options.horizon - step * (options.origins - 1)
    _require_room(filled, end)
    least = first_test - HISTORY_SEASONS * options.season
    kept = {name: one for name, one in filled.items() if min(one.values) <= least}
    start = min(min(one.values) for one in (kept or filled).values())
    day = Grid(frequency_s(options.freq), options.season).day
    origins = rolling_origins(
        end - start, options.season, options.horizon, step, options.origins, CALIBRATION_ORIGINS, day
    )
    return kept, [name for name in series if name not in kept], origins


def _require_room(series: Mapping[str, Series], end: int) -> None:
    """A single wrong year must not ask for all the memory there is."""
    span = end - min(min(one.values) for one in series.values())
    if span * len(series) > CELLS_MAX:
        raise OriginsError(
            f"{len(series)} series over {span:,} slots are more than {CELLS_MAX:,} values;"
            " correct times far from the others, choose a longer --freq, or split the file by series"
        )


def _run(
    kept: Mapping[str, Series], grid: Grid, origins: Origins, options: Options, report: Callable[[str, int, int], None]
) -> dict[str, Any]:
    from services.forecasting.app.backtest import backtest  # noqa: PLC0415 - heavy: arrays and models
    from services.forecasting.app.panel import make_panel  # noqa: PLC0415
    from services.forecasting.app.scores import figures  # noqa: PLC0415

    run = backtest(make_panel(kept, grid), origins, options.horizon, options.backends, report)
    if options.plot is not None:
        from services.forecasting.app.picture import draw  # noqa: PLC0415 - heavier still

        draw(run, options.plot)
    return figures(run)


def _counts(kept: Mapping[str, Series], left_out: list[str], cleaned: Cleaned) -> dict[str, Any]:
    return {"series": len(kept), "left_out": left_out, "cleaned": cleaned.total}
