"""Billing runs: drafts with all their bills first, then one decision on the ledger for each, then bills and events. Called by `api` and a job.

A crash at any point goes on with the same run id, documents and salts: the draft is durable before the ledger is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from city.metering.v1 import events_pb2
from city.metering.v1 import metering_service_pb2 as pb
from citykit import canonical, merkle, telemetry
from citykit.bus.port import Message
from citykit.clock import Clock, iso, unix
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.ids import Randomness
from citykit.ledger.port import Ledger
from citykit.once import Once
from citykit.package import commitment
from citykit.store.port import Store, Unit
from services.metering import events
from services.metering.app.agreements import checked_day
from services.metering.app.facts import SALT_BYTES
from services.metering.app.zones import local_date, period_of, zone_offsets
from services.metering.domain.billing import BillInput, gaps_between, make_bill
from services.metering.domain.errors import NotBillable, RuleBroken
from services.metering.domain.estimation import WEEKS
from services.metering.domain.slots import WEEK_S, Period, parse_day
from services.metering.domain.tariff import Tariff, parse_tariff
from services.metering.store import bills as stored
from services.metering.store import proofs, usage
from services.metering.store.bills import BillRow, RunRow
from services.metering.store.contracts import ContractRow, TariffRow, contract, contracts_between, tariff, tariff_on
from services.metering.store.paid import PaidRow

CONTRACTS_MAX = 100_000
_HISTORY_S = (WEEKS + 1) * WEEK_S


@dataclass(frozen=True)
class Draft:
    """A bill before it is in a run."""

    contract: ContractRow
    tariff: TariffRow
    document: dict[str, Any]
    salt: bytes

    @property
    def content(self) -> bytes:
        return canonical.encode(self.document)

    @property
    def commitment(self) -> bytes:
        return commitment(self.salt, self.content)


@dataclass(frozen=True)
class Billing:
    """Use cases around bills. One run is drafted at a time."""

    store: Store
    ledger: Ledger
    clock: Clock
    randomness: Randomness
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, once: Once[pb.RunBillingResponse], from_date: str, to_date: str) -> pb.RunBillingResponse:
        """Bills every contract of the period that can be billed and is not yet.

        Raises:
            InvalidArgument: the dates. FailedPrecondition: the period has not ended.
        """
        start, end = _dates(from_date, to_date)
        if (before := await once.asked(self.store)) is not None:
            return before
        async with self.lock:
            await self.finish_drafts()
            left_out = await self._draft_all(start, end)
            await self.finish_drafts()
            found = await self.store.read(lambda c: stored.runs_of_period(c, start, end))
        runs = [run for run in found if run.id.startswith("run-")]
        answer = pb.RunBillingResponse(
            left_out=left_out, runs=[_run_message(run) for run in runs], bills=sum(r.count for r in runs)
        )
        if runs:
            answer.run, answer.transaction = runs[0].id, runs[0].ledger_transaction
        return await self.store.write(lambda unit: once.before(unit) or once.keep(unit, answer))

    async def resume(self) -> None:
        """Closes what a crash left, when no run is at work. A job."""
        async with self.lock:
            await self.finish_drafts()

    async def finish_drafts(self) -> None:
        """Closes every draft on the ledger; also what a crash left. Called with the lock held."""
        for run in await self.store.read(stored.drafts):
            await self._close(run)

    async def _close(self, run: RunRow) -> None:
        args = {
            "run": run.id,
            "period": f"{run.from_date}/{run.to_date}",
            "count": run.count,
            "root": run.root.hex(),
            "tariff": {"id": run.tariff, "version": run.tariff_version},
        }
        with telemetry.span("metering.close-run", bills=run.count):
            receipt = await self.ledger.submit("billing", "close", args, submitter="metering", request_id=run.id)
            now = unix(self.clock)

            def unit(work: Unit) -> int:
                if not stored.close_run(work, run.id, receipt.transaction):
                    return 0
                issued = stored.bills_of_run(work.connection, run.id)
                work.publish_many([_issued(bill, now) for bill in issued])
                return len(issued)

            telemetry.METERING_BILLS.inc(await self.store.write(unit))

    async def _draft_all(self, from_date: str, to_date: str) -> list[str]:
        contracts = await self.store.read(lambda c: _unbilled(c, from_date, to_date))
        left_out: list[str] = []
        drafts: list[Draft] = []
        for row in contracts[:CONTRACTS_MAX]:
            try:
                drafts.append(await self._draft(row, from_date, to_date, None))
            except NotBillable as error:
                left_out.append(f"{row.meter_point}: {error}")
        for key in sorted({(draft.tariff.id, draft.tariff.version) for draft in drafts}):
            group = [draft for draft in drafts if (draft.tariff.id, draft.tariff.version) == key]
            await self._add_run(group, from_date, to_date)
        return left_out

    async def _draft(self, row: ContractRow, from_date: str, to_date: str, corrects: str | None) -> Draft:
        now = unix(self.clock)
        bill_id = f"bill-{from_date}-{self.randomness(8).hex()}"
        salt = self.randomness(SALT_BYTES)

        def make(connection: Connection) -> Draft:
            found, rules = _tariff_of(connection, row, max(from_date, row.from_date), corrects)
            period = _period(row, rules, from_date, to_date)
            if period.to_time > now:
                raise FailedPrecondition(
                    f"the period ends at {iso(period.to_time)} and city time is {iso(now)}; bill it when it has ended",
                    reason="period-open",
                )
            given = _bill_input(connection, row, period, found, bill_id, now, corrects)
            return Draft(row, found, make_bill(given, rules), salt)

        return await self.store.read(make)

    async def _add_run(self, drafts: Sequence[Draft], from_date: str, to_date: str) -> None:
        commitments = [draft.commitment for draft in drafts]
        tariff_row = drafts[0].tariff
        run = RunRow(
            id=await self._run_id(drafts[0], from_date, to_date),
            from_date=from_date,
            to_date=to_date,
            tariff=tariff_row.id,
            tariff_version=tariff_row.version,
            root=merkle.root_of([merkle.leaf_hash(leaf) for leaf in commitments]),
            count=len(drafts),
            total_minor=sum(draft.document["total_minor"] for draft in drafts),
            ledger_transaction="",
        )
        rows = [_bill_row(run.id, number, draft, unix(self.clock)) for number, draft in enumerate(drafts)]
        await self.store.write(lambda unit: stored.add_run(unit, run, rows, commitments))

    async def _run_id(self, draft: Draft, from_date: str, to_date: str) -> str:
        if draft.document["corrects"]:
            return f"correction-{self.randomness(8).hex()}"
        base = f"run-{from_date}-{to_date}-{draft.tariff.id}-v{draft.tariff.version}"
        runs = await self.store.read(lambda c: stored.runs_of_period(c, from_date, to_date))
        return f"{base}-{1 + sum(run.id.startswith(f'{base}-') for run in runs)}"

    async def correct(self, once: Once[pb.CorrectBillResponse], bill_id: str, reason: str) -> pb.CorrectBillResponse:
        """A new document from what is known now, with the tariff of the old one, which stays.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition (corrected before, or nothing would change).
        """
        if not reason.strip():
            raise InvalidArgument("say why the bill is corrected", field="reason")
        if (before := await once.asked(self.store)) is not None:
            return before
        async with self.lock:
            await self.finish_drafts()
            old, row = await self._correctable(bill_id)
            draft = await self._draft(row, old.from_date, old.to_date, old.id)
            if _same_bill(draft.document, canonical.decode(old.document)):
                raise FailedPrecondition(
                    "nothing has changed since the bill was issued; there is nothing to correct", reason="no-change"
                )
            await self._add_run([draft], old.from_date, old.to_date)
            await self.finish_drafts()
            found = await self.store.read(lambda c: stored.shown(c, draft.document["id"]))
        if found is None:
            raise FailedPrecondition(
                "the correction is drafted and will be issued shortly; ask with the same request id"
            )
        answer = pb.CorrectBillResponse(bill=bill_message(*found))
        return await self.store.write(lambda unit: once.before(unit) or once.keep(unit, answer))

    async def _correctable(self, bill_id: str) -> tuple[BillRow, ContractRow]:
        found = await self.store.read(lambda c: stored.shown(c, bill_id))
        if found is None:
            raise NotFound(f"no bill {bill_id!r}", field="bill")
        old, corrected_by = found
        if corrected_by:
            raise FailedPrecondition(
                f"the bill was corrected by {corrected_by}; correct that one", reason="corrected-before"
            )
        row = await self.store.read(lambda c: contract(c, old.contract))
        if row is None:
            raise NotFound("the contract of the bill was erased", field="bill")
        return old, row


def bill_message(row: BillRow, corrected_by: str, paid: PaidRow | None = None) -> pb.Bill:
    """The bill as the API shows it; `paid` is what was paid of it."""
    message = pb.Bill(
        id=row.id,
        meter_point=row.meter_point,
        from_date=row.from_date,
        to_date=row.to_date,
        total_minor=row.total_minor,
        currency=row.currency,
        corrects=row.corrects,
        corrected_by=corrected_by,
        document_json=row.document.decode(),
        run=row.run,
        provable=bool(row.provable),
        paid=paid is not None and paid.left_minor > 0,
        payment=paid.payment if paid is not None else "",
    )
    message.issued_at.seconds = row.issued_at
    return message


def _dates(from_date: str, to_date: str) -> tuple[str, str]:
    start, end = checked_day(from_date, "from_date"), checked_day(to_date, "to_date")
    if start >= end:
        raise InvalidArgument(f"to_date is exclusive and must lie after from_date {start}", field="to_date")
    return start, end


def _unbilled(connection: Connection, from_date: str, to_date: str) -> list[ContractRow]:
    done = stored.billed(connection, from_date, to_date)
    return [row for row in contracts_between(connection, from_date, to_date) if row.id not in done]


def _tariff_of(connection: Connection, row: ContractRow, day: str, corrects: str | None) -> tuple[TariffRow, Tariff]:
    old = stored.shown(connection, corrects) if corrects is not None else None
    if old is not None:
        named: dict[str, Any] = canonical.decode(old[0].document)["tariff"]
        found = tariff(connection, named["id"], named["version"])
    else:
        found = tariff_on(connection, row.tariff, day)
    if found is None:
        raise NotBillable(
            f"no version of the tariff {row.tariff!r} is valid on {day}; PublishTariff first", reason="no-tariff"
        )
    return found, parse_tariff(canonical.decode(found.document))


def _period(row: ContractRow, rules: Tariff, from_date: str, to_date: str) -> Period:
    start = parse_day(max(from_date, row.from_date), "from_date")
    end = parse_day(min(to_date, row.to_date or to_date), "to_date")
    try:
        return period_of(rules.zone, start, end)
    except RuleBroken as error:
        raise InvalidArgument(str(error), field=error.field) from None


def _bill_input(
    connection: Connection,
    row: ContractRow,
    period: Period,
    found: TariffRow,
    bill_id: str,
    now: int,
    corrects: str | None,
) -> BillInput:
    start, end, point = period.from_time, period.to_time, row.meter_point
    sequences = proofs.sequences_of(connection, point, start, end)
    devices = sorted({device for device, _ in sequences})
    return BillInput(
        id=bill_id,
        meter_point=point,
        devices=tuple(devices),
        period=period,
        offsets=zone_offsets(period.zone),
        tariff_transaction=found.transaction,
        measured=usage.measured(connection, point, start - _HISTORY_S, end),
        held=usage.held(connection, point, start, end),
        gaps=tuple(gap for device in devices for gap in gaps_between([s for d, s in sequences if d == device])),
        corrects=corrects,
        issued=iso(now),
        issued_day=local_date(period.zone, now),
    )


def _bill_row(run: str, number: int, draft: Draft, now: int) -> BillRow:
    document = draft.document
    return BillRow(
        id=document["id"],
        run=run,
        position=number,
        contract=draft.contract.id,
        meter_point=document["meter_point"],
        from_date=document["period"]["from"],
        to_date=document["period"]["to"],
        total_minor=document["total_minor"],
        currency=document["currency"],
        document=draft.content,
        salt=draft.salt,
        corrects=document["corrects"] or "",
        issued_at=now,
        provable=0,
    )


def _issued(bill: BillRow, now: int) -> Message:
    event = events_pb2.BillIssued(bill=bill.id, run=bill.run, corrects=bill.corrects)
    return events.fact_message(bill.id, event, bill.id, commitment(bill.salt, bill.document), now)


def _run_message(run: RunRow) -> pb.BillingRun:
    return pb.BillingRun(
        id=run.id, tariff=run.tariff, version=run.tariff_version, bills=run.count, transaction=run.ledger_transaction
    )


def _same_bill(new: dict[str, Any], old: dict[str, Any]) -> bool:
    same = ("estimated", "gaps", "lines", "measured", "device")
    return all(new[name] == old[name] for name in same)
