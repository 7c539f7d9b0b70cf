"""The lots for others: DATEX II 3 and Smart Data Models. Called by `api`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from city.parking.v1 import parking_service_pb2 as pb
from citykit.clock import Clock, unix
from citykit.errors import FailedPrecondition, InvalidArgument
from citykit.settings import GeneralSettings
from services.parking.app.lots import Lots
from services.parking.app.states import States
from services.parking.domain.lots import is_open
from services.parking.domain.publishing import Publisher, Seen, datex_status, datex_table, off_street_parking

TABLE, STATUS, SMART = "datex-table", "datex-status", "smart-data-models"
_MEDIA = {TABLE: "application/xml", STATUS: "application/xml", SMART: "application/ld+json"}
_NO_COUNTRY = "ZZ"


@dataclass(frozen=True)
class Publications:
    """Reads; all from memory."""

    lots: Lots
    states: States
    clock: Clock
    settings: GeneralSettings

    def get(self, format_: str) -> pb.GetPublicationResponse:
        """The publication as bytes.

        Raises:
            InvalidArgument: no such format. FailedPrecondition: DATEX II has no form for no lots.
        """
        if format_ not in _MEDIA:
            raise InvalidArgument(f"format is one of {', '.join(_MEDIA)}", field="format")
        if format_ != SMART and not self.lots.every():
            raise FailedPrecondition("no lot is registered yet; RegisterLots adds some", reason="no-lots")
        return pb.GetPublicationResponse(content=self._content(format_).encode(), media_type=_MEDIA[format_])

    def _content(self, format_: str) -> str:
        now = unix(self.clock)
        publisher = Publisher(self.settings.city, country(self.settings.zone), self.settings.mode == "demo", now)
        if format_ == TABLE:
            return datex_table(publisher, self.lots.every())
        seen = self._seen(now)
        if format_ == STATUS:
            return datex_status(publisher, seen)
        return json.dumps(off_street_parking(self.settings.city, seen), ensure_ascii=False, indent=1)

    def _seen(self, now: int) -> list[Seen]:
        local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(self.settings.zone))
        minute = local.hour * 60 + local.minute
        return [
            Seen(lot, self.states.state(lot, now), is_open(lot.open_minutes, local.weekday(), minute))
            for lot in self.lots.every()
        ]


@cache
def country(zone: str) -> str:
    """The ISO 3166-1 code of the country whose time zone it is, by the time zone database; ZZ where it names none."""
    lines = files("tzdata.zoneinfo").joinpath("zone.tab").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return next((row[0] for row in rows if row[2] == zone), _NO_COUNTRY)
