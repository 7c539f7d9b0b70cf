"""The notary's use cases: integrate what the bus brings, anchor what grew, prove what is anchored."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from citykit import telemetry
from citykit.bus.events import TRACES_MAX, traceparents
from citykit.bus.port import Record
from citykit.canonical import encode
from citykit.clock import unix
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.ledger.contract import JsonObject
from citykit.merkle import ProofError, batch_proof, consistency_proof, inclusion_proof
from citykit.merkle_log import MerkleLog
from citykit.note import Checkpoint, public_key, sign_note
from citykit.service import Context, Finding
from citykit.store.port import Store
from services.notary import store as tables
from services.notary.domain import WIDTH, PathError, origin_of, parse_tile_path, tile_exists
from services.notary.events import LOGS, commitments, log_of
from services.notary.store import Anchor

COMMITMENTS_MAX = 10_000
_WATCH_EVERY_S = 0.5
_EVIDENCE_CACHE = 64
_ANCHOR_LATE_S = 60.0
"""Of the machine, beyond the interval: entries that wait longer say that anchoring stands still."""


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far a log has grown, and its newest anchor."""

    log: str
    origin: str
    size: int
    anchor: Anchor | None
    checkpoint: str


class Notary:
    """The application. One per process; `recover` is called before it is used."""

    def __init__(self, ctx: Context, store: Store) -> None:
        self._ctx = ctx
        self._store = store
        self._seed = ctx.key("log-signing")
        self._logs: dict[str, MerkleLog] = {}
        self._anchors: dict[str, Anchor] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._locks = {log: asyncio.Lock() for log in LOGS}
        self._changed = asyncio.Condition()
        self._traces: dict[str, list[str]] = {log: [] for log in LOGS}
        self._evidence: OrderedDict[str, JsonObject] = OrderedDict()
        self._waiting_since: dict[str, float] = {}

    async def recover(self) -> None:
        """Opens each log at its committed size; what a crash left beyond it is written over."""
        sizes = await self._store.read(tables.sizes)
        self._positions = await self._store.read(tables.positions)
        self._anchors = await self._store.read(tables.newest_anchors)
        for log in LOGS:
            self._logs[log] = MerkleLog(log_directory(self._ctx.directory, log), sizes.get(log, 0))
            self._measure(log)

    async def close(self) -> None:
        for log in self._logs.values():
            log.close()

    # --- integrating -------------------------------------------------------------------------------

    async def integrate(self, records: Sequence[Record]) -> None:
        """Appends the commitments of one partition's records, once each: the bus position is committed with the size."""
        log = log_of(records[0])
        async with self._locks[log]:
            done = self._positions.get((records[0].topic, records[0].partition), 0)
            new = [record for record in records if record.offset >= done]
            if not new:
                return
            traces = traceparents(new)
            with telemetry.span("notary.integrate", links=traces, log=log, entries=len(new)):
                await self.append(log, await self._unknown(log, commitments(new)), new)
            self._positions[(new[-1].topic, new[-1].partition)] = new[-1].offset + 1
            self._traces[log] = (self._traces[log] + traces)[-TRACES_MAX:]

    async def _unknown(self, log: str, wanted: Sequence[bytes]) -> list[bytes]:
        """Those not in the log yet, each once: a relay that died between publishing and its receipt publishes again."""
        places = await self._places(log, wanted)
        return list(dict.fromkeys(entry for entry, place in zip(wanted, places, strict=True) if place is None))

    async def append(self, log: str, entries: Sequence[bytes], records: Sequence[Record] = ()) -> None:
        """Writes entries durably: tiles first, then the size that makes them count."""
        chosen = self._logs[log]
        size = await asyncio.to_thread(chosen.write, entries)
        await self._store.write(lambda unit: tables.save_growth(unit, log, chosen.size, entries, records))
        chosen.commit(size)
        self._measure(log)
        await self._notify()

    def _measure(self, log: str) -> None:
        anchor = self._anchors.get(log)
        size, anchored = self._logs[log].size, anchor.size if anchor else 0
        telemetry.LOG_ENTRIES.labels(log).set(size)
        telemetry.LOG_ANCHORED_ENTRIES.labels(log).set(anchored)
        if size > anchored:
            self._waiting_since.setdefault(log, time.monotonic())
        else:
            self._waiting_since.pop(log, None)

    # --- anchoring ---------------------------------------------------------------------------------

    async def anchor(self) -> None:
        """Records every log that grew, in one ledger transaction."""
        heads = [head for log in LOGS if (head := await self._growth(log)) is not None]
        if not heads:
            return
        links = [trace for log in LOGS for trace in self._traces[log]]
        with telemetry.span("notary.anchor", links=links, logs=len(heads)):
            digest = sha256(encode(heads)).hexdigest()
            receipt = await self._ctx.ledger.submit(
                "anchors", "record", {"heads": heads}, submitter=self._ctx.name, request_id=f"anchor-{digest}"
            )
        for head in heads:
            await self._anchored(head, receipt.transaction)
        await self._notify()

    async def _growth(self, log: str) -> JsonObject | None:
        """The head to record, with its proof from what the ledger holds (which a crash may have left ahead of us)."""
        chosen = self._logs[log]
        size, known = chosen.size, self._anchors.get(log)
        if size == 0 or (known is not None and known.size == size):
            return None
        origin = origin_of(self._ctx.settings.general.city, log)
        recorded = await self._ctx.ledger.evaluate("anchors", "head", {"origin": origin})
        if recorded is not None and (known is None or recorded["size"] > known.size):
            await self._anchored({"origin": origin, **recorded}, recorded["transaction"])
        before = recorded["size"] if recorded else 0
        if before >= size:
            return None
        proof = await asyncio.to_thread(consistency_proof, chosen.hashes(), before, size)
        root = await asyncio.to_thread(chosen.root, size)
        return {"origin": origin, "size": size, "root": root.hex(), "proof": [item.hex() for item in proof]}

    async def _anchored(self, head: JsonObject, transaction: str) -> None:
        log = head["origin"].removeprefix(self._ctx.settings.general.city + "/")
        anchor = Anchor(log, head["size"], bytes.fromhex(head["root"]), transaction, unix(self._ctx.clock))
        await self._store.write(lambda unit: tables.save_anchor(unit, anchor))
        self._anchors[log] = anchor
        self._traces[log] = []
        await asyncio.to_thread(self._write_checkpoint, anchor)
        self._waiting_since.pop(log, None)
        self._measure(log)
        telemetry.LOG_ANCHORED_AT.labels(log).set_to_current_time()

    def _write_checkpoint(self, anchor: Anchor) -> None:
        path = log_directory(self._ctx.directory, anchor.log) / "checkpoint"
        unfinished = path.with_suffix(".part")
        unfinished.write_text(self._note(anchor), encoding="utf-8")
        unfinished.replace(path)

    # --- what must hold ----------------------------------------------------------------------------

    async def logs_verify(self) -> Finding:
        """Each log's entries still lead to the root that the ledger holds for it. An invariant; `CheckLogs` reads every byte."""
        logs = list(self._anchors)
        wrong = [log for log in logs if not await self._verifies(log)]
        return Finding(not wrong, f"not as anchored: {', '.join(wrong)}" if wrong else f"{len(logs)} logs verify")

    async def _verifies(self, log: str) -> bool:
        origin = origin_of(self._ctx.settings.general.city, log)
        recorded = await self._ctx.ledger.evaluate("anchors", "head", {"origin": origin})
        chosen = self._logs[log]
        if recorded is None or recorded["size"] > chosen.size:
            return False
        root = await asyncio.to_thread(chosen.root, recorded["size"])
        return bool(root.hex() == recorded["root"])

    async def anchors_advance(self) -> Finding:
        """No entry waits for its anchor for much longer than the interval. An invariant."""
        now, limit_s = time.monotonic(), self._ctx.settings.notary.anchor_interval_s + _ANCHOR_LATE_S
        late = {log: now - since for log, since in self._waiting_since.items() if now - since > limit_s}
        told = ", ".join(f"{log} for {waits:.0f} s" for log, waits in sorted(late.items()))
        return Finding(not late, f"entries wait: {told}" if late else "every entry is anchored in time")

    # --- proving -----------------------------------------------------------------------------------

    def heads(self) -> list[LogHead]:
        return [self.head(log) for log in LOGS]

    def head(self, log: str) -> LogHead:
        chosen = self._log(log)
        anchor = self._anchors.get(log)
        origin = origin_of(self._ctx.settings.general.city, log)
        return LogHead(log, origin, chosen.size, anchor, self._note(anchor) if anchor else "")

    async def watch(self) -> AsyncIterator[list[LogHead]]:
        """The heads now and at each change, at most twice a second."""
        while True:
            yield self.heads()
            async with self._changed:
                await self._changed.wait()
            await asyncio.sleep(_WATCH_EVERY_S)

    async def inclusion(self, log: str, index: int, size: int) -> tuple[int, list[bytes], str]:
        """(size, audit path, checkpoint) of an entry at an anchored size (0: the newest)."""
        anchor = await self._anchor(log, size)
        path = await self._prove(lambda: inclusion_proof(self._log(log).hashes(), index, anchor.size))
        return anchor.size, path, self._note(anchor)

    async def consistency(self, log: str, first: int, second: int) -> tuple[int, list[bytes], str]:
        """(second size, proof, its checkpoint) that `first` entries are a prefix of an anchored size."""
        anchor = await self._anchor(log, second)
        proof = await self._prove(lambda: consistency_proof(self._log(log).hashes(), first, anchor.size))
        return anchor.size, proof, self._note(anchor)

    async def batch(self, log: str, wanted: Sequence[bytes]) -> tuple[list[int], JsonObject]:
        """Where each commitment stands, and the `log` part of a bundle that proves them all (docs/PROOFS.md).

        Raises:
            NotFound: a commitment that is not in the log.
            FailedPrecondition: one that is not anchored yet.
        """
        if not 1 <= len(wanted) <= COMMITMENTS_MAX:
            raise InvalidArgument(f"one proof covers 1 to {COMMITMENTS_MAX} commitments", field="commitments")
        indexes = await self._locate(log, wanted)
        anchor = await self._anchor(log, 0)
        if max(indexes) >= anchor.size:
            raise FailedPrecondition(
                "an entry is in the log but not anchored yet; ask again in a few seconds",
                reason="not-anchored",
                retry_after_s=1.0,
            )
        sorted_indexes = sorted(set(indexes))
        proof = await self._prove(lambda: batch_proof(self._log(log).hashes(), sorted_indexes, anchor.size))
        part: JsonObject = {
            "origin": origin_of(self._ctx.settings.general.city, log),
            "checkpoint": self._note(anchor),
            "proof": {"size": anchor.size, "indexes": sorted_indexes, "hashes": [item.hex() for item in proof]},
            "anchor": await self.evidence(anchor.transaction),
        }
        return indexes, part

    async def evidence(self, transaction: str) -> JsonObject:
        """The ledger's evidence; the newest 64 are kept."""
        if transaction not in self._evidence:
            self._evidence[transaction] = await self._ctx.ledger.evidence(transaction)
            while len(self._evidence) > _EVIDENCE_CACHE:
                self._evidence.popitem(last=False)
        return self._evidence[transaction]

    def tile(self, log: str, path: str) -> tuple[bytes, bool]:
        """A file of the log by its tlog-tiles path, and whether it can never change."""
        chosen, anchor = self._log(log), self._anchors.get(log)
        if path == "checkpoint":
            if anchor is None:
                raise NotFound(f"the log {log} has no anchored checkpoint yet; ask again in a few seconds")
            return self._note(anchor).encode(), False
        try:
            tile = parse_tile_path(path)
        except PathError as error:
            raise InvalidArgument(f"{path!r} is no path of a log: {error}", field="path") from None
        if not tile_exists(tile, chosen.size):
            raise NotFound(
                f"the log {log} has {chosen.size} entries and no such tile yet; read its checkpoint first", field="path"
            )
        if tile.level is None:
            return chosen.entry_bundle(tile.number, tile.width), tile.width == WIDTH
        return chosen.tile(tile.level, tile.number, tile.width), tile.width == WIDTH

    def trust(self) -> JsonObject:
        """The trust file (docs/PROOFS.md)."""
        city = self._ctx.settings.general.city
        key = public_key(self._seed).hex()
        return {
            "format": "city.trust.v1",
            "city": city,
            "ledger": self._ctx.ledger.trust(),
            "logs": [{"origin": origin_of(city, log), "key": key} for log in LOGS],
            "witnesses": [],
            "known": [],
        }

    async def _locate(self, log: str, wanted: Sequence[bytes]) -> list[int]:
        places = await self._places(log, wanted)
        found = [place for place in places if place is not None]
        if len(found) < len(places):
            raise NotFound(
                f"a commitment is not in the log {log} yet; ask again in a few seconds",
                reason="not-logged",
                retry_after_s=1.0,
            )
        return found

    async def _places(self, log: str, wanted: Sequence[bytes]) -> list[int | None]:
        """Where each commitment stands in a log, or None."""
        chosen = self._log(log)
        prefixes = [tables.prefix_of(commitment) for commitment in wanted]
        found = await self._store.read(lambda connection: tables.candidates(connection, log, prefixes))

        def place(commitment: bytes, prefix: int) -> int | None:
            at = found.get(prefix, ())
            return next((n for n in at if chosen.entries(n, n + 1) == [commitment]), None)

        return [place(commitment, prefix) for commitment, prefix in zip(wanted, prefixes, strict=True)]

    async def _anchor(self, log: str, size: int) -> Anchor:
        self._log(log)
        if size == 0:
            anchor = self._anchors.get(log)
        else:
            anchor = await self._store.read(lambda connection: tables.anchor_of_size(connection, log, size))
        if anchor is None:
            what = "has no anchored head yet" if size == 0 else f"was never anchored with {size} entries"
            raise FailedPrecondition(
                f"the log {log} {what}; `city log list` shows the heads", reason="not-anchored", retry_after_s=1.0
            )
        return anchor

    async def _prove(self, make: object) -> list[bytes]:
        try:
            return await asyncio.to_thread(make)  # type: ignore[arg-type]
        except ProofError as error:
            raise InvalidArgument(str(error), field="index") from None

    def _log(self, log: str) -> MerkleLog:
        if log not in self._logs:
            raise NotFound(f"no log {log!r}; the logs are {', '.join(LOGS)}", field="log")
        return self._logs[log]

    def _note(self, anchor: Anchor) -> str:
        origin = origin_of(self._ctx.settings.general.city, anchor.log)
        return sign_note(Checkpoint(origin, anchor.size, anchor.root).text(), origin, self._seed)

    async def _notify(self) -> None:
        with contextlib.suppress(RuntimeError):
            async with self._changed:
                self._changed.notify_all()


def log_directory(directory: Path, log: str) -> Path:
    """Where a log's files are."""
    return directory / "logs" / log
