"""JSON about car parks, advice, reservations and what they hold. As in `models`: names and meanings are those of the protos."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from services.gateway.api.models import NextPage, Out


class OpenHours(Out):
    weekday: int = Field(description="Monday is 0.")
    from_minute: int = Field(description="Local.")
    to_minute: int = Field(description="Local; 1440 is midnight.")


class BaySensor(Out):
    device: str
    bay: str


class Lot(Out):
    """A car park."""

    id: str
    name: str
    operator: str
    capacity: int
    latitude_e7: int = Field(description="WGS 84, ten-millionths of a degree.")
    longitude_e7: int
    open_hours: list[OpenHours] = Field(description="None: always open.")
    tariff: str
    bays: list[str] = Field(description="Reservable ones; the others are for who comes.")
    sensors: list[str]
    bay_sensors: list[BaySensor] = Field(description="Devices that watch one bay each.")
    lock: str = Field(description="The device at the reservable bays' barrier; empty: none.")


class LotState(Out):
    """The newest count. `occupied` says nothing where the quality is `unknown`."""

    time: datetime | None = None
    occupied: int
    quality: str = Field(description="`counted`, `stale`, `disputed` or `unknown`.")
    confidence_pct: int


class Expected(Out):
    """A half hour of the forecast, with its band of 80 % and, once it has come, the count."""

    time: datetime | None = None
    occupied: int
    low: int
    high: int
    came: int = Field(description="-1: not yet, or unknown.")


class LotView(Out):
    lot: Lot
    state: LotState | None = None
    reservable_free: int
    expected: list[Expected]
    model: str = Field(description="The model the forecast came from; empty: none.")


class Lots(Out):
    lots: list[LotView]
    next_page_token: NextPage


class Advice(Out):
    """One lot with the probability of a free bay at arrival, and why it stands where it stands."""

    lot: str
    name: str
    probability_milli: int = Field(description="Thousandths.")
    walk_minutes: int
    price_minor: int
    currency: str
    cost_minor: int = Field(description="Price, walk and the risk of searching; the rank goes by it.")
    reasons: list[str]
    reservable: bool
    model: str


class Advices(Out):
    advice: list[Advice] = Field(description="Best first; empty: no lot in walking distance has a fair chance.")


class CalibrationBin(Out):
    from_milli: int = Field(description="Probabilities from this on; a bin is a tenth wide.")
    advices: int
    said_milli: int = Field(description="Mean of what was said.")
    came_milli: int = Field(description="Share that found a bay.")


class Calibration(Out):
    """How well the probabilities of past advice came true."""

    bins: list[CalibrationBin]
    advices: int
    brier_micro: int = Field(description="Mean square of said less came, millionths (Brier 1950).")


class ParkingBooks(Out):
    reservations: int
    double_bookings: int = Field(description="Bays promised twice, counted from the table of promises. Zero.")
    sessions: int
    by_state: dict[str, int]


class Reservation(Out):
    id: str
    lot: str
    bay: str
    state: str = Field(
        description="`held`, `confirming`, `confirmed`, `active`, `ended`, `cancelled`, `no-show`, `expired`, `declined`."
    )
    from_time: datetime | None = None
    to_time: datetime | None = None
    hold_until: datetime | None = None
    quote_minor: int = Field(description="For the reserved span.")
    amount_minor: int = Field(description="What is owed, once it is over.")
    currency: str
    tariff: str
    entry_time: datetime | None = None
    exit_time: datetime | None = None
    payments: list[str]
    provable: bool = Field(description="True when its bundle can be had: it is over and everything is anchored.")
    payment_state: str = Field(description="Of the newest payment; `unknown` is no error: the provider is asked again.")


class Reservations(Out):
    reservations: list[Reservation] = Field(description="Newest first.")
    next_page_token: NextPage


class AccessDocument(Out):
    """What opens the lock once: a compact JWS (docs/PROOFS.md, Access document)."""

    document: str
    not_before: datetime | None = None
    expires: datetime | None = None


class AccessKey(Out):
    kid: str
    public_key: str = Field(description="An uncompressed point of P-256, base64.")
    transaction: str


class AccessKeys(Out):
    keys: list[AccessKey]


class Instruction(Out):
    instruction: str = Field(description="The signed instruction as the lock fetches it, base64.")


class Permit(Out):
    permit: str


class RegisteredLots(Out):
    registered: int


class ForecastModel(Out):
    """A training: what it learnt from and how it did on what came before."""

    id: str
    version: str
    trained_at: datetime | None = None
    group: str
    data_log: str
    data_size: int
    data_root: str = Field(description="Base64.")
    series: int
    origins: int
    mase_micro: dict[str, int] = Field(
        description="Mean absolute scaled error by backend, millionths; `choice` serves."
    )
    coverage_micro: dict[str, int] = Field(description="Level: share inside the band, millionths.")
    parameters_hash: str = Field(description="SHA-256 of the parameters, base64.")


class ForecastModels(Out):
    models: list[ForecastModel] = Field(description="Newest first.")


class Cause(Out):
    input: str
    effect_milli: int = Field(description="Thousandths of the series' unit.")


class Explanation(Out):
    """Which inputs moved a forecast."""

    series: str
    time: datetime | None = None
    profile_milli: int
    value_milli: int
    causes: list[Cause]
    words: str
    model: str
