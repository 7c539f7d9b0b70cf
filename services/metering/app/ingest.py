"""The on-ramp: packages in, one answer each, durable before the answer. The hot path; called by `api` for each IngestRequest.

The gate opens and refuses; then one unit of work for the request (the store joins concurrent ones in a commit).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from citykit import telemetry
from citykit.bus.port import Message
from citykit.clock import Clock, unix
from citykit.ids import Randomness
from citykit.onramp.buckets import Buckets
from citykit.onramp.chain import Refusal
from citykit.onramp.gate import Gate
from citykit.onramp.heads import heads
from citykit.onramp.opening import Opened
from citykit.onramp.registry import Registry
from citykit.package import commitment
from citykit.settings import MeteringSettings
from citykit.store.port import Store
from services.metering import events
from services.metering.app.facts import SALT_BYTES, Facts
from services.metering.app.fleet import Fleet, Place
from services.metering.app.meters import Meters
from services.metering.app.refusals import Refusals
from services.metering.domain import plausibility
from services.metering.domain.plausibility import BandOf, Meter, unforecast
from services.metering.store.archive import MONTH_ARCHIVED
from services.metering.store.packages import (
    ALREADY_MEASURED,
    Accepted,
    Candidate,
    Outcome,
    Wording,
    store_packages,
)
from services.metering.store.tables import CHAINS

_EXPLAIN = {
    plausibility.OUT_OF_RANGE: "below 0 Wh or above the physical limit of the meter point",
    plausibility.RATE: f"more than {plausibility.RATE_PERCENT} % of the physical limit away from the slot before",
    plausibility.STUCK: "the same value again and again where the meter's own week moves",
    plausibility.SPIKE: f"more than {plausibility.SPIKE_PEAK} times the meter's highest value and {plausibility.SPIKE_PROFILE} times its week",
    plausibility.UNEXPECTED: f"outside the 95 % band forecast for the slot by more than {plausibility.EXPECTED_WIDTHS} times its width"
    f" and {plausibility.EXPECTED_FLOOR_PERCENT} % of the physical limit",
    plausibility.DRIFT: "days in a row in which sum and standby left what the three weeks before had; held until somebody decides",
    MONTH_ARCHIVED: "reaches into a month whose readings went to the archive; what counted then stays",
    ALREADY_MEASURED: "gives another value to a slot that was measured before; what was first stays",
}


Answer = Accepted | Refusal | str
"""What became of one package; `str` is DUPLICATE; a Refusal with a wait is deferred."""


class Ingest:
    """Built once by `main`; `handle` is called concurrently."""

    def __init__(
        self, store: Store, registry: Registry, fleet: Fleet, meters: Meters, refusals: Refusals, facts: Facts,
        clock: Clock, randomness: Randomness, settings: MeteringSettings, bands: Callable[[str], BandOf] = lambda point: unforecast,
    ) -> None:  # fmt: skip
        self._store = store
        self._meters = meters
        self._bands = bands
        self._refusals = refusals
        self._facts = facts
        self._clock = clock
        self._randomness = randomness
        buckets = Buckets(settings.device_rate_per_s, settings.device_burst)
        self._gate = Gate(registry, fleet.rule, buckets, clock, settings.future_tolerance_s)

    def close(self) -> None:
        self._gate.close()

    async def handle(self, raws: Sequence[bytes]) -> list[Answer]:
        """One answer for each package, in order.

        Raises:
            InvalidArgument: more than 256 packages.
            CityError: the store is away or full; nothing of the request was kept.
        """
        with telemetry.span("metering.ingest", packages=len(raws)):
            findings = await self._gate.open(raws)
            stored = await self._keep([item for item in findings if isinstance(item, Opened)])
        left = iter(stored)
        final: list[Answer] = [next(left) if isinstance(item, Opened) else item for item in findings]
        self._count(findings, final)
        return final

    async def heads(self, devices: Sequence[str]) -> list[tuple[str, int, bytes]]:
        """(device, sequence, hash) of the devices that have sent something."""
        return await self._store.read(lambda c: heads(c, CHAINS, devices))

    async def _keep(self, opened: Sequence[Opened[Place]]) -> list[Outcome]:
        if not opened:
            return []
        now = unix(self._clock)
        await self._meters.load({item.device.id: item.place for item in opened}.values())
        drafts = {item.device.id: self._meters.draft(item.device.id) for item in opened}
        trace = telemetry.traceparent()
        candidates = [self._candidate(item, drafts[item.device.id], trace) for item in opened]
        wording = self._wording(now)
        outcomes = await self._store.write(lambda unit: store_packages(unit, candidates, wording, now))
        for device in {c.device for c, o in zip(candidates, outcomes, strict=True) if isinstance(o, Accepted)}:
            self._meters.keep(device, drafts[device])
        return outcomes

    def _candidate(self, item: Opened[Place], draft: Meter, trace: str) -> Candidate:
        parsed, readings = item.package, item.readings
        held = plausibility.judge(draft, readings, item.place.offsets, self._bands(item.place.point.id))
        salt = self._randomness(SALT_BYTES)
        return Candidate(
            parsed.device,
            item.place.point.id,
            parsed.sequence,
            parsed.hash,
            parsed.previous,
            item.raw,
            salt,
            readings,
            held,
            trace,
        )

    def _wording(self, now: int) -> Wording:
        def accepted(item: Candidate, held: Sequence[str]) -> Message:
            return _accepted_message(item, held, now)

        return Wording(
            accepted=accepted,
            gap=lambda device, after, before: self._facts.gap_found(device, after, before, now),
            quarantined=lambda device, reason: self._facts.device_quarantined(device, reason, now),
            explain=explain,
        )

    def _count(self, findings: Sequence[Opened[Place] | Refusal], answers: Sequence[Answer]) -> None:
        for finding, answer in zip(findings, answers, strict=True):
            if isinstance(answer, Refusal):
                device = finding.device.id if isinstance(finding, Opened) else answer.device
                self._refusals.add(answer, device, unix(self._clock))
                telemetry.METERING_PACKAGES.labels(
                    "deferred" if answer.retry_after_ms else "rejected", answer.reason
                ).inc()
        taken = [answer for answer in answers if isinstance(answer, Accepted)]
        if taken:
            telemetry.METERING_PACKAGES.labels("accepted", "").inc(len(taken))
        for answer in taken:
            held = sum(map(bool, answer.held))
            telemetry.METERING_READINGS.labels("accepted").inc(len(answer.held) - held)
            if held:
                telemetry.METERING_READINGS.labels("quarantined").inc(held)


def _accepted_message(item: Candidate, held: Sequence[str], now: int) -> Message:
    committed = commitment(item.salt, item.content)
    return events.package_accepted(
        item.device, item.sequence, item.meter_point, item.readings, held, committed, now, item.trace
    )


def explain(item: Candidate, reason: str) -> str:
    """Why readings of the package were set aside, with the first numbers that led to it."""
    slots = [(slot, wh) for (slot, wh), why in zip(item.readings, item.held, strict=True) if why == reason]
    example = f"; first: {slots[0][1]} Wh in the slot at {slots[0][0]}" if slots else ""
    return f"{_EXPLAIN.get(reason, reason)}{example}"
