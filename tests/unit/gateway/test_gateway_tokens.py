"""The cache of exchanged tokens: bounded, short, never longer than the token it came from."""

from __future__ import annotations

import base64
import json

import pytest

from citykit.errors import Unauthenticated
from services.gateway.app import tokens
from services.gateway.app.tokens import CACHE_MAX, ExchangedTokens, request_id, unverified_claims


def token_of(subject: str, expiry: float = 4e9) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": subject, "exp": expiry}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.signature"


class Identity:
    """Counts exchanges; refuses what it was told to refuse."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.refuse = False

    async def exchange(self, token: str, audience: str) -> tuple[str, int]:
        if self.refuse:
            raise Unauthenticated("no")
        self.asked.append((token, audience))
        return f"for {audience} {len(self.asked)}", 900


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_an_exchange_is_kept_for_a_minute() -> None:
    identity, time = Identity(), Time()
    cache = ExchangedTokens(identity.exchange, time)
    assert await cache.of_audience(token_of("a"), "metering") == "for metering 1"
    time.now += tokens.CACHE_S - 1
    assert await cache.of_audience(token_of("a"), "metering") == "for metering 1"
    time.now += 2
    assert await cache.of_audience(token_of("a"), "metering") == "for metering 2"


async def test_audiences_and_callers_do_not_share() -> None:
    cache = ExchangedTokens(Identity().exchange, Time())
    found = {await cache.of_audience(token_of(who), to) for who in ("a", "b") for to in ("metering", "identity")}
    assert len(found) == 4


async def test_an_exchange_never_outlives_its_token() -> None:
    identity, time = Identity(), Time()
    cache = ExchangedTokens(identity.exchange, time)
    short = token_of("a", time.now + 5)
    await cache.of_audience(short, "metering")
    time.now += 6
    identity.refuse = True
    with pytest.raises(Unauthenticated):
        await cache.of_audience(short, "metering")


async def test_a_token_that_cannot_be_read_is_never_kept() -> None:
    identity = Identity()
    cache = ExchangedTokens(identity.exchange, Time())
    for _ in range(2):
        await cache.of_audience("opaque", "metering")
    assert len(identity.asked) == 2


async def test_a_refusal_is_not_kept() -> None:
    identity = Identity()
    cache = ExchangedTokens(identity.exchange, Time())
    identity.refuse = True
    with pytest.raises(Unauthenticated):
        await cache.of_audience(token_of("a"), "metering")
    identity.refuse = False
    assert await cache.of_audience(token_of("a"), "metering") == "for metering 1"


async def test_the_cache_is_bounded_and_drops_the_longest_unused() -> None:
    identity = Identity()
    cache = ExchangedTokens(identity.exchange, Time())
    for number in range(CACHE_MAX + 1):
        await cache.of_audience(token_of(f"p{number}"), "metering")
    await cache.of_audience(token_of(f"p{CACHE_MAX}"), "metering")
    assert len(identity.asked) == CACHE_MAX + 1
    await cache.of_audience(token_of("p0"), "metering")
    assert len(identity.asked) == CACHE_MAX + 2


async def test_forgetting_drops_every_audience_of_a_token() -> None:
    identity = Identity()
    cache = ExchangedTokens(identity.exchange, Time())
    for audience in ("metering", "identity"):
        await cache.of_audience(token_of("a"), audience)
    cache.forget(token_of("a"))
    await cache.of_audience(token_of("a"), "identity")
    assert len(identity.asked) == 3


def test_two_callers_with_one_key_have_two_request_ids() -> None:
    first, second = request_id(token_of("a"), "1"), request_id(token_of("b"), "1")
    assert first != second
    assert first == request_id(token_of("a", 4.1e9), "1"), "a renewed token is the same caller"
    assert len(first) <= 100


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.!!.c", "a.W10.c", "a.bm90IGpzb24.c", "é.é.é"])
def test_what_is_no_token_has_no_claims(text: str) -> None:
    assert unverified_claims(text) == {}
