"""The port over a channel of the development peer passes the suite, over TLS, with our shim."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from citykit.canonical import encode
from citykit.errors import SettingsError
from citykit.ledger.channel import ChannelLedger, open_channel_ledger
from citykit.ledger.port import LedgerOutcomeUnknown, LedgerUnavailable
from citykit.testing.ledger_suite import LedgerSuite, Reopen, add
from tests.real.ledger.trial import running_peer, settings_for
from verifier import fabric
from verifier.canonical import Failure
from verifier.fabric_ledger import read_fabric


class TestChannelOnDevelopmentPeer(LedgerSuite):
    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        ledgers: list[ChannelLedger] = []
        async with running_peer(tmp_path / "peer") as peer:

            async def again() -> ChannelLedger:
                for ledger in ledgers:
                    await ledger.close()
                ledgers[:] = [await open_channel_ledger(settings_for(peer))]
                return ledgers[0]

            yield again
            for ledger in ledgers:
                await ledger.close()


THREE = ("CityMSP", "UtilityMSP", "AuditorMSP")


async def test_evidence_holds_and_says_whose_ledger_it_is(tmp_path: Path) -> None:
    async with running_peer(tmp_path / "peer", THREE) as peer:
        settings = dataclasses.replace(settings_for(peer), endorsements=2)
        ledger = await open_channel_ledger(settings, clock=lambda: 1_478_563_200.5)
        done = await asyncio.gather(*(add(ledger, f"k{number}") for number in range(4)))
        receipt = await ledger.submit("counter", "add", {"key": "k", "by": 2}, submitter="tester", request_id="r")
        evidence, trust = await ledger.evidence(receipt.transaction), ledger.trust()
        block = await ledger.block(receipt.block)
        await ledger.close()
    assert done == [0] * 4
    channel = read_fabric(json.loads(encode(trust)))
    found = fabric.transaction_of(evidence, channel, "x")
    assert (found["id"], found["submitter"], found["result"]) == (receipt.transaction, "tester", 0)
    assert (found["args"], found["time"]) == ({"by": 2, "key": "k"}, "2016-11-08T00:00:00Z")
    assert channel.notes() == ["the ledger is a development peer: one operator, not Fabric"]
    shown = block["envelopes"][receipt.index]["transaction"]
    assert {name: shown[name] for name in found} == found
    assert block["header"]["time"] == "2016-11-08T00:00:00Z"


async def test_evidence_that_was_changed_does_not_hold(tmp_path: Path) -> None:
    async with running_peer(tmp_path / "peer") as peer:
        ledger = await open_channel_ledger(settings_for(peer))
        receipt = await ledger.submit("counter", "add", {"key": "k", "by": 2}, submitter="tester", request_id="r")
        evidence, trust = await ledger.evidence(receipt.transaction), read_fabric(json.loads(encode(ledger.trust())))
        await ledger.close()
    places = [place for place in texts(evidence) if place[1] != "type"]  # the trust file's is compared before
    assert len(places) > 8
    for holder, name in places:
        good = holder[name]
        holder[name] = ("B" if good[:1] != "B" else "C") + good[1:]
        with pytest.raises(Failure):
            fabric.transaction_of(evidence, trust, "x")
        holder[name] = good
    fabric.transaction_of(evidence, trust, "x")


def texts(value: Any) -> Any:
    """(holder, name) of every text in a document."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from texts(item)
        elif isinstance(item, str):
            yield value, name


async def test_a_peer_that_stops_is_unavailable_and_is_found_again(tmp_path: Path) -> None:
    async with running_peer(tmp_path / "peer") as peer:
        settings = dataclasses.replace(settings_for(peer), evaluate_s=2, endorse_s=2, submit_s=2, commit_s=2)
        ledger = await open_channel_ledger(settings)
        await add(ledger, "a")
    for call in (ledger.height(), ledger.status("0" * 64), add(ledger, "b")):
        with pytest.raises((LedgerUnavailable, LedgerOutcomeUnknown)):
            await call
    async with running_peer(tmp_path / "peer") as again:
        assert again.address == settings.peer
        async with asyncio.timeout(20):
            while True:
                try:
                    await add(ledger, "b")
                    break
                except (LedgerUnavailable, LedgerOutcomeUnknown):
                    await asyncio.sleep(0.05)
        assert [event.payload["key"] async for event in ledger.events(follow=False)] == ["a", "b"]
        await ledger.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channel": "elsewhere"}, "check CITY_FABRIC_CHANNEL"),
        ({"msp": "OtherMSP"}, "check CITY_FABRIC_CHANNEL"),
        ({"tls_ca": "", "tls_cert": "", "tls_key": ""}, "give CITY_FABRIC_TLS_CA where it speaks TLS"),
        ({"tls_cert": "", "tls_key": ""}, "where it asks for a client certificate"),
        ({"tls_name": "other.example"}, "set CITY_FABRIC_TLS_NAME"),
        ({"tls_ca": "{state}/organisations/CityMSP/ca.pem"}, "of another authority than CITY_FABRIC_TLS_CA"),
    ],
)
async def test_what_is_set_wrongly_stops_at_start(tmp_path: Path, wrong: dict[str, str], words: str) -> None:
    async with running_peer(tmp_path / "peer") as peer:
        said = {name: value.format(state=peer.state) for name, value in wrong.items()}
        settings = dataclasses.replace(settings_for(peer), evaluate_s=2, **said)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=words):
            await open_channel_ledger(settings)
