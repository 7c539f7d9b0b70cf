"""Properties of the offline verifier: honest bundles hold whatever their shape; anything else ends in words, never in a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.verifier import bundlemaker as maker
from tests.unit.verifier import sessionmaker, statementmaker
from tests.unit.verifier.bundlemaker import Recipe
from tests.unit.verifier.sessionmaker import HOUR, Story
from tests.unit.verifier.statementmaker import Books
from verifier.__main__ import main
from verifier.bundle import check_bundle
from verifier.canonical import Failure, Unreadable, decode, encode
from verifier.merkle import batch_root, leaf, require_consistency
from verifier.package import parse_package
from verifier.trust import Trust, read_trust

TRUST: Trust = read_trust(maker.trust(1))
BUNDLES: dict[str, dict[str, Any]] = {
    "bill": maker.bill_bundle(Recipe(size=30, held=(5,), earlier=3)),
    "event": maker.event_bundle(Recipe()),
    "parking-session": sessionmaker.bundle_of(sessionmaker.overstayed()),
    "statement": statementmaker.statement(statementmaker.busy()),
}
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef_", max_size=6), inner, max_size=4),
    max_leaves=8,
)
QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _places(item, (*path, key))


PLACES = {kind: list(_places(bundle)) for kind, bundle in BUNDLES.items()}


@QUICK
@given(data=st.data(), kind=st.sampled_from(sorted(BUNDLES)))
def test_any_value_put_in_any_place_is_found(data: st.DataObject, kind: str) -> None:
    bundle: Any = copy.deepcopy(BUNDLES[kind])
    path = data.draw(st.sampled_from(PLACES[kind]))
    at = bundle
    for part in path[:-1]:
        at = at[part]
    wrong = data.draw(VALUES)
    same = encode(at[path[-1]]) == encode(wrong)
    at[path[-1]] = wrong
    report = check_bundle(encode(bundle), TRUST)
    assert report.ok == same, path
    assert all(step.detail for step in report.steps)


@QUICK
@given(data=st.data(), kind=st.sampled_from(sorted(BUNDLES)))
def test_whatever_is_left_out_is_found(data: st.DataObject, kind: str) -> None:
    bundle: Any = copy.deepcopy(BUNDLES[kind])
    path = data.draw(st.sampled_from(PLACES[kind]))
    at = bundle
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    assert not check_bundle(encode(bundle), TRUST).ok


@QUICK
@given(data=st.data(), kind=st.sampled_from(["parking-session", "statement"]))
def test_any_two_items_that_change_places_are_found(data: st.DataObject, kind: str) -> None:
    bundle: Any = copy.deepcopy(BUNDLES[kind])
    path = data.draw(st.sampled_from([path for path in PLACES[kind] if isinstance(path[-1], int) and path[-1] > 0]))
    at = bundle
    for part in path[:-1]:
        at = at[part]
    other = data.draw(st.integers(0, path[-1] - 1))
    same = encode(at[path[-1]]) == encode(at[other])
    at[path[-1]], at[other] = at[other], at[path[-1]]
    assert check_bundle(encode(bundle), TRUST).ok == same, path


@QUICK
@given(data=st.data(), kind=st.sampled_from(sorted(BUNDLES)))
def test_any_changed_bytes_end_in_words_and_a_failed_step(data: st.DataObject, kind: str) -> None:
    good = encode(BUNDLES[kind])
    at = data.draw(st.integers(0, len(good) - 1))
    new = data.draw(st.binary(max_size=3))
    bad = good[:at] + new + good[at + data.draw(st.integers(0, 3)) :]
    report = check_bundle(bad, TRUST)
    assert report.ok == (bad == good)
    assert all(step.detail for step in report.steps)


@settings(QUICK, max_examples=40)
@given(
    start=st.integers(0, 400), quarters=st.integers(1, 96), longer=st.integers(0, 8), out=st.integers(-300, 3_000),
    permit=st.integers(0, 10_000), step=st.sampled_from([7, 15, 30, 60]), cap=st.sampled_from([0, 300, 900]),
    algorithm=st.sampled_from(["EdDSA", "ES256"]),
)  # fmt: skip
def test_honest_sessions_of_any_times_and_prices_hold(
    start: int, quarters: int, longer: int, out: int, permit: int, step: int, cap: int, algorithm: str
) -> None:
    """Around the night of 30 October 2016, in which the clocks go back."""
    tariff = sessionmaker.TARIFF | {"step_minutes": step, "cap_minor_per_day": cap}
    begins = sessionmaker.at("2016-10-27 20:00") + 900 * start
    story = Story(tariff=tariff, from_time=begins, to_time=begins + 900 * quarters, permit=permit, algorithm=algorithm)
    story.held(begins - HOUR).confirmed(begins - HOUR + 60).started(begins + 7)
    if longer:
        story.extended(begins + 60, story.to_time + 900 * longer)
    story.ended(story.last["to_time"] + 60 * out)
    owed = story.last["price_minor"]
    if owed:
        story.paid(begins - HOUR, ("authorised", owed + 50), ("captured", owed))
    assert [step for step in check_bundle(encode(sessionmaker.bundle_of(story)), TRUST).steps if not step.ok] == []


@settings(QUICK, max_examples=40)
@given(data=st.data(), first=st.integers(0, 3), rule=st.sampled_from(["free", "debits-within-credits"]))
def test_honest_statements_of_any_course_hold(data: st.DataObject, first: int, rule: str) -> None:
    """Credits that are never too little, holds that begin and end in any order, a range that begins anywhere in it."""
    books = Books(rule=rule, from_time=statementmaker.FROM_TIME + first * statementmaker.DAY)
    books.move(statementmaker.FROM_TIME, ("posted", "credit", 10**6, 0, "provider/clearing"))
    held: list[tuple[int, str]] = []
    for number in range(data.draw(st.integers(0, 12))):
        time = statementmaker.FROM_TIME + (number + 1) * 20_000
        ends: bool = data.draw(st.booleans())
        if held and ends:
            amount, counter = held.pop(data.draw(st.integers(0, len(held) - 1)))
            taken = data.draw(st.integers(0, amount))
            books.move(time, ("post-pending" if taken else "void-pending", "debit", taken, amount, counter))
        else:
            held.append((data.draw(st.integers(1, 500)), data.draw(st.sampled_from(["payee/a", "payee/b"]))))
            books.move(time, ("pending", "debit", held[-1][0], 0, held[-1][1]), ("posted", "credit", 3, 0, "payee/a"))
    assert [step for step in check_bundle(encode(statementmaker.statement(books)), TRUST).steps if not step.ok] == []


@settings(QUICK, max_examples=40)
@given(
    seed=st.integers(0, 99), size=st.integers(1, 98), algorithm=st.sampled_from(["EdDSA", "ES256"]),
    held=st.sets(st.integers(0, 97), max_size=3), data=st.data(),
)  # fmt: skip
def test_honest_bills_of_any_shape_hold(
    seed: int, size: int, algorithm: str, held: set[int], data: st.DataObject
) -> None:
    count = 1 + 97 // size
    lost = data.draw(st.sets(st.integers(1, count), max_size=min(3, count - 1)))
    recipe = Recipe(seed, size, algorithm, tuple(lost), tuple(held), data.draw(st.integers(0, 2 * (count - len(lost)))))
    report = check_bundle(maker.canonical(maker.bill_bundle(recipe)), read_trust(maker.trust(seed)))
    assert [step for step in report.steps if not step.ok] == []


@settings(QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200) | VALUES.map(maker.canonical), which=st.sampled_from(["bundle", "trust", "earlier"]),
    kind=st.sampled_from(sorted(BUNDLES)),
)  # fmt: skip
def test_the_program_ends_with_a_code_and_words(
    data: bytes, which: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {
        "bundle": encode(BUNDLES[kind]),
        "trust": encode(maker.trust(1)),
        "earlier": maker.checkpoint(1, []).encode(),
    }
    for name, content in (good | {which: data}).items():
        (tmp_path / name).write_bytes(content)
    code = main([str(tmp_path / "bundle"), "--trust", str(tmp_path / "trust"), "--earlier", str(tmp_path / "earlier")])
    said = capsys.readouterr()
    assert code in (1, 2)
    assert "city verify: " in said.err if code == 2 else "DOES NOT HOLD" in said.out


@QUICK
@given(data=st.binary(max_size=80), sequence=st.integers(1, 2**64 - 1))
def test_arbitrary_packages_are_refused_in_words(data: bytes, sequence: int) -> None:
    good = maker.package(maker.DeviceKey(1), sequence, bytes(32), maker.senml([(1_800, 5)]))
    assert parse_package(good, "it").sequence == sequence
    for bad in (data, good + data if data else b"", good[: len(data)]):
        with pytest.raises(Failure, match="it"):
            parse_package(bad, "it")


@QUICK
@given(value=VALUES)
def test_canonical_bytes_are_read_back(value: Any) -> None:
    try:
        assert encode(decode(encode(value), "it")) == maker.canonical(value)
    except Unreadable as refused:
        raise AssertionError(value) from refused


@QUICK
@given(data=st.data(), size=st.integers(1, 70))
def test_proofs_of_every_shape_hold_and_only_for_their_leaves(data: st.DataObject, size: int) -> None:
    entries = [bytes([n]) for n in range(size)]
    indexes = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    hashes = [bytes.fromhex(item) for item in maker.proof(entries, indexes)["hashes"]]
    leaves = {index: leaf(entries[index]) for index in indexes}
    assert batch_root(leaves, size, hashes, "it") == maker.root(entries)
    wrong = data.draw(st.sampled_from(indexes))
    assert batch_root(leaves | {wrong: leaf(b"other")}, size, hashes, "it") != maker.root(entries)
    first = data.draw(st.integers(1, size))
    proof = [bytes.fromhex(item) for item in maker.consistency(entries, first)["hashes"]]
    require_consistency(first, maker.root(entries[:first]), size, maker.root(entries), proof)
    with pytest.raises(Failure):
        require_consistency(first, leaf(b"other"), size, maker.root(entries), proof)
