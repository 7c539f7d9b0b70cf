"""Which lot to take: price, walk and the risk of searching, added up; and why, in words. Those advised before are counted in."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from services.parking.domain.availability import Outlook
from services.parking.domain.lots import Lot
from services.parking.domain.states import COUNTED, LotState

WALK_MINOR_PER_MINUTE = 20
SEARCH_MINOR = 600
"""What finding the lot full costs: time, fuel, the way to the next."""
FOLLOWED = (0.5, 0.2, 0.1)
"""Share of the first, second and third advice of an answer that is expected to be followed."""
HALF_LIFE_S = 1_800
"""Who has not come after this time has gone elsewhere, half of the time."""
PROBABILITY_MIN_MILLI = 50
MILLI = 1_000
MINUTE_S = 60

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Option:
    """One lot, as it would be advised.

    Attributes:
        sent: cars that earlier advice is expected to bring; promised: reserved bays that are kept for others then.
        closes: the lot closes before the stay is over.
    """

    lot: Lot
    state: LotState
    outlook: Outlook
    walk_minutes: int
    price_minor: int
    sent: float
    promised: int
    closes: bool
    now: int

    @property
    def probability_milli(self) -> int:
        return self.outlook.probability_milli or 0

    @property
    def cost_minor(self) -> int:
        """Price, walk and the expected cost of searching on."""
        risk = SEARCH_MINOR * (MILLI - self.probability_milli) // MILLI
        return least_cost_minor(self.price_minor, self.walk_minutes) + risk


def least_cost_minor(price_minor: int, walk: int) -> int:
    """What a lot costs at least: there, a bay is free for sure."""
    return price_minor + WALK_MINOR_PER_MINUTE * walk


def ranked(candidates: Iterable[tuple[int, C]], look: Callable[[C], Option], count: int) -> list[Option]:
    """The cheapest first; lots without a fair chance are left out; ties by the lot's id.

    Args:
        candidates: each with the least it costs, in that order: who cannot be among the best is not looked at.
    """
    best: list[Option] = []
    for least, candidate in candidates:
        if len(best) == count and least > best[-1].cost_minor:
            break
        option = look(candidate)
        if option.probability_milli >= PROBABILITY_MIN_MILLI:
            insort(best, option, key=_rank)
            del best[count:]
    return best


def _rank(option: Option) -> tuple[int, str]:
    return option.cost_minor, option.lot.id


def expected_cars(rank: int) -> float:
    """How many cars one advice brings, by its place in the answer (0 is the first)."""
    return FOLLOWED[rank] if rank < len(FOLLOWED) else 0.0


def still_coming(cars: float, age_s: int) -> float:
    """What is left after a time of the cars that were sent."""
    return cars * float(0.5 ** (max(0, age_s) / HALF_LIFE_S))


def reasons(option: Option) -> list[str]:
    """Why it stands where it stands, most telling first."""
    outlook, lot = option.outlook, option.lot
    said = [
        f"{option.probability_milli // 10} % chance of a free bay at arrival: about {outlook.occupied} of {lot.capacity} taken",
        f"{option.walk_minutes} minutes on foot",
    ]
    if outlook.moved_by_count:
        said.append(f"today's count moves the forecast by {outlook.moved_by_count:+d} cars")
    if outlook.event_cars:
        said.append(f"expected to bring about {outlook.event_cars} cars here: {', '.join(outlook.events)}")
    if round(option.sent):
        said.append(f"about {round(option.sent)} cars were just sent here and are counted in")
    if option.promised:
        said.append(f"{option.promised} bays are reserved for then and are counted in")
    if option.closes:
        said.append("it closes before your stay is over")
    return [*said, *_grounds(option)]


def _grounds(option: Option) -> list[str]:
    """What the probability rests on, where that is less than a fresh count and a forecast."""
    state, outlook = option.state, option.outlook
    if not outlook.forecast:
        return ["no forecast is known now; this is today's count alone"]
    if not outlook.counted:
        return [f"the count is {state.quality}, so the forecast speaks alone"]
    age = (option.now - state.time) // MINUTE_S
    if state.quality != COUNTED or age > 0:
        return [f"counted {age} minutes ago"]
    return []
