"""Routes about parking: lots and advice for anyone, reservations of the caller, what staff set up. And the forecasts behind them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from google.protobuf.json_format import ParseDict

from city.forecasting.v1 import forecasting_service_pb2 as forecasting
from city.parking.v1 import parking_service_pb2 as parking
from services.gateway.api import bodies, models
from services.gateway.api import parking_models as views
from services.gateway.api.checks import checked
from services.gateway.api.documents import described, document
from services.gateway.api.parameters import Here, Paging, RequestId, ReservationId, Token, timestamp
from services.gateway.api.places import Where
from services.gateway.app.calls import LONG_DEADLINE_S

public = APIRouter(prefix="/api/v1", tags=["public"])
resident = APIRouter(prefix="/api/v1/parking/reservations", tags=["resident"])
staff = APIRouter(prefix="/api/v1", tags=["staff"])
_JSON = described("application/json")
_NEXT = bodies.Passage()


# --- for anyone ----------------------------------------------------------------------------------
@public.get("/parking/lots")
async def list_lots(here: Here, page: Paging) -> views.Lots:
    """Every lot with its newest count, what is expected there and what came of it."""
    request = parking.ListLotsRequest(page_size=page.size, page_token=page.token)
    return models.view(views.Lots, await here.calls.ask("parking", "ListLots", request))


@public.get("/parking/advice")
async def advise(
    here: Here,
    place: Where,
    arrival: Annotated[bodies.Moment, Query(description="RFC 3339 with offset.", examples=["2016-11-08T14:00:00Z"])],
    stay_minutes: Annotated[int, Query(ge=1, le=1_440, examples=[120])],
    walk_minutes_max: Annotated[int, Query(ge=1, le=60)] = 15,
    count: Annotated[int, Query(ge=1, le=10, description="Results at most.")] = 3,
) -> views.Advices:
    """Where to park for a place on foot, ranked, with the probability of a free bay at arrival. Nothing of it is kept."""
    request = parking.AdviseRequest(
        latitude_e7=place.latitude_e7,
        longitude_e7=place.longitude_e7,
        arrival_time=timestamp(arrival, "query.arrival"),
        stay_minutes=stay_minutes,
        walk_minutes_max=walk_minutes_max,
        count=count,
    )
    return models.view(views.Advices, await here.calls.ask("parking", "Advise", request))


@public.get("/parking/calibration")
async def get_calibration(here: Here) -> views.Calibration:
    """How well the probabilities of past advice came true."""
    answer = await here.calls.ask("parking", "GetCalibration", parking.GetCalibrationRequest())
    return models.view(views.Calibration, answer)


@public.get("/parking/books")
async def get_parking_books(here: Here) -> views.ParkingBooks:
    """Reservations counted by state, and bays promised twice: none."""
    return models.view(views.ParkingBooks, await here.calls.ask("parking", "GetBooks", parking.GetBooksRequest()))


@public.get("/parking/access-keys")
async def list_access_keys(here: Here) -> views.AccessKeys:
    """The keys that sign access documents: what a lock keeps in its list. Each is on the ledger."""
    answer = await here.calls.ask("parking", "ListAccessKeys", parking.ListAccessKeysRequest())
    return models.view(views.AccessKeys, answer)


@public.get(
    "/parking/publications/{format}",
    response_class=Response,
    responses={
        **_JSON,
        200: {
            **_JSON[200],
            "content": {kind: {} for kind in ("application/json", "application/ld+json", "application/xml")},
        },
    },
)
async def get_publication(
    request: Request, here: Here, format: Literal["datex-table", "datex-status", "smart-data-models"]
) -> Response:
    """The lots as DATEX II 3 (table or status) or Smart Data Models `OffStreetParking`."""
    asked = parking.GetPublicationRequest(format=format)
    answer = await here.calls.ask("parking", "GetPublication", asked)
    return document(request, answer.content, answer.media_type, cache="public, no-cache")


@public.get("/forecasting/models")
async def list_forecast_models(here: Here) -> views.ForecastModels:
    """Every trained model: what it learnt from and how it did on what came before."""
    answer = await here.calls.ask("forecasting", "ListModels", forecasting.ListModelsRequest())
    return models.view(views.ForecastModels, answer)


# --- the caller's reservations -------------------------------------------------------------------
@resident.post("", status_code=201)
async def hold_bay(here: Here, token: Token, request_id: RequestId, new: bodies.NewReservation) -> views.Reservation:
    """Keeps a bay for some minutes, without obligation; `/confirm` makes it binding."""
    request = parking.HoldRequest(
        request_id=request_id,
        lot=new.lot,
        from_time=timestamp(new.from_time, "body.from_time"),
        to_time=timestamp(new.to_time, "body.to_time"),
        plate=new.plate,
    )
    return _one(await here.calls.ask("parking", "Hold", request, token))


@resident.get("")
async def list_reservations(here: Here, token: Token, page: Paging) -> views.Reservations:
    """The caller's own, newest first."""
    request = parking.ListReservationsRequest(page_size=min(page.size, 100), page_token=page.token)
    return models.view(views.Reservations, await here.calls.ask("parking", "ListReservations", request, token))


@resident.get("/{reservation}")
async def get_reservation(here: Here, token: Token, reservation: ReservationId) -> views.Reservation:
    """One of the caller's reservations."""
    request = parking.GetReservationRequest(reservation=reservation)
    return _one(await here.calls.ask("parking", "GetReservation", request, token))


@resident.post("/{reservation}/confirm")
async def confirm_reservation(
    here: Here, token: Token, request_id: RequestId, reservation: ReservationId, body: bodies.Confirmation
) -> views.Reservation:
    """Makes a hold binding: the price is authorised on the mandate. `confirming`: the provider has not answered yet."""
    request = parking.ConfirmRequest(request_id=request_id, reservation=reservation, mandate=body.mandate)
    return _one(await here.calls.ask("parking", "Confirm", request, token))


@resident.post("/{reservation}/extend")
async def extend_reservation(
    here: Here, token: Token, request_id: RequestId, reservation: ReservationId, body: bodies.Extension
) -> views.Reservation:
    """Moves the end of a reservation, if the bay is free until then."""
    until = timestamp(body.to_time, "body.to_time")
    request = parking.ExtendRequest(request_id=request_id, reservation=reservation, to_time=until)
    return _one(await here.calls.ask("parking", "Extend", request, token))


@resident.post("/{reservation}/cancel")
async def cancel_reservation(
    here: Here, token: Token, request_id: RequestId, reservation: ReservationId
) -> views.Reservation:
    """Gives the bay back; what it costs stands in the tariff."""
    request = parking.CancelRequest(request_id=request_id, reservation=reservation)
    return _one(await here.calls.ask("parking", "Cancel", request, token))


@resident.post("/{reservation}/access")
async def issue_access(
    here: Here, token: Token, request_id: RequestId, reservation: ReservationId, body: bodies.Passage = _NEXT
) -> views.AccessDocument:
    """The signed document that opens the lot's lock once, offline: for entry, then for exit."""
    request = parking.IssueAccessRequest(request_id=request_id, reservation=reservation, act=body.act)
    return models.view(views.AccessDocument, await here.calls.ask("parking", "IssueAccess", request, token))


@resident.post("/{reservation}/unlock")
async def unlock(
    here: Here, token: Token, request_id: RequestId, reservation: ReservationId, body: bodies.Passage = _NEXT
) -> views.Instruction:
    """Asks the lock to open from afar. The state changes when the lock's own signed package says that it did."""
    request = parking.UnlockRequest(request_id=request_id, reservation=reservation, act=body.act)
    return models.view(views.Instruction, await here.calls.ask("parking", "Unlock", request, token))


@resident.get("/{reservation}/bundle", response_class=Response, responses=_JSON)
async def get_session_bundle(request: Request, here: Here, token: Token, reservation: ReservationId) -> Response:
    """Reservation, access, passages, price and receipt with their proofs: one file for `python -m verifier`."""
    content = await _bundle(here, token, reservation)
    return document(request, content, "application/json", filename=f"{reservation}.bundle.json")


@resident.post("/{reservation}/check")
async def check_reservation(here: Here, token: Token, reservation: ReservationId) -> models.Check:
    """Runs the verifier over a reservation's bundle at the server: a demonstration, since the server under check runs it."""
    return await checked(here, await _bundle(here, token, reservation))


async def _bundle(here: Here, token: str, reservation: str) -> bytes:
    request = parking.GetSessionBundleRequest(reservation=reservation)
    answer = await here.calls.ask("parking", "GetSessionBundle", request, token, timeout_s=LONG_DEADLINE_S)
    return bytes(answer.bundle_json)


def _one(answer: parking.GetReservationResponse) -> views.Reservation:
    """The reservation in any answer that has one."""
    return models.view(views.Reservation, answer.reservation)


# --- staff ---------------------------------------------------------------------------------------
@staff.post("/parking/lots")
async def register_lots(here: Here, token: Token, request_id: RequestId, new: bodies.NewLots) -> views.RegisteredLots:
    """Registers lots; a lot again replaces what was said of it, and bays that are reserved stay."""
    lots = [ParseDict(lot.model_dump(), parking.Lot()) for lot in new.lots]
    request = parking.RegisterLotsRequest(request_id=request_id, lots=lots)
    return models.view(views.RegisteredLots, await here.calls.ask("parking", "RegisterLots", request, token))


@staff.post("/parking/tariffs", status_code=201)
async def publish_parking_tariff(
    here: Here, token: Token, request_id: RequestId, new: bodies.NewTariff
) -> models.Published:
    """Publishes a parking tariff on the ledger (docs/PROOFS.md, Parking tariff); a published version never changes."""
    request = parking.PublishTariffRequest(request_id=request_id, tariff_json=new.text())
    return models.view(models.Published, await here.calls.ask("parking", "PublishTariff", request, token))


@staff.post("/parking/permits", status_code=201)
async def grant_permit(here: Here, token: Token, request_id: RequestId, new: bodies.NewPermit) -> views.Permit:
    """Leaves a share of the price to pay, for a person, lots and a time."""
    request = parking.GrantPermitRequest(
        request_id=request_id,
        subject=new.subject,
        lots=new.lots,
        from_time=timestamp(new.from_time, "body.from_time"),
        to_time=timestamp(new.to_time, "body.to_time"),
        price_basis_points=new.price_basis_points,
    )
    return models.view(views.Permit, await here.calls.ask("parking", "GrantPermit", request, token))


@staff.post("/parking/events", status_code=204)
async def add_city_events(here: Here, token: Token, request_id: RequestId, new: bodies.NewCityEvents) -> None:
    """Tells of what will bring cars: matches, concerts, markets. An event again replaces what was said of it."""
    request = parking.AddCityEventsRequest(request_id=request_id, events=[_event(event) for event in new.events])
    await here.calls.ask("parking", "AddCityEvents", request, token)


def _event(event: bodies.CityEvent) -> parking.CityEvent:
    return parking.CityEvent(
        id=event.id,
        name=event.name,
        latitude_e7=event.latitude_e7,
        longitude_e7=event.longitude_e7,
        from_time=timestamp(event.from_time, "body.events.from_time"),
        to_time=timestamp(event.to_time, "body.events.to_time"),
        cars=event.cars,
    )


@staff.post("/parking/reservations/{reservation}/refund")
async def refund_session(
    here: Here, token: Token, request_id: RequestId, reservation: ReservationId, refund: bodies.Refund
) -> views.Reservation:
    """Billing gives part of a paid price back after a complaint."""
    request = parking.RefundSessionRequest(
        request_id=request_id, reservation=reservation, amount_minor=refund.amount_minor, reason=refund.reason
    )
    return _one(await here.calls.ask("parking", "RefundSession", request, token))


@staff.get("/forecasting/explanation")
async def explain_forecast(
    here: Here,
    token: Token,
    series: Annotated[str, Query(pattern="^[a-z]+/[A-Za-z0-9-]{1,64}$", examples=["parking/bull-ring"])],
    time: Annotated[
        bodies.Moment, Query(description="A half hour of the forecast.", examples=["2016-11-08T14:00:00Z"])
    ],
) -> views.Explanation:
    """Which inputs moved a forecast, in words and numbers."""
    request = forecasting.ExplainRequest(series=series, time=timestamp(time, "query.time"))
    return models.view(views.Explanation, await here.calls.ask("forecasting", "Explain", request, token))
