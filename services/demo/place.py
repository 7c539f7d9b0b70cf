"""Where the demo stands, kept in the state directory so that a second `city run` goes on where the first stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from citykit.errors import EnvironmentFault

SET_UP = 2
"""The set-up of this version: homes and car parks."""


@dataclass(frozen=True)
class Place:
    """City time (unix seconds), the seed the neighbourhood was made from, the billing runs so far, and which set-up was done.

    A newer version sets up more; what is there already is no change. Places of the first version say `true` for it.
    """

    city_time: float
    seed: int
    runs: list[str] = field(default_factory=list)
    set_up: int = 0

    def at(self, city_time: float) -> Place:
        return replace(self, city_time=city_time)


def read_place(state: Path, start: Place) -> Place:
    """The kept place, or `start` where there is none.

    Raises:
        EnvironmentFault: the directory holds a city of another seed.
    """
    path = _path(state)
    if not path.exists():
        return start
    kept = Place(**json.loads(path.read_text(encoding="utf-8")))
    if kept.seed != start.seed:
        raise EnvironmentFault(
            f"{state} holds a city of seed {kept.seed}, not {start.seed}: give --seed {kept.seed}, or another --state"
        )
    return kept


def write_place(state: Path, place: Place) -> None:
    """Whole or not at all."""
    path = _path(state)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(place)), encoding="utf-8")
    unfinished.replace(path)


def _path(state: Path) -> Path:
    return state / "place.json"
