"""When a group is trained, what is registered and published, what is kept of old models, and what happens when the ledger is away."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, cast

import pytest

from citykit import canonical
from citykit.clock import ReplayClock
from citykit.errors import CityError, FailedPrecondition, InvalidArgument, Unavailable
from citykit.ids import seeded_randomness
from citykit.ledger.port import Ledger
from citykit.package import commitment
from citykit.settings import CitySettings
from citykit.store.port import Store
from citykit.store.sqlite import open_sqlite
from services.forecasting import main
from services.forecasting.app.book import Book
from services.forecasting.app.engine import Engine
from services.forecasting.app.snapshot import BLOCK, Part, Trained
from services.forecasting.app.training import Training
from services.forecasting.events import EVENTS_TOPIC
from services.forecasting.store import models
from services.forecasting.store.tables import METADATA

START = 1_475_535_600
DAY = 86_400


@dataclass
class FakeEngine:
    """Trains in no time: the parameters are a number."""

    trained: int = 0
    blocks: list[int] = field(default_factory=list)
    closed: int = 0

    async def run(self, function: str, *args: Any, tries: int) -> Any:
        assert tries == 1, "a training that died is not made again by itself"
        if function == "train":
            self.blocks.append(len(args[0].names))
            return Part(args[3] / "x.part", len(args[0].names), 7, {"choice": 0.8}, {80: 0.81})
        self.trained += 1
        content = b"%d" % self.trained
        digest = hashlib.sha256(content)
        path = args[1] / f"{digest.hexdigest()}.model"
        path.write_bytes(content)
        return Trained(path, digest.digest(), sum(part.series for part in args[0]), 7, {"choice": 0.8}, {80: 0.81})

    async def close(self) -> None:
        self.closed += 1


@dataclass
class FakeLedger:
    cards: list[dict[str, Any]] = field(default_factory=list)
    away: bool = False

    async def submit(self, contract: str, function: str, args: Any, *, submitter: str, request_id: str) -> Any:
        if self.away:
            raise Unavailable("the ledger is away")
        self.cards.append(args["card"])
        return type("Receipt", (), {"transaction": f"{len(self.cards):064x}"})()


def no_notary(service: str) -> Any:
    raise Unavailable("no notary")


@dataclass
class Parts:
    training: Training
    engine: FakeEngine
    ledger: FakeLedger
    clock: ReplayClock
    store: Store
    folder: Path


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    migrations = Path(main.__file__).parent / "migrations"
    store = open_sqlite(tmp_path / "f.db", METADATA, migrations, CitySettings().store)
    engine, ledger, clock, folder = FakeEngine(), FakeLedger(), ReplayClock(START), tmp_path / "models"
    folder.mkdir()
    training = make(store, ledger, engine, clock, folder)
    yield Parts(training, engine, ledger, clock, store, folder)
    await store.close()


def make(store: Store, ledger: FakeLedger, engine: FakeEngine, clock: ReplayClock, folder: Path) -> Training:
    return Training(
        store, cast(Ledger, ledger), Book("Europe/London", 120 * 48), no_notary, clock, seeded_randomness(1), folder, 7,
        cast(Engine, engine),
    )  # fmt: skip


def observe(training: Training, series: Sequence[str], time: int = START) -> None:
    for name in series:
        training.book.put(name, time, 1.0, nan)


async def test_a_group_is_trained_when_it_has_four_weeks_and_again_every_week(parts: Parts) -> None:
    observe(parts.training, ["parking/a"])
    for day, expected in ((28, 0), (30, 1), (36, 1), (37, 2), (60, 3)):
        parts.clock.advance_to(START + day * DAY)
        await parts.training.when_due()
        assert parts.engine.trained == expected, f"day {day}"
    assert parts.engine.closed == 3, "the process ends with each training"


async def test_a_model_is_registered_and_told_with_a_commitment_to_its_card(parts: Parts) -> None:
    observe(parts.training, ["parking/a", "parking/b", "city/a"])
    row = await parts.training.train("parking")
    [card] = parts.ledger.cards
    assert canonical.decode(row.card) == card
    assert card["data"] == {"log": "parking.states", "size": 0, "root": ""}, "no notary, so nothing is claimed"
    assert (card["series"], card["origins"], card["mase_micro"]) == (2, 7, {"choice": 800_000})
    [message] = [message for _, message in await parts.store.outbox(10) if message.topic == EVENTS_TOPIC]
    assert message.headers["commitment"] == commitment(row.salt, row.card)
    assert await parts.store.read(lambda c: models.newest(c, 5)) == [row]
    assert (await parts.training.train("city")).card != row.card


async def test_thousands_of_series_are_trained_block_by_block(parts: Parts) -> None:
    observe(parts.training, [f"city/{n:04}" for n in range(2 * BLOCK + 3)])
    await parts.training.train("city")
    assert parts.engine.blocks == [BLOCK, BLOCK, 3]
    assert parts.ledger.cards[0]["series"] == 2 * BLOCK + 3


async def test_the_files_of_old_models_are_removed(parts: Parts) -> None:
    observe(parts.training, ["parking/a"])
    rows = []
    for _ in range(4):
        parts.clock.advance_to(parts.clock.now() + DAY)
        rows.append(await parts.training.train("parking"))
    assert {path.name for path in parts.folder.iterdir()} == {rows[2].file, rows[3].file}
    again = make(parts.store, parts.ledger, parts.engine, parts.clock, parts.folder)
    await again.load()
    assert again.newest["parking"] == rows[3]
    (parts.folder / rows[3].file).write_bytes(b"damaged")
    await again.load()
    third = make(parts.store, parts.ledger, parts.engine, parts.clock, parts.folder)
    await third.load()
    assert third.newest["parking"] == rows[2], "the one before serves until the next training"


async def test_what_was_trained_while_the_ledger_was_away_is_registered_when_it_is_back(parts: Parts) -> None:
    observe(parts.training, ["parking/a"])
    parts.ledger.away = True
    with pytest.raises(Unavailable):
        await parts.training.train("parking")
    assert parts.training.newest == {}
    parts.ledger.away = False
    await parts.training.when_due()
    assert parts.engine.trained == 1 and len(parts.ledger.cards) == 1
    assert parts.training.newest["parking"].id == parts.ledger.cards[0]["model"]


@pytest.mark.parametrize(("group", "kind"), [("trams", InvalidArgument), ("metering", FailedPrecondition)])
async def test_what_cannot_be_trained_says_why(parts: Parts, group: str, kind: type[CityError]) -> None:
    with pytest.raises(kind):
        await parts.training.train(group)
