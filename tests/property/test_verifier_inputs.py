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
from tests.unit.verifier.bundlemaker import Recipe
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
    data=st.binary(max_size=200) | VALUES.map(maker.canonical), which=st.sampled_from(["bundle", "trust", "earlier"])
)
def test_the_program_ends_with_a_code_and_words(
    data: bytes, which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {
        "bundle": encode(BUNDLES["event"]),
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
