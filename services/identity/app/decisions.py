"""Decisions about devices: submitted to the ledger, then taken over into the store, once, also if the process dies in between.

What is meant is written down first. Whoever finds it (a retry, or the job after a restart) finishes it with the same arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import insert

from citykit.canonical import encode
from citykit.errors import CityError, RequestReused
from citykit.ledger.contract import JsonObject
from citykit.ledger.port import ContractRefused
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.app.once import Asked

INTENTS_MAX = 1_000
"""Finished in one run of the job."""
CONTRACT = "devices"


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be decided.

    Attributes:
        function: of the contract `devices`.
        arguments: the same at every try, the time included.
        details: what the store needs and the ledger does not.
        at: city time of the first try, unix seconds.
    """

    asked: Asked
    function: str
    arguments: JsonObject
    details: JsonObject
    at: int


Effect = Callable[[Unit, Intent, str], bytes]
"""(unit, intent, transaction) -> the answer, after the rows and events are written."""


class Decisions:
    """Decides and finishes.

    Args:
        effects: what follows in the store, by RPC.
    """

    def __init__(self, ctx: Context, store: Store, effects: Mapping[str, Effect]) -> None:
        self._ctx = ctx
        self._store = store
        self._effects = effects

    async def decide(self, wanted: Intent) -> bytes:
        """The answer, once the decision is committed and taken over.

        Raises:
            ContractRefused: nothing was decided. LedgerOutcomeUnknown, Unavailable: ask again; the job goes on meanwhile.
        """
        found = await self._store.write(lambda unit: _begin(unit, wanted))
        return found if isinstance(found, bytes) else await self._finish(found)

    async def finish(self) -> None:
        """Finishes what a crash or an absent ledger left behind; the service's job."""
        rows = await self._store.read(lambda c: tables.intents(c, INTENTS_MAX))
        for row in rows:
            try:
                await self._finish(_intent(row))
            except CityError as error:
                self._ctx.log.warning("decision-waits", extra={"fields": {"rpc": row.rpc, "reason": error.reason}})

    async def _finish(self, intent: Intent) -> bytes:
        name = f"{intent.asked.rpc}\n{intent.asked.request_id}"
        ledger_id = f"identity-{sha256(name.encode()).hexdigest()[:48]}"
        try:
            receipt = await self._ctx.ledger.submit(
                CONTRACT, intent.function, intent.arguments, submitter=self._ctx.name, request_id=ledger_id
            )
        except ContractRefused:
            await self._store.write(lambda unit: tables.drop_intent(unit, intent.asked.request_id))
            raise
        return await self._store.write(lambda unit: self._complete(unit, intent, receipt.transaction))

    def _complete(self, unit: Unit, intent: Intent, transaction: str) -> bytes:
        known = intent.asked.before(unit)
        if known is not None:
            return known
        tables.drop_intent(unit, intent.asked.request_id)
        return intent.asked.keep(unit, self._effects[intent.asked.rpc](unit, intent, transaction))


def _begin(unit: Unit, wanted: Intent) -> Intent | bytes:
    """The answer given before, or the intent to follow: the one on its way, else the wanted one."""
    known = wanted.asked.before(unit)
    if known is not None:
        return known
    row = tables.intent(unit.connection, wanted.asked.request_id)
    if row is None:
        unit.execute(insert(tables.INTENTS).values(_row(wanted)))
        return wanted
    found = _intent(row)
    if found.asked != wanted.asked:
        raise RequestReused(
            "this request id is in use with other content; take a new id for a new act", field="request_id"
        )
    return found


def _row(intent: Intent) -> dict[str, Any]:
    return {
        "request_id": intent.asked.request_id, "rpc": intent.asked.rpc, "fingerprint": intent.asked.mark,
        "function": intent.function, "arguments": encode(intent.arguments).decode(), "details": encode(intent.details).decode(),
        "at": intent.at,
    }  # fmt: skip


def _intent(row: Any) -> Intent:
    known = Asked(row.request_id, row.rpc, bytes(row.fingerprint))
    return Intent(known, row.function, json.loads(row.arguments), json.loads(row.details), row.at)
