"""What must always hold of bills, and when metering must be left alone. Called by `main` for `city.operations.v1`."""

from __future__ import annotations

from dataclasses import dataclass

from citykit.service import Finding, Freeze, Invariant
from citykit.store.port import Store
from services.metering.store import bills

LOOK_EVERY_S = 300.0
"""They read every bill there is."""


@dataclass(frozen=True)
class Invariants:
    """Over all bills that were issued."""

    store: Store

    def every(self) -> tuple[Invariant, ...]:
        return (
            Invariant("no-gap-in-bills", self.no_gap_in_bills, LOOK_EVERY_S),
            Invariant("runs-are-whole", self.runs_are_whole, LOOK_EVERY_S),
        )

    async def no_gap_in_bills(self) -> Finding:
        """Between the first and the newest bill of a contract every day is billed, once. A month left out is a gap until it is billed."""
        contracts, gaps = await self.store.read(bills.gaps)
        return Finding(gaps == 0, f"{gaps} gaps or overlaps between the bills of {contracts} contracts")

    async def runs_are_whole(self) -> Finding:
        """Every run on the ledger has the commitments of all its bills."""
        runs, broken = await self.store.read(bills.broken_runs)
        return Finding(broken == 0, f"{broken} of {runs} runs lack commitments")

    async def freeze(self) -> Freeze | None:
        """While a run is drafted and not yet on the ledger."""
        drafts = await self.store.read(bills.drafts)
        return Freeze(f"{len(drafts)} billing runs wait for the ledger") if drafts else None
