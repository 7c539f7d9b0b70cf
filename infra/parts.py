"""The real parts one by one: what is installed, which programs run, which settings lead there. `infra.up` puts them together."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from citykit.errors import EnvironmentFault, SettingsError
from citykit.keys import ROOT_BYTES
from citykit.ledger.chaincode import contract_version
from citykit.ledger.chaincode.convention import chaincode_name
from infra import observability as prometheus
from infra.certificates import ensure_certificates
from infra.fabric.part import fabric_part
from infra.kafka import broker
from infra.kafka.install import install as install_kafka
from infra.native import Program, free_port, listens
from infra.postgres import binaries, cluster
from services.registry import SERVICES, WITHOUT_PARTS, contracts

PARTS = ("kafka", "postgres", "ledger")
WATCHING = ("prometheus",)
"""Parts the city runs without."""
LEDGERS = ("dev", "raft1", "raft3", "bft4")
BROKERS = (1, 3)
CALLERS = ("demo", "simulation", "crash")
"""Who calls services besides services: the demo, its control, and whoever kills the city on purpose."""
HOLDERS = tuple(name for name in SERVICES if name not in WITHOUT_PARTS)
_COMMAND_S = 120.0
ORGANISATION = "CityMSP"
REMARK = "# part: "
"""Before each part's line in the settings file."""


@dataclass(frozen=True)
class Wanted:
    """What `make up` was asked for.

    Attributes:
        state: one folder for everything; deleting it forgets everything.
        cache: where installed programs are kept.
        fast_start: starts sooner and runs slower; for tests.
    """

    state: Path
    cache: Path
    parts: Sequence[str] = PARTS
    brokers: int = 1
    ledger: str = "dev"
    fast_start: bool = False

    @property
    def certificates(self) -> Path:
        return self.state / "certificates"

    @property
    def settings_file(self) -> Path:
        return self.state / "settings.env"


@dataclass(frozen=True)
class Part:
    """One part, made ready to start.

    Attributes:
        stages: programs; each stage starts when the one before is ready.
        settings: `CITY_*` variables that lead to it.
        finish: called once its programs are ready.
        where: one line for people.
    """

    name: str
    stages: Sequence[Callable[[], Sequence[Program]]]
    settings: Mapping[str, str]
    where: str
    finish: Callable[[], None] = field(default=lambda: None)


def read_wanted(environment: Mapping[str, str], state: Path, cache: Path) -> Wanted:
    """From PARTS, BROKERS and LEDGER.

    Raises:
        SettingsError: a word that is not among those allowed.
    """
    parts = tuple(filter(None, (environment.get("PARTS") or ",".join(PARTS)).split(",")))
    brokers, ledger = environment.get("BROKERS") or "1", environment.get("LEDGER") or "dev"
    for name in parts:
        _require("PARTS", name, (*PARTS, *WATCHING))
    _require("BROKERS", brokers, tuple(map(str, BROKERS)))
    _require("LEDGER", ledger, LEDGERS)
    return Wanted(state.resolve(), cache, parts, int(brokers), ledger, environment.get("FAST") == "1")


def _require(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SettingsError(f"{what}={value} is not known; there are {', '.join(allowed)}", field=what)


def install(wanted: Wanted, say: Callable[[str], None]) -> None:
    """Installs what is missing into the cache.

    Raises:
        EnvironmentFault: Java, Maven or a package cannot be had.
    """
    wanted.cache.mkdir(parents=True, exist_ok=True)
    installs = (("kafka", install_kafka), ("postgres", binaries.install), ("prometheus", prometheus.install))
    for name, act in installs:
        if name in wanted.parts:
            say(f"{name}: looking for it in {wanted.cache}, installing what is missing")
            act(wanted.cache)


def prepare(wanted: Wanted) -> list[Part]:
    """Certificates, keys and configuration of the parts asked for.

    Raises:
        EnvironmentFault: what cannot be made.
    """
    wanted.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    renew(wanted)
    make = {"kafka": _kafka, "postgres": _postgres, "ledger": _ledger, "prometheus": _prometheus}
    return [make[name](wanted) for name in make if name in wanted.parts]


def renew(wanted: Wanted) -> list[str]:
    """Makes and renews the certificates of everybody; who reads them takes the new ones by itself."""
    names = (*SERVICES, *CALLERS, "kafka", "admin", "postgres")
    return ensure_certificates(wanted.certificates, names)


def services_settings(wanted: Wanted) -> dict[str, str]:
    """Where each service listens and what they share."""
    names = (*SERVICES, "simulation")
    addresses = ",".join(f"{name}=127.0.0.1:{kept_port(wanted.state, name)}" for name in names)
    return {
        "CITY_SERVICES_ADDRESSES": addresses,
        "CITY_SERVICES_CERTIFICATES": str(wanted.certificates / "{service}"),
        "CITY_SERVICES_CALLERS": ",".join(CALLERS),
        "CITY_SERVICES_ROOT_KEY_FILE": str(_root_key(wanted.state)),
    }


def metrics_port(state: Path, process: str) -> int:
    """Where a process answers /metrics, /livez and /readyz."""
    return kept_port(state, f"metrics-{process}")


def described(settings: Path) -> str:
    """What a settings file leads to, in a line: the remarks in it say so."""
    lines = settings.read_text(encoding="utf-8").splitlines()
    return "real: " + "; ".join(line.removeprefix(REMARK) for line in lines if line.startswith(REMARK))


def kept_port(state: Path, name: str) -> int:
    """A free port of loopback, the same at every start."""
    path = state / "ports.json"
    ports: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if name not in ports:
        ports[name] = next(port for port in iter(free_port, None) if port not in ports.values())
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(ports, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    return ports[name]


def city(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a `city` command to its end.

    Raises:
        EnvironmentFault: it failed; with what it said.
    """
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "services", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=_COMMAND_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EnvironmentFault(f"`city {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()[-1_500:]}")


def _root_key(state: Path) -> Path:
    path = state / "keys" / "root"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(ROOT_BYTES))
        part.replace(path)
    return path


# --- Kafka --------------------------------------------------------------------------------------------


def _kafka(wanted: Wanted) -> Part:
    own, certificates = wanted.state / "kafka", wanted.certificates
    tls = broker.BrokerTls(
        ca_file=certificates / "kafka" / "ca.crt",
        certificate_file=certificates / "kafka" / "tls.crt",
        key_file=certificates / "kafka" / "tls.key",
        admin_certificate_file=certificates / "admin" / "tls.crt",
        admin_key_file=certificates / "admin" / "tls.key",
    )
    programs = broker.programs(wanted.cache, own, wanted.brokers, tls=tls, fast_start=wanted.fast_start)
    settings = {
        "CITY_KAFKA_BOOTSTRAP": broker.addresses(own, wanted.brokers),
        "CITY_KAFKA_SECURITY": "SSL",
        "CITY_KAFKA_CERTIFICATES": str(certificates / "{service}"),
        "CITY_KAFKA_REPLICATION": str(wanted.brokers),
    }
    admin = {**settings, "CITY_KAFKA_CERTIFICATES": str(certificates / "admin")}
    where = f"Kafka, {wanted.brokers} broker{'s' if wanted.brokers > 1 else ''} at {settings['CITY_KAFKA_BOOTSTRAP']} (mutual TLS)"
    return Part("kafka", [lambda: programs], settings, where, partial(city, ["bus", "topics", "--apply"], admin))


# --- PostgreSQL ---------------------------------------------------------------------------------------


def _postgres(wanted: Wanted) -> Part:
    own, certificates = wanted.state / "postgres", wanted.certificates / "postgres"
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = kept_port(wanted.state, "postgres")
    tls = cluster.Tls(certificates / "tls.crt", certificates / "tls.key", certificates / "ca.crt")
    programs = cluster.programs(wanted.cache, own, port, services=HOLDERS, tls=tls)
    settings = {
        "CITY_POSTGRES_PORT": str(port),
        "CITY_POSTGRES_PASSWORD_FILE": str(own / "passwords" / "city_{service}"),
        "CITY_POSTGRES_TLS_ROOT": str(certificates / "ca.crt"),
    }
    return Part(
        "postgres", [lambda: programs], settings, f"PostgreSQL at 127.0.0.1:{port} (TLS, a schema and a role a service)"
    )


# --- ledger -------------------------------------------------------------------------------------------


def _ledger(wanted: Wanted) -> Part:
    if wanted.ledger != "dev":
        return _fabric(wanted)
    own = wanted.state / "ledger"
    port = kept_port(wanted.state, "ledger")
    places = {chaincode_name(one): kept_port(wanted.state, f"chaincode-{chaincode_name(one)}") for one in contracts()}
    settings = {
        "CITY_FABRIC_PEER": f"127.0.0.1:{port}",
        "CITY_FABRIC_MSP": ORGANISATION,
        "CITY_FABRIC_MEMBERS": str(own / "members" / "{service}"),
        "CITY_FABRIC_TLS_CA": str(own / "tls" / "ca.pem"),
        "CITY_FABRIC_TLS_CERT": str(own / "tls" / f"{ORGANISATION}-{{service}}.pem"),
        "CITY_FABRIC_TLS_KEY": str(own / "tls" / f"{ORGANISATION}-{{service}}.key"),
    }
    where = f"ledger: development peer at 127.0.0.1:{port} (one operator, not Fabric), {len(places)} chaincodes"
    watched = {name: _observed(wanted.state, name) for name in ("ledger", "chaincode")}
    stages = [
        lambda: [replace(_peer(own, port, places), env=watched["ledger"])],
        lambda: [replace(_chaincode(own, places), env=watched["chaincode"])],
    ]
    return Part("ledger", stages, settings, where, partial(_own_members, own))


def _fabric(wanted: Wanted) -> Part:
    """A real Fabric network from FABRIC_BIN."""
    versions = {chaincode_name(one): contract_version(one) for one in contracts()}
    serve = (sys.executable, "-m", "services", "serve", "chaincode")
    watched = _observed(wanted.state, "chaincode")
    part = fabric_part(wanted.state / wanted.ledger, wanted.ledger, versions, serve, HOLDERS, watched)
    return Part("ledger", part.stages, part.settings, part.where, part.finish)


def _peer(own: Path, port: int, places: Mapping[str, int]) -> Program:
    chaincodes = [f"--chaincode={name}=127.0.0.1:{at}" for name, at in places.items()]
    argv = [sys.executable, "-m", "services", "serve", "ledger", "--state", str(own), "--port", str(port), *chaincodes]
    return Program("ledger", argv, lambda: (own / "profile.json").exists() and listens(port))


def _chaincode(own: Path, places: Mapping[str, int]) -> Program:
    argv = [sys.executable, "-m", "services", "serve", "chaincode", "--places", str(own / "profile.json")]
    return Program("chaincode", argv, lambda: all(map(listens, places.values())))


def _observed(state: Path, process: str) -> dict[str, str]:
    return {"CITY_OBSERVABILITY_PORT": str(metrics_port(state, process))}


def _own_members(own: Path) -> None:
    """Each service gets a folder with its own identity alone."""
    for name in HOLDERS:
        target = own / "members" / name
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        for end in (".pem", ".key"):
            shutil.copy2(own / "organisations" / ORGANISATION / "members" / f"{name}{end}", target / f"{name}{end}")


# --- watching -----------------------------------------------------------------------------------------


def _prometheus(wanted: Wanted) -> Part:
    port = kept_port(wanted.state, "prometheus")
    names = (*SERVICES, "simulation", "ledger", "chaincode")
    targets = [prometheus.Target(name, f"127.0.0.1:{metrics_port(wanted.state, name)}") for name in names]
    server = prometheus.program(wanted.state / "prometheus", targets, port)
    return Part(
        "prometheus", [lambda: [server]], {}, f"Prometheus at http://127.0.0.1:{port}/ watches the city's processes"
    )
