"""Trains a group's models, registers them on the ledger and in the store. Called by `api` and weekly by a job."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit import canonical, telemetry
from citykit.clock import Clock, iso, unix
from citykit.errors import CityError, FailedPrecondition, InvalidArgument
from citykit.ids import Randomness
from citykit.ledger.port import Ledger
from citykit.store.port import Store, Unit
from services.forecasting import events
from services.forecasting.app.book import Book
from services.forecasting.app.engine import Engine
from services.forecasting.app.snapshot import BLOCK, Part, Trained
from services.forecasting.domain.cards import FORMAT
from services.forecasting.domain.groups import GROUPS, HORIZON, Group
from services.forecasting.store import models
from services.forecasting.store.models import ModelRow

VERSION = "2"
"""Of the models' code; counted up when the same data would give another model."""
MODELS_SHOWN = 100
MODELS_KEPT = 2
"""Files of parameters kept for each group: a forecast may still be reading the one before."""
_MICRO = 1_000_000
_BAND = "80"
_DAY_S = 86_400
_SLOTS_A_DAY = 48
_HISTORY_DAYS = 29
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class _Learnt:
    """A training that is not registered yet."""

    group: Group
    now: int
    data: dict[str, Any]
    trained: Trained


@dataclass
class Training:
    """The registry. `newest` is by group. Training has a process of its own, which ends with it: forecasts go on meanwhile."""

    store: Store
    ledger: Ledger
    book: Book
    dial: Callable[[str], grpc.aio.Channel]
    clock: Clock
    randomness: Randomness
    folder: Path
    retrain_days: int
    engine: Engine = field(default_factory=lambda: Engine(1))
    newest: dict[str, ModelRow] = field(default_factory=dict)
    _pending: dict[str, _Learnt] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self) -> None:
        """Takes up each group's newest model whose parameters are there and whole, and removes what belongs to none; once, at start."""
        rows = await self.every()
        whole = await asyncio.to_thread(_whole, self.folder, sorted({row.file for row in rows}))
        for row in reversed(rows):
            if row.file in whole:
                self.newest[row.group] = row
                _measure(row)
        await asyncio.to_thread(_tidy, self.folder, self._kept(rows))

    async def every(self) -> list[ModelRow]:
        """The newest models."""
        return await self.store.read(lambda c: models.newest(c, MODELS_SHOWN))

    async def when_due(self) -> None:
        """Trains the groups whose models are older than the settings say. A job."""
        for group in GROUPS.values():
            if group.name in self._pending or self._due(group):
                await self.train(group.name)

    def _due(self, group: Group) -> bool:
        row, now = self.newest.get(group.name), unix(self.clock)
        if row is not None:
            return now - row.trained_at >= self.retrain_days * _DAY_S
        names = self.book.names(f"{group.name}/")
        return bool(names) and self.book.span(names, now) >= _HISTORY_DAYS * _SLOTS_A_DAY

    async def train(self, name: str) -> ModelRow:
        """Trains now, from everything the book holds. What was trained but could not be registered is registered first.

        Raises:
            InvalidArgument: no such group.
            FailedPrecondition: nothing observed yet.
            Unavailable: the computing process or the ledger is away; nothing is registered.
        """
        group = GROUPS.get(name)
        if group is None:
            raise InvalidArgument(f"no group {name!r}; there are {', '.join(GROUPS)}", field="group")
        names = self.book.names(f"{name}/")
        if not names:
            raise FailedPrecondition(
                f"nothing of the group {name} was observed yet; train when it was", reason="no-data"
            )
        async with self._lock:
            if name not in self._pending:
                self._pending[name] = await self._learnt(group, names)
            row = await self._register(self._pending[name])
            del self._pending[name]
            return row

    async def _learnt(self, group: Group, names: list[str]) -> _Learnt:
        data, now = await self._data(group), unix(self.clock)
        until = (self.retrain_days + 1) * _SLOTS_A_DAY + HORIZON
        try:
            parts: list[Part] = []
            for at in range(0, len(names), BLOCK):
                snapshot = self.book.snapshot(names[at : at + BLOCK], now)
                parts.append(await self.engine.run("train", snapshot, group.backends, until, self.folder, tries=1))
            trained: Trained = await self.engine.run("join", parts, self.folder, tries=1)
        finally:
            await self.engine.close()
        return _Learnt(group, now, data, trained)

    async def _register(self, learnt: _Learnt) -> ModelRow:
        group, now, trained = learnt.group, learnt.now, learnt.trained
        model = f"{group.name}-{now}-{trained.hash.hex()[:12]}"
        card = _card(model, learnt)
        receipt = await self.ledger.submit(
            "models", "register", {"card": card}, submitter="forecasting", request_id=f"model-{model}"
        )
        salt, content = self.randomness(events.SALT_BYTES), canonical.encode(card)
        row = ModelRow(model, group.name, now, content, salt, trained.path.name, receipt.transaction)

        def unit(work: Unit) -> None:
            models.add(work, row)
            work.publish(events.model_trained(model, group.name, content, salt, now))

        await self.store.write(unit)
        self.newest[group.name] = row
        _measure(row)
        await asyncio.to_thread(_tidy, self.folder, self._kept(await self.every()))
        return row

    def _kept(self, rows: Iterable[ModelRow]) -> set[str]:
        kept: dict[str, list[str]] = {}
        for row in rows:  # newest first
            files = kept.setdefault(row.group, [])
            if row.file not in files and len(files) < MODELS_KEPT:
                files.append(row.file)
        pending = {learnt.trained.path.name for learnt in self._pending.values()}
        return (
            {row.file for row in self.newest.values()} | {file for files in kept.values() for file in files} | pending
        )

    async def _data(self, group: Group) -> dict[str, Any]:
        """The log the data stands in and its newest anchored head; size 0 where there is none (yet)."""
        nothing = {"log": group.data_log, "size": 0, "root": ""}
        if not group.data_log:
            return nothing
        try:
            answer = await NotaryServiceStub(self.dial("notary")).GetHead(
                notary.GetHeadRequest(log=group.data_log), timeout=_TIMEOUT_S
            )
        except (grpc.aio.AioRpcError, CityError):
            return nothing
        head = answer.head
        return {"log": group.data_log, "size": head.anchored_size, "root": head.anchored_root.hex()}


def _card(model: str, learnt: _Learnt) -> dict[str, Any]:
    trained = learnt.trained
    return {
        "format": FORMAT,
        "model": model,
        "version": VERSION,
        "group": learnt.group.name,
        "trained_at": iso(learnt.now),
        "data": learnt.data,
        "series": trained.series,
        "origins": trained.origins,
        "mase_micro": {key: round(value * _MICRO) for key, value in trained.mase.items()},
        "coverage_micro": {str(key): round(value * _MICRO) for key, value in trained.coverage.items()},
        "parameters": trained.hash.hex(),
    }


def _measure(row: ModelRow) -> None:
    telemetry.FORECASTING_TRAINED.labels(row.group).set(row.trained_at)
    micro = canonical.decode(row.card)["coverage_micro"].get(_BAND)
    if micro is not None:
        telemetry.FORECASTING_COVERAGE.labels(row.group).set(micro / _MICRO)


def _whole(folder: Path, files: list[str]) -> set[str]:
    """Those that are there and have the hash they are named by."""
    return {
        file
        for file in files
        if (path := folder / file).exists() and hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    }


def _tidy(folder: Path, kept: set[str]) -> None:
    """Removes what no kept model needs: parameters of older ones, and what an interrupted training left."""
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink(missing_ok=True)
