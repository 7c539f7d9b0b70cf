"""Readings set aside, appeals of residents and what operators decide. Called by `api`."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from city.metering.v1 import metering_service_pb2 as pb
from citykit.access import Principal
from citykit.clock import Clock, unix
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.ids import Randomness, new_id
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.metering.app.facts import Facts
from services.metering.app.meters import Meters
from services.metering.app.people import People, Span, is_resident
from services.metering.app.usage import checked_span, page_limit
from services.metering.store import quarantine
from services.metering.store.packages import add_facts
from services.metering.store.quarantine import GRANTED, OPEN, REFUSED, AppealRow, EntryRow

PAGE_MAX = 500
STATEMENT_MAX = 2_000


@dataclass(frozen=True)
class Quarantine:
    """Use cases around readings that do not count."""

    store: Store
    people: People
    meters: Meters
    facts: Facts
    clock: Clock
    randomness: Randomness

    async def entries(self, page_size: int, page_token: str) -> tuple[list[EntryRow], str]:
        """A page, newest first, and the next page's token."""
        limit = page_limit(page_size, PAGE_MAX)
        before = _number(page_token)
        rows = await self.store.read(lambda c: quarantine.entries(c, before, limit))
        return rows, str(rows[-1].number) if len(rows) == limit else ""

    async def release(
        self, once: Once[pb.ReleaseDeviceResponse], device: str, decision: str
    ) -> pb.ReleaseDeviceResponse:
        """New readings of the device count again; held ones stay set aside until an appeal is granted.

        Raises:
            InvalidArgument: no decision. FailedPrecondition: nothing of the device is open.
        """
        text = _text(decision, "decision")
        now = unix(self.clock)

        def unit(work: Unit) -> pb.ReleaseDeviceResponse:
            if (before := once.before(work)) is not None:
                return before
            released = quarantine.release(work, device)
            if not released:
                raise FailedPrecondition(
                    f"no open quarantine of {device!r}; ListQuarantine shows what is open", field="device"
                )
            add_facts(work, [self.facts.device_released(device, text, now)])
            return once.keep(work, pb.ReleaseDeviceResponse(released=released))

        answer = await self.store.write(unit)
        self.meters.release(device)
        return answer

    async def appeal(
        self, who: Principal, once: Once[pb.CreateAppealResponse], point: str, wanted: Span, statement: str
    ) -> pb.CreateAppealResponse:
        """A resident says that held readings of the own meter point were right.

        Raises:
            InvalidArgument, NotFound (no contract), PermissionDenied, FailedPrecondition (nothing held there).
        """
        text = _text(statement, "statement")
        span = self.people.own_spans(await self.people.require_own(who, point), checked_span(wanted))[0]
        row = AppealRow(
            new_id("appeal", self.randomness), point, who.subject, span.from_time, span.to_time, text, OPEN, ""
        )

        def unit(work: Unit) -> pb.CreateAppealResponse:
            if (before := once.before(work)) is not None:
                return before
            if not quarantine.count_held(work.connection, point, span.from_time, span.to_time):
                raise FailedPrecondition(
                    "no reading is set aside in that range; GetUsage shows which are", field="from_time"
                )
            quarantine.add_appeal(work, row)
            return once.keep(work, pb.CreateAppealResponse(appeal=appeal_message(row)))

        return await self.store.write(unit)

    async def appeals(self, who: Principal, page_size: int, page_token: str) -> tuple[list[AppealRow], str]:
        """A page by id (a resident's own), and the next page's token."""
        limit = page_limit(page_size, PAGE_MAX)
        subject = who.subject if is_resident(who) else None
        rows = await self.store.read(lambda c: quarantine.appeals(c, subject, page_token, limit))
        return rows, rows[-1].id if len(rows) == limit else ""

    async def decide(
        self, once: Once[pb.DecideAppealResponse], id_: str, *, granted: bool, reason: str
    ) -> pb.DecideAppealResponse:
        """Grants (the readings count from now on, the device is released) or refuses, with a reason the resident sees.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition (decided before).
        """
        text = _text(reason, "reason")
        now = unix(self.clock)

        def unit(work: Unit) -> tuple[pb.DecideAppealResponse, list[str]]:
            if (before := once.before(work)) is not None:
                return before, []
            row = _open_appeal(work, id_)
            devices = self._grant(work, row, now) if granted else []
            quarantine.decide(work, id_, GRANTED if granted else REFUSED, text)
            decided = quarantine.appeal(work.connection, id_) or row
            return once.keep(work, pb.DecideAppealResponse(appeal=appeal_message(decided))), devices

        answer, devices = await self.store.write(unit)
        for device in devices:
            self.meters.release(device)
        return answer

    def _grant(self, work: Unit, row: AppealRow, now: int) -> list[str]:
        devices = quarantine.let_count(work, row.meter_point, row.from_time, row.to_time)
        released = [device for device in devices if quarantine.release(work, device)]
        add_facts(work, [self.facts.device_released(device, f"appeal {row.id} granted", now) for device in released])
        return devices


def appeal_message(row: AppealRow) -> pb.Appeal:
    """The appeal as the API shows it."""
    return pb.Appeal(
        id=row.id,
        meter_point=row.meter_point,
        from_time=Timestamp(seconds=row.from_time),
        to_time=Timestamp(seconds=row.to_time),
        statement=row.statement,
        state=row.state,
        decision_reason=row.decision_reason,
    )


def _open_appeal(work: Unit, id_: str) -> AppealRow:
    row = quarantine.appeal(work.connection, id_)
    if row is None:
        raise NotFound(f"no appeal {id_!r}", field="appeal")
    if row.state != OPEN:
        raise FailedPrecondition(f"the appeal {id_} was {row.state} before; a decision stands", field="appeal")
    return row


def _text(text: str, field: str) -> str:
    if not text.strip() or len(text) > STATEMENT_MAX:
        raise InvalidArgument(f"{field} must have 1 to {STATEMENT_MAX} characters", field=field)
    return text


def _number(token: str) -> int | None:
    if token and not token.isdecimal():
        raise InvalidArgument("page_token must be what the page before gave", field="page_token")
    return int(token) if token else None
