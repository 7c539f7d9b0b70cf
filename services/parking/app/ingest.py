"""The on-ramp: packages of sensors and locks in, one answer each, durable before the answer. Called by `api` for each IngestRequest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from city.parking.v1 import parking_service_pb2 as pb
from citykit import telemetry
from citykit.bus.port import Message
from citykit.clock import Clock, unix
from citykit.ids import Randomness
from citykit.onramp.buckets import Buckets
from citykit.onramp.chain import Refusal
from citykit.onramp.gate import Gate
from citykit.onramp.heads import heads
from citykit.onramp.opening import Opened, Rule
from citykit.onramp.registry import Registry
from citykit.package import commitment
from citykit.settings import ParkingSettings
from citykit.store.port import Store, Unit
from services.parking import events
from services.parking.app.changes import SALT_BYTES
from services.parking.app.lots import BAY_SENSOR, LOCK, Lots, Place
from services.parking.app.states import States
from services.parking.domain.reservation import Reservation
from services.parking.store.packages import Accepted, Candidate, Kept, Outcome, store_packages
from services.parking.store.tables import CHAINS

_Result = pb.PackageResult


class Passages(Protocol):
    """What takes over the doings of locks (`app.passages`)."""

    def note(
        self, unit: Unit, device: str, sequence: int, measure: str, readings: Sequence[tuple[int, int]], now: int
    ) -> list[Reservation]:
        """In the unit that stores the package; returns what changed."""

    def noted(self, changed: Sequence[Reservation]) -> None:
        """After the unit is durable."""


class Ingest:
    """Built once by `main`; `handle` is called concurrently."""

    def __init__(
        self, store: Store, registry: Registry, lots: Lots, states: States, passages: Passages,
        clock: Clock, randomness: Randomness, settings: ParkingSettings,
    ) -> None:  # fmt: skip
        self._store = store
        self._states = states
        self._passages = passages
        self._clock = clock
        self._randomness = randomness
        self._silence_s = settings.sensor_silence_s
        buckets = Buckets(settings.device_rate_per_s, settings.device_burst)
        self._gate = Gate(registry, Rule(lots.place, 0), buckets, clock, settings.future_tolerance_s)

    def close(self) -> None:
        self._gate.close()

    async def handle(self, raws: Sequence[bytes]) -> list[Outcome]:
        """One answer for each package, in order.

        Raises:
            InvalidArgument: more than 256 packages.
            CityError: the store is away or full; nothing of the request was kept.
        """
        with telemetry.span("parking.ingest", packages=len(raws)):
            findings = await self._gate.open(raws)
            stored = iter(await self._keep([item for item in findings if isinstance(item, Opened)]))
        answers = [next(stored) if isinstance(item, Opened) else item for item in findings]
        for answer in answers:
            telemetry.PARKING_PACKAGES.labels(*_outcome(answer)).inc()
        return answers

    async def heads(self, devices: Sequence[str]) -> list[tuple[str, int, bytes]]:
        """(device, sequence, hash) of the devices that have sent something."""
        return await self._store.read(lambda c: heads(c, CHAINS, devices))

    async def _keep(self, opened: Sequence[Opened[Place]]) -> list[Outcome]:
        if not opened:
            return []
        now, trace = unix(self._clock), telemetry.traceparent()
        candidates = [self._candidate(item, trace) for item in opened]

        def observed(item: Candidate, states: list[tuple[int, int]]) -> Message:
            return _observed(item, states, now)

        kept: Kept = await self._store.write(
            lambda unit: store_packages(unit, candidates, self._passages.note, observed, now, self._silence_s)
        )
        self._states.keep(kept)
        self._passages.noted(kept.reservations)
        return kept.outcomes

    def _candidate(self, item: Opened[Place], trace: str) -> Candidate:
        parsed, place = item.package, item.place
        return Candidate(
            device=parsed.device,
            lot=place.lot,
            most=0 if place.role == LOCK else place.most,
            watches=place.role == BAY_SENSOR,
            measure=parsed.measure.name,
            sequence=parsed.sequence,
            hash=parsed.hash,
            previous=parsed.previous,
            content=item.raw,
            salt=self._randomness(SALT_BYTES),
            readings=item.readings,
            trace=trace,
        )


def result(answer: Outcome) -> pb.PackageResult:
    """One package's answer on the wire."""
    if isinstance(answer, Refusal):
        outcome = _Result.OUTCOME_DEFERRED if answer.retry_after_ms else _Result.OUTCOME_REJECTED
        return _Result(
            outcome=outcome, reason=answer.reason, message=answer.message, retry_after_ms=answer.retry_after_ms
        )
    if isinstance(answer, Accepted):
        return _accepted(answer)
    return _Result(outcome=_Result.OUTCOME_DUPLICATE, reason="duplicate", message="accepted before; nothing changed")


def _accepted(answer: Accepted) -> pb.PackageResult:
    """What is not counted is in the log all the same, and is said."""
    if answer.impossible:
        message = (
            f"{answer.impossible} counts are below 0 or above what the sensor can see; in the log, but not counted"
        )
        return _Result(outcome=_Result.OUTCOME_ACCEPTED, reason="impossible-count", message=message)
    if answer.stuck:
        message = "the sensor says the same for hours in which it should have moved; in the log, but not counted"
        return _Result(outcome=_Result.OUTCOME_ACCEPTED, reason="stuck", message=message)
    return _Result(outcome=_Result.OUTCOME_ACCEPTED)


def _outcome(answer: Outcome) -> tuple[str, str]:
    if isinstance(answer, Refusal):
        return ("deferred" if answer.retry_after_ms else "rejected"), answer.reason
    return ("accepted", "") if isinstance(answer, Accepted) else (answer, "")


def _observed(item: Candidate, states: list[tuple[int, int]], now: int) -> Message:
    committed = commitment(item.salt, item.content)
    message = events.states_observed(item.device, item.sequence, item.lot.id, states, item.lot.capacity, committed, now)
    return replace(message, headers={**message.headers, "traceparent": item.trace.encode()}) if item.trace else message
