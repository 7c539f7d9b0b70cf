"""Ranking, reasons, and the cars that advice is expected to bring."""

from __future__ import annotations

from typing import Any

from services.parking.app.advising import Sent
from services.parking.domain.advice import Option, expected_cars, least_cost_minor, ranked, reasons, still_coming
from services.parking.domain.availability import Outlook
from services.parking.domain.states import COUNTED, STALE, UNKNOWN, LotState
from tests.unit.parking.sensing import HOUR, MINUTE, NINE, a_lot

FRESH = LotState("high-street", NINE, 150, 200, COUNTED, 90)


def option(id_: str = "a", probability: int | None = 900, **changes: Any) -> Option:
    usual: dict[str, Any] = {
        "state": FRESH, "outlook": Outlook(probability, 150, forecast=True, counted=True), "walk_minutes": 5,
        "price_minor": 240, "sent": 0.0, "promised": 0, "closes": False, "now": NINE,
    }  # fmt: skip
    return Option(a_lot(id_), **(usual | changes))


def test_the_cost_is_price_walk_and_risk() -> None:
    assert option().cost_minor == 240 + 5 * 20 + 60
    assert option(probability=None).cost_minor == 240 + 100 + 600


def test_the_cheapest_comes_first_and_hopeless_lots_do_not_come() -> None:
    options = [
        option("dear", price_minor=500),
        option("near", walk_minutes=1),
        option("full", 49),
        option("blind", None),
        option("b"),
        option("a"),
    ]
    assert best(options, 10) == ["near", "a", "b", "dear"]
    assert best(options, 2) == ["near", "a"]


def test_who_cannot_be_among_the_best_is_not_looked_at() -> None:
    near, far = option("near", 990, walk_minutes=1), option("far", walk_minutes=15)
    looked = []

    def look(one: Option) -> Option:
        looked.append(one.lot.id)
        return one

    candidates = [(least_cost_minor(one.price_minor, one.walk_minutes), one) for one in (near, far)]
    assert ranked(candidates, look, 1) == [near]
    assert looked == ["near"]


def best(options: list[Option], count: int) -> list[str]:
    ordered = sorted(
        ((least_cost_minor(one.price_minor, one.walk_minutes), one) for one in options), key=lambda one: one[0]
    )
    return [one.lot.id for one in ranked(ordered, lambda one: one, count)]


def test_reasons_say_what_is_known() -> None:
    assert reasons(option()) == [
        "90 % chance of a free bay at arrival: about 150 of 200 taken",
        "5 minutes on foot",
    ]
    everything = option(
        outlook=Outlook(700, 190, True, True, -12, 40, ("The game", "A fair")),
        state=LotState("a", NINE - 10 * MINUTE, 150, 200, STALE, 30),
        sent=2.6, promised=4, closes=True,
    )  # fmt: skip
    assert reasons(everything)[2:] == [
        "today's count moves the forecast by -12 cars",
        "expected to bring about 40 cars here: The game, A fair",
        "about 3 cars were just sent here and are counted in",
        "4 bays are reserved for then and are counted in",
        "it closes before your stay is over",
        "counted 10 minutes ago",
    ]


def test_reasons_say_what_is_not_known() -> None:
    blind = option(outlook=Outlook(700, 150, forecast=False, counted=True))
    assert reasons(blind)[-1] == "no forecast is known now; this is today's count alone"
    silent = option(outlook=Outlook(700, 150, forecast=True), state=LotState("a", 0, None, 200, UNKNOWN, 0))
    assert reasons(silent)[-1] == "the count is unknown, so the forecast speaks alone"


def test_one_advice_brings_less_than_a_car_and_fades() -> None:
    assert [expected_cars(rank) for rank in range(4)] == [0.5, 0.2, 0.1, 0.0]
    assert still_coming(1.0, 1_800) == 0.5
    assert still_coming(1.0, -5) == 1.0


def test_cars_that_were_sent_are_expected_until_they_arrive() -> None:
    sent, lot = Sent(), a_lot()
    assert sent.until(lot, NINE + HOUR, NINE) == 0
    sent.add(lot, 1.0, NINE + HOUR, NINE)
    sent.add(lot, 1.0, NINE + HOUR, NINE)
    assert sent.until(lot, NINE + HOUR, NINE) == 2
    assert sent.until(lot, NINE + HOUR - 900, NINE) == 0
    assert sent.until(lot, NINE + 2 * HOUR, NINE + 1_800) == 1
    assert sent.until(lot, NINE + 2 * HOUR, NINE + HOUR + 900) == 0
    sent.add(lot, 1.0, NINE + 3 * HOUR, NINE + 2 * HOUR)
    assert list(sent._cars["high-street"]) == [(NINE + 3 * HOUR) // 900]


def test_a_flood_of_questions_does_not_fill_a_lot() -> None:
    sent, lot = Sent(), a_lot()
    for _ in range(1_000):
        sent.add(lot, 0.5, NINE + HOUR, NINE)
    assert sent.until(lot, NINE + HOUR, NINE) == 20
