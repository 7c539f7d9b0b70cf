"""The on-ramp: packages in, one answer each, durable before the answer. The hot path; called by `api` for each IngestRequest.

Cheap checks first; signatures in threads; then one unit of work for the request (the store joins concurrent ones in a commit).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from citykit import telemetry
from citykit.bus.port import Message
from citykit.clock import Clock, unix
from citykit.errors import CityError, InvalidArgument
from citykit.ids import Randomness
from citykit.package import commitment
from citykit.settings import MeteringSettings
from citykit.store.port import Store
from services.metering import events
from services.metering.app.buckets import Buckets
from services.metering.app.facts import SALT_BYTES, Facts
from services.metering.app.fleet import LOOKUPS_MAX, Fleet
from services.metering.app.meters import Meters
from services.metering.app.opening import UNKNOWN_DEVICE, Opened, Unknown, open_packages
from services.metering.app.refusals import Refusals
from services.metering.domain import plausibility
from services.metering.domain.chain import Refusal
from services.metering.domain.plausibility import Meter
from services.metering.store.packages import (
    ALREADY_MEASURED,
    Accepted,
    Candidate,
    Outcome,
    Wording,
    heads,
    store_packages,
)

PACKAGES_MAX = 256
LOOKUP_WAIT_MS = 200
THREADS = 2
_CHUNK = 32
_EXPLAIN = {
    plausibility.OUT_OF_RANGE: "below 0 Wh or above the physical limit of the meter point",
    plausibility.RATE: f"more than {plausibility.RATE_PERCENT} % of the physical limit away from the slot before",
    plausibility.STUCK: "the same value again and again where the meter's own week moves",
    plausibility.SPIKE: f"more than {plausibility.SPIKE_PEAK} times the meter's highest value and {plausibility.SPIKE_PROFILE} times its week",
    plausibility.DRIFT: "days in a row in which sum and standby left what the three weeks before had; held until somebody decides",
    ALREADY_MEASURED: "gives another value to a slot that was measured before; what was first stays",
}


Answer = Accepted | Refusal | str
"""What became of one package; `str` is DUPLICATE; a Refusal with a wait is deferred."""


class Ingest:
    """Built once by `main`; `handle` is called concurrently."""

    def __init__(
        self, store: Store, fleet: Fleet, meters: Meters, refusals: Refusals, facts: Facts,
        clock: Clock, randomness: Randomness, settings: MeteringSettings,
    ) -> None:  # fmt: skip
        self._store = store
        self._fleet = fleet
        self._meters = meters
        self._refusals = refusals
        self._facts = facts
        self._clock = clock
        self._randomness = randomness
        self._tolerance = settings.future_tolerance_s
        self._buckets = Buckets(settings.device_rate_per_s, settings.device_burst)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    async def handle(self, raws: Sequence[bytes]) -> list[Answer]:
        """One answer for each package, in order.

        Raises:
            InvalidArgument: more than 256 packages.
            CityError: the store is away or full; nothing of the request was kept.
        """
        if len(raws) > PACKAGES_MAX:
            raise InvalidArgument(f"{len(raws)} packages; a request holds at most {PACKAGES_MAX}", field="packages")
        with telemetry.span("metering.ingest", packages=len(raws)):
            findings = await self._open(raws)
            answers = [self._admit(finding) for finding in findings]
            stored = await self._keep([item for item in answers if isinstance(item, Opened)])
        left = iter(stored)
        final: list[Answer] = [next(left) if isinstance(item, Opened) else item for item in answers]
        self._count(findings, final)
        return final

    async def heads(self, devices: Sequence[str]) -> list[tuple[str, int, bytes]]:
        """(device, sequence, hash) of the devices that have sent something."""
        return await self._store.read(lambda c: heads(c, devices))

    async def _open(self, raws: Sequence[bytes]) -> list[Opened | Unknown | Refusal]:
        findings = await self._open_known(raws)
        unknown = {item.device for item in findings if isinstance(item, Unknown)}
        if not unknown:
            return findings
        try:
            later = await self._fleet.find(unknown)
        except CityError as error:
            wait = int((error.retry_after_s or 1.0) * 1_000)
            return _put_off(findings, unknown, "identity-away", "identity cannot be asked now", wait)
        again = [n for n, item in enumerate(findings) if isinstance(item, Unknown) and self._fleet.get(item.device)]
        for number, finding in zip(again, await self._open_known([raws[n] for n in again]), strict=True):
            findings[number] = finding
        return _put_off(
            findings,
            later,
            "device-lookup",
            f"{LOOKUPS_MAX} others of the request were looked up first",
            LOOKUP_WAIT_MS,
        )

    async def _open_known(self, raws: Sequence[bytes]) -> list[Opened | Unknown | Refusal]:
        latest = unix(self._clock) + self._tolerance
        loop = asyncio.get_running_loop()
        chunks = [raws[at : at + _CHUNK] for at in range(0, len(raws), _CHUNK)]
        jobs = [
            loop.run_in_executor(self._pool, open_packages, c, self._fleet, latest, self._buckets.busy) for c in chunks
        ]
        return [finding for findings in await asyncio.gather(*jobs) for finding in findings]

    def _admit(self, finding: Opened | Unknown | Refusal) -> Opened | Refusal:
        if isinstance(finding, Unknown):
            return Refusal(
                UNKNOWN_DEVICE,
                f"no device {finding.device!r} is registered in this city; register it with its voucher first",
            )
        if isinstance(finding, Opened):
            return self._buckets.take(finding.device.id, len(finding.readings)) or finding
        return finding

    async def _keep(self, opened: Sequence[Opened]) -> list[Outcome]:
        if not opened:
            return []
        now = unix(self._clock)
        await self._meters.load({item.device.id: item.device for item in opened}.values())
        drafts = {item.device.id: self._meters.draft(item.device.id) for item in opened}
        trace = telemetry.traceparent()
        candidates = [self._candidate(item, drafts[item.device.id], trace) for item in opened]
        wording = self._wording(now)
        outcomes = await self._store.write(lambda unit: store_packages(unit, candidates, wording, now))
        for device in {c.device for c, o in zip(candidates, outcomes, strict=True) if isinstance(o, Accepted)}:
            self._meters.keep(device, drafts[device])
        return outcomes

    def _candidate(self, item: Opened, draft: Meter, trace: str) -> Candidate:
        point, offsets, parsed = item.device.meter_point, item.device.offsets, item.package
        assert point is not None and offsets is not None  # noqa: S101 - opening refused devices without
        held = plausibility.judge(draft, item.readings, offsets)
        salt = self._randomness(SALT_BYTES)
        return Candidate(
            parsed.device,
            point.id,
            parsed.sequence,
            parsed.hash,
            parsed.previous,
            item.raw,
            salt,
            item.readings,
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

    def _count(self, findings: Sequence[Opened | Unknown | Refusal], answers: Sequence[Answer]) -> None:
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


def _put_off(
    findings: list[Opened | Unknown | Refusal], devices: set[str], reason: str, why: str, wait_ms: int
) -> list[Opened | Unknown | Refusal]:
    refusal = Refusal(reason, f"the device is not known here yet and {why}; send again", wait_ms)
    return [refusal if isinstance(item, Unknown) and item.device in devices else item for item in findings]


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
