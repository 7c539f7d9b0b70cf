"""The steps about a parking session: its entries, the reservation's life, access, passages, price, receipts. Called by the step runner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from verifier.access import open_access
from verifier.canonical import Failure, encode, fields, unhex
from verifier.device_steps import SIGNED_STEPS
from verifier.found import Check, Found
from verifier.ledger import transaction_of
from verifier.log_steps import entry_steps, open_documents, open_packages
from verifier.package import Package
from verifier.parking_price import (
    Lines,
    Tariff,
    cancelled_lines,
    line,
    no_show_lines,
    overstay_lines,
    quote_lines,
    read_tariff,
    require_valid,
    total,
)
from verifier.receipt import RECEIPTS_LOG, require_receipt, words_of
from verifier.reservation import Use, require_life, uses_of, where_of
from verifier.times import seconds_of, text_of
from verifier.trust import Trust

EVENTS_LOG, PACKAGES_LOG = "parking.events", "parking.states"
_PAYEE = "parking"
_POINT = 65


def _documents(found: Found) -> list[Any]:
    return [item["document"] for item in found.bundle["reservation"]]


def _commitments(found: Found) -> str:
    """Opens the versions, the receipts and the lock's packages, each in its own log."""
    bundle = found.bundle
    if bundle["packages"]:
        open_packages(found, found.log(PACKAGES_LOG))
    for name, log in (("reservation", EVENTS_LOG), ("receipts", RECEIPTS_LOG)):
        if bundle[name]:
            open_documents(bundle[name], found.log(log), name)
    counts = (len(bundle[name]) for name in ("reservation", "receipts", "packages"))
    return "{} versions, {} receipts and {} packages opened".format(*counts)


def _reservation(found: Found) -> str:
    documents = _documents(found)
    require_life(documents)
    last = documents[-1]
    span = f"{text_of(last['from_time'])} to {text_of(last['to_time'])}"
    found.report.notes.append(
        f"{last['reservation']} is shown as of version {last['version']}; a later change, a refund for one, has a later version"
    )
    changes = ", ".join(document["change"] for document in documents)
    return f"{last['reservation']}, bay {last['bay']} of {last['lot']}, {span}: {changes}"


# --- access -------------------------------------------------------------------------------------------


def _access(found: Found) -> str:
    keys = _keys(found.bundle["keys"], found.trust)
    opened: dict[int, Any] = {}
    used_keys = set()
    for number, text in enumerate(found.bundle["access"]):
        kid, claims = open_access(text, keys, f"access[{number}]")
        used_keys.add(kid)
        if opened and int(claims["jti"]) <= max(opened):
            raise Failure(f"access[{number}] has number {claims['jti']}: numbers are twice or not in order")
        opened[int(claims["jti"])] = claims
    if used_keys != set(keys):
        raise Failure(f"keys {sorted(keys)} are given, {sorted(used_keys)} signed")
    uses = uses_of(_documents(found))
    if sorted(opened) != sorted(use.number for use in uses):
        raise Failure(
            f"documents {sorted(opened)} are given; the reservation says that {sorted(use.number for use in uses)} were used"
        )
    for use in uses:
        _require_for(opened[use.number], use, found)
    return f"{len(opened)} documents, signed by {len(keys)} keys that parking published"


def _keys(items: Sequence[Any], trust: Trust) -> dict[str, bytes]:
    """kid -> key, as the ledger has it."""
    keys: dict[str, bytes] = {}
    for number, item in enumerate(items):
        where = f"keys[{number}]"
        fields(item, where, kid=str, registered=dict)
        args = _published(item["registered"], "parking-keys", trust, f"{where}.registered")
        fields(args, f"{where}: args", kid=str, key=str)
        if args["kid"] != item["kid"]:
            raise Failure(f"{where}: the ledger published {args['kid']}, not {item['kid']}")
        if keys and item["kid"] <= max(keys):
            raise Failure(f"{where}: keys are twice or not in order")
        keys[item["kid"]] = unhex(args["key"], _POINT, f"{where}.key")
    return keys


def _published(evidence: Any, contract: str, trust: Trust, where: str) -> Any:
    """The arguments with which parking published something."""
    transaction = transaction_of(evidence, trust, where)
    said = (transaction["contract"], transaction["function"], transaction["submitter"])
    if said != (contract, "publish", "parking"):
        raise Failure(
            f"{where}: the transaction is {'.'.join(said[:2])} of {said[2]}, not {contract}.publish of parking"
        )
    return transaction["args"]


def _require_for(claims: Any, use: Use, found: Found) -> None:
    """The access document is for this city, reservation, lot, bay and lock, and was used in its time."""
    document, where = _documents(found)[-1], f"access document {use.number}"
    expected = {
        "iss": found.bundle["city"], "aud": use.device, "sub": document["reservation"], "act": use.act,
        "lot": document["lot"], "bay": document["bay"],
    }  # fmt: skip
    for name, right in expected.items():
        if claims[name] != right:
            raise Failure(f"{where}: {name} is {claims[name]!r}; {use.where} needs {right!r}")
    time = next((time for time in _times(found.packages, use)), use.time)
    if not claims["nbf"] <= time <= claims["exp"]:
        raise Failure(f"{where} holds from {claims['nbf']} to {claims['exp']}; it was used at {time}")
    if claims["iat"] > claims["exp"]:
        raise Failure(f"{where} was issued at {claims['iat']}, after it ended at {claims['exp']}")


# --- passages -----------------------------------------------------------------------------------------


def _times(packages: Sequence[Package], use: Use) -> list[int]:
    """When the lock's package, as named by the use, says it opened for the number."""
    return [
        time
        for package in packages
        if (package.device, package.sequence) == (use.device, use.sequence)
        for time, number in package.readings.items()
        if number == use.number
    ]


def _passages(found: Found) -> str:
    uses = uses_of(_documents(found))
    given = {(package.device, package.sequence): package for package in found.packages}
    named = {(use.device, use.sequence) for use in uses}
    if set(given) != named:
        raise Failure(f"packages {sorted(given)} are given; the reservation names {sorted(named)}")
    for use in uses:
        _require_passage(given[use.device, use.sequence], use, uses[0].time)
    for number in (use.number for use in uses):
        times = [time for package in found.packages for time, value in package.readings.items() if value == number]
        if len(times) != 1:
            raise Failure(f"a lock opened {len(times)} times for the access document {number}, at {times}")
    return "; ".join(f"{use.act} at {text_of(use.time)} by {use.device}" for use in uses) or "no lock opened"


def _require_passage(package: Package, use: Use, entry_time: int) -> None:
    where = f"{use.where}: package {use.sequence} of {use.device}"
    if package.measure != use.act:
        raise Failure(f"{where} measures {package.measure}, not {use.act}")
    times = _times([package], use)
    if not times:
        raise Failure(f"{where} says nothing of the access document {use.number}")
    right = max(times[0], entry_time) if use.act == "exit" else times[0]
    if use.time != right:
        raise Failure(f"{use.where} says {use.act} at {use.time}; by the lock it was at {right}")


# --- price --------------------------------------------------------------------------------------------


def _price(found: Found) -> str:
    documents = _documents(found)
    args = fields(
        _published(found.bundle["tariff"], "parking-tariffs", found.trust, "tariff"), "tariff: args", tariff=dict
    )
    tariff = read_tariff(args["tariff"])
    _require_named(tariff, documents[0])
    require_valid(tariff, documents[0]["from_time"])
    _require_hold(tariff, documents[0])
    before: Any = None
    for document in documents:
        _require_price(tariff, before, document)
        before = document
    lines = len(before["lines"])
    return (
        f"{tariff.document['id']} version {tariff.document['version']}: {lines} lines make {before['currency']} {before['price_minor']} "
        f"in minor units; every quote recomputed"
    )


def _require_named(tariff: Tariff, document: Any) -> None:
    said = (document["tariff"]["id"], document["tariff"]["version"], document["currency"])
    published = tuple(tariff.document[name] for name in ("id", "version", "currency"))
    if said != published:
        raise Failure(f"the reservation is priced by {said}; the tariff shown is {published}")


def _require_hold(tariff: Tariff, document: Any) -> None:
    """A hold lives as long as the tariff promises."""
    promised = seconds_of(document["time"], where_of(document)) + tariff.document["hold_minutes"] * 60
    if document["hold_until"] < promised:
        raise Failure(f"{where_of(document)} holds until {document['hold_until']}; by the tariff it is {promised}")


def _require_price(tariff: Tariff, before: Any, document: Any) -> None:
    """The version's quote, lines and price are what the tariff makes of its times."""
    where = where_of(document)
    quote = quote_lines(tariff, document["from_time"], document["to_time"], document["permit_basis_points"])
    if document["quote_minor"] != total(quote):
        raise Failure(f"{where} quotes {document['quote_minor']}; the tariff makes {total(quote)} of the times")
    over, expected = _expected(tariff, quote, before, document)
    _require_lines(document["lines"], expected, where)
    right = total(expected) if over else None
    if document["price_minor"] != right:
        raise Failure(f"{where} has price_minor {document['price_minor']}; its lines make {right}")
    if right is not None and right < 0:
        raise Failure(f"{where} gives back more than was owed: its lines make {right}")


def _expected(tariff: Tariff, quote: Lines, before: Any, document: Any) -> tuple[bool, Lines]:
    """(whether a price is owed from this version on, the lines it should have)."""
    change = document["change"]
    if change in ("declined", "expired"):
        return True, []
    if change == "ended":
        return True, quote + overstay_lines(tariff, document["to_time"], document["exit_time"])
    if change == "no-show":
        return True, no_show_lines(tariff, total(quote))
    if change == "cancelled":
        at = seconds_of(document["time"], where_of(document))
        was_held = before["state"] == "held"
        return True, cancelled_lines(tariff, total(quote), document["from_time"], at, was_held=was_held)
    if change == "refunded":
        return True, before["lines"] + [_refund(before, document)]
    return False, quote


def _refund(before: Any, document: Any) -> dict[str, Any]:
    """The one line a refund adds; how much is the billing desk's to say, as long as it gives back."""
    added = document["lines"][len(before["lines"]) :]
    where = where_of(document)
    if len(added) != 1:
        raise Failure(f"{where} adds {len(added)} lines to {len(before['lines'])}; a refund adds one")
    amount = fields(added[0], f"{where}: refund", kind=str, date=str, band=str, steps=int, amount_minor=int)[
        "amount_minor"
    ]
    if amount >= 0:
        raise Failure(f"{where}: a refund of {amount} gives nothing back; it is a negative amount")
    return line("refund", amount)


def _require_lines(said: Lines, expected: Lines, where: str) -> None:
    for number, (one, right) in enumerate(zip(said, expected, strict=False)):
        if encode(one) != encode(right):
            raise Failure(f"{where}, line {number} says {one}; the tariff and the times make {right}")
    if len(said) != len(expected):
        raise Failure(
            f"{where} has {len(said)} lines {said}; the tariff and the times make {len(expected)}: {expected}"
        )


# --- receipts -----------------------------------------------------------------------------------------


def _receipts(found: Found) -> str:
    last, paid, places = _documents(found)[-1], 0, []
    receipts = [item["document"] for item in found.bundle["receipts"]]
    for number, receipt in enumerate(receipts):
        where = f"receipts[{number}]"
        require_receipt(receipt, where)
        places.append(_place(receipt, last, where))
        paid += receipt["captured_minor"] - receipt["refunded_minor"]
    if places != sorted(set(places)) or len({receipt["payment"] for receipt in receipts}) != len(receipts):
        raise Failure("receipts are twice or not in order of their references")
    if paid != last["price_minor"]:
        raise Failure(
            f"{len(receipts)} receipts come to {paid} captured less refunded; price_minor of {where_of(last)} is {last['price_minor']}"
        )
    found.report.notes += [words_of(receipt) for receipt in receipts]
    return f"{len(receipts)} receipts come to {last['currency']} {paid} in minor units, as owed"


def _place(receipt: Any, last: Any, where: str) -> int:
    """The receipt's place in the order of references, if it is one of this reservation's and nothing is held any more."""
    if receipt["payee"] != _PAYEE or receipt["currency"] != last["currency"]:
        raise Failure(
            f"{where} is of payee {receipt['payee']} in {receipt['currency']}, not {_PAYEE} in {last['currency']}"
        )
    match = re.fullmatch(
        rf"reservation/{re.escape(last['reservation'])}(?:/([1-9][0-9]{{0,8}}))?", receipt["reference"]
    )
    if match is None:
        raise Failure(f"{where} is for {receipt['reference']}, not for reservation/{last['reservation']}")
    if receipt["state"] == "authorised":
        raise Failure(
            f"{where}: payment {receipt['payment']} still holds {receipt['authorised_minor']}; ask for a bundle later"
        )
    return int(match[1] or 0)


SESSION_STEPS: list[tuple[str, Check]] = [
    *entry_steps(_commitments),
    *SIGNED_STEPS,
    ("reservation", _reservation),
    ("access", _access),
    ("passages", _passages),
    ("price", _price),
    ("receipts", _receipts),
]
