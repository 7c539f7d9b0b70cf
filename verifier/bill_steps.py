"""The steps about a bill: tariff, slots, lines, total, its place in the billing run. Called by the step runner."""

from __future__ import annotations

from verifier import bill as bills
from verifier.canonical import Failure, encode, fields, unhex
from verifier.found import SALT, Check, Found, commit
from verifier.ledger import transaction_of
from verifier.merkle import batch_root, leaf

_HASH = 32


def _tariff(found: Found) -> str:
    bill = found.bundle["bill"]
    transaction = transaction_of(found.bundle["tariff"], found.trust, "tariff")
    said = (transaction["contract"], transaction["function"], transaction["submitter"])
    if said != ("tariffs", "publish", "metering"):
        raise Failure("the transaction publishes no tariff")
    if transaction["id"] != bill["tariff"]["transaction"]:
        raise Failure("the bill names another transaction for its tariff")
    found.tariff = transaction["args"]["tariff"]
    return bills.require_tariff(found.tariff, bill)


def _slots(found: Found) -> str:
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


def _lines(found: Found) -> str:
    if found.slots is None:
        raise Failure("the slots did not hold")
    return bills.require_lines(found.bundle["bill"], found.tariff, found.slots.energy_wh)


def _total(found: Found) -> str:
    return bills.require_total(found.bundle["bill"])


def _run_inclusion(found: Found) -> str:
    bill = found.bundle["bill"]
    run = fields(found.bundle["run"], "run", proof=dict, evidence=dict)
    transaction = transaction_of(run["evidence"], found.trust, "run")
    if (transaction["contract"], transaction["function"], transaction["submitter"]) != ("billing", "close", "metering"):
        raise Failure("the run's transaction closes no billing run")
    args = transaction["args"]
    proof = fields(run["proof"], "run.proof", size=int, indexes=list, hashes=list)
    if proof["size"] != args["count"] or len(proof["indexes"]) != 1:
        raise Failure("the run's proof is not of one bill among those the ledger counts")
    commitment = commit(unhex(found.bundle["bill_salt"], SALT, "bill_salt"), encode(bill))
    hashes = [unhex(item, _HASH, "run.proof.hashes") for item in proof["hashes"]]
    if batch_root({proof["indexes"][0]: leaf(commitment)}, proof["size"], hashes, "run.proof").hex() != args["root"]:
        raise Failure("the bill is not in the billing run on the ledger, or it was changed")
    bills.require_run(args, bill)
    if bill["corrects"] is not None:
        found.report.notes.append(f"this bill corrects {bill['corrects']}; the earlier one stays in its own run")
    return f"one of {proof['size']} bills of {args['run']}, closed on {transaction['time']}"


BILL_STEPS: list[tuple[str, Check]] = [
    ("tariff", _tariff),
    ("slots", _slots),
    ("lines", _lines),
    ("total", _total),
    ("run-inclusion", _run_inclusion),
]
