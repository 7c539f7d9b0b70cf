"""The gate of a service's on-ramp: many packages in, each opened or refused. Called by a service's ingest before it stores anything.

Cheap checks first; signatures in threads; devices nobody here has heard of are asked for at identity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Generic

from citykit.clock import Clock, unix
from citykit.errors import CityError, InvalidArgument
from citykit.onramp.buckets import Buckets
from citykit.onramp.chain import Refusal
from citykit.onramp.opening import Opened, P, Rule, Unknown, open_packages
from citykit.onramp.registry import LOOKUPS_MAX, Registry

PACKAGES_MAX = 256
LOOKUP_WAIT_MS = 200
THREADS = 2
UNKNOWN_DEVICE = "unknown-device"
_CHUNK = 32


class Gate(Generic[P]):
    """Built once for a service; `open` is called concurrently. `tolerance_s`: how far a reading may lie ahead of city time."""

    def __init__(self, registry: Registry, rule: Rule[P], buckets: Buckets, clock: Clock, tolerance_s: int) -> None:
        self._registry = registry
        self._rule = rule
        self._buckets = buckets
        self._clock = clock
        self._tolerance_s = tolerance_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="verify")

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    async def open(self, raws: Sequence[bytes]) -> list[Opened[P] | Refusal]:
        """One finding for each package, in order. A refusal with a wait is deferred: the package may come again.

        Raises:
            InvalidArgument: more than 256 packages.
        """
        if len(raws) > PACKAGES_MAX:
            raise InvalidArgument(f"{len(raws)} packages; a request holds at most {PACKAGES_MAX}", field="packages")
        return [self._admit(finding) for finding in await self._open(raws)]

    async def _open(self, raws: Sequence[bytes]) -> list[Opened[P] | Unknown | Refusal]:
        findings = await self._open_known(raws)
        unknown = {item.device for item in findings if isinstance(item, Unknown)}
        if not unknown:
            return findings
        try:
            later = await self._registry.find(unknown)
        except CityError as error:
            wait = int((error.retry_after_s or 1.0) * 1_000)
            return _put_off(findings, unknown, "identity-away", "identity cannot be asked now", wait)
        again = [n for n, item in enumerate(findings) if isinstance(item, Unknown) and self._registry.get(item.device)]
        for number, finding in zip(again, await self._open_known([raws[n] for n in again]), strict=True):
            findings[number] = finding
        why = f"{LOOKUPS_MAX} others of the request were looked up first"
        return _put_off(findings, later, "device-lookup", why, LOOKUP_WAIT_MS)

    async def _open_known(self, raws: Sequence[bytes]) -> list[Opened[P] | Unknown | Refusal]:
        latest = unix(self._clock) + self._tolerance_s
        loop = asyncio.get_running_loop()
        chunks = [raws[at : at + _CHUNK] for at in range(0, len(raws), _CHUNK)]
        jobs = [
            loop.run_in_executor(
                self._pool, open_packages, chunk, self._registry, self._rule, latest, self._buckets.busy
            )
            for chunk in chunks
        ]
        return [finding for findings in await asyncio.gather(*jobs) for finding in findings]

    def _admit(self, finding: Opened[P] | Unknown | Refusal) -> Opened[P] | Refusal:
        if isinstance(finding, Unknown):
            return Refusal(
                UNKNOWN_DEVICE,
                f"no device {finding.device!r} is registered in this city; register it with its voucher first",
            )
        if isinstance(finding, Refusal):
            return finding
        late = self._buckets.take(finding.device.id, len(finding.package.times))
        return replace(late, device=finding.device.id) if late else finding


def _put_off(
    findings: list[Opened[P] | Unknown | Refusal], devices: set[str], reason: str, why: str, wait_ms: int
) -> list[Opened[P] | Unknown | Refusal]:
    refusal = Refusal(reason, f"the device is not known here yet and {why}; send again", wait_ms)
    return [refusal if isinstance(item, Unknown) and item.device in devices else item for item in findings]
