"""Forecasting over real gRPC: observations in, a trained model on the ledger, forecasts with bands, and a computing process that dies."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from city.forecasting.v1 import forecasting_service_pb2 as pb
from city.metering.v1 import events_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.parking.v1 import events_pb2 as parking
from citykit import telemetry
from citykit.bus.events import cloud_event
from citykit.bus.port import Message
from citykit.testing.polling import until
from services.testing import TestCity, embedded_city
from tests.system.forecasting_city import (
    DAY,
    END,
    HOUR_TWICE,
    SERVICES,
    SLOT,
    START,
    WEEK,
    WEEKS,
    add,
    forecasts,
    observations,
    occupied,
    one,
    place_of,
    stub_of,
    train_state,
)
from tests.system.metering_city import device, metering_city

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Trained:
    """A state on disk and the model in it."""

    folder: Path
    model: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    return Trained(folder, asyncio.run(train_state(folder)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> AsyncIterator[TestCity]:
    """A city started on the trained state, as after a restart; each test has series of its own. Group `city` has no model."""
    state = tmp_path_factory.mktemp("state")
    shutil.copytree(trained.folder, state, dirs_exist_ok=True)
    async with embedded_city(state, services=SERVICES, start=END) as running:
        training_of(running)._due = lambda group: False  # what trains, and when, the tests say
        yield running


async def test_a_trained_model_is_on_the_ledger_and_its_bands_hold_what_comes(city: TestCity, trained: Trained) -> None:
    stub = stub_of(city)
    card = await city.ledger.evaluate("models", "get", {"model": trained.model})
    assert isinstance(card, dict)
    assert card["series"] == 3 and card["mase_micro"]["choice"] < 1_000_000
    listed = (await stub.ListModels(pb.ListModelsRequest())).models
    assert [model.id for model in listed] == [trained.model]
    told = telemetry.FORECASTING_COVERAGE.labels("parking")._value.get()
    assert told == pytest.approx(card["coverage_micro"]["80"] / 1_000_000)
    assert telemetry.FORECASTING_TRAINED.labels("parking")._value.get() == END
    assert listed[0].parameters_hash.hex() == card["parameters"]
    found = await forecasts(stub, "parking/lot-0", "parking/lot-2")
    assert [answer.series for answer in found] == ["parking/lot-0", "parking/lot-2"]
    noise = random.Random(99)
    inside = 0
    for step, point in enumerate(found[0].points):
        truth = 1_000 * occupied(0, WEEKS * WEEK + step, noise)
        band = {band.level: band for band in point.bands}
        assert point.time.seconds == END + step * SLOT
        assert band[80].low_milli >= band[95].low_milli and band[80].high_milli <= band[95].high_milli <= 500_000
        inside += band[95].low_milli <= truth <= band[95].high_milli
    assert len(found[0].points) == 48 and inside >= 40
    assert found[0].model == trained.model and sum(found[0].shares.values()) in range(97, 104)


async def test_a_training_is_a_fact_in_the_log(city: TestCity, trained: Trained) -> None:
    head = await NotaryServiceStub(city.process.anonymous()).GetHead(notary.GetHeadRequest(log="forecasting.events"))
    assert head.head.size == 1


async def test_a_forecast_says_what_moved_it(city: TestCity, trained: Trained) -> None:
    noon = Timestamp(seconds=END + 26 * SLOT)
    found = await stub_of(city).Explain(pb.ExplainRequest(series="parking/lot-1", time=noon))
    assert abs(found.profile_milli + sum(cause.effect_milli for cause in found.causes) - found.value_milli) < 50
    assert len(found.causes) > 10, "the inputs of the boosted model are named one by one"
    assert "Usually" in found.words and found.model == trained.model


async def test_a_series_the_model_never_saw_gets_a_forecast_without_bands(city: TestCity) -> None:
    stub = stub_of(city)
    await add(stub, "parking/new", observations(7))
    [found] = await forecasts(stub, "parking/new")
    assert len(found.points) == DAY and not found.points[0].bands


async def test_thousands_of_series_come_in_one_streamed_call_in_the_order_asked_for(city: TestCity) -> None:
    stub = stub_of(city)
    rows = observations(1, weeks=1)
    late = [pb.Observation(time=Timestamp(seconds=o.time.seconds + (WEEKS - 1) * WEEK * SLOT), value_milli=o.value_milli) for o in rows]  # fmt: skip
    for number in range(300):
        await add(stub, f"city/{number}", late)
    names = [f"city/{number % 300}" for number in range(2_000)]
    found = await forecasts(stub, *names, horizon=2)
    assert [answer.series for answer in found] == names
    assert all(len(answer.points) == 2 for answer in found)


async def test_without_a_model_the_simple_ones_answer_and_say_no_bands(city: TestCity) -> None:
    stub = stub_of(city)
    await add(stub, "city/plain", observations(0))
    known, unknown = await forecasts(stub, "city/plain", "city/nowhere", horizon=4)
    assert len(known.points) == 4 and not known.points[0].bands and known.model == ""
    assert unknown.reason == "unknown-series" and not unknown.points


async def test_closed_hours_are_said_as_closed_and_are_never_zero(city: TestCity) -> None:
    """Counted from 08:00 to 16:30 only, like the lots of Birmingham: 18 half hours a day."""
    stub = stub_of(city)
    rows = [one(slot, 300 + 10 * (slot % 2)) for slot in range(WEEKS * WEEK) if 16 <= place_of(slot) <= 33]
    await add(stub, "parking/shut-at-night", rows)
    [found] = await forecasts(stub, "parking/shut-at-night")
    assert [place_of((point.time.seconds - START) // SLOT) for point in found.points] == list(range(16, 34))
    assert len(found.closed_times) == 30
    assert all(point.value_milli > 290_000 for point in found.points)


async def test_gaps_are_no_zeros_either(city: TestCity) -> None:
    stub, dice = stub_of(city), random.Random(3)
    rows = [row for row in observations(0) if dice.random() > 0.3]
    await add(stub, "city/gaps", rows)
    await add(stub, "city/whole", observations(0))
    with_gaps, whole = await forecasts(stub, "city/gaps", "city/whole")
    assert len(with_gaps.points) == len(whole.points) == DAY
    off = [abs(a.value_milli - b.value_milli) for a, b in zip(with_gaps.points, whole.points, strict=True)]
    assert sum(off) / len(off) < 25_000


async def test_a_capacity_that_falls_bounds_what_is_forecast(city: TestCity) -> None:
    stub = stub_of(city)
    await add(stub, "parking/lot-1", [one(WEEKS * WEEK - 1, 40, capacity=150)], "smaller")
    [found] = await forecasts(stub, "parking/lot-1")
    assert max(point.value_milli for point in found.points) == 150_000
    assert max(band.high_milli for point in found.points for band in point.bands) == 150_000


async def test_stuck_silent_and_young_series_say_so_instead_of_a_forecast(city: TestCity) -> None:
    stub = stub_of(city)
    frozen = [row if n < (WEEKS - 1) * WEEK else one(n, 55) for n, row in enumerate(observations(0))]
    await add(stub, "parking/frozen", frozen)
    await add(stub, "parking/gone", observations(1, weeks=WEEKS - 1))
    await add(stub, "parking/young", observations(2)[-3 * DAY :])
    await add(stub, "parking/later", [one(WEEKS * WEEK + 5, 1)])
    found = await forecasts(stub, "parking/frozen", "parking/gone", "parking/young")
    assert [answer.reason for answer in found] == ["stuck", "silent", "too-short"]
    assert [answer.reason for answer in await forecasts(stub, "parking/later")] == ["too-short"]


async def test_new_data_moves_the_forecast_within_the_half_hour(city: TestCity) -> None:
    stub = stub_of(city)
    await add(stub, "city/moved", observations(0))
    [before] = await forecasts(stub, "city/moved")
    [same] = await forecasts(stub, "city/moved")
    await add(stub, "city/moved", [one(WEEKS * WEEK - 1, 400)], "newer")
    [after] = await forecasts(stub, "city/moved")
    assert same == before
    assert after.points[0].value_milli > before.points[0].value_milli


async def test_the_same_observations_again_change_nothing_and_impossible_ones_are_cleaned(city: TestCity) -> None:
    stub = stub_of(city)
    for _ in range(2):
        assert (await add(stub, "city/again", observations(0))).added == WEEKS * WEEK
    bad = [pb.Observation(time=Timestamp(seconds=END), value_milli=-1), one(WEEKS * WEEK, 600), one(WEEKS * WEEK, 5)]
    answer = await add(stub, "city/again", bad, "bad")
    assert (answer.added, answer.cleaned) == (1, 2)
    assert await counted(city, "city/again") == WEEKS * WEEK - HOUR_TWICE + 1


async def counted(city: TestCity, series: str) -> int:
    states = (await stub_of(city).ListSeries(pb.ListSeriesRequest())).series
    return next((state.observations for state in states if state.series == series), 0)


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (pb.AddObservationsRequest(request_id="a", series="nothing", observations=[pb.Observation()]), "group"),
        (pb.AddObservationsRequest(request_id="a", series="parking/x"), "observations"),
        (pb.AddObservationsRequest(series="parking/x", observations=[pb.Observation()]), "request_id"),
    ],
)
async def test_bad_observations_are_refused(city: TestCity, request_: pb.AddObservationsRequest, word: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub_of(city).AddObservations(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and word in (caught.value.details() or "")


async def test_questions_that_cannot_be_answered_say_why(city: TestCity) -> None:
    stub = stub_of(city)
    past, unknown = Timestamp(seconds=START), Timestamp(seconds=END)
    for call, code in (
        (forecasts(stub), grpc.StatusCode.INVALID_ARGUMENT),
        (forecasts(stub, "parking/lot-0", horizon=337), grpc.StatusCode.INVALID_ARGUMENT),
        (stub.Explain(pb.ExplainRequest(series="parking/lot-0", time=past)), grpc.StatusCode.INVALID_ARGUMENT),
        (stub.Explain(pb.ExplainRequest(series="parking/none", time=unknown)), grpc.StatusCode.NOT_FOUND),
        (stub.Train(pb.TrainRequest(request_id="t", group="none")), grpc.StatusCode.INVALID_ARGUMENT),
        (stub.Train(pb.TrainRequest(request_id="u", group="metering")), grpc.StatusCode.FAILED_PRECONDITION),
        (stub.ListSeries(pb.ListSeriesRequest(page_size=-1)), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is code


async def test_series_of_homes_are_for_metering_only(city: TestCity) -> None:
    stub = stub_of(city)
    for call in (forecasts(stub, "metering/mp-001"), add(stub, "metering/mp-001", [one(0, 1)])):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_readings_and_states_come_over_the_bus(city: TestCity) -> None:
    states = parking.StatesObserved(
        lot="mill", times=[START, START + SLOT], occupied=[40, 44], capacity=100, device="s", sequence=1
    )
    home = metering.PackageAccepted(
        device="m", sequence=1, meter_point="mp-1", slot_times=[START, START + SLOT], energy_wh=[5, 9_999],
        quarantined=["", "spike"],
    )  # fmt: skip
    await city.bus.publish([_message("city.parking.states.v1", "mill", states), _message("city.metering.readings.v1", "mp-1", home)])  # fmt: skip
    await city.settle(anchored=False)
    assert await counted(city, "parking/mill") == 2
    page = await stub_of(city).ListSeries(pb.ListSeriesRequest(page_size=1))
    assert len(page.series) == 1 and page.next_page_token == page.series[0].series
    book = city.process.services["forecasting"].subscriptions[0].handler.__self__.book  # type: ignore[attr-defined]
    assert book.count("metering/mp-1") == 1, "what is held in quarantine is not learnt from"


def _message(topic: str, key: str, event: Any) -> Message:
    return cloud_event(topic=topic, key=key, event=event, source="test", id=key, time=START, commitment=bytes(32))


async def test_what_is_forgotten_is_gone_from_memory_and_store(city: TestCity) -> None:
    stub = stub_of(city)
    await add(stub, "city/left", observations(3))
    first_half = pb.ForgetRequest(request_id="forget-1", series="city/left")
    first_half.from_time.seconds, first_half.to_time.seconds = START, START + 2 * WEEK * SLOT
    for _ in range(2):
        assert (await stub.Forget(first_half)).forgotten == 2 * WEEK
    assert await counted(city, "city/left") == 3 * WEEK - HOUR_TWICE
    rest = pb.ForgetRequest(request_id="forget-2", series="city/left")
    rest.from_time.seconds, rest.to_time.seconds = 0, END
    assert (await stub.Forget(rest)).forgotten == 3 * WEEK
    assert await counted(city, "city/left") == 0
    backwards = pb.ForgetRequest(request_id="forget-3", series="city/left", from_time=Timestamp(seconds=9))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Forget(backwards)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        await stub.Forget(pb.ForgetRequest(request_id="f", series="city/none", to_time=Timestamp(seconds=9)))
    ).forgotten == 0


async def test_an_erased_residents_readings_are_forgotten_here_too(tmp_path: Path) -> None:
    async with metering_city(tmp_path, services=("metering", "forecasting", "notary")) as there:
        home = device()
        await there.publish()
        await there.register(home)
        await there.contract(home, "ada")
        await there.month(home, days=3)
        await there.city.settle(anchored=False)
        book = there.city.process.services["forecasting"].subscriptions[0].handler.__self__.book  # type: ignore[attr-defined]
        assert book.count("metering/mp-0001") == 3 * DAY
        await there.erase("ada")
        assert not book.has("metering/mp-0001")


async def test_a_killed_computing_process_is_started_again(city: TestCity) -> None:
    stub = stub_of(city)
    await add(stub, "city/killed", observations(0))
    assert (await forecasts(stub, "city/killed", horizon=2))[0].points
    engine = city.process.services["forecasting"].servicers[0].servicer._forecaster.engine
    before = engine.processes()
    for process in before:
        os.kill(process, signal.SIGKILL)
    assert (await forecasts(stub, "city/killed", horizon=3))[0].points
    await until(lambda: bool(engine.processes()) and not set(engine.processes()) & set(before), "another process")


async def test_killed_while_training_nothing_is_registered_and_the_next_works(tmp_path: Path) -> None:
    """Two weeks of one series: too little for a backtest, so that training is short."""
    async with embedded_city(tmp_path, services=SERVICES, start=START + 2 * WEEK * SLOT) as city:
        stub = stub_of(city)
        await add(stub, "city/short", observations(0, weeks=2))
        training = training_of(city)
        asked = asyncio.ensure_future(_train(stub, "once"))
        await until(lambda: bool(training.engine.processes()), "a training process")
        for process in training.engine.processes():
            os.kill(process, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asked
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await _models(stub) == []
        model = await _train(stub, "once")
        assert await _models(stub) == [model]
        assert await _train(stub, "once") == model, "the same request trains once"
        assert not training.engine.processes(), "the training process ends with its work"
        [found] = await forecasts(stub, "city/short")
        assert (found.model, len(found.points)) == (model, DAY) and not found.points[0].bands


async def _train(stub: Any, request_id: str) -> str:
    return str((await stub.Train(pb.TrainRequest(request_id=request_id, group="city"))).model)


async def _models(stub: Any) -> list[str]:
    return [model.id for model in (await stub.ListModels(pb.ListModelsRequest())).models]


def training_of(city: TestCity) -> Any:
    return city.process.services["forecasting"].jobs[0].run.__self__  # type: ignore[attr-defined]


async def test_parameters_that_are_damaged_are_not_used(tmp_path: Path, trained: Trained) -> None:
    state = tmp_path / "state"
    shutil.copytree(trained.folder, state)
    [file] = state.rglob("*.model")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    (file.parent / "left-by-a-killed-training.part").write_bytes(b"")
    async with embedded_city(state, services=SERVICES, start=END) as city:
        assert training_of(city).newest == {}
        assert [path.name for path in file.parent.iterdir()] == [file.name]
