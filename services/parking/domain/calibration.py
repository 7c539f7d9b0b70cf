"""How well said probabilities came true: ten bins, and the mean square of said less came (Brier 1950)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MILLI = 1_000
BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Probabilities from `from_milli` on; `said_milli` their mean, `came_milli` the share that found a bay."""

    from_milli: int
    advices: int
    said_milli: int
    came_milli: int


def bin_of(probability_milli: int) -> int:
    """0 to 9; certainty belongs to the last."""
    return min(BINS - 1, probability_milli * BINS // MILLI)


def bins(rows: Iterable[tuple[int, int, int, int]]) -> list[Bin]:
    """Of (bin, advices, sum of said thousandths, number that came true)."""
    return [
        Bin(number * MILLI // BINS, count, said // count, MILLI * came // count)
        for number, count, said, came in sorted(rows)
        if count
    ]


def square_micro(probability_milli: int, came: bool) -> int:
    """(said - came)^2 in millionths."""
    return (probability_milli - MILLI * came) ** 2
