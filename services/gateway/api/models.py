"""JSON of the HTTP API. Field names and meanings are those of the protos; times are RFC 3339, numbers are integers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from pydantic import BaseModel, Field

NextPage = Annotated[str, Field(description="Hand it back as `page_token`; empty: this was the last page.")]
M = TypeVar("M", bound=BaseModel)


def view(model: type[M], message: Message, **more: Any) -> M:
    """A proto message as one of the models below."""
    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return model.model_validate({**fields, **more})


class Out(BaseModel):
    """What is answered."""


# --- the city ------------------------------------------------------------------------------------
class City(Out):
    """The city at a glance."""

    city: str = Field(examples=["provable.city/demo"])
    mode: Literal["demo", "embedded", "cluster"]
    time_zone: str = Field(examples=["Europe/London"])
    city_time: datetime
    backbone: str = Field(description="What the city runs on. A ledger of one operator says so.")
    demo_logins: list[str] = Field(description="Whom POST /demo/session takes; empty outside a demo.")


class LoadPoint(Out):
    time: int = Field(description="Start of the slot, unix seconds.")
    energy_wh: int
    meters: int = Field(description="Meters in the sum.")


class Load(Out):
    """Sums over at least ten meters; never a single home."""

    points: list[LoadPoint]


class Meter(Out):
    device: str
    meter_point: str
    label: str
    kind: str = Field(description="`measured` (open data, replayed) or `simulated`.")
    x: int = Field(description="Schematic position, 0 to 1000. Simulated: no source has any.")
    y: int


class Attribution(Out):
    name: str
    licence: str
    text: str
    shifted_weeks: int


class CarPark(Out):
    lot: str = Field(description="Of /api/v1/parking/lots.")
    label: str
    kind: str = Field(description="`measured` (open data, replayed) or `simulated`. Positions are simulated.")


class Neighbourhood(Out):
    """What is simulated around the open data."""

    meters: list[Meter]
    car_parks: list[CarPark] = Field(default_factory=list)
    attributions: list[Attribution]
    time_zone: str
    synthetic: bool = Field(description="True where no open data was to be had and every series is synthetic.")


class Replay(Out):
    """Progress of the demo."""

    city_time: datetime | None = None
    speed: int
    phase: str = Field(description="`backfill` or `live`.")
    faults: list[str]
    faults_available: list[str]
    faulted_devices: list[str] = Field(description="`fault:device`.")


class Faults(Out):
    faults: list[str]


# --- logs ----------------------------------------------------------------------------------------
class Head(Out):
    """How far a log has grown and how far it is anchored on the ledger."""

    log: str = Field(examples=["metering.readings"])
    origin: str
    size: int
    anchored_size: int
    anchored_root: str = Field(description="Base64.")
    checkpoint: str = Field(description="Signed note (C2SP tlog-checkpoint).")
    anchor_transaction: str
    anchored_at: datetime | None = None


class Heads(Out):
    heads: list[Head]


class InclusionProof(Out):
    """RFC 6962, section 2.1.1."""

    index: int
    size: int
    hashes: list[str] = Field(description="Base64, from the leaf to the root.")
    checkpoint: str


class ConsistencyProof(Out):
    """RFC 6962, section 2.1.2."""

    from_size: int
    to_size: int
    hashes: list[str] = Field(description="Base64.")
    checkpoint: str


class Finding(Out):
    log: str
    where: str
    what: str


class LogCheck(Out):
    """Everything stored, verified again. No finding: all of it holds."""

    findings: list[Finding]
    entries_checked: int


class Evidence(Out):
    """What proves a ledger transaction, as it stands in proof bundles."""

    transaction: str
    evidence: dict[str, Any]


# --- people --------------------------------------------------------------------------------------
class Person(Out):
    id: str
    login: str
    display_name: str
    roles: list[str] = Field(examples=[["resident"]])
    created_at: datetime | None = None


class PairwiseSubject(Out):
    subject: str


class Consent(Out):
    id: str
    purpose: str
    recipient: str
    given_at: datetime | None = None
    withdrawn_at: datetime | None = None
    receipt_json: str = Field(description="The receipt, canonical JSON; its commitment is in the log identity.events.")


class Consents(Out):
    consents: list[Consent]
    next_page_token: NextPage


class Access(Out):
    """Somebody looked at the caller's data."""

    at: datetime | None = None
    by: str = Field(description="Role and service, never a name.")
    what: str
    purpose: str


class Accesses(Out):
    accesses: list[Access]
    next_page_token: NextPage


class Erased(Out):
    receipt: dict[str, Any] = Field(description="What was destroyed and what the law keeps.")


# --- devices -------------------------------------------------------------------------------------
class DeviceKey(Out):
    public_key: str = Field(description="Base64.")
    algorithm: str
    from_sequence: int
    transaction: str


class Device(Out):
    id: str
    model: str
    keys: list[DeviceKey]
    registered_at: datetime | None = None
    in_service_from: datetime | None = Field(default=None, description="Readings from here on count.")
    revoked_at: datetime | None = None
    last_sequence: int
    revoked_reason: str


class Devices(Out):
    devices: list[Device]
    next_page_token: NextPage


class RegisteredDevices(Out):
    devices: list[Device]
    transaction: str


# --- metering ------------------------------------------------------------------------------------
class Contract(Out):
    id: str
    meter_point: str
    subject: str = Field(description="The resident's pseudonym at metering.")
    tariff: str
    from_date: str = Field(description="Local date.")
    to_date: str = Field(description="Local date, exclusive; empty while the contract runs.")


class Contracts(Out):
    contracts: list[Contract]


class UsagePoint(Out):
    time: int = Field(description="Start, unix seconds.")
    energy_wh: int
    quality: str = Field(description="`measured`, `estimated`, `quarantined`, `missing` or `mixed`.")
    reason: str


class Usage(Out):
    points: list[UsagePoint]
    total_wh: int


class Tariffs(Out):
    """Published tariffs, each as on the ledger (docs/PROOFS.md)."""

    tariffs: list[dict[str, Any]]


class Published(Out):
    transaction: str


class MeterState(Out):
    meter_point: str
    device: str
    last_slot: int = Field(description="Unix seconds.")
    last_wh: int
    quarantined_reason: str = Field(description="Empty: its readings count.")
    gaps: int


class MeterStates(Out):
    states: list[MeterState]
    next_page_token: NextPage


class QuarantineEntry(Out):
    device: str
    meter_point: str
    reason: str
    explanation: str
    since: datetime | None = None
    readings: int
    open: bool = Field(description="True while new readings of the device are held too.")


class Quarantine(Out):
    entries: list[QuarantineEntry]
    next_page_token: NextPage


class Released(Out):
    released: int = Field(description="Quarantine entries closed.")


class Refusal(Out):
    reason: str = Field(examples=["bad-signature"])
    device: str = Field(description="Empty where the package did not prove which device it is of.")
    count: int
    last_at: datetime | None = None
    message: str


class Refusals(Out):
    entries: list[Refusal]


class Appeal(Out):
    """A resident says that a set-aside reading was right."""

    id: str
    meter_point: str
    from_time: datetime | None = None
    to_time: datetime | None = None
    statement: str
    state: str = Field(description="`open`, `granted` or `refused`.")
    decision_reason: str


class Appeals(Out):
    appeals: list[Appeal]
    next_page_token: NextPage


class Bill(Out):
    id: str
    meter_point: str
    from_date: str
    to_date: str = Field(description="Exclusive.")
    total_minor: int = Field(description="In minor units of `currency` (pence).")
    currency: str
    corrects: str
    corrected_by: str
    issued_at: datetime | None = None
    run: str
    provable: bool = Field(description="True when its packages and its run are anchored, so that a bundle can be had.")
    paid: bool = Field(description="True while a payment of it was captured and not given back in full.")
    payment: str = Field(description="That payment; empty where there was none.")


class Bills(Out):
    bills: list[Bill]
    next_page_token: NextPage


class OneRun(Out):
    id: str
    tariff: str
    version: int
    bills: int
    transaction: str


class BillingRunDone(Out):
    run: str = Field(description="The first run; a period has one run for each tariff.")
    bills: int
    transaction: str
    runs: list[OneRun]
    left_out: list[str] = Field(description="`meter point: why`.")


class CheckStep(Out):
    step: str = Field(examples=["inclusion"])
    ok: bool
    detail: str


class Check(Out):
    """What the verifier said about a bundle."""

    ok: bool
    steps: list[CheckStep]
    caveat: str
    command: str = Field(description="The same check on your own machine.")


# --- demo and health -----------------------------------------------------------------------------
class DemoSession(Out):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a kind
    expires_in_s: int


class Health(Out):
    status: Literal["alive", "ready"]
    parts: dict[str, str] = Field(default_factory=dict, description="Service: `ready`, or why not.")
