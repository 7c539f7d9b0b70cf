"""Meter points, contracts and tariffs. Called by `api`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from city.metering.v1 import metering_service_pb2 as pb
from citykit import canonical
from citykit.clock import Clock
from citykit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from citykit.ids import Randomness, new_id
from citykit.ledger.port import Ledger
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.metering.app.fleet import Fleet
from services.metering.app.zones import zone_offsets
from services.metering.domain.errors import RuleBroken
from services.metering.domain.slots import parse_day
from services.metering.domain.tariff import Tariff, parse_tariff
from services.metering.store.contracts import (
    ContractRow,
    TariffRow,
    add_contract,
    add_tariff,
    contract,
    contracts_at,
    contracts_of_subject,
    end_contract,
    tariffs,
)
from services.metering.store.devices import MeterPointRow, meter_point, meter_point_of, put_meter_points

METER_POINTS_MAX = 1_000
SLOT_WH_MAX = 100_000_000
_ID_MAX = 64


@dataclass(frozen=True)
class Agreements:
    """Use cases around contracts."""

    store: Store
    fleet: Fleet
    ledger: Ledger
    clock: Clock
    randomness: Randomness

    async def register_meter_points(
        self, once: Once[pb.RegisterMeterPointsResponse], points: Sequence[MeterPointRow]
    ) -> pb.RegisterMeterPointsResponse:
        """Registers or changes meter points; a device is at one meter point at a time.

        Raises:
            InvalidArgument, AlreadyExists (a device named twice or at another meter point).
        """
        if not 0 < len(points) <= METER_POINTS_MAX:
            raise InvalidArgument(f"name 1 to {METER_POINTS_MAX} meter points, not {len(points)}", field="meter_points")
        for number, point in enumerate(points):
            _check_point(point, f"meter_points[{number}]")

        def unit(work: Unit) -> pb.RegisterMeterPointsResponse:
            if (before := once.before(work)) is not None:
                return before
            _require_free(work, points)
            return once.keep(work, pb.RegisterMeterPointsResponse(registered=put_meter_points(work, points)))

        answer = await self.store.write(unit)
        self.fleet.put_points(points)
        return answer

    async def create_contract(
        self, once: Once[pb.CreateContractResponse], wanted: ContractRow
    ) -> pb.CreateContractResponse:
        """A new contract; the id is given by us when empty.

        Raises:
            InvalidArgument, NotFound (meter point), FailedPrecondition (another contract holds then).
        """
        row = replace(wanted, id=wanted.id or new_id("contract", self.randomness))
        _check_contract(row)

        def unit(work: Unit) -> pb.CreateContractResponse:
            if (before := once.before(work)) is not None:
                return before
            _require_room(work, row)
            add_contract(work, row)
            return once.keep(work, pb.CreateContractResponse(contract=contract_message(row)))

        return await self.store.write(unit)

    async def end_contract(self, once: Once[pb.EndContractResponse], id_: str, to_date: str) -> pb.EndContractResponse:
        """Ends a contract at the start of a local day.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition (ended before).
        """
        day = checked_day(to_date, "to_date")

        def unit(work: Unit) -> pb.EndContractResponse:
            if (before := once.before(work)) is not None:
                return before
            row = contract(work.connection, id_)
            if row is None:
                raise NotFound(f"no contract {id_!r}", field="contract")
            if row.to_date or day <= row.from_date:
                raise FailedPrecondition(
                    f"the contract runs from {row.from_date}{f' to {row.to_date}' if row.to_date else ''};"
                    " a running one is ended on a later day than its first",
                    field="to_date",
                )
            end_contract(work, id_, day)
            return once.keep(work, pb.EndContractResponse(contract=contract_message(replace(row, to_date=day))))

        return await self.store.write(unit)

    async def my_contracts(self, subject: str) -> list[ContractRow]:
        return await self.store.read(lambda c: contracts_of_subject(c, subject))

    async def publish_tariff(self, once: Once[pb.PublishTariffResponse], tariff_json: str) -> pb.PublishTariffResponse:
        """Publishes a tariff on the ledger, then keeps it.

        Raises:
            InvalidArgument: not canonical JSON or not a valid tariff.
            ContractRefused: the version is published with other content.
        """
        document, parsed = _parsed_tariff(tariff_json)
        if (before := await once.asked(self.store)) is not None:
            return before
        receipt = await self.ledger.submit(
            "tariffs", "publish", {"tariff": document}, submitter="metering", request_id=f"tariff-{once.request_id}"
        )
        row = TariffRow(parsed.id, parsed.version, parsed.valid_from, tariff_json.encode(), receipt.transaction)

        def unit(work: Unit) -> pb.PublishTariffResponse:
            add_tariff(work, row)
            return once.before(work) or once.keep(work, pb.PublishTariffResponse(transaction=receipt.transaction))

        return await self.store.write(unit)

    async def tariffs(self) -> Sequence[TariffRow]:
        return await self.store.read(tariffs)


def contract_message(row: ContractRow) -> pb.Contract:
    """The contract as the API shows it."""
    return pb.Contract(
        id=row.id,
        meter_point=row.meter_point,
        subject=row.subject,
        tariff=row.tariff,
        from_date=row.from_date,
        to_date=row.to_date,
    )


def checked_day(text: str, field: str) -> str:
    """An ISO date.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return parse_day(text, field).isoformat()
    except RuleBroken as error:
        raise InvalidArgument(str(error), field=field) from None


def _parsed_tariff(text: str) -> tuple[dict[str, object], Tariff]:
    try:
        document = canonical.decode(text.encode())
        parsed = parse_tariff(document)
    except (canonical.CanonicalError, RuleBroken) as error:
        raise InvalidArgument(f"tariff_json: {error}", field="tariff_json", reason="tariff-invalid") from None
    zone_offsets(parsed.zone)
    return document, parsed


def _check_point(point: MeterPointRow, field: str) -> None:
    if not 0 < len(point.id) <= _ID_MAX or not 0 < len(point.device) <= _ID_MAX:
        raise InvalidArgument(f"{field}: id and device must have 1 to {_ID_MAX} characters", field=field)
    if not 0 < point.max_slot_wh <= SLOT_WH_MAX:
        raise InvalidArgument(
            f"{field}.max_slot_wh must lie between 1 and {SLOT_WH_MAX} Wh", field=f"{field}.max_slot_wh"
        )
    zone_offsets(point.zone)


def _require_free(work: Unit, points: Sequence[MeterPointRow]) -> None:
    names = [point.device for point in points]
    for point in points:
        at = meter_point_of(work.connection, point.device)
        if at not in (None, point.id) or names.count(point.device) > 1:
            raise AlreadyExists(
                f"the device {point.device} is at {at or 'two meter points of the request'}; a device is at one",
                field="meter_points",
            )


def _check_contract(row: ContractRow) -> None:
    for name in ("id", "meter_point", "subject", "tariff"):
        if not 0 < len(getattr(row, name)) <= 2 * _ID_MAX:
            raise InvalidArgument(f"contract.{name} must have 1 to {2 * _ID_MAX} characters", field=f"contract.{name}")
    start = checked_day(row.from_date, "contract.from_date")
    if row.to_date and checked_day(row.to_date, "contract.to_date") <= start:
        raise InvalidArgument("contract.to_date is exclusive and must lie after from_date", field="contract.to_date")


def _require_room(work: Unit, row: ContractRow) -> None:
    if meter_point(work.connection, row.meter_point) is None:
        raise NotFound(f"no meter point {row.meter_point!r}; RegisterMeterPoints first", field="contract.meter_point")
    if contract(work.connection, row.id) is not None:
        raise AlreadyExists(f"the contract {row.id!r} exists; leave the id empty for a new one", field="contract.id")
    end = row.to_date or "9999-12-31"
    if any(other.overlaps(row.from_date, end) for other in contracts_at(work.connection, row.meter_point)):
        raise FailedPrecondition(
            f"another contract holds at {row.meter_point} in that time; end it with EndContract first",
            reason="contract-overlaps",
        )
