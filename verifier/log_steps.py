"""The steps about logs: trust, checkpoint, anchor, what is opened, inclusion, consistency. Called by the step runner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifier.canonical import Failure, encode, fields, unbase64, unhex
from verifier.found import Check, Found, Log
from verifier.ledger import require_endorsed, require_in_block, transaction_of
from verifier.merkle import batch_root, leaf, require_consistency
from verifier.note import Checkpoint, open_checkpoint
from verifier.package import parse_package

_HASH = 32


def logs_of(bundle: Any) -> list[Log]:
    """The logs a bundle speaks of, as yet unchecked."""
    if "logs" not in bundle:
        return [Log("log", "anchor", bundle["log"])]
    return [Log(f"logs[{n}]", f"logs[{n}].anchor", given) for n, given in enumerate(bundle["logs"])]


def _trust(found: Found) -> str:
    if found.bundle["city"] != found.trust.city:
        raise Failure(f"the bundle is of {found.bundle['city']}, the trust file of {found.trust.city}")
    ledger = found.trust.ledger
    found.report.notes += ledger.notes()
    return f"{found.trust.city}: {ledger.said()}, {len(found.trust.logs)} logs; ledger: {ledger.note}"


def _checkpoint(found: Found) -> str:
    details = [_open(log, found) for log in found.logs]
    origins = [log.head().origin for log in found.logs]
    if not origins or origins != sorted(set(origins)):
        raise Failure("the bundle's logs are missing, twice, or not in order of their origins")
    return "; ".join(details)


def _open(log: Log, found: Found) -> str:
    given = fields(log.given, log.where, origin=str, checkpoint=str, proof=dict, anchor=dict)
    key = found.trust.logs.get(given["origin"])
    if key is None:
        raise Failure(f"the trust file has no key of the log {given['origin']}")
    log.checkpoint = open_checkpoint(given["checkpoint"], given["origin"], key)
    return f"{given['origin']}, {log.checkpoint.size} entries"


def _anchor_endorsement(found: Found) -> str:
    return "; ".join(require_endorsed(log.given["anchor"], found.trust, log.anchor) for log in found.logs)


def _anchor_block(found: Found) -> str:
    return "; ".join(require_in_block(log.given["anchor"], found.trust, log.anchor) for log in found.logs)


def _anchor_matches(found: Found) -> str:
    return "; ".join(_matches(log, found) for log in found.logs)


def _matches(log: Log, found: Found) -> str:
    transaction = transaction_of(log.given["anchor"], found.trust, log.anchor)
    if (transaction["contract"], transaction["function"], transaction["submitter"]) != ("anchors", "record", "notary"):
        raise Failure("the anchor's transaction records no head of a log")
    head = log.head()
    recorded = [(item["origin"], item["size"], item["root"]) for item in transaction["args"]["heads"]]
    if (head.origin, head.size, head.root.hex()) not in recorded:
        raise Failure("the ledger recorded another size or root than the checkpoint's")
    return f"the ledger recorded this size and root on {transaction['time']}"


# --- what is opened -----------------------------------------------------------------------------------


def open_packages(found: Found, log: Log) -> None:
    """Opens the bundle's packages as entries of `log`."""
    for number, item in enumerate(found.bundle["packages"]):
        where = f"packages[{number}]"
        fields(item, where, index=int, package=str, salt=str)
        content = unbase64(item["package"], f"{where}.package")
        log.open(item["index"], item["salt"], content, where)
        found.packages.append(parse_package(content, where))
    places = [(package.device, package.sequence) for package in found.packages]
    if places != sorted(set(places)):
        raise Failure("packages are missing, twice, or not in order of device and sequence")


def _packages(found: Found) -> str:
    open_packages(found, found.logs[0])
    if not found.packages:
        raise Failure("packages are missing, twice, or not in order of device and sequence")
    return f"{len(found.packages)} packages opened"


def open_documents(items: Sequence[Any], log: Log, where: str) -> list[Any]:
    """The documents of a list of {index, salt, document}, opened as entries of `log`."""
    documents = []
    for number, item in enumerate(items):
        fields(item, f"{where}[{number}]", index=int, salt=str, document=dict)
        log.open(item["index"], item["salt"], encode(item["document"]), f"{where}[{number}]")
        documents.append(item["document"])
    return documents


def _event(found: Found) -> str:
    found.logs[0].open(found.bundle["index"], found.bundle["salt"], encode(found.bundle["event"]), "event")
    return "1 document opened"


def _inclusion(found: Found) -> str:
    return "; ".join(_included(log) for log in found.logs)


def _included(log: Log) -> str:
    proof = fields(log.given["proof"], f"{log.where}.proof", size=int, indexes=list, hashes=list)
    head = log.head()
    if not log.commitments:
        raise Failure(f"{log.where}: the bundle shows no entry of the log {head.origin}")
    if proof["size"] != head.size or proof["indexes"] != sorted(log.commitments):
        raise Failure(f"{log.where}: the proof is not for the checkpoint's size and the bundle's entries")
    hashes = [unhex(item, _HASH, f"{log.where}.proof.hashes") for item in proof["hashes"]]
    leaves = {index: leaf(commitment) for index, commitment in log.commitments.items()}
    if batch_root(leaves, head.size, hashes, f"{log.where}.proof") != head.root:
        raise Failure(
            f"{log.where}: the entries are not in the log the checkpoint stands for, or a package, document or salt was changed"
        )
    return f"{len(leaves)} entries under the root of {head.size}"


# --- against what was kept ----------------------------------------------------------------------------


def _consistency(found: Found) -> str:
    """The logs continue every checkpoint kept from before that a proof is given for."""
    checked = kept = 0
    if found.bundle["earlier"] is not None:
        _continue(found.logs[0], found.bundle["earlier"], found)
        checked += 1
    for log, note in _kept(found):
        checked += _against(found, log, _open_kept(note, log, found))
        kept += 1
    if checked:
        return f"continues {checked} earlier checkpoints"
    return "no kept checkpoint could be compared, see the notes" if kept else "no earlier checkpoint to compare with"


def _kept(found: Found) -> list[tuple[Log, str]]:
    """The checkpoints of the trust file and the caller's, each with its log. A bundle of one log takes the caller's for its own."""
    kept = [(log, note) for log in found.logs for note in found.trust.known.get(log.head().origin, [])]
    if found.earlier is None:
        return kept
    origin = found.earlier.partition("\n")[0]
    named = found.logs if len(found.logs) == 1 else [log for log in found.logs if log.head().origin == origin]
    if not named:
        raise Failure(f"the kept checkpoint is of {origin}; the bundle holds nothing of that log")
    return [*kept, (named[0], found.earlier)]


def _open_kept(note: str, log: Log, found: Found) -> Checkpoint:
    origin = log.head().origin
    return open_checkpoint(note, origin, found.trust.logs[origin])


def _continue(log: Log, given: Any, found: Found) -> None:
    head = log.head()
    fields(given, "earlier", checkpoint=str, consistency=dict)
    old = _open_kept(given["checkpoint"], log, found)
    proof = fields(given["consistency"], "earlier.consistency", **{"from": int, "to": int, "hashes": list})
    if (proof["from"], proof["to"]) != (old.size, head.size):
        raise Failure("the consistency proof is between other sizes")
    hashes = [unhex(item, _HASH, "earlier.consistency") for item in proof["hashes"]]
    require_consistency(old.size, old.root, head.size, head.root, hashes)


def _against(found: Found, log: Log, kept: Checkpoint) -> int:
    """A kept checkpoint: of the same size it must be the same; of a smaller one the bundle's proof must start there."""
    head, given = log.head(), found.bundle["earlier"]
    if kept.size == head.size:
        if kept.root != head.root:
            raise Failure(f"the log has two roots for {head.size} entries: it was forked")
        return 1
    if kept.size > head.size:
        found.report.notes.append(
            f"a kept checkpoint has {kept.size} entries, more than this bundle's {head.size}; ask for a newer bundle"
        )
        return 0
    if given is not None:
        old = _open_kept(given["checkpoint"], log, found)
        if (old.size, old.root) == (kept.size, kept.root):
            return 1
        if old.size == kept.size:
            raise Failure(f"the log had another root for {kept.size} entries: it was rewritten")
    found.report.notes.append(f"no proof in the bundle from the kept checkpoint of {kept.size} entries; ask for one")
    return 0


HEAD_STEPS: list[tuple[str, Check]] = [
    ("trust", _trust),
    ("checkpoint-signature", _checkpoint),
    ("anchor-endorsement", _anchor_endorsement),
    ("anchor-block", _anchor_block),
    ("anchor-matches", _anchor_matches),
]


def entry_steps(opened: Check) -> list[tuple[str, Check]]:
    """The steps to `consistency` of a kind whose entries `opened` opens."""
    return [*HEAD_STEPS, ("commitments", opened), ("inclusion", _inclusion), ("consistency", _consistency)]


PACKAGE_STEPS = entry_steps(_packages)
EVENT_STEPS = entry_steps(_event)
