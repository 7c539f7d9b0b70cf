"""About a hundred homes: four replay the measured home's years, the others are simulated. All positions are simulated; labels say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b, sha256
from zoneinfo import ZoneInfo

from citykit.canonical import encode
from citykit.errors import EnvironmentFault
from citykit.package import Ed25519Signer, Signer
from simulation.archives import Report
from simulation.calendar import CONTRACTS_BEGIN, DEMO_BEGINS, Shift, midnight, weeks_from
from simulation.catalogue import path_of
from simulation.device import Device, device_signer
from simulation.homes import Energy, measured, simulated
from simulation.household import HalfHours, half_hours

ZONE = ZoneInfo("Europe/London")
MANUFACTURER = "demo-meters"
METERS = 100
YEARS = (2007, 2008, 2009, 2010)
RESIDENT = "ada"
_ES256_EVERY = 10
_COLUMNS = 10
_CELL = 96
_MODEL = "simulated-meter-1"


@dataclass(frozen=True)
class Meter:
    """A home's meter, as the map shows it.

    Attributes:
        kind: "measured" (open data, replayed) or "simulated".
        x, y: schematic position, 0 to 1000.
        resident: login of the demo's resident, or None.
    """

    device_id: str
    meter_point: str
    label: str
    kind: str
    x: int
    y: int
    resident: str | None
    algorithm: str
    energy: Energy


@dataclass(frozen=True)
class Voucher:
    """A manufacturer's signed statement of a device's key (docs/PROOFS.md)."""

    document: bytes
    signature: bytes
    manufacturer: str


@dataclass(frozen=True)
class Source:
    """Attribution of what is replayed, and how far it was shifted."""

    name: str
    licence: str
    text: str
    shifted_weeks: int


class Neighbourhood:
    """The homes of one seed.

    Args:
        series: the measured home; None for a city that is synthetic throughout.
        begins: first day of its meters; from `live` on they send one reading a package.
    """

    def __init__(
        self,
        seed: int,
        series: HalfHours | None,
        meters: int = METERS,
        begins: date = CONTRACTS_BEGIN,
        live: date = DEMO_BEGINS,
    ) -> None:
        self.seed = seed
        self.zone = ZONE
        self.synthetic = series is None
        self.start = midnight(begins, ZONE)
        self.live_from = midnight(live, ZONE)
        self.meters = [self._meter(number, series) for number in range(1, meters + 1)]
        self.sources = [] if series is None else [_source(year) for year in YEARS]
        self._manufacturer = Ed25519Signer.from_seed(
            sha256(f"city.simulation.manufacturer.v1\n{seed}".encode()).digest()
        )

    @property
    def manufacturers(self) -> dict[str, bytes]:
        """Whose vouchers the demo's identity takes."""
        return {MANUFACTURER: self._manufacturer.public_key}

    def vouchers(self) -> list[Voucher]:
        return [self.vouch(m.device_id, device_signer(self.seed, m.device_id, m.algorithm)) for m in self.meters]

    def device(self, meter: Meter) -> Device:
        signer = device_signer(self.seed, meter.device_id, meter.algorithm)
        gapless = meter.kind == "simulated"
        return Device(meter.device_id, signer, meter.energy, self.start, self.live_from, gapless)

    def _meter(self, number: int, series: HalfHours | None) -> Meter:
        name = f"{number:03d}"
        year = YEARS[number - 1] if number <= len(YEARS) and series is not None else None
        if year is not None and series is not None:
            kind, label = "measured", f"UCI household, year {year}, replayed"
            energy = measured(series, Shift(weeks_from(year), series.end), ZONE)
        else:
            kind, label, energy = "simulated", f"simulated home {name}", simulated(self.seed, name, ZONE)
        x, y = self._position(number)
        algorithm = "ES256" if number % _ES256_EVERY == 0 else "EdDSA"
        resident = RESIDENT if number == 1 else None
        return Meter(f"meter-{name}", f"mp-{name}", label, kind, x, y, resident, algorithm, energy)

    def _position(self, number: int) -> tuple[int, int]:
        """A cell of a grid, shaken by the seed."""
        row, column = divmod(number - 1, _COLUMNS)
        shake = blake2b(f"{self.seed}/{number}".encode(), digest_size=2).digest()
        return 30 + column * _CELL + shake[0] % 60, (30 + row * _CELL + shake[1] % 60) % 1_000

    def vouch(self, device: str, signer: Signer) -> Voucher:
        """The manufacturer's voucher for a device's key."""
        document = encode(
            {
                "algorithm": signer.algorithm,
                "device": device,
                "key": signer.public_key.hex(),
                "model": _MODEL,
                "serial": sha256(f"{self.seed}/{device}".encode()).hexdigest()[:12],
            }
        )
        return Voucher(document, self._manufacturer.sign(b"city.voucher.v1\n" + document), MANUFACTURER)


def load_neighbourhood(
    seed: int, *, synthetic: bool, report: Report, say: Callable[[str], None], meters: int = METERS
) -> Neighbourhood:
    """The demo's neighbourhood, on open data where it can be had; says so where it cannot."""
    if synthetic:
        say("Synthetic city: no open data is used; every home is simulated.")
        return Neighbourhood(seed, None, meters)
    try:
        series = half_hours(path_of("household-power", report), report)
    except EnvironmentFault as fault:
        say(f"No open data: {fault.message}. A synthetic city runs instead; every home is simulated.")
        return Neighbourhood(seed, None, meters)
    return Neighbourhood(seed, series, meters)


def _source(year: int) -> Source:
    text = "Individual household electric power consumption, G. Hebrail and A. Berard, UCI Machine Learning Repository"
    return Source(f"UCI household, year {year}", "CC BY 4.0", text, weeks_from(year))
