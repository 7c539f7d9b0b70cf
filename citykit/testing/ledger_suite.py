"""What every ledger adapter must pass. A test module subclasses `LedgerSuite` and gives the fixture `reopen`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from citykit.errors import Conflict, InvalidArgument, NotFound, RequestReused
from citykit.ledger.port import ARGS_MAX_BYTES, ContractRefused, Ledger, LedgerEvent, Position, TransactionStatus

Reopen = Callable[[], Awaitable[Ledger]]


async def add(ledger: Ledger, key: str, by: int = 1, request_id: str = "") -> int:
    args = {"key": key, "by": by}
    receipt = await ledger.submit("counter", "add", args, submitter="tester", request_id=request_id or f"{key}-{by}")
    return int(receipt.result)


async def value(ledger: Ledger, key: str) -> object:
    return await ledger.evaluate("counter", "value", {"key": key})


async def events(ledger: Ledger, after: Position | None = None) -> list[LedgerEvent]:
    return [event async for event in ledger.events(after=after, contract="counter", follow=False)]


class LedgerSuite:
    """The suite. Fixture `reopen`: closes the ledger if open and opens it again on the same data, with the contract Counter."""

    async def test_a_transaction_is_committed_and_survives_reopening(self, reopen: Reopen) -> None:
        ledger = await reopen()
        receipt = await ledger.submit("counter", "add", {"key": "a", "by": 2}, submitter="tester", request_id="r")
        ledger = await reopen()
        assert await value(ledger, "a") == 2
        assert await ledger.status(receipt.transaction) is TransactionStatus.VALID
        assert await ledger.height() == receipt.block + 1

    async def test_reads_do_not_see_own_writes(self, reopen: Reopen) -> None:
        ledger = await reopen()
        assert await add(ledger, "a", 2, "r1") == 0
        assert await add(ledger, "a", 3, "r2") == 2

    async def test_a_request_id_acts_once_even_after_reopening(self, reopen: Reopen) -> None:
        ledger = await reopen()
        args = {"key": "a", "by": 2}
        first = await ledger.submit("counter", "add", args, submitter="tester", request_id="r")
        ledger = await reopen()
        assert await ledger.submit("counter", "add", args, submitter="tester", request_id="r") == first
        again = [
            ledger.submit("counter", "add", {"key": "b", "by": 1}, submitter="tester", request_id="s") for _ in range(5)
        ]
        assert len({receipt.transaction for receipt in await asyncio.gather(*again)}) == 1
        assert (await value(ledger, "a"), await value(ledger, "b")) == (2, 1)

    async def test_a_request_id_with_other_content_is_refused(self, reopen: Reopen) -> None:
        ledger = await reopen()
        await add(ledger, "a", 1, "r")
        with pytest.raises(RequestReused, match="new id"):
            await add(ledger, "a", 2, "r")
        assert await value(ledger, "a") == 1

    async def test_conflicts_are_simulated_again_and_nothing_is_lost(self, reopen: Reopen) -> None:
        ledger = await reopen()
        results = await asyncio.gather(*(add(ledger, "hot", 1, f"r{n}") for n in range(6)), return_exceptions=True)
        done = [result for result in results if not isinstance(result, BaseException)]
        assert all(isinstance(result, Conflict) for result in results if isinstance(result, BaseException))
        assert await value(ledger, "hot") == len(done) > 0
        codes = [e["code"] for n in range(await ledger.height()) for e in (await ledger.block(n))["envelopes"]]
        assert codes.count("VALID") == len(done)
        assert "MVCC_READ_CONFLICT" in codes

    async def test_a_phantom_is_a_conflict(self, reopen: Reopen) -> None:
        ledger = await reopen()
        await add(ledger, "p/1")
        more = ledger.submit("counter", "add", {"key": "p/2", "by": 1}, submitter="tester", request_id="m")
        copy = ledger.submit("counter", "copy_all", {"prefix": "p/", "to": "all"}, submitter="tester", request_id="c")
        added, copied = await asyncio.gather(more, copy)
        later = (copied.block, copied.index) > (added.block, added.index)  # a channel orders calls as it gets them
        assert await value(ledger, "all") == ([1, 1] if later else [1])

    async def test_a_refusal_writes_nothing_and_says_why(self, reopen: Reopen) -> None:
        ledger = await reopen()
        with pytest.raises(ContractRefused, match="between 0 and") as refused:
            await add(ledger, "a", -1)
        assert refused.value.reason == "out-of-range"
        assert await value(ledger, "a") is None
        assert await events(ledger) == []

    async def test_only_named_submitters_may_call(self, reopen: Reopen) -> None:
        ledger = await reopen()
        await add(ledger, "a")
        with pytest.raises(ContractRefused, match="only auditor"):
            await ledger.submit("counter", "clear", {"key": "a"}, submitter="tester", request_id="x")
        await ledger.submit("counter", "clear", {"key": "a"}, submitter="auditor", request_id="x")
        assert await value(ledger, "a") is None

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"key": "a"}, "missing argument 'by'"),
            ({"key": "a", "by": 1, "more": 1}, "unknown argument 'more'"),
            ({"key": 1, "by": 1}, "key must be str"),
            ({"key": "a", "by": True}, "by must be int"),
            ({"key": "a", "by": "1"}, "by must be int"),
        ],
    )
    async def test_arguments_are_checked(self, reopen: Reopen, args: dict[str, object], message: str) -> None:
        ledger = await reopen()
        with pytest.raises(ContractRefused, match=message):
            await ledger.submit("counter", "add", args, submitter="tester", request_id="r")

    async def test_what_has_no_canonical_form_or_is_too_large_is_refused(self, reopen: Reopen) -> None:
        ledger = await reopen()
        with pytest.raises(InvalidArgument, match="canonical"):
            await ledger.submit("counter", "add", {"key": "a", "by": 1.5}, submitter="tester", request_id="r")
        with pytest.raises(InvalidArgument, match="at most"):
            large = {"key": "a", "value": "x" * ARGS_MAX_BYTES}
            await ledger.submit("counter", "store", large, submitter="tester", request_id="r")

    async def test_unknown_functions_and_wrong_kinds_of_call_are_refused(self, reopen: Reopen) -> None:
        ledger = await reopen()
        with pytest.raises(NotFound, match=r"counter\.add"):
            await ledger.submit("counter", "nothing", {}, submitter="tester", request_id="r")
        with pytest.raises(InvalidArgument, match="evaluate"):
            await ledger.submit("counter", "value", {"key": "a"}, submitter="tester", request_id="r")
        with pytest.raises(InvalidArgument, match="submit"):
            await ledger.evaluate("counter", "add", {"key": "a", "by": 1})

    async def test_events_resume_after_a_position_without_gap_or_double(self, reopen: Reopen) -> None:
        ledger = await reopen()
        for number in range(5):
            await add(ledger, f"k{number}")
        seen = await events(ledger)
        assert [event.payload["key"] for event in seen] == [f"k{number}" for number in range(5)]
        ledger = await reopen()
        await add(ledger, "k5")
        rest = await events(ledger, after=seen[2].position)
        assert [event.payload["key"] for event in rest] == ["k3", "k4", "k5"]

    async def test_followers_are_told_of_new_events(self, reopen: Reopen) -> None:
        ledger = await reopen()

        async def first_two() -> list[str]:
            found: list[str] = []
            async for event in ledger.events():
                found.append(event.payload["key"])
                if len(found) == 2:
                    break
            return found

        follower = asyncio.create_task(first_two())
        await add(ledger, "a")
        await add(ledger, "b")
        assert await follower == ["a", "b"]

    async def test_many_in_flight_share_blocks_and_all_count(self, reopen: Reopen) -> None:
        ledger = await reopen()
        await asyncio.gather(*(add(ledger, f"k{number}") for number in range(200)))
        assert len(await events(ledger)) == 200
        assert await ledger.height() < 200

    async def test_an_unknown_transaction_says_so(self, reopen: Reopen) -> None:
        ledger = await reopen()
        assert await ledger.status("0" * 64) is TransactionStatus.UNKNOWN
        with pytest.raises(NotFound, match="no transaction"):
            await ledger.evidence("0" * 64)
        with pytest.raises(NotFound, match="no block"):
            await ledger.block(await ledger.height())
