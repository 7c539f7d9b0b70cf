"""A reservation's life: its versions, what each change may follow and may change (docs/PROOFS.md, "Reservation").

Called by the step `reservation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verifier.canonical import Failure, encode, fields
from verifier.times import TIME_MAX, seconds_of

_DOCUMENT = {
    "format": str, "reservation": str, "version": int, "change": str, "state": str, "lot": str, "bay": str, "from_time": int,
    "to_time": int, "hold_until": int, "quote_minor": int, "currency": str, "tariff": dict, "permit_basis_points": int, "plate": str,
    "entry_time": int, "exit_time": int, "access": (dict, None), "lines": list, "price_minor": (int, None), "time": str,
}  # fmt: skip
_ALWAYS = ("version", "change", "state", "lines", "price_minor", "time")
"""What each version says anew; lines and price are the step `price`'s matter."""
_OVER = ("declined", "ended", "cancelled", "no-show", "expired")
_FULL_PRICE = 10_000


@dataclass(frozen=True)
class _Change:
    """After which states a change may come ("" is none), the state it makes ("" is as before), and what it may change."""

    after: tuple[str, ...]
    state: str
    changes: tuple[str, ...] = ()


_CHANGES = {
    "held": _Change(("",), "held"),
    "confirming": _Change(("held",), "confirming", ("hold_until",)),
    "confirmed": _Change(("confirming",), "confirmed"),
    "declined": _Change(("confirming",), "declined"),
    "extended": _Change(("confirmed", "active"), "", ("to_time", "quote_minor")),
    "started": _Change(("confirmed",), "active", ("entry_time", "access")),
    "ended": _Change(("active",), "ended", ("exit_time", "access")),
    "cancelled": _Change(("held", "confirmed"), "cancelled"),
    "no-show": _Change(("confirmed",), "no-show"),
    "expired": _Change(("held", "confirming"), "expired"),
    "refunded": _Change(("ended", "cancelled", "no-show"), ""),
}


@dataclass(frozen=True)
class Use:
    """One opening of a lock for the reservation, as the reservation says: which access document, and the lock's package about it."""

    act: str
    number: int
    device: str
    sequence: int
    time: int
    where: str


def where_of(document: Any) -> str:
    """How messages name a version."""
    return f"version {document['version']} ({document['change']})"


def require_life(documents: Sequence[Any]) -> None:
    """Checks the versions of one reservation.

    Raises:
        Failure: naming the version and what is wrong.
    """
    if not documents:
        raise Failure("the bundle holds no version of the reservation")
    before: Any = None
    for number, document in enumerate(documents, start=1):
        _require_form(document, number)
        _require_next(before, document)
        before = document
    if before["state"] not in _OVER:
        raise Failure(
            f"the reservation is not over: {where_of(before)} leaves it {before['state']}; ask for a bundle later"
        )


def _require_form(document: Any, number: int) -> None:
    at = f"reservation[{number - 1}].document"
    fields(document, at, **_DOCUMENT)
    fields(document["tariff"], f"{at}.tariff", id=str, version=int)
    if document["format"] != "city.reservation.v1":
        raise Failure(f"{at} is of format {document['format']}, not city.reservation.v1")
    if document["version"] != number:
        raise Failure(f"{at} is version {document['version']}, where version {number} belongs")
    where = where_of(document)
    if not 0 <= document["from_time"] < document["to_time"] <= TIME_MAX:
        raise Failure(f"{where}: from_time {document['from_time']} and to_time {document['to_time']} are no span")
    if not 0 <= document["permit_basis_points"] <= _FULL_PRICE:
        raise Failure(f"{where}: permit_basis_points {document['permit_basis_points']} is not 0 to {_FULL_PRICE}")
    seconds_of(document["time"], f"{where}: time")
    _require_access(document, where)


def _require_access(document: Any, where: str) -> None:
    """Times of entry and exit stand where the lock has opened, and nowhere else."""
    access, entered, left = document["access"], document["entry_time"], document["exit_time"]
    if access is not None:
        fields(access, f"{where}: access", number=int, device=str, sequence=int)
    if (
        (access is None) != (entered == 0)
        or (left and not 0 < entered <= left)
        or min(entered, left) < 0
        or max(entered, left) > TIME_MAX
    ):
        raise Failure(
            f"{where}: entry_time {entered}, exit_time {left} and access {'null' if access is None else 'given'} do not fit each other"
        )


def _require_next(before: Any, document: Any) -> None:
    where, change = where_of(document), _CHANGES.get(document["change"])
    state = "" if before is None else before["state"]
    if change is None or state not in change.after:
        raise Failure(f"{where} cannot follow {state or 'nothing'}")
    if document["state"] != (change.state or state):
        raise Failure(f"{where} leaves it {document['state']}; that change makes it {change.state or state}")
    if before is None:
        _require_new(document, where)
        return
    for name, value in document.items():
        if name not in (*_ALWAYS, *change.changes) and encode(value) != encode(before[name]):
            raise Failure(f"{where} changes {name} from {before[name]} to {value}, which that change may not")
    _require_effect(before, document, where)


def _require_new(document: Any, where: str) -> None:
    if document["access"] is not None:
        raise Failure(f"{where}: a lock cannot have opened yet")


def _require_effect(before: Any, document: Any, where: str) -> None:
    """What a change did is what it is for."""
    change = document["change"]
    if seconds_of(document["time"], where) < seconds_of(before["time"], where):
        raise Failure(f"{where} is dated {document['time']}, {where_of(before)} {before['time']}: not in order")
    if change == "confirming" and document["hold_until"] < before["hold_until"]:
        raise Failure(f"{where} ends the hold at {document['hold_until']}, before {before['hold_until']}")
    if change == "extended" and document["to_time"] <= before["to_time"]:
        raise Failure(f"{where} ends at {document['to_time']}, no later than {before['to_time']}")
    if change == "expired" and seconds_of(document["time"], where) < document["hold_until"]:
        raise Failure(f"{where} is dated {document['time']}, while it was promised until {document['hold_until']}")
    if change == "no-show" and seconds_of(document["time"], where) < document["to_time"]:
        raise Failure(f"{where} is dated {document['time']}, while one could still come until {document['to_time']}")
    if change in ("started", "ended") and (document["access"] is None or document["access"] == before["access"]):
        raise Failure(f"{where} names no access document of its own")
    if change == "ended" and not document["exit_time"]:
        raise Failure(f"{where} has no exit_time")


def uses_of(documents: Sequence[Any]) -> list[Use]:
    """The openings of locks that the versions speak of."""
    return [
        Use(
            act="entry" if document["change"] == "started" else "exit",
            time=document["entry_time" if document["change"] == "started" else "exit_time"],
            where=where_of(document),
            **document["access"],
        )
        for document in documents
        if document["change"] in ("started", "ended")
    ]
