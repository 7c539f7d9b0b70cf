"""Which lot to take: price, walk and the risk of searching, added up; and why, in words."""

from __future__ import annotations

from dataclasses import dataclass

from services.parking.domain.availability import Outlook
from services.parking.domain.lots import COUNTED, Lot, LotState

WALK_MINOR_PER_MINUTE = 20
SEARCH_MINOR = 600
"""What finding the lot full costs: time, fuel, the way to the next."""
FOLLOWED = 0.5
"""Share of advices that are expected to be followed."""
PROBABILITY_MIN_MILLI = 50
MILLI = 1_000


@dataclass(frozen=True, slots=True)
class Option:
    """One lot, as it would be advised."""

    lot: Lot
    state: LotState
    outlook: Outlook
    walk_minutes: int
    price_minor: int
    sent_before: int
    now: int

    @property
    def probability_milli(self) -> int:
        return self.outlook.probability_milli or 0

    @property
    def cost_minor(self) -> int:
        risk = SEARCH_MINOR * (MILLI - self.probability_milli) // MILLI
        return self.price_minor + WALK_MINOR_PER_MINUTE * self.walk_minutes + risk


def ranked(options: list[Option], count: int) -> list[Option]:
    """The cheapest first; lots without a fair chance are left out; ties by the lot's id."""
    fair = [one for one in options if one.probability_milli >= PROBABILITY_MIN_MILLI]
    return sorted(fair, key=lambda one: (one.cost_minor, one.lot.id))[:count]


def reasons(option: Option) -> list[str]:
    """Why it stands where it stands, most telling first."""
    outlook, state = option.outlook, option.state
    said = [
        f"{option.probability_milli // 10} % chance of a free bay at arrival: about {outlook.occupied} of {option.lot.capacity} taken",
        f"{option.walk_minutes} minutes on foot",
    ]
    if outlook.moved_by_count:
        said.append(f"today's count moves the forecast by {outlook.moved_by_count:+d} cars")
    if outlook.event_cars:
        said.append(f"{', '.join(outlook.events)} brings about {outlook.event_cars} cars here")
    if option.sent_before:
        said.append(f"{option.sent_before} others were just sent here and are counted in")
    if state.quality != COUNTED:
        said.append(
            f"the count is {state.quality}, so the forecast speaks alone"
            if state.occupied is None
            else f"the count is {state.quality}"
        )
    elif option.now - state.time >= 60:
        said.append(f"counted {(option.now - state.time) // 60} minutes ago")
    return said
