"""The adapter of the provider, its signatures, and the sandbox's own books."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from citykit.errors import FailedPrecondition, PermissionDenied, SettingsError, Unavailable
from citykit.settings import PaymentsSettings
from citykit.webhooks import HEADER, TOLERANCE_S, sign, verify
from services.payments.app.provider import Outcome, Provider, key_in, outcome_in
from services.payments.domain.payment import Operation, Payment
from simulation.provider import SandboxProvider
from simulation.provider_books import BadCall, ProviderBooks

SECRET = b"shared"
PAYMENT = Payment("p", "parking", "r", "ada", "payer/1", "GBP", 100, method="pm_1")
ASKED = Operation("p-authorise", "p", "authorise", 100, created_at=1_000)
BODY: dict[str, Any] = {
    "key": "k", "kind": "authorise", "payment": "p", "amount_minor": 100, "currency": "GBP", "method": "pm_1", "at": 1,
}  # fmt: skip


def test_a_signature_is_of_its_content_key_and_time() -> None:
    header = sign(SECRET, b"{}", 1_000)
    # openssl dgst -sha256 -hmac shared, over `1000.{}`
    assert header == "t=1000,v1=2c01330d909a4b21567ca4aeed2c592e7f39e33bd591f49c031811c7e9bb2086"
    verify(SECRET, b"{}", header, 1_000 + TOLERANCE_S)
    for secret, content, signature, now in (
        (b"other", b"{}", header, 1_000),
        (SECRET, b"[]", header, 1_000),
        (SECRET, b"{}", header.replace("t=1000", "t=1001"), 1_000),
        (SECRET, b"{}", header, 1_001 + TOLERANCE_S),
        (SECRET, b"{}", header, 999 - TOLERANCE_S),
        (SECRET, b"{}", "", 1_000),
    ):
        with pytest.raises(PermissionDenied):
            verify(secret, content, signature, now)


def settings(url: str, folder: Path, secret: bytes = SECRET) -> PaymentsSettings:
    path = folder / "secret"
    path.write_bytes(secret)
    return PaymentsSettings(provider_url=url, provider_secret_file=str(path), provider_timeout_s=5.0)


@contextlib.asynccontextmanager
async def provided(folder: Path, **more: Any) -> Any:
    """A sandbox and the adapter that calls it."""
    async with SandboxProvider(seed=1, secret=SECRET, **more) as sandbox:
        adapter = Provider(settings(sandbox.url, folder), time.time)
        yield sandbox, adapter
        await adapter.close()


async def test_the_adapter_asks_and_asks_again(tmp_path: Path) -> None:
    async with provided(tmp_path) as (sandbox, adapter):
        assert (await adapter.status(ASKED.id)).state == "absent"
        assert await adapter.act(ASKED, PAYMENT) == Outcome("done")
        assert await adapter.act(ASKED, replace(PAYMENT, method="")) == Outcome("done")
        assert await adapter.status(ASKED.id) == Outcome("done")
        assert (await adapter.act(replace(ASKED, amount_minor=5), PAYMENT)).state == "away"
        taken = Operation("p-capture", "p", "capture", 60, created_at=1_010)
        assert (await adapter.act(taken, PAYMENT)).certain
        listed = await adapter.listed(1_000, 1_011)
        assert sorted((item.kind, item.amount_minor) for item in listed) == [("authorise", 100), ("capture", 60)]
        assert not await adapter.listed(2_000, 3_000)
        sandbox.outage = True
        assert (await adapter.status(ASKED.id)).state == "away"
        with pytest.raises(Unavailable):
            await adapter.listed(0, 1)


async def test_a_wrong_key_is_no_answer(tmp_path: Path) -> None:
    async with provided(tmp_path) as (sandbox, adapter):
        adapter.secret = b"wrong"
        assert (await adapter.act(ASKED, PAYMENT)).state == "away"
        assert not sandbox.books.operations
        async with httpx.AsyncClient() as client:
            path = "/v1/operations?from=x"
            headers = {HEADER: sign(SECRET, path.encode(), _now())}
            assert (await client.get(sandbox.url + path, headers=headers)).status_code == 400
            assert (await client.get(sandbox.url + path)).status_code == 401


async def test_callbacks_reach_an_address(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(
            next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1]
        )
        got.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, provided(tmp_path, callback=f"http://127.0.0.1:{port}/callback") as (sandbox, adapter):
        await adapter.act(ASKED, PAYMENT)
        done = sandbox.books.operations[ASKED.id]
        await sandbox.call_back(done)
        assert outcome_in(got[-1]) == Outcome("done")
        assert key_in(got[-1]) == ASKED.id
        assert b"pm_1" not in got[-1]
        server.close()
        await server.wait_closed()
        await sandbox.call_back(done)


def _now() -> int:
    return int(time.time())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"outcome":"maybe"}', b'"x"', b"\xff"])
def test_what_is_no_outcome(body: bytes) -> None:
    assert outcome_in(body) is None
    assert key_in(body) == ""


def test_reasons_are_short_words() -> None:
    assert outcome_in(b'{"outcome":"refused","reason":"a\\nb' + b"c" * 100 + b'"}') == Outcome(
        "refused", "ab" + "c" * 61
    )
    assert key_in(b'{"key":5}') == ""


def test_the_settings_say_what_is_missing(tmp_path: Path) -> None:
    none = Provider(PaymentsSettings(), lambda: 0.0)
    with pytest.raises(FailedPrecondition):
        none.require()
    with pytest.raises(SettingsError, match="cannot be read"):
        Provider(PaymentsSettings(provider_url="http://127.0.0.1:1", provider_secret_file="/none"), lambda: 0.0)
    with pytest.raises(SettingsError, match="is empty"):
        Provider(settings("http://127.0.0.1:1", tmp_path, b"\n"), lambda: 0.0)


def test_the_sandbox_keeps_books_of_its_own() -> None:
    books = ProviderBooks()
    assert books.act(BODY)[0].outcome == "done"
    assert books.act(BODY) == (books.operations["k"], False)

    def act(key: str, kind: str, amount: int, payment: str = "p", **more: Any) -> tuple[str, str]:
        done = books.act({**BODY, "key": key, "kind": kind, "amount_minor": amount, "payment": payment, **more})[0]
        return done.outcome, done.reason

    assert act("1", "capture", 101) == ("refused", "over-hold")
    assert act("2", "capture", 1, currency="EUR") == ("refused", "over-hold")
    assert act("3", "capture", 80) == ("done", "")
    assert act("4", "capture", 1) == ("refused", "no-hold")
    assert act("5", "void", 1) == ("refused", "no-hold")
    assert act("6", "refund", 81) == ("refused", "over-captured")
    assert act("7", "refund", 80) == ("done", "")
    assert act("8", "refund", 1) == ("refused", "over-captured")
    assert act("9", "refund", 1, "none") == ("refused", "over-captured")
    assert act("10", "authorise", 5, "q", method="pm_declined_x") == ("refused", "declined")
    assert act("11", "authorise", 5, "q", method="pm_later") == ("pending", "")
    assert books.decide("11").outcome == "done"
    assert act("12", "void", 5, "q") == ("done", "")
    assert (books.moved_minor("capture"), books.moved_minor("refund")) == (80, 80)
    wrong: Any
    for wrong in (
        [],
        {**BODY, "more": 1},
        {**BODY, "key": ""},
        {**BODY, "kind": "steal"},
        {**BODY, "amount_minor": 0},
        {**BODY, "amount_minor": True},
        {**BODY, "at": "now"},
        {**BODY, "amount_minor": 99},
    ):
        with pytest.raises(BadCall):
            books.act(wrong)
