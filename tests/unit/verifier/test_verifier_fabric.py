"""The verifier on evidence of a Fabric channel, made from docs/PROOFS.md alone (fabricbytes.py): honest, changed, and signed by cheats."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from tests.unit.verifier import bundlebytes, bundlemaker
from tests.unit.verifier import fabricbytes as maker
from tests.unit.verifier.bundlebytes import b64, canonical
from tests.unit.verifier.bundlemaker import Recipe
from tests.unit.verifier.checking import Change, changed, failed, flip, put
from tests.unit.verifier.fabricbytes import Authority, Call, Channel, proto
from verifier.bundle import Report, check_bundle
from verifier.canonical import Failure, Unreadable
from verifier.trust import read_trust
from verifier.wire import Message, require_envelope

RAFT = Channel()
CITY, UTILITY, AUDITOR = (RAFT.peer(msp) for msp in ("CityMSP", "UtilityMSP", "AuditorMSP"))


@pytest.fixture(autouse=True)
def on_fabric(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bundlebytes, bundlemaker):
        monkeypatch.setattr(module, "evidence", maker.evidence)


def check(bundle: Any, channel: Channel = RAFT, **more: Any) -> Report:
    return check_bundle(canonical(bundle), read_trust(maker.trust_file(channel, **more)), None)


def event() -> dict[str, Any]:
    return bundlemaker.event_bundle(Recipe())


# --- honest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        (RAFT, "block 300, signed by the orderer; 2 organisations signed that it is valid"),
        (Channel(bft=True), "signed by 3 orderers"),
        (Channel(edwards=True), "2 organisations"),
        (Channel(between=True), "2 organisations"),
    ],
)
def test_honest_evidence_holds(channel: Channel, words: str) -> None:
    report = check(maker.anchored(event(), channel), channel)
    assert failed(report) == ("", "")
    steps = {step.name: step.detail for step in report.steps}
    assert words in steps["anchor-block"]
    assert steps["anchor-endorsement"].startswith("2 endorsements of transaction")
    assert steps["anchor-matches"].endswith("2016-11-08T00:00:00Z")
    assert "3 organisations" in steps["trust"] and report.notes == []


def test_whole_bundles_of_packages_and_bills_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    published = maker.evidence(1, "tariffs", "publish", "metering", {"tariff": bundlemaker.TARIFF})["transaction"]

    def secret(seed: int, name: str) -> bytes:
        return bytes.fromhex(published) if name == "tariffs.publish" else bundlebytes.secret(seed, name)

    monkeypatch.setattr(bundlemaker, "secret", secret)
    for bundle in (bundlemaker.package_bundle(Recipe()), bundlemaker.bill_bundle(Recipe())):
        assert failed(check(bundle)) == ("", "")


def test_a_development_peer_is_told_whatever_the_trust_file_calls_it() -> None:
    channel = Channel(kind="development-peer")
    report = check(maker.anchored(event(), channel), channel)
    assert report.ok
    assert report.notes == ["the ledger is a development peer: one operator, not Fabric"]


def test_validity_that_nobody_signed_is_told() -> None:
    bundle = changed(event(), put("log", "anchor", "attestations", value=[]))
    assert failed(check(bundle)) == (
        "anchor-block",
        "anchor: 0 organisations signed that it was committed as valid, 2 are needed",
    )
    report = check(bundle, attestations=0)
    assert report.ok
    assert any("the word of the peer it was read from" in step.detail for step in report.steps)


# --- changed --------------------------------------------------------------------------------------------


def test_every_byte_counts() -> None:
    good, trust, source = canonical(event()), read_trust(maker.trust_file(RAFT)), random.Random(5)
    for _ in range(700):
        at = source.randrange(len(good))
        bad = good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :]
        assert failed(check_bundle(bad, trust, None))[0], f"byte {at}"


ANCHOR = ("log", "anchor")


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (put(*ANCHOR, "type", value="embedded.v1"), "anchor-endorsement", "type embedded.v1 cannot be checked"),
        (put(*ANCHOR, "transaction", value=flip), "anchor-endorsement", "id is not that of its creator"),
        (put(*ANCHOR, "index", value=0), "anchor-endorsement", "id is not that of its creator"),
        (put(*ANCHOR, "index", value=3), "anchor-endorsement", "no transaction 3"),
        (put(*ANCHOR, "index", value=-1), "anchor-endorsement", "no transaction -1"),
        (put(*ANCHOR, "more", value=1), "anchor-endorsement", "nothing vouches for"),
        (put(*ANCHOR, "code", value="MVCC_READ_CONFLICT"), "anchor-block", "committed as MVCC_READ_CONFLICT"),
        (put(*ANCHOR, "header", "number", value=301), "anchor-block", "under block 301 does not hold"),
        (put(*ANCHOR, "header", "number", value=-1), "anchor-block", "block -1"),
        (put(*ANCHOR, "header", "number", value=0), "anchor-block", "block 0 holds no transactions"),
        (put(*ANCHOR, "header", "previous", value=flip), "anchor-block", "does not hold"),
        (put(*ANCHOR, "header", "previous", value="00"), "anchor-block", "32 bytes"),
        (put(*ANCHOR, "header", "data", value=flip), "anchor-block", "not in block 300"),
        (put(*ANCHOR, "envelopes", value=lambda items: items[:2]), "anchor-block", "not in block 300"),
        (put(*ANCHOR, "envelopes", value=lambda items: [items[2], *items[1:]]), "anchor-block", "not in block 300"),
        (put(*ANCHOR, "envelopes", 0, value=""), "anchor-block", "no envelope with payload and signature"),
        (put(*ANCHOR, "envelopes", 0, value=b64(proto((1, b"a"), (2, b"b"), (3, b"c")))), "anchor-block", "one form"),
        (put(*ANCHOR, "envelopes", 0, value=b64(proto((2, b"b"), (1, b"a")))), "anchor-block", "one form"),
        (put(*ANCHOR, "envelopes", 0, value=b64(b"\x0a\x81\x00a\x12\x01b")), "anchor-block", "one form"),
        (put(*ANCHOR, "signature", "metadata", value=b64(b"\x0a\x02\x08\x01")), "anchor-block", "does not hold"),
        (put(*ANCHOR, "signature", "signatures", value=[]), "anchor-block", "0 trusted orderers"),
        (put(*ANCHOR, "signature", "signatures", 0, "identifier", value="CAE="), "anchor-block", "in one way"),
        (put(*ANCHOR, "signature", "signatures", 0, "header", value=""), "anchor-block", "in one way"),
        (put(*ANCHOR, "attestations", 0, "endorsements", value=[]), "anchor-block", "nobody signed"),
        (put(*ANCHOR, "attestations", 0, "endorsements", 0, "signature", value="MAA="), "anchor-block", "CityMSP does not hold"),
        (put(*ANCHOR, "attestations", 0, "endorsements", value=lambda items: items[:1]), "anchor-block", "1 organisation signed"),
    ],
)  # fmt: skip
def test_a_change_is_found_by_the_step_whose_matter_it_is(change: Change, step: str, words: str) -> None:
    found = failed(check(changed(event(), change)))
    assert found[0] == step
    assert words in found[1]


# --- signed by cheats -----------------------------------------------------------------------------------

FOREIGN = Authority("CityMSP", 99)
_CLIENT = RAFT.authority("CityMSP").member("a client", "client")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"endorsers": (CITY,)}, "1 organisation endorsed, 2 are needed"),
        ({"endorsers": (CITY, CITY)}, "1 organisation endorsed, 2 are needed"),
        ({"endorsers": (CITY, _CLIENT)}, "is not of a peer"),
        ({"endorsers": (CITY, FOREIGN.member("x", "peer"))}, "no trusted authority of CityMSP"),
        ({"endorsers": (CITY, FOREIGN.member("x", "peer", msp="EvilMSP"))}, "EvilMSP is no trusted organisation"),
        ({"endorsers": (CITY, RAFT.authority("CityMSP").member("x", "peer", msp="UtilityMSP"))}, "no trusted authority of UtilityMSP"),
        ({"high": True}, "an endorsement of CityMSP does not hold"),
        ({"creator": RAFT.authority("UtilityMSP").member("x", "client", service="notary")}, "UtilityMSP is no trusted organisation"),
        ({"creator": FOREIGN.member("x", "client", service="notary")}, "no trusted authority"),
        ({"channel": "other"}, "of channel other"),
        ({"named": "00" * 32}, "not that of its creator"),
        ({"asked": maker.asked_of(Call("anchors", "record", "notary", b"{}"))}, "not what was asked"),
        ({"answering": "others"}, "of another contract"),
        ({"status": 500}, "or an error"),
        ({"answer": b'{"repeated":"x"}'}, "the answer"),
        ({"answer": b"[]"}, "no object"),
        ({"arguments": (b"record", b"{}")}, "3 arguments, not 2"),
        ({"arguments": (b"record", b'{"a": 1}', b"")}, "not canonical"),
        ({"arguments": (b"\xff", b"{}", b"")}, "no text"),
        ({"kind": 1}, "no endorsed transaction"),
    ],
)  # fmt: skip
def test_what_members_sign_wrongly_is_found(how: dict[str, Any], words: str) -> None:
    found = failed(check(maker.anchored(event(), RAFT, **how)))
    assert found[0] == "anchor-endorsement"
    assert words in found[1]


@pytest.mark.parametrize("how", [{"submitter": "parking"}, {"function": "forget"}, {"contract": "other"}])
def test_another_act_is_no_anchor(how: dict[str, Any]) -> None:
    assert failed(check(maker.anchored(event(), RAFT, **how))) == (
        "anchor-matches",
        "the anchor's transaction records no head of a log",
    )


def test_the_submitters_own_signature_is_needed() -> None:
    """Everybody else signs; the submitter's signature is another's."""
    bundle = event()
    txid, envelope = maker.envelope_of(RAFT, Call("anchors", "record", "notary", maker.recorded(bundle)))
    payload, _ = require_envelope(envelope, "x")
    forged = proto((1, payload), (2, RAFT.client("parking").sign(payload)))
    bundle["log"]["anchor"] = maker.block_of(RAFT, [forged], 0, txid)
    assert failed(check(bundle)) == ("anchor-endorsement", "anchor: the submitter's signature does not hold")


def test_a_transaction_hidden_in_anothers_arguments_was_not_committed() -> None:
    """Endorsed and never ordered, it is carried into a block inside a real one; cutting the block's bytes there shows it."""
    bundle = event()
    txid, hidden = maker.envelope_of(RAFT, Call("anchors", "record", "notary", maker.recorded(bundle)))
    carrier = maker.envelope_of(RAFT, Call("others", "put", "metering", b"{}", arguments=(b"put", hidden, b"r")))[1]
    at = carrier.index(hidden)
    cut = [carrier[:at], hidden, carrier[at + len(hidden) :]]
    bundle["log"]["anchor"] = maker.block_of(RAFT, cut, 1, txid)
    found = failed(check(bundle))
    assert found[0] == "anchor-block"
    assert "ends too early" in found[1] or "one form" in found[1]


BFT = Channel(bft=True)
ORDERER = RAFT.authority("OrdererMSP")


@pytest.mark.parametrize(
    ("channel", "orderers", "words"),
    [
        (RAFT, (CITY,), "CityMSP is no trusted organisation"),
        (RAFT, (ORDERER.member("x", "client"),), "is not of a orderer"),
        (RAFT, (Authority("OrdererMSP", 99).member("x", "orderer"),), "no trusted authority of OrdererMSP"),
        (RAFT, (1,), "orderer 1 is not trusted"),
        (BFT, (1, 2), "2 trusted orderers signed block 300, 3 are needed"),
        (BFT, (1, 2, 2), "2 trusted orderers signed block 300, 3 are needed"),
        (BFT, (1, 2, 5), "orderer 5 is not trusted"),
        (BFT, (1, 2, BFT.orderer(2)), "2 trusted orderers signed block 300, 3 are needed"),
    ],
)
def test_blocks_that_too_few_orderers_signed_are_refused(
    channel: Channel, orderers: tuple[Any, ...], words: str
) -> None:
    bundle = maker.anchored(event(), channel)
    evidence = bundle["log"]["anchor"]
    data = bytes.fromhex(evidence["header"]["data"])
    evidence["signature"] = maker.signature_of(channel, 300, data, orderers)
    found = failed(check(bundle, channel))
    assert found[0] == "anchor-block"
    assert words in found[1]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"code": 11}, "not committed as valid"),
        ({"contract": "anchors"}, "no answer of the ledger's own chaincode"),
        ({"status": 500}, "no answer of the ledger's own chaincode"),
        ({"peers": (CITY, _CLIENT)}, "is not of a peer"),
        ({"peers": (CITY, CITY)}, "1 organisation signed"),
        ({"about": 0}, "about another transaction"),
    ],
)
def test_statements_that_do_not_say_valid_are_refused(how: dict[str, Any], words: str) -> None:
    bundle = event()
    evidence, how = bundle["log"]["anchor"], dict(how)
    place, peers = how.pop("about", 1), how.pop("peers", (CITY, AUDITOR))
    envelope = base64.b64decode(evidence["envelopes"][place])
    evidence["attestations"] = [maker.attestation_of(envelope, peers, **how)]
    found = failed(check(bundle))
    assert found[0] == "anchor-block"
    assert words in found[1]


def test_statements_of_several_organisations_may_stand_apart() -> None:
    bundle = event()
    evidence = bundle["log"]["anchor"]
    envelope = base64.b64decode(evidence["envelopes"][1])
    evidence["attestations"] = [maker.attestation_of(envelope, (peer,)) for peer in (UTILITY, AUDITOR)]
    assert failed(check(bundle)) == ("", "")


# --- reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("ledger", "kind", value="other"), "of kind fabric or development-peer"),
        (put("ledger", "type", value="fabric.v2"), "embedded.v1 and fabric.v1"),
        (put("ledger", "policy", "endorsements", value=0), "at least one endorsement"),
        (put("ledger", "policy", "orderers", value=0), "at least one"),
        (put("ledger", "organisations", 0, "roots", 0, value="x"), "no certificate"),
        (put("ledger", "organisations", 0, "roots", 0, value=1), "PEM text"),
        (put("ledger", "more", value=1), "nothing vouches for"),
    ],
)
def test_a_trust_file_that_cannot_be_used_is_refused(change: Change, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        read_trust(changed(maker.trust_file(RAFT), change))


def test_trust_of_one_ledger_does_not_prove_anothers() -> None:
    bundle = changed(event(), put("log", "anchor", "type", value="fabric.v1"))
    report = check_bundle(canonical(bundle), read_trust(bundlebytes.trust(1)), None)
    assert failed(report)[0] == "anchor-endorsement"
    assert "of type embedded.v1" in failed(report)[1]


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05ab", b"\x0b", b"\x00\x01", b"\x08" + b"\xff" * 11, b"\x02\x00", b"\x0d\x01", b"\x09\x01\x02"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(Failure, match="no protobuf message"):
        Message(data, "x")


def test_fields_are_read_once_and_of_their_kind() -> None:
    message = Message(proto((1, b"a"), (1, b"b"), (2, 5), (3, b"\xff")) + b"\x25abcd\x29abcdefgh", "x")
    assert (message.every(1), message.number(2), message.data(9), message.number(9)) == ([b"a", b"b"], 5, b"", 0)
    assert (message.data(4), message.data(5)) == (b"abcd", b"abcdefgh")
    for read in (lambda: message.data(1), lambda: message.number(1), lambda: message.data(2), lambda: message.text(3)):
        with pytest.raises(Failure, match="field"):
            read()
