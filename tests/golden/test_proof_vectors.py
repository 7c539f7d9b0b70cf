"""The vectors of docs/PROOFS.md, byte for byte. `python -m tests.golden.test_proof_vectors` writes them anew, for a deliberate change of format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from citykit.canonical import encode
from citykit.ledger.local.blocks import Signer, block_hash, make_block
from citykit.merkle import batch_proof, consistency_proof, in_memory, inclusion_proof, leaf_hash, root_of
from citykit.note import Checkpoint, sign_note
from citykit.package import Ed25519Signer, Es256Signer, Reading, commitment, package_hash, sign_package
from verifier.merkle import batch_root
from verifier.note import open_checkpoint
from verifier.package import parse_package
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
        "tree": {
            "batch of 1, 4, 5": [item.hex() for item in batch_proof(hashes, [1, 4, 5], 11)],
            "consistency from 6": [item.hex() for item in consistency_proof(hashes, 6, 11)],
            "inclusion of 7": [item.hex() for item in inclusion_proof(hashes, 7, 11)],
            "leaves": [item.hex() for item in leaves],
            "root": head.root.hex(),
        },
    }


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


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
