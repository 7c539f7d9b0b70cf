"""Which bays are free, in memory: proposes a bay and refuses at once where there is none. The table of promises decides; this is made of it.

Used on the event loop only. A bay is marked before the unit that promises it, so that callers at once are proposed different bays.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.parking.domain.lots import Lot
from services.parking.domain.reservation import CONFIRMING, HELD, Reservation
from services.parking.store.reservations import Promise


@dataclass(frozen=True, slots=True)
class Proposal:
    """A bay, and the holds on it whose time is up: they are let go in the unit that takes it."""

    bay: str
    past: tuple[str, ...] = ()


@dataclass(slots=True)
class _Marks:
    """Of one lot.

    Attributes:
        taken: slot -> one bit for each bay.
        more: (slot, bit) -> marks beyond the first: a bay is marked anew before a hold on it whose time is up is let go.
        holds: a heap of (until, reservation).
    """

    numbers: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    taken: dict[int, int] = field(default_factory=dict)
    more: dict[tuple[int, int], int] = field(default_factory=dict)
    holds: list[tuple[int, str]] = field(default_factory=list)
    lot: Lot | None = None
    offered: int = 0

    def bit(self, bay: str) -> int:
        number = self.numbers.setdefault(bay, len(self.names))
        if number == len(self.names):
            self.names.append(bay)
        return 1 << number

    def set(self, bay: str, slots: range) -> None:
        bit = self.bit(bay)
        for slot in slots:
            before = self.taken.get(slot, 0)
            if before & bit:
                self.more[slot, bit] = self.more.get((slot, bit), 0) + 1
            self.taken[slot] = before | bit

    def unset(self, bay: str, slots: range) -> None:
        bit = self.bit(bay)
        for slot in slots:
            left = self.more.pop((slot, bit), 0)
            if left > 1:
                self.more[slot, bit] = left - 1
            elif not left:
                self.taken[slot] = self.taken.get(slot, 0) & ~bit

    def offer(self, lot: Lot) -> int:
        """The bits of the bays the lot has now."""
        if self.lot is not lot:
            self.lot, self.offered = lot, sum(self.bit(bay) for bay in lot.bays)
        return self.offered


class Board:
    """All lots. Built from the store at the start. `changes` counts what was done to it."""

    def __init__(self) -> None:
        self._lots: dict[str, _Marks] = {}
        self._promises: dict[str, Promise] = {}
        self._held: dict[str, int] = {}
        self._waiting: set[str] = set()
        self.changes = 0

    def load(self, promises: Iterable[Promise], hold_ends: dict[str, int], changes: int) -> bool:
        """Starts anew from what the store says, unless the board moved since `changes` was read. True if it did."""
        if changes != self.changes or self._waiting:
            return False
        self._lots, self._promises, self._held = {}, {}, {}
        for promise in promises:
            self._mark(promise)
            if until := hold_ends.get(promise.reservation):
                self.hold(promise.reservation, until)
        return True

    def propose(self, lot: Lot, slots: range, now: int) -> Proposal | None:
        """A bay that is free in all of `slots`, or None."""
        marks = self._lots.setdefault(lot.id, _Marks())
        free = marks.offer(lot) & ~_union(marks.taken, slots)
        if free:
            return Proposal(marks.names[_lowest(free)])
        past = self._past(marks, slots, now)
        free = marks.offer(lot) & ~_union(marks.taken, slots, _bits(marks, past)) if past else 0
        if not free:
            return None
        bay = marks.names[_lowest(free)]
        return Proposal(bay, tuple(one.reservation for one in past if one.bay == bay))

    def free(self, lot: Lot, slots: range) -> int:
        """How many bays are free in all of `slots`."""
        marks = self._lots.setdefault(lot.id, _Marks())
        return (marks.offer(lot) & ~_union(marks.taken, slots)).bit_count()

    def mark(self, reservation: str, lot: str, bay: str, slots: range) -> None:
        """The bay is being promised: its unit is under way. `sure`, `put` or `drop` ends that."""
        self.drop(reservation)
        self._waiting.add(reservation)
        self._mark(Promise(reservation, lot, bay, slots))

    def sure(self, reservation: str, hold_until: int) -> None:
        """The unit of a hold is durable."""
        self._waiting.discard(reservation)
        self.hold(reservation, hold_until)

    def learn(self, promise: Promise) -> None:
        """What the table says against us."""
        if promise.reservation not in self._waiting:
            self.drop(promise.reservation)
            self._mark(promise)

    def put(self, one: Reservation) -> None:
        """The reservation as it is durable now."""
        self.drop(one.id)
        if one.promised:
            self._mark(Promise(one.id, one.lot, one.bay, one.slots))
        if one.state in (HELD, CONFIRMING):
            self.hold(one.id, one.hold_until)

    def hold(self, reservation: str, until: int) -> None:
        """A hold and its end."""
        promise = self._promises.get(reservation)
        if promise is not None:
            self._held[reservation] = until
            heapq.heappush(self._lots[promise.lot].holds, (until, reservation))

    def drop(self, reservation: str) -> None:
        """Takes a mark away, where there is one."""
        self.changes += 1
        self._waiting.discard(reservation)
        self._held.pop(reservation, None)
        promise = self._promises.pop(reservation, None)
        if promise is None:
            return
        self._lots[promise.lot].unset(promise.bay, promise.slots)

    def _mark(self, promise: Promise) -> None:
        self.changes += 1
        self._promises[promise.reservation] = promise
        self._lots.setdefault(promise.lot, _Marks()).set(promise.bay, promise.slots)

    def _past(self, marks: _Marks, slots: range, now: int) -> list[Promise]:
        """Holds of the lot whose time is up and which stand in the way."""
        while marks.holds and self._held.get(marks.holds[0][1]) != marks.holds[0][0]:
            heapq.heappop(marks.holds)
        if not marks.holds or marks.holds[0][0] >= now:
            return []
        ended = [name for until, name in marks.holds if until < now and self._held.get(name) == until]
        found = [self._promises[name] for name in ended]
        return [one for one in found if one.slots.start < slots.stop and slots.start < one.slots.stop]


def _bits(marks: _Marks, promises: list[Promise]) -> dict[int, int]:
    """Slot -> the bits that only these promises have set."""
    found: dict[int, int] = {}
    for promise in promises:
        bit = marks.bit(promise.bay)
        for slot in promise.slots:
            if (slot, bit) not in marks.more:
                found[slot] = found.get(slot, 0) | bit
    return found


def _union(taken: dict[int, int], slots: range, without: dict[int, int] | None = None) -> int:
    left = without or {}
    found = 0
    for slot in slots:
        found |= taken.get(slot, 0) & ~left.get(slot, 0)
    return found


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
