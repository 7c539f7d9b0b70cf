"""The notary's figures, for `city bench`: how fast entries become durable in a log, how long a proof takes in a large one, what anchors cost."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from citykit.bus.port import Record
from citykit.loop import run_to_end
from citykit.merkle import inclusion_proof, root_from_inclusion
from citykit.merkle import leaf_hash as hash_of
from citykit.merkle_log import MerkleLog
from citykit.settings import CitySettings, NotarySettings
from services.notary.app import Notary
from services.notary.events import LOG_TOPICS
from services.testing import embedded_city

Figure = dict[str, Any]
_TOPIC = "city.metering.readings.v1"
_BATCH = 10_000
_BATCHES = 60
_LARGE = 10_000_000
_PROOFS = 5_000
_MILLION = 1_000_000
_SEED_STEP = 7_919


def integrated_entries() -> Figure:
    """Records of the bus to committed entries: index, tiles and size durable, each batch before the next."""
    rate = run_to_end(_integrate())
    return {
        "name": "log-entries-integrated",
        "value": round(rate),
        "unit": "entries/s",
        "floor": 50_000,
        "aim": 100_000,
        "how": f"{_BATCH * _BATCHES:,} records in batches of {_BATCH:,} through the notary's bus handler, one log; SQLite synchronous=FULL"
        " and fdatasync of the tiles before each batch counts; look-up of double deliveries included",
    }


async def _integrate() -> float:
    quiet = replace(CitySettings(), notary=NotarySettings(anchor_interval_s=3_600))
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_city(Path(folder), services=["notary"], settings=quiet) as city:
            app: Notary = city.process.services["notary"].subscriptions[0].handler.__self__  # type: ignore[attr-defined]
            batches = [[_record(batch * _BATCH + n) for n in range(_BATCH)] for batch in range(_BATCHES)]
            began = time.perf_counter()
            for records in batches:
                await app.integrate(records)
            return _BATCH * _BATCHES / (time.perf_counter() - began)


def _record(number: int) -> Record:
    return Record(_TOPIC, 0, number, "k", b"", {"commitment": os.urandom(32)})


def proof_of_ten_million() -> Figure:
    """Inclusion proofs at random places of a log of ten million entries, from its tile files."""
    with tempfile.TemporaryDirectory() as folder:
        log = MerkleLog(Path(folder), 0)
        while log.size < _LARGE:
            log.commit(log.write([os.urandom(32) for _ in range(100_000)]))
        root = log.root()
        seconds = sorted(_proof_s(log, number * _SEED_STEP * 1_009 % _LARGE, root) for number in range(_PROOFS))
        log.close()
    return {
        "name": "log-proof-p99",
        "value": round(seconds[_PROOFS * 99 // 100] * 1_000, 3),
        "unit": "ms",
        "floor": 5,
        "aim": 1,
        "how": f"{_PROOFS:,} inclusion proofs spread over {_LARGE:,} entries, each checked against the root;"
        f" median {seconds[_PROOFS // 2] * 1_000:.3f} ms",
    }


def _proof_s(log: MerkleLog, index: int, root: bytes) -> float:
    began = time.perf_counter()
    path = inclusion_proof(log.hashes(), index, log.size)
    taken = time.perf_counter() - began
    if root_from_inclusion(hash_of(log.entries(index, index + 1)[0]), index, log.size, path) != root:
        raise AssertionError(f"the proof of entry {index} does not hold")
    return taken


def anchored_million() -> Figure:
    """Ledger transactions while a million events of all topics come in and are anchored, each two seconds."""
    transactions, took_s = run_to_end(_anchored())
    return {
        "name": "anchors-of-a-million",
        "value": round(2 * transactions / took_s, 2),
        "unit": "tx in 2 s",
        "floor": 1,
        "aim": 1,
        "how": f"{_MILLION:,} events of {len(LOG_TOPICS)} topics through the notary's bus handler and anchored under the usual settings:"
        f" {transactions} ledger transactions in {took_s:.1f} s, embedded ledger; the same job anchors on a channel",
    }


async def _anchored() -> tuple[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_city(Path(folder), services=["notary"], settings=CitySettings()) as city:
            app: Notary = city.process.services["notary"].subscriptions[0].handler.__self__  # type: ignore[attr-defined]
            began = time.perf_counter()
            for number in range(0, _MILLION, _BATCH):
                topic = LOG_TOPICS[number // _BATCH % len(LOG_TOPICS)]
                await app.integrate([replace(_record(number + n), topic=topic) for n in range(_BATCH)])
            await city.settle()
            took_s = time.perf_counter() - began
            blocks = [await city.ledger.block(number) for number in range(await city.ledger.height())]
    envelopes = [envelope for block in blocks for envelope in block["envelopes"]]
    return sum(one["transaction"]["contract"] == "anchors" for one in envelopes), took_s


BENCHES: tuple[Callable[[], Figure], ...] = (integrated_entries, proof_of_ten_million, anchored_million)
