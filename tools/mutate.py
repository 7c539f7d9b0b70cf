"""`make mutate`: changes single random bytes in what proves things, one at a time; each change must be detected and named.

`python -m tools.mutate COUNT [--seed S]`. A synthetic city makes bundles, logs and a ledger; then a third of the changes goes to bundles (judged by
the offline verifier), a third to the logs' files (entries, tiles, checkpoint) and a third to the ledger's files (judged by the self-checks). Bundles
are one of each kind the city made, and a parking session, a statement and a receipt made from docs/PROOFS.md alone. Exit codes: 0 all detected,
1 one was not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from citykit.ledger.local import check_ledger
from services.notary.check import check_logs
from tests.unit.verifier import bundlebytes, fabricbytes, sessionmaker, statementmaker
from tools.crash import start
from verifier.bundle import check_bundle
from verifier.canonical import decode
from verifier.trust import Trust, read_trust

CHUNK = 250
SPEED = 900
_MADE_S = 300.0
_LOG_FILES = ("entries", "tiles.0", "tiles.1", "checkpoint")
_LEDGER_FILES = ("blocks", "height.json", "keys/public.json")
_NOT_JUDGED = ("city.sock", "bus", "metering", "parking", "payments", "forecasting")
"""Of the city's state: what no proof and no self-check reads."""
_ORDERED = {"a receipt on Fabric": False, "a receipt on Fabric, ordered by BFT": True}
Judge = Callable[[], str]
"""Names the check that found the change; empty where none did."""


def make_city(folder: Path) -> None:
    """A small city with one month billed, stopped again."""
    process = start(folder / "state", folder / "city.log", SPEED, faults="")
    end = time.monotonic() + _MADE_S
    while not list((folder / "state" / "out" / "bundles").glob("bill-*.json")):
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the city that is to be changed could not be made; see {folder / 'city.log'}")
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait()


def mutations(folder: Path, kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Makes `count` changes of one kind on a copy of the city: (check that found it -> how often, those not found)."""
    source = random.Random(seed)  # noqa: S311 - reproducible on purpose
    copy = Path(tempfile.mkdtemp(prefix="city-mutate-"))
    try:
        shutil.copytree(folder / "state", copy / "state", ignore=shutil.ignore_patterns(*_NOT_JUDGED))
        return KINDS[kind](copy / "state", count, source)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


@dataclass(frozen=True)
class _Bundle:
    """A bundle to change, and the keys it holds under."""

    name: str
    kind: str
    data: bytes
    trust: Trust


def _bundles(state: Path, count: int, source: random.Random) -> tuple[Counter[str], list[str]]:
    bundles = [*_of_the_city(state), *_made()]
    for bundle in bundles:
        if not check_bundle(bundle.data, bundle.trust).ok:
            raise SystemExit(f"the unchanged bundle {bundle.name} does not hold")
    found: Counter[str] = Counter()
    missed: list[str] = []
    for number in range(count):
        one = bundles[number % len(bundles)]
        at, bad = changed(one.data, source)
        report = check_bundle(bad, one.trust)
        failed = next((step.name for step in report.steps if not step.ok), "")
        what = f"{one.name} byte {at}: {one.data[at]:#04x} to {bad[at]:#04x}"
        _count(found, missed, f"{one.kind}: {failed}" if failed else "", what)
    return found, missed


def _of_the_city(state: Path) -> list[_Bundle]:
    """The first bundle of each kind that the city made."""
    trust = read_trust(decode((state / "out" / "trust.json").read_bytes().rstrip(b"\n"), "trust"))
    found: dict[str, _Bundle] = {}
    for path in sorted((state / "out" / "bundles").glob("*.json")):
        data = path.read_bytes()
        kind = json.loads(data)["kind"]
        found.setdefault(kind, _Bundle(path.name, kind, data, trust))
    return list(found.values())


def _made() -> list[_Bundle]:
    """Bundles made from the specification, whatever the city has lived to see."""
    session = sessionmaker.refunded()
    bundles = {
        "a made session": sessionmaker.bundle_of(session),
        "a made statement": statementmaker.statement(statementmaker.busy()),
        "a made receipt": sessionmaker.receipt_bundle(session.receipts[-1]),
    }
    trust = read_trust(bundlebytes.trust(session.seed))
    made = [_Bundle(name, bundle["kind"], bundlebytes.canonical(bundle), trust) for name, bundle in bundles.items()]
    return [*made, *(_on_fabric(name, fabricbytes.Channel(bft=bft)) for name, bft in _ORDERED.items())]


def _on_fabric(name: str, channel: fabricbytes.Channel) -> _Bundle:
    """A made receipt whose log is anchored on a Fabric channel."""
    bundle = fabricbytes.anchored(sessionmaker.receipt_bundle(sessionmaker.refunded().receipts[-1]), channel)
    trust = read_trust(fabricbytes.trust_file(channel))
    return _Bundle(name, f"{bundle['kind']} on Fabric", bundlebytes.canonical(bundle), trust)


def _logs(state: Path, count: int, source: random.Random) -> tuple[Counter[str], list[str]]:
    folder = state / "notary" / "logs"
    paths = [
        path
        for log in sorted(folder.iterdir())
        for name in _LOG_FILES
        if (path := log / name).exists() and path.stat().st_size
    ]

    def judge() -> str:
        findings = check_logs(state).findings
        return f"logs: {findings[0].where.split(' ')[0]}" if findings else ""

    return _files(paths, count, source, judge)


def _ledger(state: Path, count: int, source: random.Random) -> tuple[Counter[str], list[str]]:
    paths = [state / "ledger" / name for name in _LEDGER_FILES]

    def judge() -> str:
        findings = check_ledger(state / "ledger")
        return f"ledger: {Path(findings[0].where).name}" if findings else ""

    return _files(paths, count, source, judge)


def _files(paths: Sequence[Path], count: int, source: random.Random, judge: Judge) -> tuple[Counter[str], list[str]]:
    if named := judge():
        raise SystemExit(f"the unchanged city does not verify: {named}")
    found: Counter[str] = Counter()
    missed: list[str] = []
    for _ in range(count):
        path = source.choice(paths)
        good = path.read_bytes()
        at, bad = changed(good, source)
        path.write_bytes(bad)
        try:
            _count(
                found, missed, judge(), f"{path.parent.name}/{path.name} byte {at}: {good[at]:#04x} to {bad[at]:#04x}"
            )
        finally:
            path.write_bytes(good)
    return found, missed


KINDS = {"bundle": _bundles, "logs": _logs, "ledger": _ledger}


def changed(good: bytes, source: random.Random) -> tuple[int, bytes]:
    """One random byte made another."""
    at = source.randrange(len(good))
    return at, good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :]


def _count(found: Counter[str], missed: list[str], named: str, what: str) -> None:
    if named:
        found[named] += 1
    else:
        missed.append(what)


def run(folder: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """All changes, on every core; progress on standard error."""
    chunks = [
        (kind, min(CHUNK, count - first), seed + first) for first in range(0, count, CHUNK) for kind in (_kind(first),)
    ]
    found: Counter[str] = Counter()
    missed: list[str] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(mutations, folder, *chunk) for chunk in chunks]
        for number, done in enumerate(as_completed(waiting)):
            named, lost = done.result()
            found += named
            missed += lost
            print(f"\r{number + 1}/{len(chunks)} parts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found, missed


def _kind(first: int) -> str:
    return sorted(KINDS)[first // CHUNK % len(KINDS)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="city-mutate-"))
    began = time.monotonic()
    try:
        make_city(folder)
        found, missed = run(folder, arguments.count, arguments.seed)
    except subprocess.SubprocessError as error:
        raise SystemExit(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, times in sorted(found.items()):
        print(f"{times:>6}  {name}")
    for what in missed[:20]:
        print(f"NOT DETECTED {what}")
    detected = sum(found.values())
    print(
        f"{arguments.count} changes, {detected} detected and named, seed {arguments.seed}, {time.monotonic() - began:.0f} s"
    )
    return 0 if detected == arguments.count and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
