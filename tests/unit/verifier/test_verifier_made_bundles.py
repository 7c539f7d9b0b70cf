"""The verifier on bundles that were made from docs/PROOFS.md alone (bundlemaker.py), honest and not."""

from __future__ import annotations

import copy
import io
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.verifier import bundlemaker as maker
from tests.unit.verifier.bundlemaker import Recipe
from verifier.__main__ import main
from verifier.bundle import Report, check_bundle
from verifier.canonical import Failure
from verifier.merkle import batch_root, leaf
from verifier.package import parse_package
from verifier.signatures import ed25519_holds
from verifier.trust import read_trust

Change = Callable[[dict[str, Any]], object]


def check(bundle: Any, seed: int = 1, earlier: str | None = None) -> Report:
    return check_bundle(maker.canonical(bundle), read_trust(maker.trust(seed)), earlier)


def failed(report: Report) -> tuple[str, str]:
    return next(((step.name, step.detail) for step in report.steps if not step.ok), ("", ""))


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        (Recipe(), 18),
        (Recipe(seed=2, algorithm="ES256", size=13), 18),
        (Recipe(size=1), 18),
        (Recipe(left_out=(3, 4), held=(4, 50)), 18),
        (Recipe(earlier=9), 18),
    ],
)
def test_an_honest_bill_holds(recipe: Recipe, steps: int) -> None:
    report = check(maker.bill_bundle(recipe), recipe.seed)
    assert failed(report) == ("", "")
    assert len(report.steps) == steps


def test_packages_and_events_alone_hold() -> None:
    assert failed(check(maker.package_bundle(Recipe()))) == ("", "")
    assert failed(check(maker.event_bundle(Recipe()))) == ("", "")


def test_what_is_set_aside_or_estimated_is_said() -> None:
    notes = check(maker.bill_bundle(Recipe(left_out=(3,), held=(4,)))).notes
    assert any("was set aside (spike); billed 100 Wh, estimated" in note for note in notes)
    assert "8 of 98 slots are the city's estimates (profile-v1)" in notes


def test_a_correction_says_what_it_corrects() -> None:
    bill = maker.bill_document(Recipe()) | {"corrects": "bill-2016-10-29-00"}
    report = check(maker.with_bill(Recipe(), bill))
    assert report.ok
    assert "this bill corrects bill-2016-10-29-00; the earlier one stays in its own run" in report.notes


@pytest.mark.parametrize(
    ("recipe", "change", "step", "words"),
    [
        (Recipe(left_out=(3,)), lambda b: b.update(gaps=[]), "chain", "packages 3 to 3 are left out"),
        (Recipe(held=(4,)), lambda b: b["estimated"][0].update(reason="missing"), "slots", "but the device measured"),
        (Recipe(), lambda b: b.update(estimated=[], measured=97), "slots", "counts 97 measured"),
        (Recipe(left_out=(3,)), lambda b: b["estimated"].pop(), "slots", "neither in a package nor listed"),
        (Recipe(), lambda b: b["period"]["offsets"].pop(), "slots", "clock offset|local midnight"),
        (Recipe(), lambda b: b["period"]["offsets"][1].reverse(), "slots", "offsets"),
        (Recipe(), lambda b: b["lines"][0].update(amount_minor=1), "lines", "line 0 says"),
        (Recipe(), lambda b: b["lines"].pop(), "lines", "the bill has 4 lines"),
        (Recipe(), lambda b: b.update(vat_minor=0), "total", "its lines make"),
        (Recipe(), lambda b: b.update(currency="EUR"), "tariff", "another tariff, currency"),
        (Recipe(), lambda b: b.update(slots=97), "chain", "counts 97 slots"),
        (Recipe(), lambda b: b.update(device=["meter-002"]), "slots", "the packages are not"),
        (Recipe(), lambda b: b.update(dispute_until="2016-11-02"), "tariff", "less time to dispute"),
        (Recipe(), lambda b: b.update(extra=1), "chain", "nothing vouches for: extra"),
    ],
)
def test_a_lie_in_a_bill_that_the_operator_put_in_the_run_is_found(
    recipe: Recipe, change: Change, step: str, words: str
) -> None:
    bill = copy.deepcopy(maker.bill_document(recipe))
    change(bill)
    name, detail = failed(check(maker.with_bill(recipe, bill)))
    assert name == step
    assert any(word in detail for word in words.split("|")), detail


@pytest.mark.parametrize("period", ["2016-10-29/2016-10-30", "2016-10-30/2016-11-01", "2016-10-29", "x/y"])
def test_a_run_of_another_period_is_found(period: str) -> None:
    bundle = maker.with_bill(Recipe(), maker.bill_document(Recipe()), period)
    assert failed(check(bundle))[0] == "run-inclusion"


def test_a_contract_that_began_within_the_run_s_period_is_billed_in_it() -> None:
    assert check(maker.with_bill(Recipe(), maker.bill_document(Recipe()), "2016-10-04/2016-11-04")).ok


# --- the log against what was kept ----------------------------------------------------------------------


def _entries(recipe: Recipe, count: int) -> list[bytes]:
    """The first entries of the log in the recipe's bundle."""
    entries = []
    for sequence, data in maker.packages_of(recipe).items():
        entries += [
            maker.secret(recipe.seed, f"another {sequence}"),
            maker.commit(maker.secret(recipe.seed, f"salt {sequence}"), data),
        ]
    return entries[:count]


def test_a_kept_checkpoint_is_compared() -> None:
    recipe = Recipe(earlier=9)
    bundle, entries = maker.package_bundle(recipe), _entries(recipe, 9)
    kept = maker.checkpoint(1, entries)
    found = next(step for step in check(bundle, earlier=kept).steps if step.name == "consistency")
    assert found.detail == "continues 2 earlier checkpoints"
    rewritten = maker.checkpoint(1, [*entries[:8], bytes(32)])
    assert failed(check(bundle, earlier=rewritten)) == (
        "consistency",
        "the log had another root for 9 entries: it was rewritten",
    )
    forged = maker.checkpoint(2, entries)
    assert failed(check(bundle, earlier=forged))[0] == "consistency"
    lied = copy.deepcopy(bundle)
    lied["earlier"]["checkpoint"] = rewritten
    assert failed(check(lied))[0] == "consistency"


@pytest.mark.parametrize("earlier", [1, 2, 3, 7, 8, 16, 27, 28])
def test_every_earlier_size_is_continued(earlier: int) -> None:
    assert failed(check(maker.package_bundle(Recipe(earlier=earlier)))) == ("", "")


# --- packages that no device should sign ------------------------------------------------------------------

GOOD = maker.senml([(1_800, 5), (3_600, 6)])


@pytest.mark.parametrize(
    ("pack", "header", "words"),
    [
        ([], {}, "no SenML pack"),
        ({}, {}, "no SenML pack"),
        ([GOOD[0] | {-4: "kWh"}], {}, "another base name, time or unit"),
        ([GOOD[0] | {-2: "urn:dev:city:meter-002:"}], {}, "another base name"),
        ([GOOD[0] | {-3: 1_801}], {}, "not at the start"),
        ([GOOD[0] | {0: "power"}], {}, "measures .power."),
        ([GOOD[0] | {6: 0}], {}, "record 0 is malformed"),
        ([GOOD[0] | {2: "5"}], {}, "record 0 is malformed"),
        ([GOOD[0] | {5: 5}], {}, "record 0 is malformed"),
        ([GOOD[0], GOOD[1] | {6: 900}], {}, "not at the start"),
        ([GOOD[0], {0: "energy", 2: 5}], {}, "not at the start of a later slot"),
        ([GOOD[0]] * 1_025, {}, "1 to 1024"),
        (GOOD, {1: -35}, "protected header"),
        (GOOD, {1: [1]}, "protected header"),
        (GOOD, {3: 50}, "protected header"),
        (GOOD, {4: b"Meter"}, "protected header"),
        (GOOD, {-65537: 0}, "protected header"),
        (GOOD, {-65538: bytes([1]) * 32}, "protected header"),
        (GOOD, {5: 5}, "protected header"),
    ],
)
def test_a_signed_package_of_another_form_is_refused(pack: Any, header: dict[int, Any], words: str) -> None:
    with pytest.raises(Failure, match=words):
        parse_package(maker.package(maker.DeviceKey(1), 1, bytes(32), pack, header=header), "it")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x1a\x00\x00\x07\x08", b"\x1a\x00\x00\x00\x05"),
        (b"\xd2", b"\xd8\x12"),
        (b"\xd2\x84", b"\xd2\x9f"),
        (b"\xd2\x84", b"\xd2\xf9"),
        (b"\x40", b"\x60"),
        (b"\xa0", b"\xa1\x04\x41\x31"),
    ],
)
def test_cbor_that_is_not_in_its_one_form_is_refused(old: bytes, new: bytes) -> None:
    good = maker.package(maker.DeviceKey(1), 1, bytes(32), GOOD)
    bad = good.replace(old, new, 1) if old in good else good + new
    assert bad != good
    with pytest.raises(Failure):
        parse_package(bad, "it")


def test_a_package_with_another_tag_or_none_is_refused() -> None:
    for data in (maker.package(maker.DeviceKey(1), 1, bytes(32), GOOD, tag=98), maker.cbor([b"", {}, b"", b""])):
        with pytest.raises(Failure, match="COSE_Sign1"):
            parse_package(data, "it")


# --- known vectors ----------------------------------------------------------------------------------------

RFC6962 = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
RFC6962_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("indexes", [[0], [5], [7], [0, 7], [2, 3, 4], list(range(8))])
def test_the_reference_tree_of_rfc_6962(indexes: list[int]) -> None:
    hashes = [bytes.fromhex(item) for item in maker.proof(RFC6962, indexes)["hashes"]]
    leaves = {index: leaf(RFC6962[index]) for index in indexes}
    assert batch_root(leaves, 8, hashes, "it").hex() == RFC6962_ROOT


def test_the_cose_working_group_s_eddsa_example() -> None:
    """eddsa-sig-01 of cose-wg/Examples, over the key of RFC 8032, 7.1, test 1."""
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "7142fd2ff96d56db85bee905a76ba1d0b7321a95c8c4d3607c5781932b7afb87"
        "11497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08f4a44d6fef0d"
    )
    signed = maker.cbor(["Signature1", bytes.fromhex("a201270300"), b"", b"This is the content."])
    assert signed.hex().startswith("846a5369676e61747572653145a20127030040")
    assert ed25519_holds(key, signed, signature)
    assert not ed25519_holds(key, signed[:-1] + b"!", signature)


# --- every byte, and what is shown ------------------------------------------------------------------------


def test_every_byte_of_a_small_bundle_counts() -> None:
    good, trust, source = maker.canonical(maker.event_bundle(Recipe())), read_trust(maker.trust(1)), random.Random(3)
    for at in range(len(good)):
        bad = good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :]
        assert failed(check_bundle(bad, trust))[0], f"byte {at}"


def test_a_text_of_the_bundle_forges_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bill = maker.bill_document(Recipe(held=(4,)))
    bill["estimated"][0]["reason"] = "quarantined:x\n  everything holds\x1b[2K\u202e"
    (tmp_path / "bundle.json").write_bytes(maker.canonical(maker.with_bill(Recipe(held=(4,)), bill)))
    (tmp_path / "trust.json").write_bytes(maker.canonical(maker.trust(1)))
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    assert main([str(tmp_path / "bundle.json"), "--trust", str(tmp_path / "trust.json")]) == 0
    lines = shown.getvalue().decode("ascii").splitlines()
    assert lines.count("  everything holds") == 1
    assert any("x\\n  everything holds\\x1b[2K\\u202e" in line for line in lines)
