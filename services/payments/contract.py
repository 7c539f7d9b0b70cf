"""Payments' decision on the ledger: a closed day. Thin: who sees two accounts of one day can hold the city to the first."""

from __future__ import annotations

from datetime import date

from citykit.ledger.contract import Json, JsonObject, Refusal, Transaction, evaluates, submits


class PaymentsDays:
    """Days of money, each closed once, in order."""

    name = "payments-days"

    @submits(by=("payments",))
    def close(
        self, tx: Transaction, *, day: str, captured_minor: int, refunded_minor: int, transfers_size: int
    ) -> JsonObject:
        """Closes a local day: what was captured and refunded in it, and how many sets of transfers there were at its end."""
        _require_day(day)
        if min(captured_minor, refunded_minor, transfers_size) < 0:
            raise Refusal("day-invalid", "amounts and counts of a day are 0 or more")
        closed = {
            "captured_minor": captured_minor,
            "refunded_minor": refunded_minor,
            "transfers_size": transfers_size,
        }
        before = tx.get(f"day/{day}")
        if before is not None and before != closed:
            raise Refusal(
                "day-closed", f"the day {day} is closed with other sums; what changed since belongs to a later day"
            )
        if before is None:
            _require_next(tx.get("newest"), day, transfers_size)
            tx.put(f"day/{day}", closed)
            tx.put("newest", {"day": day, "transfers_size": transfers_size})
            tx.emit("DayClosed", {"day": day, **closed})
        return {"day": day}

    @evaluates
    def get(self, tx: Transaction, *, day: str) -> Json:
        """The closed day, or None."""
        return tx.get(f"day/{day}")


def _require_day(day: str) -> None:
    try:
        held = date.fromisoformat(day).isoformat() == day
    except ValueError:
        held = False
    if not held:
        raise Refusal("day-invalid", "day is YYYY-MM-DD")


def _require_next(newest: Json, day: str, transfers_size: int) -> None:
    if newest is not None and (day <= newest["day"] or transfers_size < newest["transfers_size"]):
        raise Refusal("day-order", f"days are closed in order and sets never grow fewer; {newest['day']} is closed")


CONTRACTS: tuple[object, ...] = (PaymentsDays(),)
