"""How well the probabilities of past advice came true: gathers what was said, scores it when the half hour was counted, publishes it daily.
Called by advice and `api`; `work` is a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.ids import Randomness
from citykit.package import commitment
from citykit.store.port import Store, Unit
from services.parking import events
from services.parking.app.changes import SALT_BYTES
from services.parking.domain.calibration import bins, brier_micro, scored
from services.parking.domain.states import DAY_S, HALF_HOUR_S
from services.parking.store import calibration as stored

LATE_S = 1_800
"""How long after a half hour its count is waited for before it is compared."""
LOST_S = DAY_S
SAID_MAX = 100_000
QUIET_S = 300
"""Where nobody was advised it looks every five minutes of city time."""


class Calibration:
    """What was said since the last job is in memory, at most 100,000 different (lot, half hour, probability); a crash loses a second of it."""

    def __init__(self, store: Store, clock: Clock, randomness: Randomness, zone: str) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._zone = ZoneInfo(zone)
        self._said: dict[tuple[str, int, int], int] = {}
        self._worked_at = 0

    def note(self, lot: str, arrival: int, probability_milli: int) -> None:
        """A probability was said to somebody."""
        key = (lot, arrival // HALF_HOUR_S * HALF_HOUR_S, probability_milli)
        if key in self._said or len(self._said) < SAID_MAX:
            self._said[key] = self._said.get(key, 0) + 1

    async def work(self) -> None:
        """Job: writes down what was said, scores what came, publishes the day before once it is over."""
        now = unix(self._clock)
        if not self._said and now // QUIET_S == self._worked_at // QUIET_S:
            return
        said, self._said = self._said, {}
        rows = [(*key, times) for key, times in said.items()]
        try:
            await self._store.write(lambda unit: self._unit(unit, rows, now))
        except Exception:
            for key, times in said.items():
                self._said[key] = self._said.get(key, 0) + times
            raise
        self._worked_at = now

    async def get(self) -> pb.GetCalibrationResponse:
        """The bins that have any advice, the Brier score, and what of it is in the log."""
        tallies, (document, salt) = await self._store.read(lambda c: (stored.tallies(c), stored.newest_day(c)))
        return pb.GetCalibrationResponse(
            bins=[
                pb.CalibrationBin(
                    from_milli=one.from_milli,
                    advices=one.advices,
                    said_milli=one.said_milli,
                    came_milli=one.came_milli,
                )
                for one in bins(tallies)
            ],
            advices=sum(one.advices for one in tallies),
            brier_micro=brier_micro(tallies),
            published_json=document,
            salt=salt,
        )

    def _unit(self, unit: Unit, rows: list[tuple[str, int, int, int]], now: int) -> None:
        stored.add_said(unit, rows)
        found = stored.take_due(unit, now - HALF_HOUR_S - LATE_S, now - LOST_S)
        stored.add_tallies(unit, scored(found))
        self._publish(unit, now)

    def _publish(self, unit: Unit, now: int) -> None:
        day = (datetime.fromtimestamp(now, UTC).astimezone(self._zone).date() - timedelta(days=1)).isoformat()
        tallies = stored.tallies(unit.connection)
        if not tallies or stored.is_published(unit.connection, day):
            return
        advices = sum(one.advices for one in tallies)
        document = events.calibration_document(day, bins(tallies), advices, brier_micro(tallies), now)
        salt = self._randomness(SALT_BYTES)
        stored.add_day(unit, day, document, salt)
        unit.publish(events.advice_calibrated(day, advices, commitment(salt, document), now))
