"""The vectors of docs/PROOFS.md, byte for byte. `python -m tests.golden.test_proof_vectors` writes them anew, for a deliberate change of format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from citykit.canonical import encode
from citykit.ledger.local.blocks import Signer, block_hash, make_block
from citykit.merkle import batch_proof, consistency_proof, in_memory, inclusion_proof, leaf_hash, root_of
from citykit.note import Checkpoint, sign_note
from citykit.package import Ed25519Signer, Es256Signer, Reading, commitment, package_hash, sign_package
from services.parking.app.access import Keys
from services.parking.domain import price as parking_price
from services.parking.domain.reservation import Reservation
from services.parking.domain.tariff import parse_tariff
from services.parking.events import reservation_document
from services.payments.domain.books import Balance, Movement
from services.payments.domain.posting import set_documents
from tests.golden.parking_prices import EXAMPLES
from verifier.access import open_access
from verifier.canonical import encode as verifier_encode
from verifier.found import commit
from verifier.merkle import batch_root, leaf
from verifier.note import open_checkpoint
from verifier.package import parse_package
from verifier.parking_price import overstay_lines, quote_lines, read_tariff
from verifier.signatures import device_signature_holds

FILE = Path(__file__).parent / "proofs" / "vectors.json"
SEED = bytes(range(32))
START = 1_475_535_600


def vectors() -> dict[str, Any]:
    """Everything from the seed 00 01 … 1f."""
    readings = [Reading(START, 150), Reading(START + 1_800, 70_000), Reading(START + 5_400, 3)]
    packages = {}
    for signer in (Ed25519Signer.from_seed(SEED), Es256Signer.from_seed(SEED)):
        first = sign_package(signer, "meter-001", 1, bytes(32), readings)
        second = sign_package(signer, "meter-001", 2, package_hash(first), [Reading(START + 7_200, 24)])
        packages[signer.algorithm] = {"key": signer.public_key.hex(), "first": first.hex(), "second": second.hex()}
    leaves = [leaf_hash(commitment(SEED, bytes([n]))) for n in range(11)]
    hashes = in_memory(leaves)
    head = Checkpoint("provable.city/vectors/log", 11, root_of(leaves))
    orderer = Signer(SEED)
    envelope = {"code": "VALID", "endorsements": [], "transaction": {"id": "00"}}
    block = make_block(orderer, "city", 3, "11" * 32, "2016-11-08T00:00:00Z", [envelope], [[]])
    return {
        "block": {"header": block["header"], "hash": block_hash(block["header"]), "signature": block["signature"]},
        "canonical": encode({"b": [1, True, None], "a": "ä"}).hex(),
        "checkpoint": {"key": orderer.public_key.hex(), "note": sign_note(head.text(), head.origin, SEED)},
        "commitment": commitment(SEED, b"content").hex(),
        "packages": packages,
        **_parking(),
        "postings": _postings(),
        "tree": {
            "batch of 1, 4, 5": [item.hex() for item in batch_proof(hashes, [1, 4, 5], 11)],
            "consistency from 6": [item.hex() for item in consistency_proof(hashes, 6, 11)],
            "inclusion of 7": [item.hex() for item in inclusion_proof(hashes, 7, 11)],
            "leaves": [item.hex() for item in leaves],
            "root": head.root.hex(),
        },
    }


def _parking() -> dict[str, Any]:
    """An access document, a reservation's first version and its commitment, prices."""
    keys = Keys(cast(Any, None), cast(Any, None), SEED)
    claims = {
        "iss": "provable.city/vectors", "aud": "lock-1", "sub": "res-1", "jti": "7", "act": "entry", "lot": "lot-1", "bay": "b-012",
        "iat": 1_477_471_800, "nbf": 1_477_472_100, "exp": 1_477_483_200,
    }  # fmt: skip
    one = Reservation(
        "res-1", "nobody", "lot-1", "b-012", 1_477_472_400, 1_477_483_200, 1_477_419_000, 360, "GBP", "bays-2016", 1
    )
    lines = parking_price.quote_lines(parse_tariff(EXAMPLES[0]["tariff"]), one.from_time, one.to_time, 10_000)
    document = reservation_document(one, "held", lines, 1_477_418_400)
    return {
        "access": {"key": keys.signer.public_key.hex(), "kid": keys.kid, "jws": keys.jws(claims), "claims": claims},
        "reservation": {"document": json.loads(document), "salt": SEED.hex(), "commitment": commitment(SEED, document).hex()},
        "prices": [{**example, "lines": _priced(example)} for example in EXAMPLES],
    }  # fmt: skip


def _priced(example: dict[str, Any]) -> list[dict[str, Any]]:
    times = (example["from_time"], example["to_time"], example["exit_time"])
    lines = parking_price.session_lines(parse_tariff(example["tariff"]), *times, example["permit_basis_points"])
    return [
        {
            "kind": line.kind,
            "date": line.date,
            "band": line.band,
            "steps": line.steps,
            "amount_minor": line.amount_minor,
        }
        for line in lines
    ]


def _postings() -> dict[str, Any]:
    """A set of two linked transfers: a hold is captured in part, the payee is paid. Salts count up from the seed."""
    payer, payee, clearing = "payer/1", "payee/parking", "provider/clearing"
    movements = [
        Movement(
            "p1/capture", "post-pending", clearing, payer, 360, 600, "GBP", "p1/hold", 0, "parking reservation/res-1",
            8, Balance(0, 960, 0, 0), 3, Balance(0, 0, 0, 360),
        ),
        Movement(
            "p1/pay", "posted", payer, payee, 360, 0, "GBP", "", 0, "parking reservation/res-1",
            4, Balance(0, 360, 0, 360), 12, Balance(0, 0, 0, 4_360),
        ),
    ]  # fmt: skip
    rules = {payer: "debits-within-credits", payee: "debits-within-credits", clearing: "free"}
    documents = set_documents(movements, rules, "2016-10-26T14:05:00Z")
    salts = [bytes([n]) + SEED[1:] for n in range(len(documents))]
    leaves = [leaf_hash(commitment(salt, document)) for salt, document in zip(salts, documents, strict=True)]
    root = root_of(leaves)
    return {
        "documents": [json.loads(document) for document in documents], "salts": [salt.hex() for salt in salts], "root": root.hex(),
        "entry": commitment(SEED, root).hex(), "of the payer": [item.hex() for item in batch_proof(in_memory(leaves), [1, 2], 4)],
    }  # fmt: skip


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_the_servers_make_the_stored_bytes() -> None:
    assert vectors() == stored()


def test_the_verifier_reads_the_stored_bytes() -> None:
    kept = stored()
    for algorithm, item in kept["packages"].items():
        first, second = (parse_package(bytes.fromhex(item[name]), name) for name in ("first", "second"))
        assert (first.sequence, second.previous) == (1, first.hash)
        assert first.readings == {START: 150, START + 1_800: 70_000, START + 5_400: 3}
        for package in (first, second):
            assert device_signature_holds(algorithm, bytes.fromhex(item["key"]), package.signed, package.signature)
    tree = kept["tree"]
    leaves = {n: bytes.fromhex(tree["leaves"][n]) for n in (1, 4, 5)}
    proof = [bytes.fromhex(item) for item in tree["batch of 1, 4, 5"]]
    assert batch_root(leaves, 11, proof, "vectors").hex() == tree["root"]
    checkpoint = kept["checkpoint"]
    head = open_checkpoint(checkpoint["note"], "provable.city/vectors/log", bytes.fromhex(checkpoint["key"]))
    assert (head.size, head.root.hex()) == (11, tree["root"])


def test_the_verifier_opens_the_stored_access_document() -> None:
    kept = stored()["access"]
    assert open_access(kept["jws"], {kept["kid"]: bytes.fromhex(kept["key"])}, "it") == (kept["kid"], kept["claims"])


def test_the_verifier_commits_to_documents_as_stored() -> None:
    kept = stored()["reservation"]
    assert commit(bytes.fromhex(kept["salt"]), verifier_encode(kept["document"])).hex() == kept["commitment"]
    postings = stored()["postings"]
    leaves = [
        leaf(commit(bytes.fromhex(salt), verifier_encode(document)))
        for salt, document in zip(postings["salts"], postings["documents"], strict=True)
    ]
    proof = [bytes.fromhex(item) for item in postings["of the payer"]]
    root = batch_root({1: leaves[1], 2: leaves[2]}, len(leaves), proof, "it")
    assert root.hex() == postings["root"]
    assert commit(SEED, root).hex() == postings["entry"]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_prices_come_out_as_stored_and_as_worked_out_by_hand(number: int) -> None:
    kept = stored()["prices"][number]
    tariff = read_tariff(kept["tariff"])
    lines = quote_lines(tariff, kept["from_time"], kept["to_time"], kept["permit_basis_points"])
    lines += overstay_lines(tariff, kept["to_time"], kept["exit_time"])
    assert lines == kept["lines"]
    assert sum(line["amount_minor"] for line in kept["lines"]) == kept["total_minor"]


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
