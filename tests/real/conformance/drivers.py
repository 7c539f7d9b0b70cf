"""Clients that do what a scenario says: ours in this process, the official ones as programs that read a line of JSON and answer with one.

{"act": "evaluate|submit|endorse", "member", "chaincode", "arguments", "transient", "organisations"}
{"act": "finish", "handle"}, {"act": "events", "chaincode", "start", "count", "checkpoint"}, {"act": "blocks|filtered|private", "start", "count"}
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from citykit.ledger.fabric import Gateway, MemoryCheckpointer, blocks, chaincode_events
from citykit.ledger.fabric.blocks import Block
from citykit.ledger.fabric.errors import CommitInvalid, GatewayError
from citykit.ledger.fabric.gateway import code_name
from citykit.ledger.fabric.transactions import Prepared
from tests.real.conformance.parts import Parts

ANSWER_S = 60.0
_LINE_MAX = 16 * 1024 * 1024
Answer = dict[str, Any]


@dataclass
class Refused(Exception):
    """What a client reports of a failure.

    Attributes:
        said: message and details in one text.
        validation: code of a transaction that was committed as invalid, else 0.
    """

    kind: str
    said: str
    validation: int

    def __str__(self) -> str:
        return f"{self.kind} ({code_name(self.validation)}): {self.said}"


class Driver(Protocol):
    """A client."""

    async def __call__(self, act: str, member: str = "metering", **request: Any) -> Answer:
        """Does one act. Raises Refused."""


class OwnDriver:
    """Our client.

    Args:
        gateway: of a member.
    """

    def __init__(self, gateway: Callable[[str], Gateway]) -> None:
        self._gateway = gateway
        self._prepared: list[tuple[str, Prepared]] = []
        self._checkpoints: dict[str, MemoryCheckpointer] = {}

    async def __call__(self, act: str, member: str = "metering", **request: Any) -> Answer:
        try:
            method: Callable[..., Awaitable[Answer]] = getattr(self, f"_{act}")
            return await method(member, **request)
        except GatewayError as error:
            raise Refused(type(error).__name__, str(error), 0) from None
        except CommitInvalid as error:
            raise Refused("CommitInvalid", str(error), error.code) from None

    async def _evaluate(self, member: str, **request: Any) -> Answer:
        chaincode, function, arguments, more = _call(request)
        return {"result": (await self._gateway(member).evaluate(chaincode, function, arguments, **more)).decode()}

    async def _submit(self, member: str, **request: Any) -> Answer:
        chaincode, function, arguments, more = _call(request)
        done = await self._gateway(member).submit(chaincode, function, arguments, **more)
        return {"result": done.result.decode(), "transaction": done.transaction_id, "block": done.block}

    async def _endorse(self, member: str, **request: Any) -> Answer:
        chaincode, function, arguments, more = _call(request)
        gateway = self._gateway(member)
        prepared = await gateway.endorse(gateway.propose(chaincode, function, arguments, **more))
        self._prepared.append((member, prepared))
        return {"handle": len(self._prepared) - 1, "transaction": prepared.transaction_id}

    async def _finish(self, _: str, handle: int) -> Answer:
        member, prepared = self._prepared[handle]
        done = await self._gateway(member).finish(prepared)
        return {"result": done.result.decode(), "transaction": done.transaction_id, "block": done.block}

    async def _events(self, member: str, chaincode: str, start: int, count: int, checkpoint: str = "") -> Answer:
        kept = self._checkpoints.setdefault(checkpoint, MemoryCheckpointer()) if checkpoint else None
        found: list[Answer] = []
        async with aclosing(chaincode_events(self._gateway(member), chaincode, start=start, checkpoint=kept)) as events:
            async for event in events:
                if kept is not None:
                    kept.save(event)
                found.append(
                    {
                        "name": event.name, "payload": event.payload.decode(),
                        "transaction": event.transaction_id, "block": event.block,
                    }
                )  # fmt: skip
                if len(found) == count:
                    break
        return {"events": found}

    async def _blocks(self, member: str, start: int, count: int) -> Answer:
        stop = start + count - 1
        found = [block async for block in blocks(self._gateway(member), start=start, stop=stop)]
        headers = [{"number": b.number, "previous": b.previous_hash.hex(), "data": b.data_hash.hex()} for b in found]
        return {"blocks": headers}

    async def _filtered(self, member: str, start: int, count: int) -> Answer:
        stop = start + count - 1
        found = [block async for block in blocks(self._gateway(member), start=start, stop=stop, filtered=True)]
        return {
            "blocks": [
                {"number": block.number, "transactions": [[one.transaction_id, one.code] for one in block.transactions]}
                for block in found
            ]
        }

    async def _private(self, member: str, start: int, count: int) -> Answer:
        stop = start + count - 1
        found = [block async for block in blocks(self._gateway(member), start=start, stop=stop, private=True)]
        return {"blocks": [{"number": block.number, "collections": _collections(block)} for block in found]}


class ProgramDriver:
    """An official client, in its own process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, act: str, member: str = "metering", **request: Any) -> Answer:
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        writer.write(json.dumps({"act": act, "member": member, **request}).encode() + b"\n")
        await writer.drain()
        async with asyncio.timeout(ANSWER_S):
            line = await reader.readline()
        assert line, "the client program ended"
        answer: Answer = json.loads(line)
        if error := answer.get("error"):
            said = " | ".join([str(error["message"]), *error["details"]])
            raise Refused(str(error["kind"]), said, int(error["validation"]))
        return answer


@asynccontextmanager
async def program_driver(argv: list[str], settings: Path, parts: Parts) -> AsyncIterator[ProgramDriver]:
    """A client program, ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        *argv, str(settings), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        limit=_LINE_MAX, env={**os.environ, **parts.environment()},
    )  # fmt: skip
    try:
        yield ProgramDriver(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        async with asyncio.timeout(ANSWER_S):
            await process.wait()


def _collections(block: Block) -> list[Any]:
    return [
        [one.namespace, [held.collection_name for held in one.collection_pvt_rwset]]
        for sets in block.private.values()
        for one in sets.ns_pvt_rwset
    ]


def _call(request: Answer) -> tuple[str, str, list[bytes], Answer]:
    function, *arguments = request["arguments"]
    transient = {key: value.encode() for key, value in request.get("transient", {}).items()}
    more = {"transient": transient or None, "organisations": request.get("organisations", ())}
    return request["chaincode"], function, [item.encode() for item in arguments], more
