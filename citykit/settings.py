"""Settings: frozen, grouped, read once at the start from the environment (`CITY_<GROUP>_<FIELD>`). Unknown names are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
class ServicesSettings:
    addresses: str = limited(
        "", "where each service is when each has a process: name=host:port or name=dns:///host:port, comma-separated"
    )
    listen: str = limited(
        "", "host:port this process takes calls at, in a pod 0.0.0.0:50051; empty: the service's own address"
    )
    certificates: str = limited(
        "", "folder with tls.crt, tls.key and ca.crt for the services' TLS; {service} in it stands for the name"
    )
    callers: str = limited("", "names besides the services' whose certificates may call, comma-separated")
    root_key_file: str = limited("", "file with the city's 32-byte root key; empty: made in the state directory")
    wait: int = limited(
        0,
        "1: a call to a dns:/// address waits within its own time limit while the service is replaced; 0: fails at once",
        low=0,
        high=1,
    )
    connection_age_s: float = limited(
        0.0,
        "seconds until a connection ends in good order, so that callers find new replicas; 0: never",
        low=0,
        high=86_400,
    )
    connection_grace_s: float = limited(
        60.0,
        "seconds calls under way on such a connection then have; streams are cut and begun anew",
        low=1,
        high=3_600,
    )


@dataclass(frozen=True)
class StoreSettings:
    queue_max: int = limited(10_000, "units of work that may wait for the writer", low=1, high=1_000_000)
    group_max: int = limited(256, "units that share one commit", low=1, high=10_000)
    outbox_max: int = limited(1_000_000, "messages that may wait while the bus is away", low=1)
    readers: int = limited(4, "read connections", low=1, high=64)
    request_days: int = limited(30, "days a request id is remembered", low=1, high=3650)


@dataclass(frozen=True)
class PostgresSettings:
    host: str = limited("127.0.0.1", "where the database server is")
    port: int = limited(5432, "its TCP port", low=1, high=65_535)
    database: str = limited("city", "the database; each service has a schema and a role in it")
    role: str = limited("city_{service}", "the role a service comes as; {service} in it stands for the name")
    password_file: str = limited("", "file with the role's password, for its owner only; {service} stands for the name")
    tls_root: str = limited(
        "", "certificate of the server's issuer (PEM), always checked; empty: no TLS, loopback only"
    )
    tls_certificate: str = limited("", "client certificate (PEM) where the server asks for one; {service} for the name")
    tls_key: str = limited("", "key of the client certificate (PEM); {service} stands for the name")
    connect_s: int = limited(3, "seconds until a connection attempt is given up", low=1, high=60)
    start_s: float = limited(
        30.0, "seconds a start waits for the server, and for the writer before to end", low=0.0, high=600.0
    )
    statement_s: float = limited(30.0, "seconds until a statement is ended; no page and no unit needs more", low=0.1)
    lock_s: float = limited(5.0, "seconds a statement waits for a lock", low=0.1)
    migration_statement_s: float = limited(600.0, "seconds until a statement of a migration is ended", low=1.0)
    migration_lock_s: float = limited(
        5.0, "seconds a migration waits for a lock: the version still running waits behind it", low=0.1
    )


@dataclass(frozen=True)
class BusSettings:
    partitions: int = limited(4, "partitions of a new topic", low=1, high=256)
    retention_hours: int = limited(168, "hours a consumed message is kept; then it is deleted (machine time)", low=1)
    relay_batch: int = limited(1_000, "outbox messages published at once", low=1, high=10_000)


@dataclass(frozen=True)
class KafkaSettings:
    bootstrap: str = limited("127.0.0.1:9092", "brokers to begin with, host:port, comma-separated")
    client: str = limited("kafka-python", "kafka-python, or confluent-kafka for the highest rates")
    security: str = limited(
        "SSL", "SSL: mutual TLS; SASL_SSL: TLS and a password (SCRAM-SHA-512); PLAINTEXT: throw-away tests only"
    )
    certificates: str = limited("", "folder with ca.crt and, for mutual TLS, tls.crt and tls.key")
    user: str = limited("", "SASL user, where security is SASL_SSL")
    password_file: str = limited("", "file that holds the user's password and nothing else")
    prefix: str = limited("", "put before topics and groups, so that several cities can share one cluster")
    replication: int = limited(1, "copies each topic must have at least", low=1, high=9)
    in_flight: int = limited(2_000, "messages that may be on their way to the brokers at once", low=1, high=100_000)
    start_s: float = limited(20.0, "how long the brokers may take to answer at the start", low=1, high=600)
    request_s: float = limited(10.0, "how long one request to a broker may take", low=1, high=600)
    delivery_s: float = limited(120.0, "how long a message is sent again before publishing fails", low=2, high=3_600)
    session_s: float = limited(10.0, "silence after which a consumer's partitions go to others", low=2, high=300)
    revoke_s: float = limited(20.0, "how long a partition's batch in hand may take before it goes", low=0.1, high=250)
    stalled_s: float = limited(10.0, "seconds with records waiting and none coming, then a consumer is replaced", low=1)


@dataclass(frozen=True)
class LedgerSettings:
    block_max: int = limited(500, "transactions in one block", low=1, high=10_000)
    block_wait_ms: int = limited(20, "how long a block waits for company", low=0, high=2_000)
    conflict_retries: int = limited(8, "new simulations after an MVCC conflict", low=0, high=100)


@dataclass(frozen=True)
class FabricSettings:
    peer: str = limited("127.0.0.1:7051", "the gateway peer, host:port")
    channel: str = limited("city", "channel of the ledger")
    msp: str = limited(
        "CityMSP", "MSP id of the organisation whose members submit; of chaincodes the city's, whoever runs them"
    )
    members: str = limited("", "folder with NAME.pem and NAME.key of each service that submits from this process")
    reader: str = limited("", "member that evaluates and reads blocks; empty: the first of the folder")
    tls_ca: str = limited(
        "", "file with the authorities of the peer's TLS certificate; empty: plain text, loopback only"
    )
    tls_cert: str = limited("", "file with this process's TLS certificate, where the peer asks for one")
    tls_key: str = limited("", "file with its key")
    tls_name: str = limited("", "host name in the peer's TLS certificate, where the address has another")
    endorsements: int = limited(1, "organisations that must have endorsed; goes into the trust file", low=1, high=100)
    attest: int = limited(1, "1: evidence also holds peers' signatures under the validation code", low=0, high=1)
    in_flight: int = limited(400, "calls to the peer at once; more wait", low=1, high=10_000)
    evaluate_s: float = limited(10.0, "how long an evaluation may take, with its retries", low=0.1, high=600)
    endorse_s: float = limited(20.0, "how long endorsements may take, with their retries", low=0.1, high=600)
    submit_s: float = limited(
        10.0, "how long a transaction may take to be ordered, with its retries", low=0.1, high=600
    )
    commit_s: float = limited(
        60.0, "how long its commit is waited for; then its outcome is unknown", low=0.1, high=3_600
    )


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
    archive_after_months: int = limited(
        25, "months of readings in PostgreSQL before they go to Parquet; bills and appeals want 14", low=14, high=1_200
    )
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
    listen: str = limited("", "host:port of the HTTP edge where the gateway has a process; empty: 127.0.0.1:8080")
    page_max: int = limited(500, "rows of one page", low=1, high=10_000)
    body_max: int = limited(1_048_576, "bytes of one request body", low=1_024)
    streams_max: int = limited(200, "server-sent event streams at once", low=1)


@dataclass(frozen=True)
class TelemetrySettings:
    log_level: str = limited("INFO", "DEBUG, INFO, WARNING or ERROR")
    log_format: str = limited("json", "json or text")
    trace_file: str = limited("", "file that receives finished spans as JSON lines; empty: spans go nowhere")
    trace_ratio: float = limited(
        1.0, "share of new traces that is recorded; one begun elsewhere is followed", low=0, high=1
    )


@dataclass(frozen=True)
class ObservabilitySettings:
    port: int = limited(
        0, "port of /metrics, /livez and /readyz of this process; 0: none of its own", low=0, high=65_535
    )
    host: str = limited("127.0.0.1", "address that port listens on; in a pod 0.0.0.0")
    probe_s: float = limited(2.0, "seconds a part has to answer before it counts as not ready", low=0.05, high=60)
    look_s: float = limited(10.0, "seconds (machine time) between two looks at lag, height and invariants", low=0.1)
    stalled_s: float = limited(30.0, "seconds the event loop may stand still before the process is not alive", low=0.1)


@dataclass(frozen=True)
class CitySettings:
    """Every setting of the city. `city settings` prints them with their reasons."""

    general: GeneralSettings = field(default_factory=GeneralSettings)
    services: ServicesSettings = field(default_factory=ServicesSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    bus: BusSettings = field(default_factory=BusSettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    fabric: FabricSettings = field(default_factory=FabricSettings)
    notary: NotarySettings = field(default_factory=NotarySettings)
    metering: MeteringSettings = field(default_factory=MeteringSettings)
    forecasting: ForecastingSettings = field(default_factory=ForecastingSettings)
    parking: ParkingSettings = field(default_factory=ParkingSettings)
    payments: PaymentsSettings = field(default_factory=PaymentsSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    observability: ObservabilitySettings = field(default_factory=ObservabilitySettings)


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


def settings_file(path: Path) -> dict[str, str]:
    """The variables in a file of `NAME=value` lines, as `make up` writes it; `#` begins a remark.

    Raises:
        SettingsError: it cannot be read, or a line is of another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(
            f"the settings file {path} cannot be read ({error.strerror}); `make up` writes one"
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.startswith("#"):
            continue
        if not equals or not name.startswith(PREFIX):
            raise SettingsError(f"line {number} of {path} is not of the form {PREFIX}<GROUP>_<FIELD>=value")
        found[name] = value
    return found


def as_environment(settings: CitySettings) -> dict[str, str]:
    """The variables that make these settings: those that differ from the defaults. The reverse of `read_settings`."""
    return {
        name: str(value)
        for group, item, name in _fields()
        if (value := getattr(getattr(settings, group), item.name)) != item.default
    }


def for_service(settings: CitySettings, service: str) -> CitySettings:
    """The settings of one service's process: `{service}` in a text stands for its name."""
    groups = {
        group: dataclasses.replace(
            getattr(settings, group),
            **{
                item.name: getattr(getattr(settings, group), item.name).replace("{service}", service)
                for other, item, _ in _fields()
                if other == group and isinstance(item.default, str)
            },
        )
        for group in get_type_hints(CitySettings)
        if group != "services"  # a process reaches the folders of all names it speaks as
    }
    return dataclasses.replace(settings, **groups)


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
