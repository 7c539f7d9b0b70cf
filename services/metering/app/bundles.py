"""Proof bundles: one JSON file that the offline verifier checks (docs/PROOFS.md, "Bundle"). Called by `api` and a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from citykit import canonical, merkle
from citykit.access import Principal
from citykit.errors import CityError, FailedPrecondition, NotFound
from citykit.onramp.devices import device_keys
from citykit.package import commitment
from citykit.proofs import ENTRIES_MAX, FORMAT, Proofs, package_part
from citykit.store.port import Store
from services.metering import events
from services.metering.app.people import People, Span
from services.metering.app.usage import checked_span
from services.metering.domain.billing import MISSING
from services.metering.store import bills as stored
from services.metering.store import proofs
from services.metering.store.bills import BillRow
from services.metering.store.contracts import tariff
from services.metering.store.proofs import PackageRow
from services.metering.store.tables import DEVICES

NO_PACKAGES = "no-packages"
UNPROVEN_MAX = 200


@dataclass(frozen=True)
class Bundles:
    """Gathers packages, openings, proofs and evidence."""

    store: Store
    people: People
    proofs: Proofs
    city: str

    async def bill(self, who: Principal, bill_id: str, purpose: str) -> bytes:
        """The bundle of a bill.

        Raises:
            NotFound, InvalidArgument, FailedPrecondition (not anchored yet, or erased), Unavailable.
        """
        found = await self.store.read(lambda c: stored.shown(c, bill_id))
        if found is None:
            raise NotFound(f"no bill {bill_id!r}; ListBills names yours", field="bill")
        row = found[0]
        await self.people.may_see_bill(who, row.contract, bill_id, purpose)
        document = canonical.decode(row.document)
        packages, run, rules = await self.store.read(partial(_bill_parts, row, document))
        body = await self._packages("bill", packages)
        return _encode(
            {
                **body,
                "bill": document,
                "bill_salt": row.salt.hex(),
                "run": {"proof": run[1], "evidence": await self.proofs.evidence(run[0])},
                "tariff": await self.proofs.evidence(rules),
            }
        )

    async def readings(self, who: Principal, point: str, wanted: Span) -> bytes:
        """The bundle of the packages that hold a slot of the range, of the caller's own contracts.

        Raises:
            NotFound, InvalidArgument, PermissionDenied, FailedPrecondition (none, or not anchored yet), Unavailable.
        """
        own = await self.people.require_own(who, point)
        spans = self.people.own_spans(own, checked_span(wanted))
        packages = await self.store.read(lambda c: _packages_in(c, point, spans))
        return _encode(await self._packages("package", packages))

    async def mark_provable(self) -> None:
        """Notes which bills can be proven by now: all their packages are under an anchored head. A job."""
        for row in await self.store.read(lambda c: stored.unproven(c, UNPROVEN_MAX)):
            packages, _, _ = await self.store.read(partial(_bill_parts, row, canonical.decode(row.document)))
            try:
                await self._log_part(packages)
            except CityError as error:
                if error.reason == NO_PACKAGES:
                    continue  # erased since: never provable, and no hindrance to the others
                return
            await self.store.write(partial(stored.set_provable, [row.id]))

    async def _packages(self, kind: str, packages: Sequence[PackageRow]) -> dict[str, Any]:
        indexes, log = await self._log_part(packages)
        return {
            "format": FORMAT,
            "kind": kind,
            "city": self.city,
            "log": log,
            "packages": [package_part(n, row.content, row.salt) for n, row in zip(indexes, packages, strict=True)],
            "devices": [await self._device(device) for device in sorted({row.device for row in packages})],
            "earlier": None,
        }

    async def _log_part(self, packages: Sequence[PackageRow]) -> tuple[list[int], Any]:
        if not 0 < len(packages) <= ENTRIES_MAX:
            raise FailedPrecondition(
                f"{len(packages)} packages; a bundle holds 1 to {ENTRIES_MAX}. Choose another range (erased packages cannot be proven)",
                reason=NO_PACKAGES,
            )
        return await self.proofs.log_part(events.READINGS_LOG, [commitment(row.salt, row.content) for row in packages])

    async def _device(self, device: str) -> dict[str, Any]:
        return await self.proofs.device(device, await self.store.read(lambda c: device_keys(c, DEVICES, device)))


def _packages_in(connection: Connection, point: str, spans: Sequence[Span]) -> list[PackageRow]:
    wanted = {item for span in spans for item in proofs.sequences_of(connection, point, span.from_time, span.to_time)}
    return proofs.packages(connection, wanted)


def _bill_parts(
    row: BillRow, document: dict[str, Any], connection: Connection
) -> tuple[list[PackageRow], tuple[str, Any], str]:
    """Packages of a bill, (transaction, proof in the run), transaction of the tariff."""
    period = document["period"]
    missing = {item["slot"] for item in document["estimated"] if item["reason"] == MISSING}
    wanted = proofs.sequences_of(connection, row.meter_point, period["from_time"], period["to_time"], missing)
    run = stored.run(connection, row.run)
    rules = tariff(connection, document["tariff"]["id"], document["tariff"]["version"])
    if run is None or rules is None:
        raise NotFound("the run or the tariff of the bill is not stored", field="bill")
    hashes = [merkle.leaf_hash(leaf) for leaf in stored.leaves(connection, row.run)]
    proof = merkle.batch_proof(merkle.in_memory(hashes), [row.position], len(hashes))
    shown = {"size": len(hashes), "indexes": [row.position], "hashes": [item.hex() for item in proof]}
    return proofs.packages(connection, wanted), (run.ledger_transaction, shown), rules.transaction


def _encode(bundle: dict[str, Any]) -> bytes:
    return canonical.encode(bundle)
