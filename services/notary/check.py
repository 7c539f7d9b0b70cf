"""The self-check: re-verifies everything stored of every log against itself, its checkpoints and the ledger. Also with the city stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.ledger.local import check_ledger
from citykit.ledger.local.blocks import read_blocks
from citykit.ledger.port import LedgerDamaged
from citykit.merkle_log import MerkleLog
from citykit.note import NoteError, open_checkpoint
from citykit.store.driver import rows
from citykit.store.places import reading


@dataclass(frozen=True)
class Finding:
    """What does not verify, and where."""

    log: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.log}: {self.where}: {self.what}"


@dataclass(frozen=True)
class Result:
    """The first damage of each log; how many entries were verified."""

    findings: tuple[Finding, ...]
    entries: int


def check_logs(state: Path, blocks: Iterable[Any] | None = None) -> Result:
    """Checks the logs in a state directory (`<state>/notary`, `<state>/ledger`).

    Args:
        blocks: of the ledger, where it is not in the state directory; whoever read them has verified them.

    Raises:
        NotFound: there is no notary in it.
    """
    sizes, anchors = _stored(state)
    recorded, ledger_findings = _recorded(state / "ledger") if blocks is None else (_anchors(blocks), [])
    findings = [*ledger_findings]
    for log, size in sorted(sizes.items()):
        mine = [anchor for anchor in anchors if anchor[0] == log]
        finding = next(_findings(state / "notary" / "logs" / log, log, size, mine, recorded), None)
        if finding is not None:
            findings.append(finding)
    return Result(tuple(findings), sum(sizes.values()))


def _findings(
    directory: Path, log: str, size: int, anchors: list[Any], recorded: dict[tuple[str, int], tuple[str, str]]
) -> Iterator[Finding]:
    merkle_log = MerkleLog(directory, size)
    try:
        damage = merkle_log.first_damage()
        if damage:
            yield Finding(log, damage, "its stored bytes do not hash to the tile above")
        for _, anchored, root, transaction in anchors:
            where = f"anchor at {anchored} entries"
            if anchored > size:
                yield Finding(log, where, f"the ledger holds more entries than the log ({size})")
            elif merkle_log.root(anchored) != root:
                yield Finding(log, where, "the entries do not lead to the anchored root")
            elif recorded.get((log, anchored)) != (root.hex(), transaction):
                yield Finding(log, where, "the ledger holds no such anchor")
        yield from _checkpoint_findings(directory / "checkpoint", log, anchors)
    finally:
        merkle_log.close()


def _checkpoint_findings(path: Path, log: str, anchors: list[Any]) -> Iterator[Finding]:
    """The newest checkpoint is signed and says what is anchored."""
    if not anchors:
        return
    key = path.parent.parent.parent / "log-key"
    try:
        note = path.read_bytes().decode("utf-8")
        found = open_checkpoint(note, note.split("\n", 1)[0], bytes.fromhex(key.read_text(encoding="ascii")))
        known = {(anchored, root) for _, anchored, root, _ in anchors}
        if not found.origin.endswith(f"/{log}") or (found.size, found.root) not in known:
            yield Finding(log, "checkpoint", "it does not match an anchor")
    except (OSError, ValueError, NoteError) as error:
        yield Finding(log, "checkpoint", str(error))


def _stored(state: Path) -> tuple[dict[str, int], list[Any]]:
    with reading(state, "notary") as connection:
        sizes = dict(rows(connection, "SELECT log, size FROM logs"))
        return sizes, rows(connection, "SELECT log, size, root, ledger_transaction FROM anchors ORDER BY log, size")


def _recorded(ledger: Path) -> tuple[dict[tuple[str, int], tuple[str, str]], list[Finding]]:
    """(log, size) -> (root, transaction) of every valid anchor on the ledger; and the ledger's own damage."""
    findings = [Finding("ledger", item.where, item.what) for item in check_ledger(ledger)]
    recorded: dict[tuple[str, int], tuple[str, str]] = {}
    with contextlib.suppress(LedgerDamaged):  # it stands in the findings; what was read before it counts
        for block in read_blocks(ledger):
            recorded |= _anchors([block])
    return recorded, findings


def _anchors(blocks: Iterable[Any]) -> dict[tuple[str, int], tuple[str, str]]:
    found = {}
    for block in blocks:
        for envelope in block["envelopes"]:
            transaction = envelope["transaction"]
            if envelope["code"] == "VALID" and transaction["contract"] == "anchors":
                for head in transaction["args"]["heads"]:
                    log = head["origin"].rpartition("/")[2]
                    found[(log, head["size"])] = (head["root"], transaction["id"])
    return found
