"""Parking and forecasting with canned lots and a small life of reservations, so that the page's whole path can be walked alone."""

from __future__ import annotations

import json
import math
from typing import Any

from city.forecasting.v1 import forecasting_service_pb2 as forecasting
from city.forecasting.v1 import forecasting_service_pb2_grpc as forecasting_grpc
from city.parking.v1 import parking_service_pb2 as parking
from city.parking.v1 import parking_service_pb2_grpc as parking_grpc
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from tests.system.fake_calls import DAY, NOW, SLOT, TX, Asked, at
from tests.system.fake_purse import declines, is_late

MODEL = "model-2016-11-07-parking"
_NAMES = (
    ("bull-ring", "Bull Ring", 577, "counted", 52.4774, -1.8936),
    ("moor-street", "Moor Street", 690, "counted", 52.4789, -1.8923),
    ("new-street", "New Street", 390, "stale", 52.4776, -1.8985),
    ("snow-hill", "Snow Hill", 470, "counted", 52.4836, -1.8989),
    ("broad-street", "Broad Street", 1_200, "disputed", 52.4776, -1.9105),
    ("livery-street", "Livery Street", 660, "unknown", 52.4840, -1.9030),
    ("arcadian", "Arcadian", 387, "counted", 52.4741, -1.8975),
    ("brindley-drive", "Brindley Drive", 480, "unknown", 52.4805, -1.9080),
)
CLOSED = "brindley-drive"
TARIFF = "bays-2016"
RESERVATION = "reservation-5f0c2ab19d3e4417"
_SPREAD = "2 others were just sent here and are counted in"


def lots() -> list[Any]:
    return [_lot(*row, number) for number, row in enumerate(_NAMES)]


def _lot(id_: str, name: str, capacity: int, quality: str, latitude: float, longitude: float, number: int) -> Any:
    hours = [parking.OpenHours(weekday=day, from_minute=0, to_minute=1_440) for day in range(7)]
    lot = parking.Lot(
        id=id_, name=name, operator="City car parks", capacity=capacity, latitude_e7=round(latitude * 1e7), longitude_e7=round(longitude * 1e7),
        open_hours=hours[6:] if id_ == CLOSED else hours, tariff=TARIFF, bays=[f"b-{bay:02}" for bay in range(1, 9)],
        sensors=[f"count-{id_}"], lock=f"lock-{id_}",
    )  # fmt: skip
    state = parking.LotState(quality=quality, confidence_pct=90)
    if quality != "unknown":
        state = parking.LotState(
            time=at(NOW - 120), occupied=_taken(NOW, capacity, number), quality=quality, confidence_pct=90
        )
    known = [] if quality == "unknown" else [_expected(NOW + step * SLOT, capacity, number) for step in range(-8, 16)]
    return parking.LotView(lot=lot, state=state, reservable_free=8 - number % 3, expected=known, model=MODEL)


def _taken(time: int, capacity: int, number: int) -> int:
    hour = time % DAY / 3_600
    return round(capacity * (0.25 + 0.55 * math.exp(-((hour - 13 - number / 8) ** 2) / 14)))


def _expected(time: int, capacity: int, number: int) -> Any:
    taken, wide = _taken(time, capacity, number), round(capacity * 0.02 * (1 + max(0, time - NOW) / 14_400))
    came = min(capacity, taken + (number + time // SLOT) % 7 - 3) if time < NOW else -1
    return parking.Expected(
        time=at(time), occupied=taken, low=max(0, taken - wide), high=min(capacity, taken + wide), came=came
    )


class Parking(parking_grpc.ParkingServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._kept: dict[str, Any] = {}
        self._opening: set[str] = set()

    # --- what staff set up
    async def RegisterLots(self, request: Any, _: Any) -> Any:
        return self._asked.once("RegisterLots", request, parking.RegisterLotsResponse(registered=len(request.lots)))

    async def PublishTariff(self, request: Any, _: Any) -> Any:
        return self._asked.once("PublishParkingTariff", request, parking.PublishTariffResponse(transaction=TX))

    async def GrantPermit(self, request: Any, _: Any) -> Any:
        return self._asked.once("GrantPermit", request, parking.GrantPermitResponse(permit="permit-1"))

    async def AddCityEvents(self, request: Any, _: Any) -> Any:
        return self._asked.once("AddCityEvents", request, parking.AddCityEventsResponse())

    async def RefundSession(self, request: Any, _: Any) -> Any:
        return self._asked.once(
            "RefundSession", request, parking.RefundSessionResponse(reservation=self._of(request.reservation))
        )

    # --- for anyone
    async def ListLots(self, request: Any, _: Any) -> Any:
        self._asked.note("ListLots", request)
        return parking.ListLotsResponse(lots=lots())

    async def Advise(self, request: Any, _: Any) -> Any:
        self._asked.note("Advise", request)
        if request.arrival_time.seconds < NOW - DAY:
            raise InvalidArgument("arrival lies in the past; choose a time from now on", field="arrival_time")
        rows = (
            ("bull-ring", "Bull Ring", 962, 4, 480),
            ("moor-street", "Moor Street", 991, 6, 480),
            ("arcadian", "Arcadian", 540, 3, 360),
        )
        advice = [
            parking.Advice(
                lot=lot, name=name, probability_milli=chance, walk_minutes=walk, price_minor=price, currency="GBP",
                cost_minor=price + 20 * walk + 600 * (1_000 - chance) // 1_000, reservable=lot != "arcadian", model=MODEL,
                reasons=[f"{chance // 10} % chance of a free bay at arrival", f"{walk} minutes on foot", _SPREAD],
            )
            for lot, name, chance, walk, price in rows
        ]  # fmt: skip
        return parking.AdviseResponse(advice=advice[: request.count or 3])

    async def GetCalibration(self, request: Any, _: Any) -> Any:
        self._asked.note("GetCalibration", request)
        rows = (
            (400, 12, 441, 500),
            (600, 31, 652, 612),
            (700, 55, 748, 763),
            (800, 120, 861, 850),
            (900, 640, 973, 981),
        )
        bins = [
            parking.CalibrationBin(from_milli=start, advices=count, said_milli=said, came_milli=came)
            for start, count, said, came in rows
        ]
        return parking.GetCalibrationResponse(bins=bins, advices=858, brier_micro=41_200)

    async def GetPublication(self, request: Any, _: Any) -> Any:
        self._asked.note("GetPublication", request)
        if request.format == "smart-data-models":
            return parking.GetPublicationResponse(content=b"[]", media_type="application/ld+json")
        return parking.GetPublicationResponse(content=b"<payload/>", media_type="application/xml")

    async def ListAccessKeys(self, request: Any, _: Any) -> Any:
        self._asked.note("ListAccessKeys", request)
        key = parking.AccessKey(kid="k1", public_key=b"\x04" + bytes(64), transaction=TX)
        return parking.ListAccessKeysResponse(keys=[key])

    async def GetBooks(self, request: Any, _: Any) -> Any:
        self._asked.note("GetParkingBooks", request)
        states = {"confirmed": 41, "active": 17, "ended": 903, "cancelled": 22}
        return parking.GetBooksResponse(
            reservations=983 + len(self._kept), double_bookings=0, sessions=920, by_state=states
        )

    # --- the life of a reservation
    async def Hold(self, request: Any, _: Any) -> Any:
        reservation = parking.Reservation(
            id=f"{RESERVATION[:-1]}{len(self._kept)}", lot=request.lot, bay="b-03", state="held", from_time=request.from_time,
            to_time=request.to_time, hold_until=at(NOW + 600), quote_minor=480, currency="GBP", tariff=TARIFF,
        )  # fmt: skip
        too_late_s = self._asked.too_late_s
        if too_late_s and request.from_time.seconds < NOW + too_late_s:
            self._asked.note("Hold", request)
            raise InvalidArgument("a reservation begins now or within 30 days", field="from_time")
        if request.lot not in {row[0] for row in _NAMES}:
            raise NotFound(f"no lot {request.lot}; GET /api/v1/parking/lots lists them", field="lot")
        answer = self._asked.once("Hold", request, parking.HoldResponse(reservation=reservation))
        self._kept.setdefault(answer.reservation.id, answer.reservation)
        return answer

    async def Confirm(self, request: Any, _: Any) -> Any:
        one = self._of(request.reservation)
        state, paid = ("declined", "declined") if declines(request.mandate) else ("confirmed", "authorised")
        if is_late(request.mandate):
            state, paid = "confirming", "unknown"
        one.state, one.payment_state, one.payments[:] = state, paid, ["payment-5f0c2ab19d3e4417"]
        return self._asked.once("Confirm", request, parking.ConfirmResponse(reservation=one))

    async def Extend(self, request: Any, _: Any) -> Any:
        one = self._of(request.reservation)
        one.to_time.CopyFrom(request.to_time)
        return self._asked.once("Extend", request, parking.ExtendResponse(reservation=one))

    async def Cancel(self, request: Any, _: Any) -> Any:
        one = self._of(request.reservation)
        one.state = "cancelled"
        return self._asked.once("Cancel", request, parking.CancelResponse(reservation=one))

    async def IssueAccess(self, request: Any, _: Any) -> Any:
        self._of(request.reservation)
        answer = parking.IssueAccessResponse(
            document="eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0.eyJhY3QiOiJlbnRyeSJ9.fake", not_before=at(NOW + 3_000), expires=at(NOW + DAY)
        )  # fmt: skip
        return self._asked.once("IssueAccess", request, answer)

    async def Unlock(self, request: Any, _: Any) -> Any:
        one = self._of(request.reservation)
        if one.state not in {"confirmed", "active"} and not self._asked.forgetful:
            raise FailedPrecondition(
                f"the reservation is {one.state}; a lock opens for one that is confirmed or active"
            )
        self._opening.add(one.id)
        return self._asked.once("Unlock", request, parking.UnlockResponse(instruction=b"signed"))

    async def GetReservation(self, request: Any, _: Any) -> Any:
        self._asked.note("GetReservation", request)
        one = self._of(request.reservation)
        self._settle(one)
        if one.id in self._opening and self._asked.lock_answers:
            self._opening.remove(one.id)
            self._pass(one)
        return parking.GetReservationResponse(reservation=one)

    def _settle(self, one: Any) -> None:
        """The provider answers at the second asking, unless it is told to keep silent."""
        if one.state == "confirming" and self._asked.provider_answers:
            one.state, one.payment_state = "confirmed", "authorised"

    def _pass(self, one: Any) -> None:
        """The lock's signed package came."""
        if one.state == "confirmed":
            one.state = "active"
            one.entry_time.CopyFrom(one.from_time)
        elif one.state == "active":
            one.state, one.amount_minor, one.payment_state, one.provable = "ended", 630, "captured", True
            one.exit_time.CopyFrom(at(one.to_time.seconds + 2_100))

    async def ListReservations(self, request: Any, _: Any) -> Any:
        self._asked.note("ListReservations", request)
        return parking.ListReservationsResponse(reservations=reversed(self._kept.values()))

    async def GetSessionBundle(self, request: Any, _: Any) -> Any:
        self._asked.note("GetSessionBundle", request)
        self._of(request.reservation)
        line = {"kind": "stay", "date": "2016-11-08", "band": "day", "steps": 8, "amount_minor": 480}
        over = {"kind": "overstay", "date": "", "band": "", "steps": 1, "amount_minor": 150}
        last = {
            "change": "ended",
            "lines": [line, over],
            "price_minor": 630,
            "currency": "GBP",
            "tariff": {"id": TARIFF, "version": 1},
        }
        receipt = {
            "payment": "payment-5f0c2ab19d3e4417",
            "state": "captured",
            "captured_minor": 630,
            "refunded_minor": 0,
            "currency": "GBP",
        }
        bundle = {
            "format": "city.bundle.v1", "kind": "parking-session", "fake": self._asked.bundle,
            "reservation": [{"document": last}], "receipts": [{"document": receipt}],
        }  # fmt: skip
        return parking.GetSessionBundleResponse(bundle_json=json.dumps(bundle).encode())

    def _of(self, id_: str) -> Any:
        """A kept one; the canned one, which is always there; else not found."""
        if id_ == RESERVATION and id_ not in self._kept:
            return parking.Reservation(
                id=id_, lot="bull-ring", bay="b-03", state="confirmed", from_time=at(NOW), to_time=at(NOW + 7_200), quote_minor=480,
                currency="GBP", tariff=TARIFF,
            )  # fmt: skip
        if id_ not in self._kept:
            raise NotFound(f"no reservation {id_} of yours; GET /api/v1/parking/reservations lists them")
        return self._kept[id_]


class Forecasting(forecasting_grpc.ForecastingServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def ListModels(self, request: Any, _: Any) -> Any:
        self._asked.note("ListModels", request)
        model = forecasting.Model(
            id=MODEL, version="1.0.0", trained_at=at(NOW - DAY), group="parking", data_log="parking.states", data_size=14_000,
            data_root=bytes(32), series=28, origins=46, mase_micro={"profile": 812_000, "boosted": 664_000, "choice": 651_000},
            coverage_micro={80: 803_000, 90: 901_000, 95: 949_000}, parameters_hash=bytes(32),
        )  # fmt: skip
        return forecasting.ListModelsResponse(models=[model])

    async def Explain(self, request: Any, _: Any) -> Any:
        self._asked.note("Explain", request)
        causes = [forecasting.Cause(input="today's count", effect_milli=23_000)]
        return forecasting.ExplainResponse(
            series=request.series, time=request.time, profile_milli=300_000, value_milli=323_000, causes=causes, model=MODEL,
            words="The usual for this half hour is 300; today's count moves it by +23.",
        )  # fmt: skip
