"""The verifier on parking sessions made from docs/PROOFS.md alone (sessionmaker.py): whole ones hold, each change is named by its step."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from tests.unit.verifier import sessionmaker as maker
from tests.unit.verifier.bundlebytes import CITY, canonical, checkpoint, evidence, log_part, secret, trust
from tests.unit.verifier.checking import Change, changed, check, failed, flip, put, swap
from verifier.bundle import check_bundle
from verifier.trust import read_trust

STEPS = [
    "bundle-format", "trust", "checkpoint-signature", "anchor-endorsement", "anchor-block", "anchor-matches", "commitments", "inclusion",
    "consistency", "device-keys", "signatures", "chain", "reservation", "access", "passages", "price", "receipts",
]  # fmt: skip
OWED = {
    "overstayed": 780, "over the clock change": 720, "cancelled free": 0, "cancelled late": 100, "cancelled while held": 0, "not come": 200,
    "expired": 0, "declined": 0, "refunded": 630, "for nothing": 0,
}  # fmt: skip
WHOLE = maker.bundle_of(maker.overstayed())
"""Logs: parking.events, parking.states, payments.events."""


@pytest.mark.parametrize("name", sorted(maker.STORIES))
def test_a_whole_session_holds(name: str) -> None:
    story = maker.STORIES[name]()
    report = check(maker.bundle_of(story), story.seed)
    assert failed(report) == ("", "")
    assert [step.name for step in report.steps] == STEPS
    assert f"come to GBP {OWED[name]} in minor units" in report.steps[-1].detail


def test_a_session_with_p256_locks_and_a_key_changed_in_between_holds() -> None:
    story = maker.overstayed(5, "ES256", ("parking-1", "parking-2"))
    report = check(maker.bundle_of(story), 5)
    assert failed(report) == ("", "")
    assert "2 documents, signed by 2 keys" in next(step.detail for step in report.steps if step.name == "access")


def test_it_says_what_a_reader_should_know() -> None:
    notes = check(maker.bundle_of(maker.refunded())).notes
    assert any("shown as of version 7" in note for note in notes)
    assert any("captured of 600 authorised, 150 refunded" in note for note in notes)


# --- changes after the signing ----------------------------------------------------------------------------


def _jws(part: int, at: int, text: str) -> Change:
    """Replaces one character of a part of the first access document."""

    def change(bundle: Any) -> None:
        parts = bundle["access"][0].split(".")
        parts[part] = parts[part][:at] + text + parts[part][at + 1 :]
        bundle["access"][0] = ".".join(parts)

    return change


def _other(data: str) -> str:
    raw = bytearray(base64.b64decode(data))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


_ANCHOR = ("logs", 1, "anchor")
_PRICED = ("tariff", "envelope", "transaction", "args", "tariff")
_KEYED = ("keys", 0, "registered", "envelope", "transaction", "args")


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (put("kind", value="parking"), "bundle-format", "no known kind"),
        (put("earlier", value={}), "bundle-format", "earlier is not of the right kind"),
        (lambda b: b.pop("keys"), "bundle-format", "lacks keys"),
        (lambda b: b.update(log=b["logs"][0]), "bundle-format", "nothing vouches for: log"),
        (put("city", value="provable.city/other"), "trust", "provable.city/other"),
        (put("logs", value=[]), "checkpoint-signature", "logs are missing"),
        (put("logs", value=swap), "checkpoint-signature", "not in order of their origins"),
        (lambda b: b["logs"].insert(0, b["logs"][0]), "checkpoint-signature", "twice"),
        (put("logs", 0, value=7), "checkpoint-signature", "logs[0] is no object"),
        (put("logs", 2, "origin", value=f"{CITY}/payments.transfers"), "checkpoint-signature", "payments.transfers"),
        (put("logs", 1, "checkpoint", value=lambda t: t.replace("\n4\n", "\n5\n")), "checkpoint-signature", "no signature"),
        (put(*_ANCHOR, "envelope", "endorsements", 0, "signature", value=_other), "anchor-endorsement", "logs[1].anchor"),
        (put(*_ANCHOR, "header", "number", value=8), "anchor-block", "no trusted orderer"),
        (put(*_ANCHOR, value=WHOLE["logs"][0]["anchor"]), "anchor-matches", "another size or root"),
        (lambda b: b["logs"].pop(1), "commitments", "of the log provable.city/example/parking.states"),
        (put("reservation", 1, "index", value=1), "commitments", "entry 1 is in the bundle twice"),
        (put("reservation", 1, "salt", value="00"), "commitments", "reservation[1].salt"),
        (put("reservation", 0, "more", value=1), "commitments", "nothing vouches for: more"),
        (put("packages", value=swap), "commitments", "not in order of device and sequence"),
        (put("packages", 0, "package", value=lambda t: t[:-4]), "commitments", "ends too early"),
        (lambda b: b["receipts"].append(b["receipts"][0]), "commitments", "twice"),
        (put("reservation", 3, "document", "entry_time", value=lambda n: n - 60), "inclusion", "logs[0]"),
        (put("reservation", 3, "salt", value=flip), "inclusion", "was changed"),
        (put("reservation", value=swap), "reservation", "where version 1 belongs"),
        (lambda b: b["reservation"].pop(), "inclusion", "the bundle's entries"),
        (put("reservation", value=[]), "inclusion", "shows no entry of the log"),
        (put("receipts", 0, "document", "captured_minor", value=1), "inclusion", "logs[2]"),
        (put("logs", 2, "proof", "size", value=5), "inclusion", "not for the checkpoint's size"),
        (put("logs", 2, "proof", "hashes", value=[]), "inclusion", "lacks hashes"),
        (put("devices", value=[]), "device-keys", "keys are given for []"),
        (put("devices", 0, "keys", 0, "key", value=flip), "device-keys", "registered another key"),
        (put("devices", value=lambda d: [*d, d[0]]), "device-keys", "stands twice"),
        (put("devices", value=swap), "device-keys", "not in order"),
        (put("access", value=[]), "access", "keys ['parking-1'] are given, [] signed"),
        (put("access", value=swap), "access", "not in order"),
        (put("access", value=lambda a: [a[0], a[0]]), "access", "twice"),
        (put("access", value=lambda a: a[:1]), "access", "documents [7] are given; the reservation says that [7, 8]"),
        (put("access", 0, value=7), "access", "no compact JWS"),
        (put("access", 0, value=lambda t: t + "."), "access", "4 parts"),
        (put("access", 0, value=lambda t: t.partition(".")[2]), "access", "2 parts"),
        (put("access", 0, value=lambda t: t + "="), "access", "base64url"),
        (_jws(0, 0, "f"), "access", "header"),
        (_jws(1, 3, "B"), "access", "signature does not hold"),
        (_jws(2, 3, "B"), "access", "signature does not hold"),
        (_jws(2, 85, "x"), "access", "not base64url in its one form"),
        (_jws(2, 4, "+"), "access", "not base64url in its one form"),
        (_jws(2, 4, "!"), "access", "not base64url in its one form"),
        (put("keys", value=[]), "access", "signed by the key parking-1, which the bundle does not show"),
        (put("keys", value=lambda k: [*k, maker.published_key(1, "parking-2")]), "access", "['parking-1'] signed"),
        (put("keys", value=lambda k: [*k, *k]), "access", "keys are twice"),
        (put("keys", 0, "kid", value="parking-9"), "access", "published parking-1, not parking-9"),
        (put("keys", 0, "more", value=1), "access", "nothing vouches for: more"),
        (put(*_KEYED, "key", value=flip), "access", "endorsement"),
        (put("keys", 0, "registered", value=WHOLE["tariff"]), "access", "parking-tariffs.publish of parking"),
        (put("tariff", value=WHOLE["keys"][0]["registered"]), "price", "parking-keys.publish of parking"),
        (put(*_PRICED, "cap_minor_per_day", value=1), "price", "endorsement"),
        (put("tariff", "index", value=0), "price", "place in the block"),
        (put("tariff", "envelope", "code", value="INVALID"), "price", "committed as INVALID"),
    ],
)  # fmt: skip
def test_a_change_is_found_by_the_step_whose_matter_it_is(change: Change, step: str, words: str) -> None:
    name, detail = failed(check(changed(WHOLE, change)))
    assert (name, words in detail) == (step, True), detail


def test_a_checkpoint_of_one_of_its_logs_is_compared() -> None:
    def said(earlier: str) -> tuple[bool, str]:
        step = next(step for step in check(WHOLE, earlier=earlier).steps if step.name == "consistency")
        return step.ok, step.detail

    assert said(WHOLE["logs"][2]["checkpoint"]) == (True, "continues 1 earlier checkpoints")
    payments = f"{CITY}/payments.events"
    forked = checkpoint(1, [secret(1, str(n)) for n in range(4)], payments)
    assert said(forked) == (False, "the log has two roots for 4 entries: it was forked")
    assert said(checkpoint(1, [b""], payments))[1] == "no kept checkpoint could be compared, see the notes"
    other = checkpoint(1, [b""], f"{CITY}/metering.readings")
    assert said(other) == (
        False,
        f"the kept checkpoint is of {CITY}/metering.readings; the bundle holds nothing of that log",
    )


def test_every_byte_of_a_session_counts() -> None:
    good, trusted, source = canonical(WHOLE), read_trust(trust(1)), random.Random(4)
    for at in source.sample(range(len(good)), 400):
        bad = good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :]
        assert failed(check_bundle(bad, trusted))[0], f"byte {at}"


# --- signed anew ----------------------------------------------------------------------------------------


def test_an_access_document_of_another_algorithm_is_refused() -> None:
    claims = maker.overstayed().claims
    for header, words in (
        ({"alg": "none"}, "is of none"),
        ({"typ": "JWT"}, "type JWT"),
        ({"x5u": "x"}, "vouches for: x5u"),
    ):
        texts = [maker.jws(1, "parking-1", claims[0], **header), maker.jws(1, "parking-1", claims[1])]
        name, detail = failed(check({**WHOLE, "access": texts}))
        assert (name, words in detail) == ("access", True), detail


def test_an_access_document_signed_by_another_key_of_the_city_is_refused() -> None:
    claims = maker.overstayed().claims
    forged = maker.jws(1, "parking-2", claims[0]).split(".")
    honest = maker.jws(1, "parking-1", claims[0]).split(".")
    texts = [".".join([*honest[:2], forged[2]]), WHOLE["access"][1]]
    assert failed(check({**WHOLE, "access": texts}))[0] == "access"


def test_entries_of_another_log_of_the_city_are_refused() -> None:
    """Everything signed and anchored, but versions stand in the log of packages."""
    bundle = maker.bundle_of(maker.expired())
    items = bundle["reservation"]
    maker.logged(1, "parking.states", items, [canonical(item["document"]) for item in items])
    part = maker.logged(1, "parking.states", items, [canonical(item["document"]) for item in items])
    name, detail = failed(check({**bundle, "logs": part}))
    assert (name, "these entries are of the log provable.city/example/parking.events" in detail) == (
        "commitments",
        True,
    ), detail


def test_a_log_that_nothing_in_the_bundle_stands_in_is_refused() -> None:
    bundle = maker.bundle_of(maker.expired())
    empty = log_part(1, [b"", b""], [], f"{CITY}/payments.events")
    name, detail = failed(check({**bundle, "logs": [*bundle["logs"], empty]}))
    assert (name, "shows no entry of the log" in detail) == ("inclusion", True), detail


def test_a_tariff_that_another_service_published_is_refused() -> None:
    tariff = evidence(1, "parking-tariffs", "publish", "gateway", {"tariff": maker.TARIFF})
    assert failed(check({**WHOLE, "tariff": tariff}))[1].endswith("of gateway, not parking-tariffs.publish of parking")
    more = evidence(1, "parking-tariffs", "publish", "parking", {"tariff": maker.TARIFF, "more": 1})
    assert "nothing vouches for: more" in failed(check({**WHOLE, "tariff": more}))[1]


def test_a_stay_of_absurd_length_is_refused_at_once() -> None:
    story = maker.expired()
    for document in story.documents:
        document["to_time"] = 250_000_000_000
    name, detail = failed(check(maker.bundle_of(story)))
    assert (name, "more than 50000 steps" in detail) == ("price", True), detail
