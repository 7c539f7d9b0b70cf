"""JSON bodies the HTTP API takes. Unknown fields are refused, so that a misspelt one is not lost."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SAFE = 2**53 - 1
Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
Short = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, le=SAFE)]


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
    from_date: date


class ContractEnd(In):
    to_date: date = Field(description="The first day that is no longer supplied, local.")


class NewTariff(In):
    tariff: dict[str, Any] = Field(description="docs/PROOFS.md, Tariff.")


class Release(In):
    decision: Text = Field(description="Why; it goes into the log.", examples=["sensor replaced"])


class NewAppeal(In):
    meter_point: Short = Field(examples=["mp-0001"])
    from_time: datetime
    to_time: datetime
    statement: Text = Field(examples=["We charged the car that night."])


class Decision(In):
    granted: bool
    reason: Text


class BillingRun(In):
    from_date: date
    to_date: date = Field(description="Exclusive.")


class Correction(In):
    reason: Text


class DemoLogin(In):
    as_: Short = Field(alias="as", examples=["resident:ada"])
