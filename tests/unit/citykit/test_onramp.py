"""The shared on-ramp: places in a device's chain, claims, the flood guard, and what is remembered of devices."""

from __future__ import annotations

import pytest

from citykit.onramp.buckets import DEVICES_MAX, Buckets
from citykit.onramp.chain import (
    DUPLICATE,
    FIRST,
    LATE,
    NEXT,
    Head,
    Known,
    Refusal,
    Standing,
    check_claims,
    place,
    split_gap,
)

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


@pytest.mark.parametrize(
    ("head", "known", "package", "expected"),
    [
        (FIRST, {}, (1, A, bytes(32)), NEXT),
        (FIRST, {}, (7, A, B), NEXT),
        (Head(1, A), {}, (2, B, A), NEXT),
        (Head(1, A), {}, (2, B, C), "chain-broken"),
        (Head(1, A), {1: Known(A, bytes(32))}, (1, A, bytes(32)), DUPLICATE),
        (Head(1, A), {1: Known(A, bytes(32))}, (1, B, bytes(32)), "sequence-replayed"),
        (Head(3, C), {1: Known(A, bytes(32)), 3: Known(C, B)}, (2, B, A), LATE),
        (Head(3, C), {1: Known(A, bytes(32)), 3: Known(C, B)}, (2, B, C), "chain-broken"),
        (Head(3, C), {3: Known(C, B)}, (2, A, A), "chain-broken"),
        (Head(5, C), {}, (2, A, A), LATE),
        (Head(5, C), {}, (1, A, A), "chain-broken"),
    ],
)
def test_places_in_the_chain(
    head: Head, known: dict[int, Known], package: tuple[int, bytes, bytes], expected: str
) -> None:
    placement = place(head, known, *package)
    assert (placement.reason if isinstance(placement, Refusal) else placement) == expected


def test_what_is_left_of_a_gap() -> None:
    assert split_gap(1, 3, 2) == []
    assert split_gap(1, 6, 2) == [(2, 6)]
    assert split_gap(1, 6, 4) == [(1, 4), (4, 6)]


def test_claims() -> None:
    standing = Standing(from_time=3_600, last_sequence=4)
    assert check_claims(standing, 4, 3_600, 9_000, 9_000) is None
    found = [
        check_claims(standing, 5, 3_600, 9_000, 9_000),
        check_claims(standing, 1, 1_800, 9_000, 9_000),
        check_claims(Standing(0, None), 9, 3_600, 9_000, 8_999),
    ]
    assert [item.reason if item else "" for item in found] == ["device-revoked", "before-device", "from-the-future"]


class Seconds:
    """A machine clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_again_with_time() -> None:
    clock = Seconds()
    buckets = Buckets(10, 20, clock)
    assert buckets.busy("a") is None
    assert buckets.take("a", 20) is None
    full = buckets.take("a", 5)
    assert full is not None
    assert (full.reason, full.retry_after_ms) == ("device-rate", 501)
    assert buckets.busy("a") is not None
    assert buckets.take("b", 20) is None
    clock.now = 0.5
    assert buckets.take("a", 5) is None


def test_a_package_larger_than_the_burst_passes_a_full_bucket_and_leaves_a_debt() -> None:
    clock = Seconds()
    buckets = Buckets(10, 20, clock)
    assert buckets.take("a", 100) is None
    clock.now = 8.0
    assert buckets.busy("a") is not None
    clock.now = 8.2
    assert buckets.busy("a") is None


def test_the_memory_of_buckets_is_bounded() -> None:
    buckets = Buckets(1, 2, Seconds())
    for number in range(DEVICES_MAX + 1):
        buckets.take(str(number), 1)
    assert buckets.take("0", 2) is None
