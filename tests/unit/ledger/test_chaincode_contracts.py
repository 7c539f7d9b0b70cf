"""Every contract of the city as chaincode and on the embedded ledger: the same results, refusals, writes and events."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from citykit.ledger.port import ARGS_MAX_BYTES, VALUE_MAX_BYTES
from citykit.merkle import consistency_proof, in_memory, leaf_hash, root_of
from services.registry import contracts
from tests.unit.identity.entries import AT, entry, key
from tests.unit.ledger.fake_peer import NOW
from tests.unit.ledger.probe_contract import CONTRACTS
from tests.unit.ledger.two_ledgers import TwoLedgers, two_ledgers
from tests.unit.metering.homes import TARIFF
from tests.unit.parking.tariffs import tariff

LEAVES = [leaf_hash(bytes([number])) for number in range(20)]
CARD = {
    "coverage_micro": 1, "data": {"log": "l", "root": "00", "size": 1}, "format": "city.model.v1", "group": "homes", "mase_micro": 1,
    "model": "m1", "origins": 1, "parameters": "ab" * 32, "series": 1, "trained_at": AT, "version": 1,
}  # fmt: skip
POINT = "04" + "ab" * 64


@pytest.fixture
async def probe(tmp_path: Path) -> AsyncIterator[TwoLedgers]:
    async with two_ledgers(tmp_path, CONTRACTS, writes=100) as both:
        yield both


async def test_every_function_of_every_contract_answers_the_same(tmp_path: Path) -> None:
    async with two_ledgers(tmp_path, contracts(), writes=1_000, reads=1_000) as both:
        await anchors(both)
        await devices(both)
        await published(both)
        await closed(both)
        assert both.never_called() == set()


async def anchors(both: TwoLedgers) -> None:
    assert await both.submit("anchors", "record", "notary", heads=[head(0, 5), {**head(0, 5), "origin": "two"}]) == 2
    assert await both.submit("anchors", "record", "notary", heads=[head(5, 12)]) == 1
    assert await both.submit("anchors", "record", "notary", heads=[head(0, 4)]) == "rollback"
    assert await both.submit("anchors", "record", "parking", heads=[head(0, 4)]) == "submitter-not-allowed"
    assert (await both.evaluate("anchors", "head", origin="log"))["size"] == 12


async def devices(both: TwoLedgers) -> None:
    assert await both.submit("devices", "register", "identity", **entry("meter-1")) == 1
    assert await both.submit("devices", "register", "identity", **entry("meter-1")) == "already-registered"
    several = [entry(f"meter-{number}") for number in range(2, 40)]
    assert await both.submit("devices", "register_many", "identity", devices=several) == 38
    change: dict[str, Any] = {
        "device": "meter-1",
        "key": key("new"),
        "algorithm": "EdDSA",
        "from_sequence": 9,
        "from_time": AT,
    }
    assert await both.submit("devices", "rotate", "identity", **change) is None
    assert await both.submit("devices", "rotate", "identity", **{**change, "device": "meter-2"}) == "key-reused"
    ending: dict[str, Any] = {"device": "meter-1", "at": AT, "last_sequence": 20, "reason": "replaced"}
    assert await both.submit("devices", "revoke", "identity", **ending) is None
    assert (await both.evaluate("devices", "get", device="meter-1"))["revoked"]
    assert await both.evaluate("devices", "get", device="meter-999") is None


async def published(both: TwoLedgers) -> None:
    for contract, submitter, content in (("tariffs", "metering", TARIFF), ("parking-tariffs", "parking", tariff())):
        for version in (content, content):
            assert (await both.submit(contract, "publish", submitter, tariff=version))["version"] == content["version"]
        assert await both.submit(contract, "publish", submitter, tariff={}) == "tariff-invalid"
        assert await both.evaluate(contract, "get", id=content["id"], version=content["version"]) == content
    assert await both.submit("parking-keys", "publish", "parking", kid="k1", key=POINT) == {"kid": "k1"}
    assert await both.submit("parking-keys", "publish", "parking", kid="k1", key=POINT[:-1] + "0") == "key-published"
    assert await both.evaluate("parking-keys", "get", kid="k1") == POINT
    assert await both.submit("models", "register", "forecasting", card=CARD) == {"model": "m1"}
    assert await both.submit("models", "register", "forecasting", card={}) == "card-invalid"
    assert await both.evaluate("models", "get", model="m1") == CARD


async def closed(both: TwoLedgers) -> None:
    run: dict[str, Any] = {
        "run": "r1",
        "period": "2016-10",
        "count": 2,
        "root": "ab" * 32,
        "tariff": {"id": "t", "version": 1},
    }
    assert await both.submit("billing", "close", "metering", **run) == {"run": "r1"}
    assert await both.submit("billing", "close", "metering", **run) == "run-closed"
    assert (await both.evaluate("billing", "get", run="r1"))["count"] == 2
    day: dict[str, Any] = {"captured_minor": 5, "refunded_minor": 1, "transfers_size": 2}
    assert await both.submit("payments-days", "close", "payments", day="2016-10-04", **day) == {"day": "2016-10-04"}
    assert await both.submit("payments-days", "close", "payments", day="2016-10-03", **day) == "day-order"
    assert await both.evaluate("payments-days", "get", day="2016-10-04") == day


async def test_a_request_acts_once_and_other_content_is_refused(probe: TwoLedgers) -> None:
    steps = [{"do": "put", "key": "a", "value": 1}]
    assert await probe.submit("probe", "act", request_id="r", steps=steps) == [None]
    first = await probe.local.height()
    assert await probe.submit("probe", "act", request_id="r", steps=steps) == [None]
    assert probe.outcome and b"repeated" in probe.outcome.payload
    assert await probe.local.height() == first
    assert await probe.submit("probe", "act", request_id="r", steps=[]) == "request-id-reused"
    assert await probe.submit("probe", "act", "somebody", request_id="r", steps=[]) == []


async def test_a_request_done_before_is_told_so_whatever_the_contract_says_now(tmp_path: Path) -> None:
    """The contract refuses to close a run twice; a retry of the request that closed it is no second close."""
    async with two_ledgers(tmp_path, contracts(), writes=100, reads=100) as both:
        run: dict[str, Any] = {
            "run": "r",
            "period": "2016-10",
            "count": 2,
            "root": "ab" * 32,
            "tariff": {"id": "t", "version": 1},
        }
        for _ in range(2):
            assert await both.submit("billing", "close", "metering", request_id="r", **run) == {"run": "r"}
        assert both.outcome and b"repeated" in both.outcome.payload
        assert await both.submit("billing", "close", "metering", request_id="s", **run) == "run-closed"


async def test_a_retry_after_the_time_is_over_still_gets_the_first_answer(probe: TwoLedgers) -> None:
    """The contract refuses without reading anything, so nothing but the mark knows."""
    assert await probe.submit("probe", "before", request_id="r", end=NOW + 5) == NOW
    probe.now[0] += 10
    assert await probe.submit("probe", "before", request_id="r", end=NOW + 5) == NOW
    assert probe.outcome and b"repeated" in probe.outcome.payload
    assert await probe.submit("probe", "before", request_id="s", end=NOW + 5) == "too-late"


@pytest.mark.parametrize("first", ["get", "range", "put"])
async def test_a_request_is_known_again_whatever_the_contract_does_first(probe: TwoLedgers, first: str) -> None:
    steps = [{"do": first, "key": "a", "limit": 3, "value": 1}]
    results = [await probe.submit("probe", "act", request_id="r", steps=steps) for _ in range(2)]
    assert results[0] == results[1]
    assert probe.outcome and b"repeated" in probe.outcome.payload


async def test_a_key_is_asked_for_once_and_the_mark_comes_with_it(probe: TwoLedgers) -> None:
    await probe.submit("probe", "act", steps=[{"do": "put", "key": "a", "value": [1]}])
    peer = probe.peers["probe"]
    peer.requests.clear()
    steps = [{"do": "get", "key": key} for key in ("a", "a", "b", "b")]
    assert await probe.submit("probe", "act", steps=steps) == [[1], [1], None, None]
    assert peer.requests == ["GET_STATE", "GET_STATE", "GET_STATE", "PUT_STATE"]


async def test_id_time_and_submitter_are_the_same(probe: TwoLedgers) -> None:
    assert (await probe.submit("probe", "audit", "auditor"))[0] == "auditor"
    assert await probe.submit("probe", "audit", "tester") == "submitter-not-allowed"


@pytest.mark.parametrize("how", ["refuse", "put", "emit", "give"])
async def test_what_is_refused_or_not_canonical_writes_nothing(probe: TwoLedgers, how: str) -> None:
    assert await probe.submit("probe", "odd", how=how) in ("not-now", "failed-precondition")


@pytest.mark.parametrize(
    "step",
    [
        {"do": "put", "key": "a", "value": None},
        {"do": "put", "key": "", "value": 1},
        {"do": "put", "key": "~request/x", "value": 1},
        {"do": "put", "key": "\x00a", "value": 1},
        {"do": "delete", "key": "~request/x"},
        {"do": "range", "key": "a", "limit": 0},
        {"do": "range", "key": "a", "limit": 1_001},
        {"do": "get"},
    ],
)
async def test_what_a_ledger_does_not_take_is_refused_alike(probe: TwoLedgers, step: dict[str, Any]) -> None:
    if step == {"do": "get"}:
        assert await probe.submit("probe", "act", steps="none") == "bad-arguments"
    else:
        assert await probe.submit("probe", "act", steps=[step]) in ("bad-value", "bad-key", "bad-limit")


async def test_values_and_arguments_are_limited_alike(probe: TwoLedgers) -> None:
    limit = [{"do": "put", "key": "a", "value": "x" * (VALUE_MAX_BYTES // 2)}] * 2
    assert await probe.submit("probe", "act", steps=limit) == "invalid-argument"
    assert await probe.submit("probe", "act", steps=limit[:1]) == [None]
    assert len(str(await probe.evaluate("probe", "look", steps=[{"do": "get", "key": "a"}]))) > ARGS_MAX_BYTES // 2


async def test_calls_of_the_wrong_kind_are_refused_alike(probe: TwoLedgers) -> None:
    assert await probe.submit("probe", "nothing") == "unknown-function"
    assert await probe.submit("probe", "look", steps=[]) == "invalid-argument"
    assert await probe.evaluate("probe", "act", steps=[]) == "invalid-argument"
    assert await probe.submit("probe", "act", request_id="x" * 101, steps=[]) == "invalid-argument"


async def test_an_evaluation_that_writes_leaves_nothing(probe: TwoLedgers) -> None:
    steps = [{"do": "put", "key": "a", "value": 1}, {"do": "emit", "key": "e", "value": 1}]
    assert await probe.evaluate("probe", "look", steps=steps) == [None, None]
    assert await probe.evaluate("probe", "look", steps=[{"do": "get", "key": "a"}]) == [None]


KEYS = [
    "a", "a/b", "a/c", "ab", "b", "~", "~r", "~request", "~request0", "~z", "\x01", "é", "\ud7ff", "\ue000", "\U0010ffff", "\U0010ffffa",
]  # fmt: skip
PREFIXES = ["", *KEYS, "~request/", "\x00", "~re", "a/", "\U0010ffff\U0010ffff"]


@pytest.mark.parametrize("seed", range(3))
async def test_random_transactions_answer_the_same(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    async with two_ledgers(tmp_path, CONTRACTS, writes=choose.choice([0, 3, 100]), results_max=2) as both:
        for _ in range(60):
            steps = [random_step(choose) for _ in range(choose.randint(1, 8))]
            await both.submit("probe", "act", steps=steps)
            await both.evaluate(
                "probe", "look", steps=[{"do": "range", "key": prefix, "limit": 9} for prefix in PREFIXES]
            )


def random_step(choose: random.Random) -> dict[str, Any]:
    match choose.choice(["get", "put", "put", "delete", "range", "emit"]):
        case "range":
            return {"do": "range", "key": choose.choice(PREFIXES), "limit": choose.randint(1, 6)}
        case "put":
            value = choose.choice([0, "x", [1, {"b": None, "a": True}], {}, "é"])
            return {"do": "put", "key": choose.choice(KEYS), "value": value}
        case act:
            return {"do": act, "key": choose.choice(KEYS), "value": choose.randint(0, 9)}


def head(first: int, size: int) -> dict[str, Any]:
    proof = consistency_proof(in_memory(LEAVES[:size]), first, size)
    return {
        "origin": "log", "size": size, "root": root_of(LEAVES[:size]).hex(), "proof": [item.hex() for item in proof],
    }  # fmt: skip
