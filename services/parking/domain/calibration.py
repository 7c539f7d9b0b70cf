"""How well said probabilities came true: ten bins, and the mean square of said less came (Brier 1950)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MILLI = 1_000
BINS = 10


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the advices of one bin.

    Attributes:
        said_milli: of the probabilities said, thousandths; came: how many found a bay.
        square_micro: of (said - came)^2, millionths.
    """

    bin: int
    advices: int
    said_milli: int
    came: int
    square_micro: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Probabilities from `from_milli` on; `said_milli` their mean, `came_milli` the share that found a bay."""

    from_milli: int
    advices: int
    said_milli: int
    came_milli: int


def scored(said: Iterable[tuple[int, int, bool]]) -> list[Tally]:
    """Sums by bin of (probability said, how often, whether a bay was free)."""
    found: dict[int, list[int]] = {}
    for milli, times, came in said:
        sums = found.setdefault(bin_of(milli), [0, 0, 0, 0])
        for at, more in enumerate((times, milli * times, times * came, times * square_micro(milli, came))):
            sums[at] += more
    return [Tally(number, *sums) for number, sums in sorted(found.items())]


def bins(tallies: Iterable[Tally]) -> list[Bin]:
    """The bins that have any advice, from the lowest."""
    ordered = sorted(tallies, key=lambda one: one.bin)
    return [
        Bin(one.bin * MILLI // BINS, one.advices, one.said_milli // one.advices, MILLI * one.came // one.advices)
        for one in ordered
        if one.advices
    ]


def brier_micro(tallies: Iterable[Tally]) -> int:
    """Mean square of said less came, millionths; 0 where nothing was said."""
    kept = list(tallies)
    return sum(one.square_micro for one in kept) // max(1, sum(one.advices for one in kept))


def bin_of(probability_milli: int) -> int:
    """0 to 9; certainty belongs to the last."""
    return min(BINS - 1, probability_milli * BINS // MILLI)


def square_micro(probability_milli: int, came: bool) -> int:
    """(said - came)^2 in millionths."""
    return (probability_milli - MILLI * came) ** 2
