"""Reconciliation of a day: what our books took and gave back against what the provider says it did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.payments.domain.payment import CAPTURE, REFUND


@dataclass(frozen=True, slots=True)
class Item:
    """Money that one operation of the day took (`capture`) or gave back (`refund`)."""

    payment: str
    kind: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`what` is `captured` or `refunded`."""

    payment: str
    what: str
    ours_minor: int
    theirs_minor: int


@dataclass(frozen=True, slots=True)
class Report:
    """Differences leave out payments the provider owes an answer for: those are `waiting`, by payment."""

    captured_minor: int
    refunded_minor: int
    provider_captured_minor: int
    provider_refunded_minor: int
    differences: tuple[Difference, ...]
    waiting: tuple[str, ...]


_WORDS = {CAPTURE: "captured", REFUND: "refunded"}


def reconcile(ours: Iterable[Item], theirs: Iterable[Item], waiting: Iterable[str]) -> Report:
    """Compares by payment and kind."""
    mine, provider, open_ = _by_payment(ours), _by_payment(theirs), set(waiting)
    differences = tuple(
        Difference(payment, _WORDS[kind], mine.get((payment, kind), 0), provider.get((payment, kind), 0))
        for payment, kind in sorted(mine.keys() | provider.keys())
        if payment not in open_ and mine.get((payment, kind), 0) != provider.get((payment, kind), 0)
    )
    return Report(
        _total(mine, CAPTURE), _total(mine, REFUND), _total(provider, CAPTURE), _total(provider, REFUND),
        differences, tuple(sorted(open_)),
    )  # fmt: skip


def _by_payment(items: Iterable[Item]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for item in items:
        found[item.payment, item.kind] = found.get((item.payment, item.kind), 0) + item.amount_minor
    return found


def _total(found: dict[tuple[str, str], int], kind: str) -> int:
    return sum(amount for (_, of), amount in found.items() if of == kind)
