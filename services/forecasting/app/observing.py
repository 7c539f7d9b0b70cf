"""Takes in what the bus and other services bring: durable first, then in memory. Called by the consumer, `api` and at start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from city.forecasting.v1 import forecasting_service_pb2 as pb
from citykit.bus.port import Record
from citykit.clock import Clock, unix
from citykit.errors import InvalidArgument
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.forecasting import events
from services.forecasting.app.book import Book
from services.forecasting.domain.groups import group_of
from services.forecasting.store import observations
from services.forecasting.store.observations import Chunk

MILLI = 1_000
ADDED_MAX = 10_000
_DAY_S = 86_400


@dataclass(frozen=True)
class Observing:
    """The way into the book."""

    store: Store
    book: Book
    clock: Clock
    history_days: int

    async def load(self) -> None:
        """Fills the book from the store; once, at start."""
        for chunk in await self.store.read(lambda c: list(observations.every(c))):
            self._put(chunk)

    async def handle(self, records: Sequence[Record]) -> None:
        """Consumer of readings and states."""

        def unit(work: Unit) -> list[Chunk]:
            fresh = events.chunks([record for record in records if work.first_time(record, events.GROUP)])
            observations.add(work, fresh)
            return fresh

        for chunk in await self.store.write(unit):
            self._put(chunk)

    async def add(self, once: Once[pb.AddObservationsResponse], chunk: Chunk) -> pb.AddObservationsResponse:
        """Observations another service brings; the same request again is no change. Negative values, values above the
        capacity said with them, and times more than a day ahead are cleaned.

        Raises:
            InvalidArgument: a series of no group, or too many observations.
        """
        if group_of(chunk.series) is None:
            raise InvalidArgument(
                f"{chunk.series!r} is of no group; name it parking/..., metering/... or city/...", field="series"
            )
        if not 0 < len(chunk.observations) <= ADDED_MAX:
            raise InvalidArgument(f"1 to {ADDED_MAX} observations in one call", field="observations")
        latest = unix(self.clock) + _DAY_S
        good = tuple(sorted(one for one in chunk.observations if _possible(one, latest)))
        kept = Chunk(chunk.series, good)

        answer = pb.AddObservationsResponse(added=len(good), cleaned=len(chunk.observations) - len(good))

        def unit(work: Unit) -> pb.AddObservationsResponse | None:
            before = once.before(work)
            if before is None:
                observations.add(work, [kept])
                once.keep(work, answer)
            return before

        before = await self.store.write(unit)
        if before is not None:
            return before
        self._put(kept)
        return answer

    async def forget(
        self, once: Once[pb.ForgetResponse], series: str, from_time: int, to_time: int
    ) -> pb.ForgetResponse:
        """Destroys what was observed of a series in [from_time, to_time); the same request again is no change."""

        def unit(work: Unit) -> pb.ForgetResponse:
            before = once.before(work)
            if before is not None:
                return before
            gone = observations.forget(work, series, from_time, to_time)
            return once.keep(work, pb.ForgetResponse(forgotten=gone))

        answer = await self.store.write(unit)
        oldest = unix(self.clock) - 2 * self.history_days * _DAY_S
        self.book.forget(series, max(from_time, oldest), min(to_time, unix(self.clock) + _DAY_S))
        return answer

    async def prune(self) -> None:
        """Forgets what is older than the history. A job."""
        oldest = unix(self.clock) - 2 * self.history_days * _DAY_S
        await self.store.write(lambda unit: observations.prune(unit, oldest))

    def _put(self, chunk: Chunk) -> None:
        for time, value, capacity in chunk.observations:
            self.book.put(chunk.series, time, value / MILLI, capacity / MILLI if capacity else float("nan"))


def _possible(one: tuple[int, int, int], latest: int) -> bool:
    time, value, capacity = one
    return time <= latest and value >= 0 and (not capacity or value <= capacity)
