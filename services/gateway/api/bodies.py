"""JSON bodies the HTTP API takes. Unknown fields are refused, so that a misspelt one is not lost."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints
from pydantic_core import PydanticCustomError

from citykit.errors import InvalidArgument

SAFE = 2**53 - 1
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _text(value: object) -> object:
    """Dates and times come as text; a number would be read as unix seconds."""
    if not isinstance(value, str):
        raise PydanticCustomError("text", "Input should be text of RFC 3339")
    return value


def _number(value: object) -> object:
    """2.0 is an integer in JSON, "2" and true are none."""
    if isinstance(value, str | bool):
        raise PydanticCustomError("number", "Input should be an integer")
    return value


Count = Annotated[int, Field(ge=0, le=SAFE), BeforeValidator(_number)]
LocalDate = Annotated[date, BeforeValidator(_text)]
Moment = Annotated[AwareDatetime, BeforeValidator(_text)]


class In(BaseModel):
    """What is asked: unknown fields are refused, so that a misspelt one is not lost."""

    model_config = ConfigDict(extra="forbid")


class SetFaults(In):
    faults: list[Short] = Field(
        max_length=50,
        description="All that shall be on; what is not named is switched off.",
        examples=[["forged", "stuck"]],
    )


Role = Literal["resident", "contractor", "operator", "billing", "registrar", "auditor"]


class NewPerson(In):
    login: Annotated[str, StringConstraints(pattern="^[a-z0-9-]{2,40}$")] = Field(examples=["ada"])
    display_name: Short = Field(examples=["Ada"])
    roles: list[Role] = Field(min_length=1, max_length=6, examples=[["resident"]])
    password: Annotated[str, StringConstraints(max_length=200)] = Field(
        default="", description="At least 12 characters; empty where an outside issuer does the login."
    )


class NewConsent(In):
    purpose: Short = Field(examples=["energy advice"])
    recipient: Short = Field(
        description="Who may use the data: a service or an organisation.", examples=["forecasting"]
    )


class Erasure(In):
    confirm_login: Short = Field(description="The caller's login again, as a guard against a slip.", examples=["ada"])


class Voucher(In):
    document: Annotated[str, StringConstraints(max_length=10_000)] = Field(description="Canonical JSON of the voucher.")
    signature: Annotated[str, StringConstraints(pattern="^[0-9a-f]{128}$")] = Field(
        description="The manufacturer's, hex."
    )
    manufacturer: Short


class NewDevices(In):
    vouchers: list[Voucher] = Field(min_length=1, max_length=1_000, description="All are registered, or none.")
    in_service_from: datetime | None = Field(
        default=None,
        description="Where they bring readings from before: since when they measure, at most 400 days ago.",
    )


class Revocation(In):
    reason: Text = Field(examples=["stolen"])
    last_sequence: Count = Field(description="The last sequence number that counts.")


class NewContract(In):
    meter_point: Short = Field(examples=["mp-0001"])
    subject: Short = Field(description="The resident's pseudonym at metering.", examples=["5f0c2ab19d3e4417"])
    tariff: Short = Field(examples=["homes-2016"])
    from_date: LocalDate


class ContractEnd(In):
    to_date: LocalDate = Field(description="The first day that is no longer supplied, local.")


class NewTariff(In):
    tariff: dict[str, Any] = Field(description="docs/PROOFS.md, Tariff and Parking tariff.")

    def text(self) -> str:
        """The tariff as it is sent on.

        Raises:
            InvalidArgument: it holds what cannot be printed.
        """
        text = json.dumps(self.tariff, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if not text.isprintable():
            raise InvalidArgument("a tariff holds printable characters only", field="body.tariff")
        return text


class Release(In):
    decision: Text = Field(description="Why; it goes into the log.", examples=["sensor replaced"])


class NewAppeal(In):
    meter_point: Short = Field(examples=["mp-0001"])
    from_time: Moment
    to_time: Moment
    statement: Text = Field(examples=["We charged the car that night."])


class Decision(In):
    granted: StrictBool
    reason: Text


class BillingRun(In):
    from_date: LocalDate
    to_date: LocalDate = Field(description="Exclusive.")


class Correction(In):
    reason: Text


LatitudeE7 = Annotated[int, Field(ge=-900_000_000, le=900_000_000), BeforeValidator(_number)]
LongitudeE7 = Annotated[int, Field(ge=-1_800_000_000, le=1_800_000_000), BeforeValidator(_number)]
Minutes = Annotated[int, Field(ge=0, le=1_440), BeforeValidator(_number)]
Id = Annotated[str, StringConstraints(pattern="^[a-z0-9-]{1,64}$")]
Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]
PaymentMethod = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,100}$")]
Positive = Annotated[int, Field(ge=1, le=SAFE), BeforeValidator(_number)]


class OpenHours(In):
    weekday: Annotated[int, Field(ge=0, le=6, description="Monday is 0."), BeforeValidator(_number)]
    from_minute: Minutes
    to_minute: Minutes = Field(description="1440 is midnight.")


class BaySensor(In):
    device: Id
    bay: Id


class NewLot(In):
    id: Id = Field(examples=["bull-ring"])
    name: Short = Field(examples=["Bull Ring"])
    operator: Short
    capacity: Annotated[int, Field(ge=1, le=100_000), BeforeValidator(_number)]
    latitude_e7: LatitudeE7
    longitude_e7: LongitudeE7
    open_hours: list[OpenHours] = Field(max_length=50, description="None: always open.")
    tariff: Id = Field(examples=["bays-2016"])
    bays: list[Id] = Field(default_factory=list, max_length=5_000, description="Reservable ones.")
    sensors: list[Id] = Field(default_factory=list, max_length=50)
    bay_sensors: list[BaySensor] = Field(default_factory=list, max_length=5_000, description="Each watches one bay.")
    lock: Annotated[str, StringConstraints(pattern="^[a-z0-9-]{0,64}$")] = Field(default="", description="Empty: none.")


class NewLots(In):
    lots: list[NewLot] = Field(min_length=1, max_length=500, description="A lot again replaces what was said of it.")


class CityEvent(In):
    id: Id
    name: Short = Field(examples=["Match at the stadium"])
    latitude_e7: LatitudeE7
    longitude_e7: LongitudeE7
    from_time: Moment
    to_time: Moment
    cars: Annotated[int, Field(ge=0, le=1_000_000, description="It is expected to bring."), BeforeValidator(_number)]


class NewCityEvents(In):
    events: list[CityEvent] = Field(min_length=1, max_length=100)


class NewPermit(In):
    subject: Short = Field(description="The resident's pseudonym at parking.", examples=["5f0c2ab19d3e4417"])
    lots: list[Id] = Field(default_factory=list, max_length=500, description="Empty: all.")
    from_time: Moment
    to_time: Moment
    price_basis_points: Annotated[int, Field(ge=0, le=10_000), BeforeValidator(_number)] = Field(
        description="Share of the price that remains, hundredths of a per cent: 0 is free."
    )


class NewReservation(In):
    lot: Id = Field(examples=["bull-ring"])
    from_time: Moment
    to_time: Moment
    plate: Annotated[str, StringConstraints(max_length=20)] = Field(
        default="", description="Number plate; only a keyed pseudonym of it is kept."
    )


class Confirmation(In):
    mandate: Short = Field(description="Of POST /api/v1/payments/mandates, for the payee parking.")


class Passage(In):
    act: Literal["", "entry", "exit"] = Field(default="", description="Empty: what comes next.")


class Extension(In):
    to_time: Moment


class Refund(In):
    amount_minor: Positive
    reason: Short = Field(description="A word for the receipt; never personal data.", examples=["complaint"])


class NewMandate(In):
    payee: Short = Field(description="The service that may charge.", examples=["parking"])
    limit_minor: Positive = Field(description="What it may charge in all.")
    currency: Currency = Field(examples=["GBP"])
    payment_method: PaymentMethod = Field(
        description="The provider's token; never a card number.", examples=["pm_visa"]
    )
    lifetime_s: Annotated[int, Field(ge=1, le=7_776_000), BeforeValidator(_number)] = Field(
        default=86_400, description="City time, at most 90 days."
    )


class BillPayment(In):
    payment_method: PaymentMethod = Field(description="The provider's token.", examples=["pm_visa"])


class DemoLogin(In):
    as_: Short = Field(alias="as", examples=["resident:ada"])
