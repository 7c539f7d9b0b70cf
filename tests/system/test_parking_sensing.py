"""Sensors over gRPC: durable and in the log, shown, published; what is refused says why."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import grpc

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.parking.v1 import parking_service_pb2 as pb
from tests.system.parking_lots import LotsCity, lot_message, lots_city, refusal
from tests.unit.parking.datex_model import faults
from tests.unit.parking.sensing import NINE

ACCEPTED, DUPLICATE = pb.PackageResult.OUTCOME_ACCEPTED, pb.PackageResult.OUTCOME_DUPLICATE


async def log_size(found: LotsCity, log: str) -> tuple[int, int]:
    heads = await NotaryServiceStub(found.city.process.anonymous()).ListLogs(notary.ListLogsRequest())
    return next((head.size, head.anchored_size) for head in heads.heads if head.log == log)


async def test_counts_are_shown_anchored_and_survive_a_restart(tmp_path: Path) -> None:
    async with lots_city(tmp_path, with_forecasts=False) as found:
        await found.register(lot_message(bays=["bay-1"], lock="lock-1"), lot_message("b"))
        raws = [found.sensors["s-high-street"].package((NINE - 60 + n, 80 + n)) for n in range(3)]
        assert [item.outcome for item in await found.send(*raws, raws[0])] == [ACCEPTED] * 3 + [DUPLICATE]
        view = await found.view("high-street")
        assert (view.state.quality, view.state.occupied, view.state.time.seconds) == ("counted", 82, NINE - 58)
        assert (view.reservable_free, list(view.expected), view.model) == (1, [], "")
        assert [(hours.weekday, hours.to_minute) for hours in view.lot.open_hours] == [(n, 1_440) for n in range(7)]
        assert (await found.view("b")).state.quality == "unknown"
        heads = await found.anyone().ListChainHeads(pb.ListChainHeadsRequest(devices=["s-high-street", "s-b"]))
        assert [(head.device, head.sequence) for head in heads.heads] == [("s-high-street", 3)]
        await found.city.settle()
        assert await log_size(found, "parking.states") == (3, 3)
    async with lots_city(tmp_path, with_forecasts=False) as again:
        assert (await again.view("high-street")).state.occupied == 82
        again.advance(5_400)
        silent = (await again.view("high-street")).state
        assert (silent.quality, silent.occupied, silent.confidence_pct) == ("unknown", 0, 0)


async def test_lots_come_in_pages_and_bad_ones_are_named(tmp_path: Path) -> None:
    async with lots_city(tmp_path, with_forecasts=False) as found:
        await found.register(*(lot_message(f"lot-{n}") for n in range(5)))
        first = await found.anyone().ListLots(pb.ListLotsRequest(page_size=3))
        rest = await found.anyone().ListLots(pb.ListLotsRequest(page_size=3, page_token=first.next_page_token))
        assert [view.lot.id for view in (*first.lots, *rest.lots)] == [f"lot-{n}" for n in range(5)]
        assert (first.next_page_token, rest.next_page_token) == ("lot-2", "")
        hours = [pb.OpenHours(weekday=1, from_minute=600, to_minute=600)]
        watched = [pb.BaySensor(device="b-1", bay="bay-1"), pb.BaySensor(device="b-2", bay="bay-1")]
        for bad, field in (
            (lot_message("x", open_hours=hours), "open_hours"),
            (lot_message("x", bay_sensors=watched), "bay_sensors"),
            (lot_message("x", capacity=0), "capacity"),
            (lot_message("x", sensors=["s-lot-1"]), "lot-1"),
        ):
            error = await refusal(found.register(bad))
            assert (error.code(), field in (error.details() or "")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        for call in (
            found.anyone().ListLots(pb.ListLotsRequest(page_size=501)),
            found.anyone().ListChainHeads(pb.ListChainHeadsRequest(devices=["x"] * 1_001)),
            found.anyone().GetPublication(pb.GetPublicationRequest(format="csv")),
        ):
            assert (await refusal(call)).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_publications_over_grpc(tmp_path: Path) -> None:
    async with lots_city(tmp_path, with_forecasts=False) as found:
        await found.register(lot_message(), lot_message("b"))
        await found.count("s-high-street", 150)

        async def get(format_: str) -> bytes:
            answer = await found.anyone().GetPublication(pb.GetPublicationRequest(format=format_))
            return bytes(answer.content)

        assert [faults(await get(name)) for name in ("datex-table", "datex-status")] == [[], []]
        words = {"prk": "http://datex2.eu/schema/3/parking"}
        said = ElementTree.fromstring(await get("datex-status")).findall(".//prk:status", words)
        assert [item.text for item in said] == ["unknown", "spacesAvailable"]
        free = [entity.get("availableSpotNumber") for entity in json.loads(await get("smart-data-models"))]
        assert free == [None, 50]


async def test_a_bay_s_sensor_is_heard_over_grpc_until_it_falls_silent(tmp_path: Path) -> None:
    watched = [pb.BaySensor(device=f"b-{n}", bay=f"bay-{n}") for n in range(2)]
    async with lots_city(tmp_path, with_forecasts=False) as found:
        await found.register(lot_message(capacity=2, sensors=[], bay_sensors=watched))
        await found.count("b-0", 1)
        await found.count("b-1", 0)
        seen = []
        for seconds in (0, 2_701, 2_700):
            found.advance(seconds)
            state = (await found.view("high-street")).state
            seen.append((state.quality, state.occupied, state.time.seconds))
        assert seen == [("counted", 1, NINE), ("stale", 1, NINE), ("unknown", 0, NINE)]
