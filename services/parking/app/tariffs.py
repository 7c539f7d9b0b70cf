"""Published tariffs and permits, in memory: what prices a reservation. Called by `api` and the other use cases."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from city.parking.v1 import parking_service_pb2 as pb
from citykit import canonical
from citykit.errors import FailedPrecondition, InvalidArgument
from citykit.ids import Randomness, new_id
from citykit.ledger.port import Ledger
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.parking.domain.errors import TariffInvalid
from services.parking.domain.price import FULL_PRICE
from services.parking.domain.tariff import Tariff, parse_tariff
from services.parking.store import tariffs as stored
from services.parking.store.tariffs import PermitRow, TariffRow

PERMIT_LOTS_MAX = 500
_ID = re.compile(r"[a-z0-9-]{1,64}")


class Tariffs:
    """Every published version. `load` once at the start."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger
        self._versions: dict[str, dict[int, Tariff]] = {}

    async def load(self) -> None:
        for row in await self._store.read(stored.tariffs):
            self._take(parse_tariff(canonical.decode(row.document)))

    async def publish(self, once: Once[pb.PublishTariffResponse], tariff_json: str) -> pb.PublishTariffResponse:
        """Publishes a version on the ledger, then keeps it.

        Raises:
            InvalidArgument: not canonical JSON or not a valid tariff; a hole names its minute.
            ContractRefused: the version is published with other content.
        """
        document, parsed = _parsed(tariff_json)
        if (before := await once.asked(self._store)) is not None:
            return before
        receipt = await self._ledger.submit(
            "parking-tariffs",
            "publish",
            {"tariff": document},
            submitter="parking",
            request_id=f"parking-tariff-{once.request_id}",
        )
        row = TariffRow(parsed.id, parsed.version, tariff_json.encode(), receipt.transaction)

        def unit(work: Unit) -> pb.PublishTariffResponse:
            stored.add_tariff(work, row)
            return once.before(work) or once.keep(work, pb.PublishTariffResponse(transaction=receipt.transaction))

        answer = await self._store.write(unit)
        self._take(parsed)
        return answer

    def in_force(self, id_: str, time: int) -> Tariff:
        """The newest version that holds on the local day of `time`.

        Raises:
            FailedPrecondition: there is none.
        """
        versions = sorted(self._versions.get(id_, {}).items(), reverse=True)
        for _, tariff in versions:
            if tariff.valid_from <= datetime.fromtimestamp(time, ZoneInfo(tariff.zone)).date().isoformat():
                return tariff
        raise FailedPrecondition(
            f"no version of the tariff {id_!r} is in force then; PublishTariff adds one",
            reason="no-tariff",
            field="lot",
        )

    def version(self, id_: str, version: int) -> Tariff:
        """The version a reservation was made under: it was published before."""
        return self._versions[id_][version]

    def _take(self, tariff: Tariff) -> None:
        self._versions.setdefault(tariff.id, {})[tariff.version] = tariff


class Permits:
    """Who pays a share of the price only. `load` once at the start."""

    def __init__(self, store: Store, randomness: Randomness) -> None:
        self._store = store
        self._randomness = randomness
        self._of: dict[str, list[PermitRow]] = {}

    async def load(self) -> None:
        for row in await self._store.read(stored.permits):
            self._of.setdefault(row.subject, []).append(row)

    async def grant(self, once: Once[pb.GrantPermitResponse], wanted: pb.GrantPermitRequest) -> pb.GrantPermitResponse:
        """A new permit.

        Raises:
            InvalidArgument: naming the field.
        """
        row = self._row(wanted)

        def unit(work: Unit) -> pb.GrantPermitResponse:
            if (before := once.before(work)) is not None:
                return before
            stored.add_permit(work, row)
            return once.keep(work, pb.GrantPermitResponse(permit=row.id))

        answer = await self._store.write(unit)
        if answer.permit == row.id:
            self._of.setdefault(row.subject, []).append(row)
        return answer

    def basis_points(self, subject: str, lot: str, time: int) -> int:
        """What is left to pay: the best permit that holds then."""
        holding = [row.price_basis_points for row in self._of.get(subject, []) if row.holds(lot, time)]
        return min(holding, default=FULL_PRICE)

    def forget(self, subject: str) -> None:
        """The person's data were erased."""
        self._of.pop(subject, None)

    def _row(self, wanted: pb.GrantPermitRequest) -> PermitRow:
        if not wanted.subject:
            raise InvalidArgument("subject must name who gets the permit", field="subject")
        if len(wanted.lots) > PERMIT_LOTS_MAX or not all(_ID.fullmatch(lot) for lot in wanted.lots):
            raise InvalidArgument(f"lots are at most {PERMIT_LOTS_MAX} ids of lots; none for all", field="lots")
        if not wanted.from_time.seconds < wanted.to_time.seconds:
            raise InvalidArgument("from_time must lie before to_time", field="to_time")
        if not 0 <= wanted.price_basis_points <= FULL_PRICE:
            raise InvalidArgument(
                f"price_basis_points lie between 0 (free) and {FULL_PRICE}", field="price_basis_points"
            )
        return PermitRow(
            new_id("permit", self._randomness),
            wanted.subject,
            " ".join(wanted.lots),
            wanted.from_time.seconds,
            wanted.to_time.seconds,
            wanted.price_basis_points,
        )


def _parsed(text: str) -> tuple[dict[str, Any], Tariff]:
    try:
        document = canonical.decode(text.encode())
        if not isinstance(document, dict):
            raise TariffInvalid("a tariff is an object", "tariff_json")
        parsed = parse_tariff(document)
        ZoneInfo(parsed.zone)
        return document, parsed
    except (ZoneInfoNotFoundError, OSError):
        raise InvalidArgument("zone is one of the IANA database, like Europe/London", field="zone") from None
    except (ValueError, TariffInvalid) as error:
        raise InvalidArgument(f"tariff_json: {error}", field="tariff_json", reason="tariff-invalid") from None
