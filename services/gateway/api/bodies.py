"""JSON bodies the HTTP API takes. Unknown fields are refused, so that a misspelt one is not lost."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints
from pydantic_core import PydanticCustomError

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
    tariff: dict[str, Any] = Field(description="docs/PROOFS.md, Tariff.")


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


class DemoLogin(In):
    as_: Short = Field(alias="as", examples=["resident:ada"])
