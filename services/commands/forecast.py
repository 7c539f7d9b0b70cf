"""`city forecast backtest FILE.csv`: what each model, and the choice among them, would have said of any series."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument
from services.commands.progress import progress
from services.forecasting.app import backtesting
from services.forecasting.app.backtesting import BACKEND_NAMES, Options

_COLUMNS = ("mae", "rate", "mase")


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("forecast", help="backtest the forecasts on any CSV of series")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    one = acts.add_parser("backtest", help="rolling-origin backtest of series,time,value[,capacity]")
    one.add_argument("file", type=Path, metavar="FILE.csv")
    one.add_argument("--freq", required=True, help="length of a slot: 30min, 1h, 1d; times snap to it")
    one.add_argument("--horizon", type=int, required=True, help="slots to forecast from each origin")
    one.add_argument("--season", type=int, required=True, help="slots of the pattern that repeats (a week)")
    one.add_argument("--origins", type=int, required=True, help="origins to score")
    one.add_argument("--step", type=int, help="slots between two origins (default: one horizon)")
    one.add_argument("--backends", help=f"comma-separated, of {', '.join(BACKEND_NAMES)} (default: all)")
    one.add_argument("--plot", type=Path, metavar="FILE", help="a picture of the last origin (png, svg or pdf)")
    one.add_argument("--json", action="store_true", help="one JSON document")
    one.set_defaults(run=_backtest)


def _backtest(arguments: argparse.Namespace) -> int:
    options = Options(
        freq=arguments.freq,
        horizon=arguments.horizon,
        season=arguments.season,
        origins=arguments.origins,
        step=arguments.step,
        backends=tuple(arguments.backends.split(",")) if arguments.backends else BACKEND_NAMES,
        plot=arguments.plot,
    )
    try:
        with arguments.file.open(newline="", encoding="utf-8-sig") as lines, progress(quiet=arguments.json) as bars:
            found = backtesting.backtest_csv(lines, options, bars.report)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{arguments.file} is not UTF-8 text: byte {error.start} cannot be read") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"{arguments.file}: {error.message}") from None
    if arguments.json:
        json.dump(found, sys.stdout)
        print()
    else:
        print(table(found))
    return 0


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table, and what was left out."""
    rows = [(name, found["backends"][name]) for name in found["backends"]] + [("**choice**", found["choice"])]
    lines = [
        "| | MAE | rate | MASE | inside 80 / 90 / 95 % | worst series | train, ms | predict, ms |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, scores) for name, scores in rows),
        "",
        f"{found['series']} series, {found['origins']} origins, {found['calibration_origins']} origins before them for the bands,"
        f" {found['cleaned']} values cleaned; milliseconds of core time a series.",
    ]
    if found["left_out"]:
        lines.append(f"Left out (under four seasons of history): {', '.join(found['left_out'])}.")
    return "\n".join(lines)


def _row(name: str, scores: dict[str, Any]) -> str:
    cover = scores["coverage"].values()
    inside = " / ".join(_percent(one["mean"]) for one in cover)
    worst = " / ".join(_percent(one["worst"]) for one in cover)
    plain = " | ".join("-" if scores[key] is None else f"{scores[key]:g}" for key in _COLUMNS)
    return f"| {name} | {plain} | {inside} | {worst} | {scores['train_ms']:.0f} | {scores['predict_ms']:.1f} |"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
