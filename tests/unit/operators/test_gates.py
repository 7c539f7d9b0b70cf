"""What lets a step pass: enough good samples, invariants looked at since it began; and what no answer, NaN and nonsense come to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from city.operations.v1 import operations_service_pb2 as pb
from operators.city.asking import Said, Services, said
from operators.city.conditions import met
from operators.city.gates import INVARIANTS_S, NO_PROMETHEUS, Gates
from operators.city.model import Analysis, CitySpec, Rollout, ServiceSpec, Target, Verdict
from operators.city.prometheus import Answer, Prometheus, judged

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ROLLOUT = Rollout(
    "g1", 1, NOW, (ServiceSpec(Target("metering", "1.1", "m")),), "1.1", service="metering", weight=25, since=NOW
)
ERRORS = Analysis("errors", 'rate(failed{service="${service}"}[1m])', "result <= 0.01", "result > 0.1", 10.0, 3, 60.0)
SPEC = CitySpec("1.1", ROLLOUT.goal, analyses=(ERRORS,), prometheus_url="http://p:9090/", invariants=False)


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Services that say what the test says."""

    def __init__(self) -> None:
        self.answers = [Said("metering", held=("a", "b"))]
        self.frozen: dict[str, str] = {}
        self.asked = 0

    async def invariants(self, services: Iterable[str], since: datetime) -> list[Said]:
        return self.answers

    async def freezes(self, services: Iterable[str]) -> dict[str, str]:
        self.asked += 1
        return self.frozen


def vector(*values: float) -> httpx.Response:
    result = [{"metric": {}, "value": [0, str(value)]} for value in values]
    return httpx.Response(200, json={"status": "success", "data": {"resultType": "vector", "result": result}})


class Server:
    """Prometheus as far as a gate goes."""

    def __init__(self) -> None:
        self.reply: Callable[[], httpx.Response] = lambda: vector(0.0)
        self.queries: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.queries.append(dict(httpx.QueryParams(request.content.decode()))["query"])
        return self.reply()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def watch() -> Watch:
    return Watch()


def gates_of(server: Server, watch: Watch, told: Told | None = None) -> Gates:
    services = cast(Services, told) if told else None
    return Gates(services, httpx.AsyncClient(transport=httpx.MockTransport(server)), watch)


async def verdict(gates: Gates, spec: CitySpec = SPEC, rollout: Rollout = ROLLOUT) -> tuple[Verdict, str]:
    found = await gates.judge(spec, rollout, ["metering"], NOW)
    return found.verdict, found.reason


async def test_it_passes_after_enough_good_samples_each_at_its_time(server: Server, watch: Watch) -> None:
    gates = gates_of(server, watch)
    for second in range(21):
        watch.now = float(second)
        found, _ = await verdict(gates)
        assert (found is Verdict.PASSED) == (second >= 20), second
    assert len(server.queries) == 3
    assert 'service="metering"' in server.queries[0]
    assert [one.verdict for one in gates.evidence] == [Verdict.PASSED]


async def test_one_failure_fails_at_once_and_leaves_evidence(server: Server, watch: Watch) -> None:
    gates = gates_of(server, watch)
    server.reply = lambda: vector(0.0, 0.5)
    found, reason = await verdict(gates)
    assert found is Verdict.FAILED
    assert reason == "errors: result 0, 0.5, and `result > 0.1` is a failure"
    assert gates.evidence[0].step == "metering at 25 %"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (vector, "finds no series"),
        (lambda: vector(float("nan")), "result nan, wanted is `result <= 0.01`"),
        (lambda: vector(0.05), "result 0.05, wanted is"),
        (lambda: httpx.Response(503, text="starting"), "answered 503"),
        (lambda: httpx.Response(500, json={"status": "error", "errorType": "internal", "error": "oops"}), "oops"),
        (
            lambda: httpx.Response(422, json={"status": "error", "errorType": "execution", "error": "too many"}),
            "too many",
        ),
        (lambda: httpx.Response(200, json=[1]), "something unexpected"),
    ],
)
async def test_what_is_no_answer_is_waited_for_until_the_deadline(
    server: Server, watch: Watch, reply: Callable[[], httpx.Response], said: str
) -> None:
    gates = gates_of(server, watch)
    server.reply = reply
    found, reason = await verdict(gates)
    assert found is Verdict.UNKNOWN
    assert said in reason
    watch.now = 59.0
    assert (await verdict(gates))[0] is Verdict.UNKNOWN
    watch.now = 75.0
    found, reason = await verdict(gates)
    assert found is Verdict.FAILED
    assert reason.endswith("waited until the deadline")


async def test_a_server_that_is_away_is_waited_for(watch: Watch) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("slow", request=request)

    gates = Gates(None, httpx.AsyncClient(transport=httpx.MockTransport(away)), watch)
    found, reason = await verdict(gates)
    assert found is Verdict.UNKNOWN
    assert "does not answer (ConnectTimeout)" in reason


async def test_good_samples_must_follow_each_other(server: Server, watch: Watch) -> None:
    gates = gates_of(server, watch)
    for second, value in ((0.0, 0.0), (10.0, 0.05), (20.0, 0.0), (30.0, 0.0)):
        watch.now, server.reply = second, lambda value=value: vector(value)  # type: ignore[misc]
        assert (await verdict(gates))[0] is Verdict.UNKNOWN
    watch.now = 40.0
    assert (await verdict(gates))[0] is Verdict.PASSED


async def test_another_step_is_judged_anew(server: Server, watch: Watch) -> None:
    gates = gates_of(server, watch)
    server.reply = lambda: vector(1.0)
    assert (await verdict(gates))[0] is Verdict.FAILED
    server.reply = lambda: vector(0.0)
    assert (await verdict(gates))[0] is Verdict.FAILED, "it stays what it was"
    assert (await verdict(gates, rollout=replace(ROLLOUT, weight=50)))[0] is Verdict.UNKNOWN


async def test_a_wrong_query_is_known_before_anything_changes(server: Server, watch: Watch) -> None:
    said = 'invalid parameter "query": 1:5: parse error: unclosed left parenthesis'
    gates = gates_of(server, watch)
    assert await gates.wrong_query(SPEC) == ""
    server.reply = lambda: httpx.Response(400, json={"status": "error", "errorType": "bad_data", "error": said})
    assert said in await gates.wrong_query(SPEC)
    assert (await verdict(gates))[0] is Verdict.FAILED
    server.reply = lambda: httpx.Response(503, text="starting")
    assert await gates.wrong_query(SPEC) == "", "it may be right"
    assert await gates.wrong_query(replace(SPEC, prometheus_url="")) == ""


async def test_without_prometheus_it_says_so(server: Server, watch: Watch) -> None:
    spec = replace(SPEC, prometheus_url="", invariants=True)
    found, reason = await verdict(gates_of(server, watch, Told()), spec)
    assert found is Verdict.PASSED
    assert reason == f"2 invariants hold; {NO_PROMETHEUS}"
    assert not server.queries


async def test_a_broken_invariant_fails_at_once(server: Server, watch: Watch) -> None:
    told = Told()
    told.answers.append(Said("payments", broken=("sum-is-zero of payments is broken since 11:59:00 UTC: off by 3",)))
    found, reason = await verdict(gates_of(server, watch, told), replace(SPEC, invariants=True))
    assert found is Verdict.FAILED
    assert "sum-is-zero" in reason


@pytest.mark.parametrize(
    "answer", [Said("notary", silent="notary does not say"), Said("notary", old=("logs-verify",)), None]
)
async def test_who_says_nothing_new_is_waited_for(server: Server, watch: Watch, answer: Said | None) -> None:
    told = Told()
    if answer:
        told.answers.append(answer)
    spec = replace(SPEC, analyses=(), invariants=True)
    gates = gates_of(server, watch, told if answer else None)
    assert (await verdict(gates, spec))[0] is Verdict.UNKNOWN
    watch.now = INVARIANTS_S
    found, reason = await verdict(gates, spec)
    assert found is Verdict.FAILED
    assert any(word in reason for word in ("does not say", "not looked at since this step began", "no certificate"))


async def test_freezes_are_asked_for_now_and_then(server: Server, watch: Watch) -> None:
    told = Told()
    told.frozen = {"voting": "an election is on"}
    gates = gates_of(server, watch, told)
    for _ in range(3):
        assert await gates.freezes(["voting"]) == {"voting": "an election is on"}
    assert told.asked == 1
    await gates.freezes(["voting"], fresh=True)
    assert told.asked == 2
    watch.now = 6.0
    await gates.freezes(["voting"])
    assert told.asked == 3
    assert await gates_of(server, watch).freezes(["voting"]) == {}


def test_what_an_answer_of_a_service_comes_to() -> None:
    def one(name: str, *, holds: bool = True, checked_s: float = 5.0) -> pb.Invariant:
        at = Timestamp(seconds=int((NOW + timedelta(seconds=checked_s)).timestamp()))
        return pb.Invariant(service="metering", name=name, holds=holds, since=at, checked_at=at, evidence="3 gaps")

    found = said("metering", [one("a"), one("b", holds=False), one("c", checked_s=-5.0)], NOW)
    assert (found.held, found.old) == (("a",), ("c",))
    assert found.broken == ("b of metering is broken since 12:00:05 UTC: 3 gaps",)


@pytest.mark.parametrize(
    ("condition", "values", "every", "holds"),
    [
        ("result <= 0.01", (0.01, 0.0), True, True),
        ("result <= 0.01", (0.01, 0.02), True, False),
        ("result<=1e-2", (0.01,), True, True),
        ("result != 0", (float("nan"),), True, False),
        ("result > .5", (0.4, 0.6), False, True),
        ("result == -1", (-1.0,), True, True),
        ("", (1.0,), True, False),
        ("result ~ 1", (1.0,), True, False),
        ("result < 1", (), True, False),
    ],
)
def test_conditions(condition: str, values: tuple[float, ...], every: bool, holds: bool) -> None:
    assert met(condition, values, every=every) == holds


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"resultType": "scalar", "result": [0, "3"]}, Answer((3.0,))),
        ({"resultType": "matrix", "result": []}, None),
        ({"resultType": "string", "result": [0, "x"]}, None),
        ({"resultType": "vector", "result": [{"value": [0, "1"]}] * 1_001}, None),
    ],
)
async def test_kinds_of_answers(data: dict[str, Any], expected: Answer | None) -> None:
    reply = json.dumps({"status": "success", "data": data})
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, text=reply)))
    found = await Prometheus("http://p", client).ask("q")
    assert found == expected if expected else found.wrong
    assert judged(found, "result == 3", "")[0] is (Verdict.PASSED if expected else Verdict.FAILED)


async def test_no_json_is_no_answer() -> None:
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(502, text="<html>")))
    assert "no JSON" in (await Prometheus("http://p", client).ask("q")).silent
