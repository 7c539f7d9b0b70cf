"""Reservations over gRPC: hold, confirm, extend, cancel, use; what is refused, and what happens by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from city.parking.v1 import parking_service_pb2 as pb
from citykit.errors import (
    CityError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    RequestReused,
    ResourceExhausted,
)
from citykit.package import ENTRY, EXIT, NO_PREVIOUS, Reading, package_hash, parse_package, sign_package
from simulation.device import device_signer
from tests.system.metering_city import refusal
from tests.system.parking_city import HOUR, LOCK, LOT, MINUTE, NINE, number_of, parking_city
from tests.unit.parking.tariffs import band, free_tariff


async def test_a_bay_is_held_confirmed_used_and_paid(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        barrier = await town.lock()
        held = await town.hold("ada", NINE + HOUR, NINE + 3 * HOUR, plate="ab12 cde")
        assert (held.state, held.bay, held.quote_minor, held.currency) == ("held", "bay-1", 240, "GBP")
        assert held.hold_until.seconds == NINE + 10 * MINUTE
        found = await town.confirm("ada", held.id)
        assert (found.state, found.payment_state, list(found.payments)) == ("confirmed", "authorised", ["payment-1"])
        assert town.payments.payments["payment-1"].authorised_minor == 240 + 8 * 150
        town.advance(HOUR - 5 * MINUTE)
        await town.pass_(barrier, "ada", held.id)
        active = await town.get("ada", held.id)
        assert (active.state, active.entry_time.seconds) == ("active", NINE + 55 * MINUTE)
        town.advance(2 * HOUR + 35 * MINUTE)
        await town.pass_(barrier, "ada", held.id)
        ended = await town.get("ada", held.id)
        assert (ended.state, ended.exit_time.seconds, ended.amount_minor) == ("ended", NINE + 210 * MINUTE, 240 + 150)
        await town.until_paid("ada", held.id, "captured")
        assert (town.payments.captured(), town.payments.held()) == (390, 0)
        books = await town.books()
        assert (books.reservations, books.double_bookings, books.sessions) == (1, 0, 1)
        assert dict(books.by_state) == {"ended": 1}


async def test_what_is_refused_and_why(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        cases: list[tuple[dict[str, Any], type[CityError], str, str]] = [
            ({"lot": "no-such-lot"}, NotFound, "lot", "ListLots names them"),
            ({"from_time": NINE + 1}, InvalidArgument, "from_time", "whole quarters"),
            ({"to_time": NINE - HOUR}, InvalidArgument, "to_time", "a quarter of an hour to a day"),
            ({"from_time": NINE - HOUR}, InvalidArgument, "from_time", "within 30 days"),
            ({"plate": "x" * 21}, InvalidArgument, "plate", "at most 20"),
        ]
        for changes, kind, where, said in cases:
            error = await refusal(town.hold("ada", **{"from_time": NINE, "to_time": NINE + HOUR, **changes}))
            assert isinstance(error, kind)
            assert (error.field, said in error.message) == (where, True), error.message
        held = await town.hold("ada", NINE, NINE + HOUR)
        error = await refusal(town.hold("eve", NINE, NINE + HOUR))
        assert isinstance(error, FailedPrecondition)
        assert (error.reason, "choose another time" in error.message) == ("lot-full", True)
        assert isinstance(await refusal(town.confirm("eve", held.id)), NotFound)
        assert isinstance(await refusal(town.get("eve", held.id)), NotFound)
        error = await refusal(town.confirm("ada", held.id, mandate=""))
        assert (error.field, "give a mandate" in error.message) == ("mandate", True)
        error = await refusal(town.document("ada", held.id))
        assert (error.reason, "that is held" in error.message) == ("wrong-state", True)


async def test_a_lot_that_is_closed_has_no_lock_or_no_tariff_takes_no_reservation(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot()
        base: dict[str, Any] = {
            "name": "Lot",
            "operator": "city",
            "capacity": 10,
            "tariff": "bays",
            "bays": ["b"],
            "lock": "lock-x",
        }
        day = [pb.OpenHours(weekday=n, from_minute=480, to_minute=1_080) for n in range(7)]
        lots = [
            pb.Lot(**{**base, "id": "by-day", "open_hours": day}),
            pb.Lot(**{**base, "id": "no-lock", "lock": ""}),
            pb.Lot(**{**base, "id": "no-tariff", "tariff": "nothing", "lock": "lock-y"}),
        ]
        await town.stub().RegisterLots(pb.RegisterLotsRequest(request_id="lots", lots=lots))
        for lot, reason, to_time in (
            ("by-day", "lot-closed", NINE + 10 * HOUR),
            ("no-lock", "not-reservable", NINE + 9 * HOUR),
            ("no-tariff", "no-tariff", NINE + 9 * HOUR),
        ):
            error = await refusal(town.hold("ada", NINE + 8 * HOUR, to_time, lot=lot))
            assert (type(error), error.reason) == (FailedPrecondition, reason)
        error = await refusal(town.hold("ada", NINE + 9 * HOUR, NINE + 10 * HOUR, lot="by-day"))
        assert "Tuesday at 18:00" in error.message
        assert (await town.hold("ada", NINE + 8 * HOUR, NINE + 9 * HOUR, lot="by-day")).state == "held"


async def test_a_retry_gets_the_same_bay_also_when_the_lot_is_full(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        asked = [town.hold("ada", NINE, NINE + HOUR, request_id="mine") for _ in range(5)]
        found = {one.id for one in await asyncio.gather(*asked)}
        assert len(found) == 1
        town.advance(HOUR)
        again = await town.hold("ada", NINE, NINE + HOUR, request_id="mine")
        assert again.id in found
        error = await refusal(town.hold("ada", NINE + HOUR, NINE + 2 * HOUR, request_id="mine"))
        assert (type(error), error.reason) == (InvalidArgument, RequestReused.default_reason)


async def test_many_at_once_get_each_bay_once(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=20)
        people = [f"person-{n}" for n in range(60)]
        asked = [town.hold(who, NINE, NINE + HOUR) for who in people]
        found = await asyncio.gather(*asked, return_exceptions=True)
        bays = [one.bay for one in found if isinstance(one, pb.Reservation)]
        assert (len(bays), len(set(bays))) == (20, 20)
        assert (await town.books()).double_bookings == 0


async def test_holds_end_by_city_time_and_give_the_bay_to_who_asks_next(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        held = await town.hold("ada", NINE, NINE + HOUR)
        town.advance(10 * MINUTE + 1)
        taken = await town.hold("eve", NINE, NINE + HOUR)
        assert taken.bay == held.bay
        assert (await town.get("ada", held.id)).state == "expired"
        error = await refusal(town.confirm("ada", held.id))
        assert (error.reason, "expired" in error.message) == ("wrong-state", True)
        town.advance(10 * MINUTE + 1)
        await town.until_state("eve", taken.id, "expired")


async def test_one_person_holds_five_bays_at_most(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=8)
        held = [await town.hold("ada", NINE, NINE + HOUR) for _ in range(5)]
        error = await refusal(town.hold("ada", NINE, NINE + HOUR))
        assert (type(error), error.reason) == (ResourceExhausted, "too-many-holds")
        await town.confirm("ada", held[0].id)
        assert (await town.hold("ada", NINE, NINE + HOUR)).state == "held"


async def test_extending_takes_the_same_bay_unless_somebody_has_it(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        next_ = await town.hold("eve", NINE + 2 * HOUR, NINE + 3 * HOUR)
        error = await refusal(town.extend("ada", one.id, NINE + 150 * MINUTE))
        assert (type(error), error.reason) == (FailedPrecondition, "bay-taken")
        later = await town.extend("ada", one.id, NINE + 2 * HOUR)
        assert (later.to_time.seconds, later.quote_minor, len(later.payments)) == (NINE + 2 * HOUR, 240, 2)
        references = [payment.reference for payment in town.payments.payments.values()]
        assert references == [f"reservation/{one.id}", f"reservation/{one.id}/1"]
        await town.cancel("eve", next_.id)
        longer = await town.extend("ada", one.id, NINE + 150 * MINUTE)
        assert longer.quote_minor == 300
        error = await refusal(town.extend("ada", one.id, NINE + HOUR))
        assert (error.field, type(error)) == ("to_time", InvalidArgument)


async def test_cancelling_is_free_early_enough_and_costs_the_fee_later(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=3)
        held, early, late = [await town.hold("ada", NINE + 2 * HOUR, NINE + 4 * HOUR) for _ in range(3)]
        assert (await town.cancel("ada", held.id)).amount_minor == 0
        for one in (early, late):
            await town.confirm("ada", one.id)
        assert (await town.cancel("ada", early.id)).amount_minor == 0
        town.advance(HOUR + 1)
        assert (await town.cancel("ada", late.id)).amount_minor == 100
        await town.until_paid("ada", early.id, "voided")
        await town.until_paid("ada", late.id, "captured")
        assert (town.payments.captured(), town.payments.held()) == (100, 0)
        found = await town.stub("ada").ListReservations(pb.ListReservationsRequest(page_size=2))
        assert [one.state for one in found.reservations] == ["cancelled"] * 2
        more = await town.stub("ada").ListReservations(
            pb.ListReservationsRequest(page_size=2, page_token=found.next_page_token)
        )
        assert len(more.reservations) == 1
        for request in (pb.ListReservationsRequest(page_size=-1), pb.ListReservationsRequest(page_token="x")):
            assert isinstance(await refusal(town.stub("ada").ListReservations(request)), InvalidArgument)


async def test_who_does_not_come_pays_the_fee(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + 4 * HOUR)
        town.advance(4 * HOUR + 10 * MINUTE + 1)
        missed = await town.until_state("ada", one.id, "no-show")
        assert missed.amount_minor == 200
        await town.until_paid("ada", one.id, "captured")
        assert town.payments.captured() == 200


async def test_a_lock_that_was_offline_for_a_day_still_tells_of_the_session(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        barrier = await town.lock()
        one = await town.confirmed("ada", NINE, NINE + 2 * HOUR)
        entry = await town.document("ada", one.id)
        assert barrier.decide(entry, town.now() + 60).opens
        leaving = await town.document("ada", one.id, act="exit")
        assert barrier.decide(leaving, town.now() + 600).opens
        town.advance(23 * HOUR)
        again = await town.document_refused("ada", one.id)
        assert "the reserved time is over" in again.message
        results = await town.send(barrier)
        assert [result.outcome for result in results] == [pb.PackageResult.OUTCOME_ACCEPTED] * 2
        ended = await town.get("ada", one.id)
        assert (ended.state, ended.exit_time.seconds, ended.amount_minor) == ("ended", NINE + 600, 240)


async def test_a_lock_that_stays_silent_for_longer_means_that_nobody_came(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + 2 * HOUR)
        await town.document("ada", one.id)
        town.advance(20 * HOUR)
        assert (await town.get("ada", one.id)).state == "confirmed"
        town.advance(10 * HOUR)
        await town.until_state("ada", one.id, "no-show")


async def test_an_early_exit_frees_the_rest_of_the_span(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        barrier = await town.lock()
        one = await town.confirmed("ada", NINE, NINE + 4 * HOUR)
        await town.pass_(barrier, "ada", one.id)
        town.advance(20 * MINUTE)
        await town.pass_(barrier, "ada", one.id)
        next_ = await town.hold("eve", NINE + 30 * MINUTE, NINE + 4 * HOUR)
        assert next_.state == "held"
        assert (await town.books()).double_bookings == 0


async def test_a_lock_is_not_told_to_open_before_the_entry_would_count(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        barrier = await town.lock()
        one = await town.confirmed("ada", NINE + HOUR, NINE + 2 * HOUR)
        error = await refusal(town.stub("ada").Unlock(pb.UnlockRequest(request_id="early", reservation=one.id)))
        assert (error.reason, "minutes" in error.message) == ("too-early", True)
        assert await town.instructions(barrier) == []


async def test_unlocking_from_afar(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        barrier = await town.lock()
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        request = pb.UnlockRequest(request_id="unlock", reservation=one.id)
        answers = [await town.stub("ada").Unlock(request) for _ in range(2)]
        assert answers[0] == answers[1]
        found = await town.instructions(barrier)
        assert found == [answers[0].instruction]
        assert barrier.obey(found[0], town.now(), "entry").opens
        await town.send(barrier)
        assert (await town.get("ada", one.id)).state == "active"
        second = await town.stub("ada").Unlock(pb.UnlockRequest(request_id="unlock-2", reservation=one.id))
        assert parse_package(second.instruction).previous == parse_package(found[0]).hash
        assert await town.instructions(barrier) == [second.instruction]
        error = await refusal(
            town.stub("ada").Unlock(pb.UnlockRequest(request_id="unlock-3", reservation=one.id, act="entry"))
        )
        assert (error.field, "the car is in" in error.message) == ("act", True)


async def test_a_number_that_is_foreign_or_out_of_time_begins_no_session(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE + 2 * HOUR, NINE + 3 * HOUR)
        number = number_of(await town.document("ada", one.id))
        told = ((number, ENTRY, NINE), (number, EXIT, NINE + 130 * MINUTE), (99, ENTRY, NINE + 140 * MINUTE))
        packages, previous = [], NO_PREVIOUS
        for sequence, (said, measure, time) in enumerate(told, 1):
            signer, readings = device_signer(7, LOCK), [Reading(time, said)]
            packages.append(sign_package(signer, LOCK, sequence, previous, readings, measure))
            previous = package_hash(packages[-1])
        town.advance(3 * HOUR)
        results = await town.ingest(packages)
        assert [result.outcome for result in results] == [pb.PackageResult.OUTCOME_ACCEPTED] * 3
        assert (await town.get("ada", one.id)).state == "confirmed"


async def test_permits_leave_a_share_of_the_price(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=4, overstay_minor_per_step=0)
        span: dict[str, Any] = {"from_time": Timestamp(seconds=NINE), "to_time": Timestamp(seconds=NINE + HOUR)}
        for subject, lots, share in (
            ("ada", [LOT], 2_500),
            ("ada", [], 5_000),
            ("bob", ["elsewhere"], 0),
            ("eve", [], 0),
        ):
            request = pb.GrantPermitRequest(
                request_id=town.request_id(), subject=subject, lots=lots, price_basis_points=share, **span
            )
            first = await town.stub().GrantPermit(request)
            assert await town.stub().GrantPermit(request) == first
        quotes = {who: await town.hold(who, NINE, NINE + HOUR) for who in ("ada", "bob", "eve")}
        assert {who: one.quote_minor for who, one in quotes.items()} == {"ada": 30, "bob": 120, "eve": 0}
        assert (await town.confirm("eve", quotes["eve"].id, mandate="")).state == "confirmed"
        assert town.payments.payments == {}
        assert (await town.hold("ada", NINE + HOUR, NINE + 2 * HOUR)).quote_minor == 120
        for changes in (
            {"subject": ""},
            {"lots": ["A lot"]},
            {"to_time": span["from_time"]},
            {"price_basis_points": 10_001},
        ):
            request = pb.GrantPermitRequest(
                **dict[str, Any](request_id=town.request_id(), subject="ada", price_basis_points=1) | span | changes
            )
            assert (await refusal(town.stub().GrantPermit(request))).field == next(iter(changes))


async def test_a_tariff_with_a_hole_names_the_minute(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        error = await refusal(town.open_lot(bands=[band("day", 60, 0, 450), band("late", 20, 451, 1_440)]))
        assert (error.field, "Monday 07:30 is in no band" in error.message) == ("tariff_json", True)
        for text in ("{", "[]", "{}"):
            error = await refusal(
                town.stub().PublishTariff(pb.PublishTariffRequest(request_id=town.request_id(), tariff_json=text))
            )
            assert isinstance(error, InvalidArgument)
        error = await refusal(town.open_lot(zone="Europe/Nowhere"))
        assert error.field == "zone"


async def test_the_newest_version_in_force_prices(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=2)
        await town.open_lot(bays=2, version=2, valid_from="2016-11-09", bands=[band("all", 100, 0, 1_440)])
        assert (await town.hold("ada", NINE, NINE + HOUR)).quote_minor == 120
        assert (await town.hold("ada", NINE + 24 * HOUR, NINE + 25 * HOUR)).quote_minor == 200


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=2, **free_tariff())
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        other = await town.hold("eve", NINE, NINE + HOUR, request_id="eves")
    async with parking_city(tmp_path) as town:
        town.numbers = 100
        assert isinstance(await refusal(town.hold("bob", NINE, NINE + HOUR)), FailedPrecondition)
        assert (await town.get("ada", one.id)).state == "confirmed"
        assert (await town.hold("eve", NINE, NINE + HOUR, request_id="eves")).id == other.id
        assert (await town.extend("ada", one.id, NINE + 2 * HOUR)).to_time.seconds == NINE + 2 * HOUR


async def test_erasure_takes_the_person_out_and_ends_what_is_open(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=2)
        held = await town.hold("ada", NINE, NINE + HOUR, plate="AB12CDE")
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        await town.erase("ada")
        for id_ in (held.id, one.id):
            assert isinstance(await refusal(town.get("ada", id_)), NotFound)
        assert dict((await town.books()).by_state) == {"cancelled": 2}
        assert [(await town.hold(who, NINE, NINE + HOUR)).state for who in ("bob", "eve")] == ["held"] * 2
        await town.until_settled()
        assert (town.payments.captured(), town.payments.held()) == (100, 0)


async def test_nobody_reaches_anothers_reservation(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        for rpc in ("Confirm", "Extend", "Cancel", "IssueAccess", "Unlock", "GetReservation", "GetSessionBundle"):
            kind = getattr(pb, f"{rpc}Request")
            named = {"request_id": rpc} if "request_id" in kind.DESCRIPTOR.fields_by_name else {}
            error = await refusal(getattr(town.stub("eve"), rpc)(kind(reservation=one.id, **named)))
            assert (type(error), error.field) == (NotFound, "reservation")
