"""A simulated count sensor of a car park: the counts of each day, signed and chained. The same seed gives the same packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from citykit.package import NO_PREVIOUS, OCCUPIED, Reading, Signer, package_hash, sign_package
from simulation.calendar import CONTRACTS_BEGIN, midnight
from simulation.neighbourhood import ZONE

DayOfCounts = Callable[[date], Sequence[Reading]]
"""Local day -> its counts, by time."""


@dataclass
class CountSensor:
    """A sensor.

    Attributes:
        capacity: of its lot.
        live_from: from here on it sends each count by itself, before it a day's counts in one package.
        sequence, previous: where its chain stands; `resume` sets them from what the city holds.
    """

    id: str
    signer: Signer
    capacity: int
    day: DayOfCounts
    live_from: int
    first_day: date = CONTRACTS_BEGIN
    sequence: int = 0
    previous: bytes = field(default=NO_PREVIOUS)
    _day: date | None = None
    _done: int = 0
    """Packages of `_day` that are behind us."""

    def resume(self, sequence: int, previous: bytes) -> None:
        """Goes on after the package the city holds. The plan of packages is the same at every start, so counting finds the place."""
        self.sequence, self.previous = sequence, previous if sequence else NO_PREVIOUS
        day = self.first_day
        while (number := len(self._groups(day))) <= sequence:
            sequence -= number
            day += timedelta(days=1)
        self._day, self._done = day, sequence

    def due(self, until: int) -> Iterator[list[Reading]]:
        """The readings of each package whose counts were all taken by `until`."""
        last = datetime.fromtimestamp(until, ZONE).date()
        day, done = self._day or self.first_day, self._done
        while day <= last:
            groups = self._groups(day)
            for number in range(done, len(groups)):
                if groups[number][-1].time > until:
                    return
                self._day, self._done = day, number + 1
                yield groups[number]
            day, done = day + timedelta(days=1), 0
            if midnight(day, ZONE) <= until:
                self._day, self._done = day, 0

    def sign(self, readings: list[Reading]) -> bytes:
        """The next package of the chain."""
        self.sequence += 1
        package = sign_package(self.signer, self.id, self.sequence, self.previous, readings, OCCUPIED)
        self.previous = package_hash(package)
        return package

    def _groups(self, day: date) -> list[list[Reading]]:
        """The packages of a day."""
        counts = list(self.day(day))
        if midnight(day, ZONE) >= self.live_from:
            return [[count] for count in counts]
        return [counts] if counts else []
