"""Money of reservations: every outcome of payments, payments away, answers lost, refunds; and the proof of a session."""

from __future__ import annotations

from pathlib import Path

from city.parking.v1 import parking_service_pb2 as pb
from city.payments.v1 import payments_service_pb2 as payments_pb
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.testing.polling import until
from tests.system.metering_city import refusal
from tests.system.parking_city import HOUR, MINUTE, NINE, ParkingCity, parking_city


async def test_what_is_declined_gives_the_bay_back(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        town.payments.mood = "decline"
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        assert (one.state, one.payment_state, one.amount_minor) == ("declined", "declined", 0)
        town.payments.mood = "authorise"
        other = await town.hold("eve", NINE, NINE + HOUR)
        assert (await town.confirm("eve", other.id, mandate="no-such-mandate")).state == "declined"
        assert (await town.hold("eve", NINE, NINE + HOUR)).state == "held"


async def test_an_unknown_outcome_keeps_the_bay_until_payments_tells(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=2)
        town.payments.mood = "unknown"
        one = await town.confirmed("ada", NINE + 2 * HOUR, NINE + 3 * HOUR)
        other = await town.confirmed("bob", NINE + 2 * HOUR, NINE + 3 * HOUR)
        assert (one.state, one.payment_state) == ("confirming", "unknown")
        error = await refusal(town.cancel("ada", one.id))
        assert (error.reason, "that is confirming" in error.message) == ("wrong-state", True)
        town.advance(HOUR)
        error = await refusal(town.hold("eve", NINE + 2 * HOUR, NINE + 3 * HOUR))
        assert error.reason == "lot-full"
        await town.payments.settle(one.payments[0], authorised=True)
        await town.payments.settle(other.payments[0], authorised=False)
        await town.until_state("ada", one.id, "confirmed")
        await town.until_state("bob", other.id, "declined")
        assert (await town.hold("eve", NINE + 2 * HOUR, NINE + 3 * HOUR)).state == "held"


async def test_an_answer_that_never_comes_lets_the_bay_go_and_a_late_one_is_voided(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        town.payments.mood = "unknown"
        one = await town.confirmed("ada", NINE, NINE + 2 * HOUR)
        town.advance(30 * MINUTE + 1)
        assert (await town.until_state("ada", one.id, "expired")).payment_state == "unknown"
        await town.payments.settle(one.payments[0], authorised=True)
        await town.until_paid("ada", one.id, "voided")
        assert (town.payments.captured(), town.payments.held()) == (0, 0)


async def test_payments_away_for_an_hour_and_everything_settles_after(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=3)
        barrier = await town.lock()
        used, cancelled = [await town.confirmed("ada", NINE, NINE + 2 * HOUR) for _ in range(2)]
        town.payments.away = True
        await town.pass_(barrier, "ada", used.id)
        asked = await town.confirmed("bob", NINE + 4 * HOUR, NINE + 5 * HOUR)
        assert (asked.state, asked.payment_state) == ("confirming", "asking")
        extended = await town.extend("ada", used.id, NINE + 3 * HOUR)
        assert extended.to_time.seconds == NINE + 2 * HOUR
        error = await refusal(town.extend("ada", used.id, NINE + 4 * HOUR))
        assert error.reason == "extension-waits"
        await town.cancel("ada", cancelled.id)
        town.advance(HOUR)
        await town.pass_(barrier, "ada", used.id)
        assert (await town.get("ada", used.id)).state == "ended"
        town.payments.away = False
        await town.until_state("bob", asked.id, "confirmed")
        await until(lambda: town.payments.captured() == 240 + 100, "what was owed is captured")
        await town.until_settled_but(asked.id)
        states = sorted(payments_pb.PaymentState.Name(item.state) for item in town.payments.payments.values())
        assert [state.removeprefix("PAYMENT_STATE_") for state in states] == [
            "AUTHORISED", "CAPTURED", "CAPTURED", "VOIDED",
        ]  # fmt: skip


async def test_a_lost_answer_never_acts_twice(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        town.payments.loses_answers = 1
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        await town.until_state("ada", one.id, "confirmed")
        assert len(town.payments.payments) == 1
        town.payments.loses_answers = 1
        await town.cancel("ada", one.id)
        await town.until_paid("ada", one.id, "captured")
        assert town.payments.captured() == 100


async def test_duties_outlive_a_restart(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        town.payments.away = True
        await town.cancel("ada", one.id)
        paid = town.payments
    paid.away = False
    async with parking_city(tmp_path, payments=paid) as town:
        await town.until_paid("ada", one.id, "captured")
        assert paid.captured() == 100


async def test_an_extension_that_is_declined_changes_nothing(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        town.payments.mood = "decline"
        later = await town.extend("ada", one.id, NINE + 2 * HOUR)
        assert (later.to_time.seconds, later.quote_minor, later.payment_state) == (NINE + HOUR, 120, "declined")
        assert (await town.hold("eve", NINE + HOUR, NINE + 2 * HOUR)).state == "held"


async def test_an_extension_past_the_days_cap_costs_nothing_more(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1, cap_minor_per_day=60)
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        later = await town.extend("ada", one.id, NINE + 2 * HOUR)
        assert (later.to_time.seconds, later.quote_minor, len(later.payments)) == (NINE + 2 * HOUR, 60, 1)


async def ended(town: ParkingCity, extended: bool = False) -> pb.Reservation:
    """A session of ada's that is over and paid."""
    barrier = await town.lock()
    one = await town.confirmed("ada", NINE, NINE + HOUR)
    if extended:
        await town.extend("ada", one.id, NINE + 2 * HOUR)
    await town.pass_(barrier, "ada", one.id)
    town.advance(3 * HOUR)
    await town.pass_(barrier, "ada", one.id)
    await until(lambda: not town.payments.held(), "everything is captured or let go")
    return await town.get("ada", one.id)


async def test_refunds_go_back_from_the_newest_payment_on(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await ended(town, extended=True)
        assert one.amount_minor == 240 + 2 * 150
        desk = town.stub("billing-1")
        refund = pb.RefundSessionRequest(
            request_id="refund", reservation=one.id, amount_minor=500, reason="the barrier stood open"
        )
        answers = [(await desk.RefundSession(refund)).reservation.amount_minor for _ in range(2)]
        assert answers == [40, 40]
        await until(lambda: town.payments.captured() == 40, "the money is back")
        for amount, reason, field in (
            (-1, "why", "amount_minor"),
            (41, "why", "amount_minor"),
            (10**18, "why", "amount_minor"),
            (1, "", "reason"),
        ):
            request = pb.RefundSessionRequest(
                request_id=town.request_id(), reservation=one.id, amount_minor=amount, reason=reason
            )
            error = await refusal(desk.RefundSession(request))
            assert (type(error), error.field) == (InvalidArgument, field), error.message
        held = await town.hold("ada", town.now() + HOUR // 4 * 4, town.now() + 2 * HOUR)
        for id_, kind in ((held.id, FailedPrecondition), ("reservation-none", NotFound)):
            request = pb.RefundSessionRequest(
                request_id=town.request_id(), reservation=id_, amount_minor=1, reason="why"
            )
            assert isinstance(await refusal(desk.RefundSession(request)), kind)


async def test_there_is_no_proof_before_everything_is_paid_and_anchored(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        one = await town.confirmed("ada", NINE, NINE + HOUR)
        error = await refusal(town.stub("ada").GetSessionBundle(pb.GetSessionBundleRequest(reservation=one.id)))
        assert (type(error), error.reason) == (FailedPrecondition, "not-provable")
        town.payments.away = True
        await town.cancel("ada", one.id)
        error = await refusal(town.stub("ada").GetSessionBundle(pb.GetSessionBundleRequest(reservation=one.id)))
        assert "payments are not settled" in error.message
        town.payments.away = False
        report = await town.verified(await town.bundle("ada", one.id))
        assert report.ok, report
