"""Who may see what: residents their own contracts, staff with a purpose that the resident can read. Called by the other use cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from citykit.access import Principal
from citykit.edge import city_error
from citykit.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from citykit.ids import Randomness, new_id
from citykit.store.port import Store
from services.metering.app.zones import local_midnight
from services.metering.domain.slots import parse_day
from services.metering.store.contracts import ContractRow, contract, contracts_at

RESIDENT = "resident"
PURPOSE_MAX = 200


@dataclass(frozen=True)
class Span:
    """The part of a range a caller may see, unix seconds."""

    from_time: int
    to_time: int


@dataclass(frozen=True)
class People:
    """Decides on reads of personal data, and tells identity of staff's."""

    store: Store
    dial: Callable[[str], grpc.aio.Channel]
    randomness: Randomness
    zone: str

    async def require_own(self, who: Principal, meter_point: str) -> list[ContractRow]:
        """The caller's contracts at a meter point.

        Raises:
            NotFound: there is none; whether somebody else has one is not told.
        """
        rows = await self.store.read(lambda c: contracts_at(c, meter_point))
        own = [row for row in rows if row.subject == who.subject]
        if not own:
            raise NotFound(f"you have no contract at {meter_point!r}; ListMyContracts names yours", field="meter_point")
        return own

    async def visible(self, who: Principal, meter_point: str, wanted: Span, purpose: str) -> list[Span]:
        """The parts of the range the caller may see, in order; a staff read is recorded first.

        Raises:
            NotFound, PermissionDenied, InvalidArgument (no purpose), Unavailable (the read cannot be recorded now).
        """
        if is_resident(who):
            return self.own_spans(await self.require_own(who, meter_point), wanted)
        rows = await self.store.read(lambda c: contracts_at(c, meter_point))
        for subject in sorted({row.subject for row in rows if self._overlaps(row, wanted)}):
            await self.record(who, subject, f"usage of {meter_point}", purpose)
        require_purpose(purpose)
        return [wanted]

    def own_spans(self, own: list[ContractRow], wanted: Span) -> list[Span]:
        """The range cut to the times of the contracts: somebody else may have lived there in between.

        Raises:
            PermissionDenied: it lies outside of them all.
        """
        spans = [self.span_of(row) for row in own if self._overlaps(row, wanted)]
        if not spans:
            raise PermissionDenied(
                "the range lies outside of your contract at this meter point", reason="outside-contract"
            )
        return [Span(max(s.from_time, wanted.from_time), min(s.to_time, wanted.to_time)) for s in spans]

    def span_of(self, row: ContractRow) -> Span:
        """When a contract holds; without end while it runs."""
        start = local_midnight(self.zone, parse_day(row.from_date, "from_date"))
        end = local_midnight(self.zone, parse_day(row.to_date, "to_date")) if row.to_date else 1 << 60
        return Span(start, end)

    def _overlaps(self, row: ContractRow, wanted: Span) -> bool:
        span = self.span_of(row)
        return span.from_time < wanted.to_time and wanted.from_time < span.to_time

    async def may_see_bill(self, who: Principal, contract_id: str, bill: str, purpose: str) -> None:
        """Lets a resident see own bills, and staff with a purpose that is recorded.

        Raises:
            NotFound, InvalidArgument, Unavailable.
        """
        row = await self.store.read(lambda c: contract(c, contract_id))
        if is_resident(who):
            if row is None or row.subject != who.subject:
                raise NotFound(f"no bill {bill!r} of yours; ListBills names yours", field="bill")
            return
        require_purpose(purpose)
        if row is not None:
            await self.record(who, row.subject, f"bill {bill}", purpose)

    async def record(self, who: Principal, subject: str, what: str, purpose: str) -> None:
        """Tells identity who looks at whose data and why, before anything is shown.

        Raises:
            InvalidArgument: no purpose. Unavailable: identity cannot record it now, so nothing is shown.
        """
        require_purpose(purpose)
        by = f"{'+'.join(sorted(who.roles))} at metering"
        request = identity.RecordAccessRequest(
            request_id=new_id("access", self.randomness), subject=subject, by=by, what=what, purpose=purpose
        )
        try:
            await IdentityServiceStub(self.dial("identity")).RecordAccess(request, timeout=10.0)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return
            raise Unavailable(
                f"the read cannot be recorded for the resident now ({city_error(error).reason}), so nothing is shown; try again",
                reason="access-not-recorded",
                retry_after_s=2.0,
            ) from None


def is_resident(who: Principal) -> bool:
    """A caller without a staff role sees own data only."""
    return who.roles <= {RESIDENT}


def require_purpose(purpose: str) -> str:
    """Staff say why.

    Raises:
        InvalidArgument: empty or over 200 characters.
    """
    if not purpose.strip() or len(purpose) > PURPOSE_MAX:
        raise InvalidArgument(
            f"name the purpose of reading somebody's data in 1 to {PURPOSE_MAX} characters; the resident can read it",
            reason="purpose-missing",
            field="purpose",
        )
    return purpose
