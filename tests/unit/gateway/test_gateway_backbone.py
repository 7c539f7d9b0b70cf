"""The city says what it runs on; a ledger of one operator is named as such."""

from __future__ import annotations

from typing import Any, cast

from city.notary.v1 import notary_service_pb2 as notary
from citykit.errors import Unavailable
from services.gateway.app.backbone import UNKNOWN, Backbone

NOTE = '{"ledger":{"kind":"development-peer","note":"one operator, not Fabric"}}'


class Notary:
    """In place of the calls: the trust file it gives, or nothing while it is away."""

    def __init__(self, trust: str) -> None:
        self.trust = trust
        self.asked = 0

    async def ask(self, service: str, rpc: str, request: Any, **_: Any) -> Any:
        self.asked += 1
        if not self.trust:
            raise Unavailable("away")
        return notary.GetTrustResponse(json=self.trust)


async def test_the_ledgers_own_note_is_shown_and_kept_for_a_minute() -> None:
    found, time = Notary(NOTE), [0.0]
    backbone = Backbone(cast(Any, found), alone=True, now=lambda: time[0])
    words = "A process for each service, on Kafka and PostgreSQL; one operator, not Fabric."
    assert [await backbone.words(), await backbone.words()] == [words, words]
    assert found.asked == 1
    time[0], found.trust = 61.0, ""
    assert await backbone.words() == words
    assert found.asked == 2


async def test_a_ledger_without_a_note_and_a_notary_that_is_away() -> None:
    assert await Backbone(cast(Any, Notary("")), alone=False).words() == UNKNOWN
    channel = '{"ledger":{"kind":"fabric","channel":"city"}}'
    words = await Backbone(cast(Any, Notary(channel)), alone=False).words()
    assert words == "One process; ledger: fabric channel city."
