"""Advice over gRPC: forecasts, counts, events, promises and those just sent; closed lots; calibration; what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.parking.v1 import parking_service_pb2 as pb
from citykit.testing.polling import until
from tests.system.parking_lots import HALF, LotsCity, lot_message, lots_city, refusal
from tests.unit.parking.sensing import DAY, HOUR, NINE

DAYTIME = [pb.OpenHours(weekday=day, from_minute=480, to_minute=1_080) for day in range(7)]


async def expects(found: LotsCity, cars: int, half: int = 10, lot: str = "high-street") -> None:
    """Forecasting says so, and parking has heard it."""
    found.forecasts.cars[lot] = (cars, half)
    found.advance(HALF)

    async def heard() -> bool:
        view = await found.view(lot)
        return any(one.time.seconds == found.now() // HALF * HALF and one.occupied == cars for one in view.expected)

    await until(heard, f"{lot} is expected to hold {cars}")


async def test_without_forecasting_the_count_speaks_alone_and_says_so(tmp_path: Path) -> None:
    async with lots_city(tmp_path, with_forecasts=False) as found:
        await found.publish_tariff()
        await found.register(lot_message())
        assert await found.advise() == []
        await found.count("s-high-street", 150)
        advice = (await found.advise())[0]
        assert (advice.lot, advice.probability_milli, advice.price_minor, advice.currency) == (
            "high-street",
            995,
            240,
            "GBP",
        )
        assert (advice.walk_minutes, advice.cost_minor, advice.model, advice.reservable) == (0, 243, "", False)
        assert "no forecast is known now; this is today's count alone" in advice.reasons


async def test_forecasts_are_asked_for_once_a_half_hour_and_shown_with_what_came(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        found.forecasts.cars["high-street"] = (150, 10)
        await found.register(lot_message(), lot_message("b"))
        await expects(found, 150)
        await found.count("s-high-street", 160)
        await expects(found, 185)
        view = await found.view("high-street")
        slot = found.now() // HALF * HALF
        shown = {one.time.seconds: (one.low, one.occupied, one.high, one.came) for one in view.expected}
        assert shown[slot - HALF] == (140, 150, 160, 160)
        assert shown[slot] == (175, 185, 195, -1)
        assert len([time for time in shown if time >= slot]) == 16
        assert view.model == "model-1"
        assert list((await found.view("b")).expected) == []
        assert found.forecasts.asked[-1] == ["parking/b", "parking/high-street"]
        advice = (await found.advise())[0]
        assert advice.model == "model-1"
        assert 900 < advice.probability_milli < 995


async def test_an_old_forecast_is_let_go_while_forecasting_is_away(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        await found.register(lot_message())
        await expects(found, 150)
        found.forecasts.away = True
        found.advance(HOUR)
        assert (await found.advise())[0].model == "model-1"
        found.advance(3 * HOUR)
        assert await found.advise() == []
        found.forecasts.away = False
        await expects(found, 150)
        assert (await found.advise())[0].model == "model-1"


async def test_an_event_in_the_calendar_lowers_the_chance_beforehand(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        await found.register(lot_message())
        await expects(found, 120)
        before = (await found.advise(arrival=found.now() + 2 * HOUR))[0]
        event = pb.CityEvent(
            id="game", name="The game", latitude_e7=524_800_000, longitude_e7=-19_000_000, cars=90,
            from_time=Timestamp(seconds=found.now() + 2 * HOUR), to_time=Timestamp(seconds=found.now() + 4 * HOUR),
        )  # fmt: skip
        request = pb.AddCityEventsRequest(request_id="e", events=[event])
        for _ in range(2):
            await found.stub().AddCityEvents(request)
        after = (await found.advise(arrival=found.now() + 2 * HOUR))[0]
        assert after.probability_milli < before.probability_milli - 300
        assert "expected to bring about 90 cars here: The game" in after.reasons


async def test_an_event_nobody_told_of_shows_in_the_count_and_in_the_calibration(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        await found.register(lot_message())
        await expects(found, 120)
        sure = (await found.advise(arrival=found.now()))[0]
        assert sure.probability_milli == 995
        await found.count("s-high-street", 198)
        moved = (await found.advise(arrival=found.now() + HALF))[0]
        assert moved.probability_milli < 650
        assert any(reason.startswith("today's count moves the forecast by +7") for reason in moved.reasons)
        found.advance(60)
        await found.count("s-high-street", 200)
        found.advance(2 * HOUR)
        await until(lambda: scored(found, 1), "the advice is scored")
        answer = await found.anyone().GetCalibration(pb.GetCalibrationRequest())
        assert [(one.from_milli, one.said_milli, one.came_milli) for one in answer.bins] == [(900, 995, 0)]
        assert answer.brier_micro == 990_025


async def scored(found: LotsCity, advices: int) -> bool:
    answer = await found.anyone().GetCalibration(pb.GetCalibrationRequest())
    return bool(answer.advices >= advices)


async def test_calibration_is_published_daily_in_the_log_of_events(tmp_path: Path) -> None:
    async with lots_city(tmp_path, with_forecasts=False) as found:
        await found.publish_tariff()
        await found.register(lot_message())
        await found.count("s-high-street", 150)
        await found.advise(arrival=NINE)
        found.advance(DAY)
        notary_stub: Any = NotaryServiceStub(found.city.process.anonymous())

        async def logged() -> bool:
            heads = await notary_stub.ListLogs(notary.ListLogsRequest())
            return any(head.log == "parking.events" and head.anchored_size == 1 for head in heads.heads)

        await until(logged, "the day's calibration is anchored")


async def test_promised_bays_and_reservable_ones(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        bays = [f"bay-{n}" for n in range(20)]
        await found.register(lot_message(bays=bays, lock="lock-1"))
        await expects(found, 185)
        before = (await found.advise(arrival=found.now() + HOUR))[0]
        assert before.reservable
        start = found.now() // 900 * 900 + 3_600
        token = found.city.token(role="resident", subject="ada", audience="parking")
        channel = found.city.dial("parking", token)
        stub: Any = type(found.stub())(channel)
        for number in range(5):
            await stub.Hold(
                pb.HoldRequest(
                    request_id=f"h-{number}", lot="high-street",
                    from_time=Timestamp(seconds=start), to_time=Timestamp(seconds=start + HOUR),
                )
            )  # fmt: skip
        after = (await found.advise(arrival=start))[0]
        await channel.close(None)
        assert after.probability_milli < before.probability_milli
        assert "5 bays are reserved for then and are counted in" in after.reasons


async def test_a_lot_closed_at_arrival_is_never_advised(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        await found.register(lot_message(open_hours=DAYTIME))
        await expects(found, 120)
        five, six = NINE + 8 * HOUR, NINE + 9 * HOUR
        assert "it closes before your stay is over" in (await found.advise(arrival=five))[0].reasons
        assert (await found.advise(arrival=five, stay_minutes=60))[0].reasons[
            -1
        ] != "it closes before your stay is over"
        assert await found.advise(arrival=six) == []
        assert await found.advise(arrival=six - 1) != []


async def test_hours_are_local_on_the_day_the_clocks_go_back(tmp_path: Path) -> None:
    """In London 2016-10-30 01:30 came twice: 08:00 is 08:00Z that day, 07:00Z the day before."""
    saturday = int(datetime(2016, 10, 29, 20, tzinfo=UTC).timestamp())
    async with lots_city(tmp_path, now=saturday) as found:
        await found.publish_tariff()
        await found.register(lot_message(open_hours=DAYTIME))
        await expects(found, 120)
        seven, eight = (int(datetime(2016, 10, 30, hour, tzinfo=UTC).timestamp()) for hour in (7, 8))
        assert await found.advise(arrival=seven) == []
        assert [one.lot for one in await found.advise(arrival=eight)] == ["high-street"]


async def test_advice_spreads_those_who_ask_over_equal_lots(tmp_path: Path) -> None:
    async with lots_city(tmp_path) as found:
        await found.publish_tariff()
        await found.register(*(lot_message(f"lot-{n}") for n in range(3)))
        for number in range(3):
            found.forecasts.cars[f"lot-{number}"] = (184, 10)
        await expects(found, 184, lot="lot-0")
        first = [(await found.advise(count=1))[0].lot for _ in range(60)]
        assert all(first.count(f"lot-{number}") >= 10 for number in range(3))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"latitude_e7": 900_000_001}, "latitude_e7"),
    ({"longitude_e7": 1_800_000_001}, "latitude_e7"),
    ({"arrival": NINE - 301}, "arrival_time"),
    ({"arrival": NINE + DAY + 1}, "arrival_time"),
    ({"stay_minutes": 0}, "stay_minutes"),
    ({"stay_minutes": 1_441}, "stay_minutes"),
    ({"walk_minutes_max": 61}, "walk_minutes_max"),
    ({"count": 11}, "count"),
]
BAD_EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"id": "The game"}, "id"),
    ({"name": ""}, "id"),
    ({"latitude_e7": -900_000_001}, "degree"),
    ({"to_time": Timestamp(seconds=NINE)}, "from_time"),
    ({"cars": -1}, "cars"),
]


async def test_questions_and_events_that_make_no_sense_name_the_field(tmp_path: Path) -> None:
    async with lots_city(tmp_path, with_forecasts=False) as found:
        for wanted, field in BAD:
            error = await refusal(found.advise(**wanted))
            assert (error.code(), field in (error.details() or "")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert await found.advise(arrival=NINE - 300) == []
        good: dict[str, Any] = {
            "id": "game", "name": "The game", "from_time": Timestamp(seconds=NINE), "to_time": Timestamp(seconds=NINE + HOUR),
        }  # fmt: skip
        for changes, field in BAD_EVENTS:
            error = await refusal(add_events(found, pb.CityEvent(**(good | changes))))
            assert (error.code(), field in (error.details() or "")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        for events in ([], [pb.CityEvent(**good)] * 2, [pb.CityEvent(**good)] * 101):
            assert (await refusal(add_events(found, *events))).code() == grpc.StatusCode.INVALID_ARGUMENT


async def add_events(found: LotsCity, *events: pb.CityEvent) -> None:
    await found.stub().AddCityEvents(pb.AddCityEventsRequest(request_id=found.request_id(), events=events))
