"""Trains a group's models, registers them on the ledger and in the store. Called by `api` and weekly by a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit import canonical
from citykit.clock import Clock, iso, unix
from citykit.errors import CityError, FailedPrecondition, InvalidArgument
from citykit.ledger.port import Ledger
from citykit.store.port import Store
from services.forecasting.app.book import Book
from services.forecasting.app.engine import Engine
from services.forecasting.app.snapshot import Trained
from services.forecasting.domain.cards import FORMAT
from services.forecasting.domain.groups import GROUPS, HORIZON, Group
from services.forecasting.store import models
from services.forecasting.store.models import ModelRow

VERSION = "1"
"""Of the models' code; counted up when the same data would give another model."""
MODELS_SHOWN = 100
_MICRO = 1_000_000
_DAY_S = 86_400
_SLOTS_A_DAY = 48
_HISTORY_DAYS = 29
_TIMEOUT_S = 10.0


@dataclass
class Training:
    """The registry. `newest` is by group."""

    store: Store
    ledger: Ledger
    book: Book
    engine: Engine
    dial: Callable[[str], grpc.aio.Channel]
    clock: Clock
    folder: Path
    retrain_days: int
    newest: dict[str, ModelRow] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self) -> None:
        """Takes up each group's newest model; once, at start."""
        for row in reversed(await self.store.read(lambda c: models.newest(c, MODELS_SHOWN))):
            self.newest[row.group] = row

    async def every(self) -> list[ModelRow]:
        return await self.store.read(lambda c: models.newest(c, MODELS_SHOWN))

    async def when_due(self) -> None:
        """Trains the groups whose models are older than the settings say. A job."""
        for group in GROUPS.values():
            if self._due(group):
                await self.train(group.name)

    def _due(self, group: Group) -> bool:
        row, now = self.newest.get(group.name), unix(self.clock)
        if row is not None:
            return now - row.trained_at >= self.retrain_days * _DAY_S
        names = self.book.names(f"{group.name}/")
        return bool(names) and self._days(names, now) >= _HISTORY_DAYS

    def _days(self, names: list[str], now: int) -> float:
        return self.book.snapshot(names, now).length / _SLOTS_A_DAY

    async def train(self, name: str) -> ModelRow:
        """Trains now, from everything the book holds.

        Raises:
            InvalidArgument: no such group.
            FailedPrecondition: nothing observed yet.
            Unavailable: the computing process or the ledger is away.
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
            data = await self._data(group)
            now = unix(self.clock)
            until = (self.retrain_days + 1) * _SLOTS_A_DAY + HORIZON
            snapshot = self.book.snapshot(names, now)
            trained: Trained = await self.engine.run("train", snapshot, group.backends, until, self.folder)
            return await self._register(group, now, data, trained)

    async def _register(self, group: Group, now: int, data: dict[str, Any], trained: Trained) -> ModelRow:
        model = f"{group.name}-{now}-{trained.hash.hex()[:12]}"
        card = {
            "format": FORMAT,
            "model": model,
            "version": VERSION,
            "group": group.name,
            "trained_at": iso(now),
            "data": data,
            "series": trained.series,
            "origins": trained.origins,
            "mase_micro": {key: round(value * _MICRO) for key, value in trained.mase.items()},
            "coverage_micro": {str(key): round(value * _MICRO) for key, value in trained.coverage.items()},
            "parameters": trained.hash.hex(),
        }
        receipt = await self.ledger.submit(
            "models", "register", {"card": card}, submitter="forecasting", request_id=f"model-{model}"
        )
        row = ModelRow(model, group.name, now, canonical.encode(card), trained.path.name, receipt.transaction)
        await self.store.write(lambda unit: models.add(unit, row))
        before = self.newest.get(group.name)
        self.newest[group.name] = row
        if before is not None and before.file != row.file:
            (self.folder / before.file).unlink(missing_ok=True)
        return row

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
