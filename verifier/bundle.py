"""Checks a bundle, step by step, each with what it found. Called by the command; usable as a library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from verifier import bill as bills
from verifier.canonical import Failure, Unreadable, decode, encode, fields, unbase64, unhex
from verifier.ledger import require_endorsed, require_in_block, transaction_of
from verifier.merkle import batch_root, leaf, require_consistency
from verifier.note import Checkpoint, open_checkpoint
from verifier.package import Package, parse_package
from verifier.signatures import device_signature_holds
from verifier.trust import Trust

_HASH, _SALT = 32, 32
_COMMON = {"format": str, "kind": str, "city": str, "log": dict, "earlier": (dict, None)}
_PACKAGES = {"packages": list, "devices": list}
_BILL = {"bill": dict, "bill_salt": str, "run": dict, "tariff": dict}
_EVENT = {"event": object, "salt": str, "index": int}
_KINDS = {
    "bill": {**_COMMON, **_PACKAGES, **_BILL},
    "package": {**_COMMON, **_PACKAGES},
    "event": {**_COMMON, **_EVENT},
}


@dataclass(frozen=True)
class Step:
    """One check."""

    name: str
    ok: bool
    detail: str


@dataclass
class Report:
    """What was found. `notes` are what a reader should know that is no failure."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step.ok for step in self.steps)


@dataclass
class _Found:
    """What earlier steps have established for later ones."""

    bundle: Any
    trust: Trust
    earlier: str | None
    report: Report
    checkpoint: Checkpoint | None = None
    commitments: dict[int, bytes] = field(default_factory=dict)
    packages: list[Package] = field(default_factory=list)
    keys: dict[str, list[Any]] = field(default_factory=dict)
    tariff: Any = None
    slots: bills.Slots | None = None

    def head(self) -> Checkpoint:
        if self.checkpoint is None:
            raise Failure("the checkpoint did not hold")
        return self.checkpoint


def check_bundle(data: bytes, trust: Trust, earlier: str | None = None) -> Report:
    """Checks the bytes of a bundle.

    Args:
        earlier: a checkpoint note of the same log kept from before.
    """
    report = Report()
    try:
        bundle = decode(data, "the bundle")
        kind = bundle.get("kind") if isinstance(bundle, dict) else None
        if not isinstance(kind, str) or kind not in _KINDS:
            raise Failure("the bundle is of no known kind (bill, package, event)")
        fields(bundle, "bundle", **_KINDS[kind])
        if bundle["format"] != "city.bundle.v1":
            raise Failure("the bundle's format is not city.bundle.v1")
    except (Unreadable, Failure) as error:
        report.steps.append(Step("bundle-format", ok=False, detail=str(error)))
        return report
    report.steps.append(Step("bundle-format", ok=True, detail=f"city.bundle.v1, kind {kind}"))
    _run(_Found(bundle, trust, earlier, report), _STEPS[kind])
    return report


def _run(found: _Found, steps: list[tuple[str, Callable[[_Found], str]]]) -> None:
    failed = ""
    for name, check in steps:
        if failed:
            found.report.steps.append(Step(name, ok=False, detail=f"not checked, since {failed} failed"))
            continue
        try:
            found.report.steps.append(Step(name, ok=True, detail=check(found)))
        except (Failure, Unreadable) as error:
            failed = name
            found.report.steps.append(Step(name, ok=False, detail=str(error)))
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            IndexError,
            RecursionError,
            OverflowError,
            OSError,
        ) as error:
            failed = name
            found.report.steps.append(
                Step(name, ok=False, detail=f"a field is malformed ({type(error).__name__}: {error})")
            )


# --- the log ----------------------------------------------------------------------------------------


def _trust(found: _Found) -> str:
    if found.bundle["city"] != found.trust.city:
        raise Failure(f"the bundle is of {found.bundle['city']}, the trust file of {found.trust.city}")
    return f"{found.trust.city}: {len(found.trust.endorsers)} endorsers, {len(found.trust.logs)} logs; ledger: {found.trust.note}"


def _checkpoint(found: _Found) -> str:
    log = fields(found.bundle["log"], "log", origin=str, checkpoint=str, proof=dict, anchor=dict)
    key = found.trust.logs.get(log["origin"])
    if key is None:
        raise Failure(f"the trust file has no key of the log {log['origin']}")
    found.checkpoint = open_checkpoint(log["checkpoint"], log["origin"], key)
    return f"{log['origin']}, {found.checkpoint.size} entries"


def _anchor_endorsement(found: _Found) -> str:
    anchor = found.bundle["log"]["anchor"]
    transaction_fields = anchor["envelope"]["transaction"]
    require_endorsed(anchor["envelope"], found.trust, "anchor")
    return f"{len(anchor['envelope']['endorsements'])} endorsements of transaction {transaction_fields['id'][:16]}…"


def _anchor_block(found: _Found) -> str:
    require_in_block(found.bundle["log"]["anchor"], found.trust, "anchor")
    return f"block {found.bundle['log']['anchor']['header']['number']}, signed by the orderer"


def _anchor_matches(found: _Found) -> str:
    transaction = transaction_of(found.bundle["log"]["anchor"], found.trust, "anchor")
    if (transaction["contract"], transaction["function"], transaction["submitter"]) != ("anchors", "record", "notary"):
        raise Failure("the anchor's transaction records no head of a log")
    head = found.head()
    recorded = [(item["origin"], item["size"], item["root"]) for item in transaction["args"]["heads"]]
    if (head.origin, head.size, head.root.hex()) not in recorded:
        raise Failure("the ledger recorded another size or root than the checkpoint's")
    return f"the ledger recorded this size and root on {transaction['time']}"


def _commitments(found: _Found) -> str:
    """Opens each commitment; what is under them is fixed from here on."""
    for number, item in enumerate(found.bundle["packages"]):
        where = f"packages[{number}]"
        fields(item, where, index=int, package=str, salt=str)
        content = unbase64(item["package"], f"{where}.package")
        if item["index"] in found.commitments:
            raise Failure(f"{where}: entry {item['index']} is in the bundle twice")
        found.commitments[item["index"]] = _commit(unhex(item["salt"], _SALT, f"{where}.salt"), content)
        found.packages.append(parse_package(content, where))
    places = [(package.device, package.sequence) for package in found.packages]
    if not places or places != sorted(set(places)):
        raise Failure("packages are missing, twice, or not in order of device and sequence")
    return f"{len(places)} packages opened"


def _event_commitment(found: _Found) -> str:
    salt = unhex(found.bundle["salt"], _SALT, "salt")
    found.commitments[found.bundle["index"]] = _commit(salt, encode(found.bundle["event"]))
    return "1 document opened"


def _inclusion(found: _Found) -> str:
    proof = fields(found.bundle["log"]["proof"], "log.proof", size=int, indexes=list, hashes=list)
    head = found.head()
    if proof["size"] != head.size or proof["indexes"] != sorted(found.commitments):
        raise Failure("the proof is not for the checkpoint's size and the bundle's entries")
    hashes = [unhex(item, _HASH, "log.proof.hashes") for item in proof["hashes"]]
    leaves = {index: leaf(commitment) for index, commitment in found.commitments.items()}
    if batch_root(leaves, head.size, hashes, "log.proof") != head.root:
        raise Failure("the entries are not in the log the checkpoint stands for, or a package or salt was changed")
    return f"{len(leaves)} entries under the root of {head.size}"


def _consistency(found: _Found) -> str:
    """The log continues every checkpoint kept from before that a proof is given for."""
    head = found.head()
    given = found.bundle["earlier"]
    checked = 0
    if given is not None:
        fields(given, "earlier", checkpoint=str, consistency=dict)
        old = open_checkpoint(given["checkpoint"], head.origin, found.trust.logs[head.origin])
        proof = fields(given["consistency"], "earlier.consistency", **{"from": int, "to": int, "hashes": list})
        if (proof["from"], proof["to"]) != (old.size, head.size):
            raise Failure("the consistency proof is between other sizes")
        hashes = [unhex(item, _HASH, "earlier.consistency") for item in proof["hashes"]]
        require_consistency(old.size, old.root, head.size, head.root, hashes)
        checked += 1
    kept = [*found.trust.known.get(head.origin, []), *([] if found.earlier is None else [found.earlier])]
    for note in kept:
        checked += _against(found, open_checkpoint(note, head.origin, found.trust.logs[head.origin]), given)
    if checked:
        return f"continues {checked} earlier checkpoints"
    return "no kept checkpoint could be compared, see the notes" if kept else "no earlier checkpoint to compare with"


def _against(found: _Found, kept: Checkpoint, given: Any) -> int:
    """A kept checkpoint: of the same size it must be the same; of a smaller one the bundle's proof must start there."""
    head = found.head()
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
        old = open_checkpoint(given["checkpoint"], head.origin, found.trust.logs[head.origin])
        if (old.size, old.root) == (kept.size, kept.root):
            return 1
        if old.size == kept.size:
            raise Failure(f"the log had another root for {kept.size} entries: it was rewritten")
    found.report.notes.append(f"no proof in the bundle from the kept checkpoint of {kept.size} entries; ask for one")
    return 0


# --- devices and packages ---------------------------------------------------------------------------


def _device_keys(found: _Found) -> str:
    for number, item in enumerate(found.bundle["devices"]):
        where = f"devices[{number}]"
        fields(item, where, id=str, keys=list)
        if item["id"] in found.keys:
            raise Failure(f"{where}: {item['id']} stands twice")
        found.keys[item["id"]] = [
            _key(key, item["id"], f"{where}.keys[{n}]", found.trust) for n, key in enumerate(item["keys"])
        ]
        starts = [start for start, _, _ in found.keys[item["id"]]]
        if not starts or starts != sorted(set(starts)):
            raise Failure(f"{where}: the keys are not in order")
    used = {package.device for package in found.packages}
    if used != set(found.keys):
        raise Failure(f"keys are given for {sorted(found.keys)}, packages are of {sorted(used)}")
    count = sum(len(keys) for keys in found.keys.values())
    return f"{len(used)} devices, {count} keys, registered on the ledger"


def _key(item: Any, device: str, where: str, trust: Trust) -> tuple[int, str, bytes]:
    """(first sequence, algorithm, key), as the ledger has it."""
    fields(item, where, key=str, algorithm=str, from_sequence=int, registered=dict)
    transaction = transaction_of(item["registered"], trust, f"{where}.registered")
    if transaction["contract"] != "devices" or transaction["submitter"] != "identity":
        raise Failure(f"{where}: the transaction registers no device")
    args = transaction["args"]
    listed = args["devices"] if transaction["function"] == "register_many" else [args]
    if transaction["function"] not in ("register", "register_many", "rotate"):
        raise Failure(f"{where}: the transaction registers no key")
    said = (device, item["key"], item["algorithm"], item["from_sequence"])
    if said not in [(one["device"], one["key"], one["algorithm"], one["from_sequence"]) for one in listed]:
        raise Failure(f"{where}: the ledger registered another key of {device}")
    if item["algorithm"] not in ("EdDSA", "ES256"):
        raise Failure(f"{where}: unknown algorithm {item['algorithm']}")
    return item["from_sequence"], item["algorithm"], unhex(item["key"], 0, f"{where}.key")


def _signatures(found: _Found) -> str:
    for package in found.packages:
        keys = [key for key in found.keys[package.device] if key[0] <= package.sequence]
        if not keys:
            raise Failure(f"{package.device}, package {package.sequence}: no key was registered for it")
        _, algorithm, key = keys[-1]
        if package.algorithm != algorithm or not device_signature_holds(
            algorithm, key, package.signed, package.signature
        ):
            raise Failure(f"{package.device}, package {package.sequence}: the device's signature does not hold")
    return f"{len(found.packages)} device signatures hold"


def _chain(found: _Found) -> str:
    """Each package holds the hash of the one before; what is missing must be said."""
    said = _gaps(found)
    for before, after in zip(found.packages, found.packages[1:], strict=False):
        if before.device != after.device:
            continue
        if after.sequence == before.sequence + 1:
            if after.previous != before.hash:
                raise Failure(
                    f"{after.device}, package {after.sequence} does not follow package {before.sequence}: the chain is broken"
                )
        elif said is not None and (before.sequence, after.sequence) not in said:
            raise Failure(
                f"{after.device}: packages {before.sequence + 1} to {after.sequence - 1} are left out and the bill does not say so"
            )
    gaps = "" if not said else f", {len(said)} gaps as stated"
    return f"sequence {found.packages[0].sequence} to {found.packages[-1].sequence} linked{gaps}"


def _gaps(found: _Found) -> set[tuple[int, int]] | None:
    """The gaps the bill states; None where the bundle is of no bill and may hold packages from here and there."""
    if "bill" not in found.bundle:
        return None
    bills.require_form(found.bundle["bill"])
    gaps = found.bundle["bill"]["gaps"]
    for item in gaps:
        fields(item, "bill.gaps", after=int, before=int)
    return {(item["after"], item["before"]) for item in gaps}


def _senml(found: _Found) -> str:
    measures = sorted({package.measure for package in found.packages})
    if measures != ["energy"]:
        raise Failure(f"the packages measure {', '.join(measures)}, not energy alone")
    count = sum(len(package.readings) for package in found.packages)
    return f"{count} readings in Wh"


# --- the bill ---------------------------------------------------------------------------------------


def _tariff(found: _Found) -> str:
    bill = found.bundle["bill"]
    transaction = transaction_of(found.bundle["tariff"], found.trust, "tariff")
    if (transaction["contract"], transaction["function"], transaction["submitter"]) != (
        "tariffs",
        "publish",
        "metering",
    ):
        raise Failure("the transaction publishes no tariff")
    if transaction["id"] != bill["tariff"]["transaction"]:
        raise Failure("the bill names another transaction for its tariff")
    found.tariff = transaction["args"]["tariff"]
    return bills.require_tariff(found.tariff, bill)


def _slots(found: _Found) -> str:
    bill = found.bundle["bill"]
    if sorted({package.device for package in found.packages}) != bill["device"]:
        raise Failure(f"the bill is of {bill['device']}, the packages are not")
    zone = bills.require_offsets(bill["period"])
    found.slots = bills.slots_of(bill, found.packages)
    found.report.notes += found.slots.notes
    estimated = len(bill["estimated"])
    if estimated:
        found.report.notes.append(
            f"{estimated} of {bill['slots']} slots are the city's estimates ({bill['estimated'][0]['method']})"
        )
    return f"{found.slots.measured} measured, {estimated} estimated; {zone}"


def _lines(found: _Found) -> str:
    if found.slots is None:
        raise Failure("the slots did not hold")
    return bills.require_lines(found.bundle["bill"], found.tariff, found.slots.energy_wh)


def _total(found: _Found) -> str:
    return bills.require_total(found.bundle["bill"])


def _run_inclusion(found: _Found) -> str:
    bill = found.bundle["bill"]
    run = fields(found.bundle["run"], "run", proof=dict, evidence=dict)
    transaction = transaction_of(run["evidence"], found.trust, "run")
    if (transaction["contract"], transaction["function"], transaction["submitter"]) != ("billing", "close", "metering"):
        raise Failure("the run's transaction closes no billing run")
    args = transaction["args"]
    proof = fields(run["proof"], "run.proof", size=int, indexes=list, hashes=list)
    if proof["size"] != args["count"] or len(proof["indexes"]) != 1:
        raise Failure("the run's proof is not of one bill among those the ledger counts")
    commitment = _commit(unhex(found.bundle["bill_salt"], _SALT, "bill_salt"), encode(bill))
    hashes = [unhex(item, _HASH, "run.proof.hashes") for item in proof["hashes"]]
    if batch_root({proof["indexes"][0]: leaf(commitment)}, proof["size"], hashes, "run.proof").hex() != args["root"]:
        raise Failure("the bill is not in the billing run on the ledger, or it was changed")
    bills.require_run(args, bill)
    if bill["corrects"] is not None:
        found.report.notes.append(f"this bill corrects {bill['corrects']}; the earlier one stays in its own run")
    return f"one of {proof['size']} bills of {args['run']}, closed on {transaction['time']}"


def _commit(salt: bytes, content: bytes) -> bytes:
    return sha256(b"city.commitment.v1\n" + salt + content).digest()


_LOG_STEPS: list[tuple[str, Callable[[_Found], str]]] = [
    ("trust", _trust),
    ("checkpoint-signature", _checkpoint),
    ("anchor-endorsement", _anchor_endorsement),
    ("anchor-block", _anchor_block),
    ("anchor-matches", _anchor_matches),
]
_PACKAGE_STEPS: list[tuple[str, Callable[[_Found], str]]] = [
    *_LOG_STEPS,
    ("commitments", _commitments),
    ("inclusion", _inclusion),
    ("consistency", _consistency),
    ("device-keys", _device_keys),
    ("signatures", _signatures),
    ("chain", _chain),
    ("senml", _senml),
]
_STEPS: dict[str, list[tuple[str, Callable[[_Found], str]]]] = {
    "package": _PACKAGE_STEPS,
    "event": [
        *_LOG_STEPS,
        ("commitments", _event_commitment),
        ("inclusion", _inclusion),
        ("consistency", _consistency),
    ],
    "bill": [
        *_PACKAGE_STEPS,
        ("tariff", _tariff),
        ("slots", _slots),
        ("lines", _lines),
        ("total", _total),
        ("run-inclusion", _run_inclusion),
    ],
}
