"""Settings: frozen, grouped, read once at the start from the environment (`CITY_<GROUP>_<FIELD>`). Unknown names are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from citykit.errors import SettingsError

PREFIX = "CITY_"


def limited(default: Any, why: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A field with its reason and its range."""
    return field(default=default, metadata={"why": why, "low": low, "high": high})


@dataclass(frozen=True)
class GeneralSettings:
    city: str = limited("provable.city/demo", "origin of every log and bundle; lower-case host and path of the city")
    zone: str = limited("Europe/London", "IANA time zone of local days, tariffs and bills")
    public_url: str = limited("", "where the gateway is reached from outside; empty: https:// and the city's origin")
    mode: str = limited(
        "demo", "demo: replay clock and demo logins; embedded: real clock, one process; cluster: one process a service"
    )


@dataclass(frozen=True)
class StoreSettings:
    queue_max: int = limited(10_000, "units of work that may wait for the writer", low=1, high=1_000_000)
    group_max: int = limited(256, "units that share one commit", low=1, high=10_000)
    outbox_max: int = limited(1_000_000, "messages that may wait while the bus is away", low=1)
    readers: int = limited(4, "read connections", low=1, high=64)
    request_days: int = limited(30, "days a request id is remembered", low=1, high=3650)


@dataclass(frozen=True)
class BusSettings:
    partitions: int = limited(4, "partitions of a new topic", low=1, high=256)
    retention_hours: int = limited(168, "hours a consumed message is kept; then it is deleted (machine time)", low=1)
    relay_batch: int = limited(1_000, "outbox messages published at once", low=1, high=10_000)


@dataclass(frozen=True)
class LedgerSettings:
    block_max: int = limited(500, "transactions in one block", low=1, high=10_000)
    block_wait_ms: int = limited(20, "how long a block waits for company", low=0, high=2_000)
    conflict_retries: int = limited(8, "new simulations after an MVCC conflict", low=0, high=100)


@dataclass(frozen=True)
class NotarySettings:
    anchor_interval_s: float = limited(
        2.0, "seconds between anchoring transactions (machine time)", low=0.05, high=3600
    )


@dataclass(frozen=True)
class MeteringSettings:
    device_rate_per_s: int = limited(
        20_000, "readings a second one device may send before it is deferred; flood guard", low=1
    )
    device_burst: int = limited(60_000, "readings a device may send at once", low=1)
    future_tolerance_s: int = limited(300, "how far a reading may lie ahead of city time", low=0, high=86_400)
    estimate_after_h: int = limited(48, "hours after which a missing slot is estimated", low=1)


@dataclass(frozen=True)
class ForecastingSettings:
    workers: int = limited(1, "processes that compute forecasts", low=1, high=16)
    history_days: int = limited(120, "days of each series that models learn from", low=28, high=3_650)
    retrain_days: int = limited(7, "city days between trainings", low=1, high=90)
    look_s: float = limited(
        15.0, "seconds (machine time) between two looks whether a training is due", low=1, high=86_400
    )


@dataclass(frozen=True)
class ParkingSettings:
    device_rate_per_s: int = limited(
        500, "counts a second one sensor may send before it is deferred; flood guard", low=1
    )
    device_burst: int = limited(5_000, "counts a sensor may send at once", low=1)
    future_tolerance_s: int = limited(300, "how far a count may lie ahead of city time", low=0, high=86_400)
    sensor_silence_s: int = limited(
        5_400, "seconds of silence after which a sensor's word is no longer trusted", low=60
    )
    lock_lifetime_s: int = limited(120, "seconds an instruction to a lock stays good", low=5, high=3_600)


@dataclass(frozen=True)
class PaymentsSettings:
    provider_url: str = limited("", "where the payment provider is reached; empty: no cards, transfers only")
    provider_secret_file: str = limited("", "file with the key shared with the provider, for calls and callbacks")
    currency: str = limited("GBP", "ISO 4217 currency the provider settles in; payments in another are refused")
    provider_timeout_s: float = limited(5.0, "how long one call to the provider may take", low=0.1, high=60)
    retry_s: float = limited(2.0, "seconds (machine time) between two questions about an unknown outcome", low=0.05)


@dataclass(frozen=True)
class IdentitySettings:
    issuer: str = limited("", "empty: this city issues tokens itself; else the https URL of the outside OpenID issuer")
    issuer_jwks_file: str = limited("", "keys of the outside issuer (RFC 7517), when it cannot be reached")
    issuer_makes_residents: int = limited(
        0, "1: who comes from the outside issuer for the first time becomes a resident; 0: is refused", low=0, high=1
    )
    manufacturers: str = limited("", "whose vouchers are taken: name=hex Ed25519 key, comma-separated")
    token_minutes: int = limited(15, "life of an access token", low=1, high=1_440)
    login_tries: int = limited(10, "failed logins an hour for one login and for one address", low=1)


@dataclass(frozen=True)
class GatewaySettings:
    page_max: int = limited(500, "rows of one page", low=1, high=10_000)
    body_max: int = limited(1_048_576, "bytes of one request body", low=1_024)
    streams_max: int = limited(200, "server-sent event streams at once", low=1)


@dataclass(frozen=True)
class TelemetrySettings:
    log_level: str = limited("INFO", "DEBUG, INFO, WARNING or ERROR")
    log_format: str = limited("json", "json or text")
    trace_file: str = limited("", "file that receives finished spans as JSON lines; empty: spans go nowhere")


@dataclass(frozen=True)
class CitySettings:
    """Every setting of the city. `city settings` prints them with their reasons."""

    general: GeneralSettings = field(default_factory=GeneralSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    bus: BusSettings = field(default_factory=BusSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    notary: NotarySettings = field(default_factory=NotarySettings)
    metering: MeteringSettings = field(default_factory=MeteringSettings)
    forecasting: ForecastingSettings = field(default_factory=ForecastingSettings)
    parking: ParkingSettings = field(default_factory=ParkingSettings)
    payments: PaymentsSettings = field(default_factory=PaymentsSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)


def read_settings(environment: Mapping[str, str]) -> CitySettings:
    """Settings from `CITY_*` variables.

    Raises:
        SettingsError: an unknown name, a value of the wrong type or out of its range; the message lists what is allowed.
    """
    known = {name: (group, item) for group, item, name in _fields()}
    values: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX):
            continue
        if name not in known:
            raise SettingsError(f"unknown setting {name}; `city settings` lists the known ones", field=name)
        group, item = known[name]
        values.setdefault(group, {})[item.name] = _parse(name, item, text)
    groups = get_type_hints(CitySettings)
    return CitySettings(**{group: groups[group](**items) for group, items in values.items()})


def describe_settings() -> list[tuple[str, Any, str]]:
    """(variable, default, reason) of each setting."""
    return [(name, item.default, str(item.metadata["why"])) for _, item, name in _fields()]


def _fields() -> list[tuple[str, dataclasses.Field[Any], str]]:
    groups = get_type_hints(CitySettings)
    return [
        (group, item, f"{PREFIX}{group}_{item.name}".upper())
        for group, kind in groups.items()
        for item in dataclasses.fields(kind)
    ]


def _parse(name: str, item: dataclasses.Field[Any], text: str) -> Any:
    kind: type[Any] = type(item.default)
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{name} must be of type {kind.__name__}, not {text!r}", field=name) from None
    low, high = item.metadata.get("low"), item.metadata.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        raise SettingsError(f"{name} must lie between {low} and {high}, not {text}: {item.metadata['why']}", field=name)
    return value
