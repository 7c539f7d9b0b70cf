"""What every client must be able to do with every shim. Each scenario speaks to a chaincode of its cell's shim under keys of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

from citykit.ledger.devpeer.policy import parse, to_envelope
from tests.real.conformance.drivers import Driver, Refused
from tests.unit.ledger.devpeer_network import CITY, UTILITY

MVCC, PHANTOM, POLICY = 11, 12, 10
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Cell:
    """A client against a shim.

    Attributes:
        chaincode, other: two chaincodes on the shim.
        key: prefix of this cell's keys.
        received: messages of a chaincode by type, so far; None where the peer does not tell.
        height: blocks now.
        settled: returns once every peer has what this cell's has.
    """

    client: Driver
    chaincode: str
    other: str
    key: str
    received: Callable[[str], Mapping[str, int]] | None
    height: Callable[[], Awaitable[int]]
    settled: Callable[[], Awaitable[None]]

    async def submit(self, *arguments: str, member: str = "metering", **more: Any) -> Any:
        return await self.client("submit", member, chaincode=self.chaincode, arguments=list(arguments), **more)

    async def evaluate(self, *arguments: str, member: str = "metering", **more: Any) -> str:
        answer = await self.client("evaluate", member, chaincode=self.chaincode, arguments=list(arguments), **more)
        return str(answer["result"])

    async def endorse(self, *arguments: str, **more: Any) -> Any:
        return await self.client("endorse", chaincode=self.chaincode, arguments=list(arguments), **more)


async def eventually(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Other peers may be behind: asked again until the answer is as expected."""
    found: Any = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while (found := await asked(ask)) != expected:
                await asyncio.sleep(0.1)
    assert found == expected


async def asked(ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await ask()
    except Refused as refused:
        return str(refused)


async def submit_and_evaluate(cell: Cell) -> None:
    done = await cell.submit("put", cell.key, "on")
    assert done["result"] == "on"
    assert await cell.evaluate("get", cell.key) == "on"
    await cell.submit("delete", cell.key)
    with pytest.raises(Refused, match="no value under"):
        await cell.evaluate("get", cell.key)


async def refusal(cell: Cell) -> None:
    before = await cell.height()
    with pytest.raises(Refused, match="chaincode response 400, the lamp is broken"):
        await cell.submit("refuse", "the lamp is broken")
    with pytest.raises(Refused, match="chaincode response 404"):
        await cell.evaluate("nothing")
    assert await cell.height() == before


async def mvcc(cell: Cell) -> None:
    first, second = await cell.endorse("add", cell.key, "1"), await cell.endorse("add", cell.key, "1")
    await cell.client("finish", handle=first["handle"])
    with pytest.raises(Refused) as conflict:
        await cell.client("finish", handle=second["handle"])
    assert conflict.value.validation == MVCC
    assert await cell.evaluate("get", cell.key) == "1"


async def phantom(cell: Cell) -> None:
    await cell.submit("put", f"{cell.key}a1", "x")
    held = await cell.endorse("range", f"{cell.key}a", f"{cell.key}b")
    await cell.submit("put", f"{cell.key}a2", "y")
    with pytest.raises(Refused) as conflict:
        await cell.client("finish", handle=held["handle"])
    assert conflict.value.validation == PHANTOM


async def events_and_checkpoint(cell: Cell) -> None:
    start = await cell.height()
    done = [await cell.submit("emit", "lit", str(number), cell.key) for number in range(4)]
    place: dict[str, Any] = {"chaincode": cell.chaincode, "start": start, "count": 2, "checkpoint": cell.key}
    found = [event for _ in range(2) for event in (await cell.client("events", **place))["events"]]
    assert [(one["name"], one["payload"]) for one in found] == [("lit", str(number)) for number in range(4)]
    assert [(one["transaction"], one["block"]) for one in found] == [(one["transaction"], one["block"]) for one in done]


async def blocks_and_filtered_blocks(cell: Cell) -> None:
    start = await cell.height()
    done = await cell.submit("put", cell.key, "1")
    await cell.submit("put", cell.key, "2")
    first, second = (await cell.client("blocks", start=start, count=2))["blocks"]
    assert (first["number"], second["number"]) == (start, start + 1)
    assert second["previous"] != first["previous"]
    filtered = (await cell.client("filtered", start=start, count=1))["blocks"]
    assert filtered[0]["transactions"] == [[done["transaction"], 0]]


async def ranges(cell: Cell) -> None:
    await cell.submit("many", cell.key, "250")
    found = json.loads(await cell.evaluate("range", cell.key, f"{cell.key}~"))
    assert found == [[f"{cell.key}{number:04}", str(number)] for number in range(250)]


async def paging(cell: Cell) -> None:
    await cell.submit("many", cell.key, "7")
    keys, bookmark, pages = [], "", 0
    while bookmark or not pages:
        page = json.loads(await cell.evaluate("page", cell.key, f"{cell.key}~", "3", bookmark))
        keys += [key for key, _ in page["entries"]]
        bookmark, pages = page["bookmark"], pages + 1
    assert (keys, pages) == ([f"{cell.key}{number:04}" for number in range(7)], 3)


async def history(cell: Cell) -> None:
    done = [await cell.submit("put", cell.key, "on"), await cell.submit("put", cell.key, "off")]
    done.append(await cell.submit("delete", cell.key))
    ids = [one["transaction"] for one in done]
    found = json.loads(await cell.evaluate("history", cell.key))
    assert found == [[ids[2], "", True], [ids[1], "off", False], [ids[0], "on", False]]


async def private_data(cell: Cell) -> None:
    # Only the creator's own organisation sees transient data: that is why it alone is asked to endorse.
    await cell.submit("putPrivate", "city-only", cell.key, transient={"value": "42"}, organisations=[CITY])
    assert await cell.evaluate("getPrivate", "city-only", cell.key) == "42"
    hashed = sha256(b"42").hexdigest()
    await eventually(lambda: cell.evaluate("privateHash", "city-only", cell.key, member="reader"), hashed)
    with pytest.raises(Refused, match="read access permission"):
        await cell.evaluate("getPrivate", "city-only", cell.key, member="reader")
    await cell.submit("putPrivate", "both", cell.key, transient={"value": "43"}, organisations=[CITY])
    await eventually(lambda: cell.evaluate("getPrivate", "both", cell.key, member="reader"), "43")
    found = json.loads(await cell.evaluate("rangePrivate", "both", cell.key, f"{cell.key}~", member="reader"))
    assert found == [[cell.key, "43"]]


async def blocks_with_private_data(cell: Cell) -> None:
    start = await cell.height()
    await cell.submit("putPrivate", "city-only", cell.key, transient={"value": "42"}, organisations=[CITY])
    await cell.submit("putPrivate", "both", cell.key, transient={"value": "43"}, organisations=[CITY])

    async def seen(member: str) -> list[Any]:
        found = await cell.client("private", member, start=start, count=2)
        return [one["collections"] for one in found["blocks"]]

    both = [[cell.chaincode, ["both"]]]
    await eventually(lambda: seen("metering"), [[[cell.chaincode, ["city-only"]]], both])
    await eventually(lambda: seen("reader"), [[], both])


async def transient_data(cell: Cell) -> None:
    said = await cell.evaluate("transient", "value", transient={"value": "secret"}, organisations=[])
    assert said == "secret"


async def chaincode_to_chaincode(cell: Cell) -> None:
    assert (await cell.submit("call", cell.other, "put", cell.key, "on"))["result"] == "on"
    assert await cell.evaluate("call", cell.other, "get", cell.key) == "on"
    with pytest.raises(Refused, match="no value under"):
        await cell.evaluate("get", cell.key)
    with pytest.raises(Refused, match="chaincode response 400, no"):
        await cell.evaluate("call", cell.other, "refuse", "no")


async def attributes(cell: Cell) -> None:
    assert await cell.evaluate("attribute", "city.service") == "metering"
    assert await cell.evaluate("attribute", "city.service", member="billing") == ""


async def ed25519_member(cell: Cell) -> None:
    assert (await cell.submit("put", cell.key, "1", member="edward"))["result"] == "1"
    assert await cell.evaluate("get", cell.key, member="edward") == "1"


async def key_policy(cell: Cell) -> None:
    policy = base64.b64encode(to_envelope(parse(f"AND('{CITY}.peer','{UTILITY}.peer')"))).decode()
    await cell.submit("put", cell.key, "1")
    await cell.submit("setPolicy", cell.key, transient={"policy": policy}, organisations=[CITY])
    with pytest.raises(Refused) as failed:
        await cell.submit("put", cell.key, "2", organisations=[CITY])
    assert failed.value.validation == POLICY
    await cell.settled()
    await cell.submit("put", cell.key, "2", organisations=[CITY, UTILITY])
    assert await cell.evaluate("get", cell.key) == "2"


async def batches(cell: Cell) -> None:
    before = dict(cell.received(cell.chaincode)) if cell.received else {}
    await cell.submit("many", cell.key, "50")
    assert json.loads(await cell.evaluate("manyValues", cell.key, "50")) == [str(number) for number in range(50)]
    if cell.received is None:
        return
    after = cell.received(cell.chaincode)
    assert after.get("PUT_STATE", 0) == before.get("PUT_STATE", 0)
    assert after["WRITE_BATCH_STATE"] == before.get("WRITE_BATCH_STATE", 0) + 1
    assert after["GET_STATE_MULTIPLE"] == before.get("GET_STATE_MULTIPLE", 0) + 1


Scenario = Callable[[Cell], Awaitable[None]]
SCENARIOS: tuple[Scenario, ...] = (
    submit_and_evaluate, refusal, mvcc, phantom, events_and_checkpoint, blocks_and_filtered_blocks, ranges, paging,
    history, private_data, blocks_with_private_data, transient_data, chaincode_to_chaincode, attributes, ed25519_member, key_policy, batches,
)  # fmt: skip
LACKS = {
    ("node shim", "batches"): "fabric-shim 2.5.8 knows no write or read batches of 3.1",
}
"""(part, scenario) -> what an official part lacks."""
