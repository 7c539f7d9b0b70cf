"""The edge of forecasting: protobuf in, use case, protobuf out. Access rules stand in the proto."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from city.forecasting.v1 import forecasting_service_pb2 as pb
from city.forecasting.v1.forecasting_service_pb2_grpc import ForecastingServiceServicer
from citykit import canonical
from citykit.access import caller
from citykit.errors import InvalidArgument
from citykit.once import Once
from services.forecasting.app.book import Book
from services.forecasting.app.forecasts import Forecaster, SeriesForecast, require_seen
from services.forecasting.app.observing import Observing
from services.forecasting.app.snapshot import NOTHING
from services.forecasting.app.training import Training
from services.forecasting.domain.groups import GROUPS, may_see
from services.forecasting.domain.words import explained
from services.forecasting.store.models import ModelRow
from services.forecasting.store.observations import Chunk

MILLI = 1_000
PAGE_MAX = 1_000


class ForecastingServer(ForecastingServiceServicer):
    """One method per RPC of `city.forecasting.v1.ForecastingService`."""

    def __init__(self, book: Book, observing: Observing, forecaster: Forecaster, training: Training) -> None:
        self._book = book
        self._observing = observing
        self._forecaster = forecaster
        self._training = training

    async def Forecast(self, request: pb.ForecastRequest, context: Any) -> AsyncIterator[pb.ForecastResponse]:
        async for found in self._forecaster.forecast(list(request.series), request.horizon):
            yield _forecast(found)

    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        found, model = await self._forecaster.explain(request.series, request.time.seconds)
        causes = [(name, _milli(effect)) for name, effect in found.causes]
        profile, value = _milli(found.profile), _milli(found.value)
        return pb.ExplainResponse(
            series=request.series,
            time=request.time,
            profile_milli=profile,
            value_milli=value,
            causes=[pb.Cause(input=name, effect_milli=effect) for name, effect in causes],
            words=explained(profile, value, causes),
            model=model,
        )

    async def ListSeries(self, request: pb.ListSeriesRequest, context: Any) -> pb.ListSeriesResponse:
        limit = request.page_size or PAGE_MAX
        if not 0 < limit <= PAGE_MAX:
            raise InvalidArgument(f"page_size is 1 to {PAGE_MAX}", field="page_size")
        who = caller().subject
        names = [
            name for group in GROUPS.values() if may_see(group, who) for name in self._book.names(f"{group.name}/")
        ]
        later = [name for name in sorted(names) if name > request.page_token]
        page = later[:limit]
        return pb.ListSeriesResponse(
            series=[self._state(name) for name in page], next_page_token=page[-1] if len(later) > limit else ""
        )

    def _state(self, name: str) -> pb.SeriesState:
        last = Timestamp(seconds=self._book.last_time[name])
        return pb.SeriesState(series=name, observations=self._book.count(name), last_time=last)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=map(_model, await self._training.every()))

    async def AddObservations(self, request: pb.AddObservationsRequest, context: Any) -> pb.AddObservationsResponse:
        require_seen(request.series)
        rows = tuple((o.time.seconds, o.value_milli, o.capacity_milli) for o in request.observations)
        chunk = Chunk(request.series, rows)
        return await self._observing.add(Once.of(request, pb.AddObservationsResponse), chunk)

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        require_seen(request.series)
        if request.to_time.seconds <= request.from_time.seconds:
            raise InvalidArgument("from_time lies before to_time", field="to_time")
        once = Once.of(request, pb.ForgetResponse)
        return await self._observing.forget(once, request.series, request.from_time.seconds, request.to_time.seconds)

    async def Train(self, request: pb.TrainRequest, context: Any) -> pb.TrainResponse:
        once = Once.of(request, pb.TrainResponse)
        before = await once.asked(self._training.store)
        if before is not None:
            return before
        answer = pb.TrainResponse(model=(await self._training.train(request.group)).id)
        return await self._training.store.write(lambda unit: once.keep(unit, answer))


def _forecast(found: SeriesForecast) -> pb.ForecastResponse:
    there = found.open()
    shown = {time for time, _ in there}
    return pb.ForecastResponse(
        series=found.series,
        points=[_point(found, time, at) for time, at in there],
        reason=found.reason,
        origin_time=Timestamp(seconds=found.origin),
        model=found.model,
        shares=found.shares,
        closed_times=[Timestamp(seconds=time) for time in found.times if time not in shown],
    )


def _point(found: SeriesForecast, time: int, at: int) -> pb.Point:
    bands = [
        pb.Band(level=level, low_milli=low[at], high_milli=high[at])
        for level, (low, high) in found.bands.items()
        if high[at] != NOTHING
    ]
    return pb.Point(time=Timestamp(seconds=time), value_milli=found.values[at], bands=bands)


def _model(row: ModelRow) -> pb.Model:
    card = canonical.decode(row.card)
    data = card["data"]
    return pb.Model(
        id=row.id,
        version=card["version"],
        trained_at=Timestamp(seconds=row.trained_at),
        group=row.group,
        data_log=data["log"],
        data_size=data["size"],
        data_root=bytes.fromhex(data["root"]),
        series=card["series"],
        origins=card["origins"],
        mase_micro=card["mase_micro"],
        coverage_micro={int(level): inside for level, inside in card["coverage_micro"].items()},
        parameters_hash=bytes.fromhex(card["parameters"]),
    )


def _milli(value: float) -> int:
    return round(value * MILLI)
