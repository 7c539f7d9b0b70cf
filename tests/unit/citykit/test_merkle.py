"""Merkle trees against RFC 6962's reference tree, and against themselves in every size."""

from __future__ import annotations

import random

import pytest

from citykit.merkle import (
    EMPTY_ROOT,
    ProofError,
    batch_proof,
    check_consistency,
    consistency_proof,
    in_memory,
    inclusion_proof,
    leaf_hash,
    root_from_batch,
    root_from_inclusion,
    root_of,
)

# The eight inputs and roots of the Certificate Transparency reference tests (RFC 6962, 2.1.3 uses the same tree form).
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes([number])) for number in range(70)]


def test_the_reference_tree() -> None:
    leaves = [leaf_hash(data) for data in INPUTS]
    assert [root_of(leaves[: size + 1]).hex() for size in range(8)] == ROOTS
    assert root_of([]) == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 33, 64, 70])
def test_inclusion_consistency_and_batches_hold_in_every_size(size: int) -> None:
    hashes, root = in_memory(LEAVES[:size]), root_of(LEAVES[:size])
    for index in range(size):
        assert root_from_inclusion(LEAVES[index], index, size, inclusion_proof(hashes, index, size)) == root
    for first in range(size + 1):
        check_consistency(first, root_of(LEAVES[:first]), size, root, consistency_proof(hashes, first, size))
    source = random.Random(size)
    for _ in range(20):
        indexes = sorted(source.sample(range(size), source.randint(1, size)))
        leaves = [(index, LEAVES[index]) for index in indexes]
        assert root_from_batch(leaves, size, batch_proof(hashes, indexes, size)) == root


def test_a_proof_of_something_else_does_not_lead_to_the_root() -> None:
    hashes, root = in_memory(LEAVES[:20]), root_of(LEAVES[:20])
    path = inclusion_proof(hashes, 5, 20)
    assert root_from_inclusion(LEAVES[6], 5, 20, path) != root
    assert root_from_inclusion(LEAVES[5], 4, 20, path) != root
    for bad in (path[:-1], [*path, path[0]]):
        with pytest.raises(ProofError):
            root_from_inclusion(LEAVES[5], 5, 20, bad)
    with pytest.raises(ProofError):
        root_from_inclusion(LEAVES[5], 20, 20, path)


def test_a_rewritten_log_is_not_consistent() -> None:
    other = [leaf_hash(bytes([number, 1])) for number in range(20)]
    proof = consistency_proof(in_memory(LEAVES[:20]), 7, 20)
    root = root_of(LEAVES[:20])
    for first, old, second, new, hashes in (
        (7, root_of(other[:7]), 20, root, proof),
        (7, root_of(LEAVES[:7]), 20, root_of(other), proof),
        (7, root_of(LEAVES[:7]), 20, root, proof[:-1]),
        (7, root_of(LEAVES[:7]), 20, root, [*proof, proof[0]]),
        (7, root_of(LEAVES[:7]), 20, root, []),
        (8, root_of(LEAVES[:8]), 20, root, []),
        (20, root_of(other), 20, root, []),
        (20, root, 20, root, proof),
        (0, root, 20, root, []),
        (21, root, 20, root, []),
        (8, root_of(LEAVES[:8]), 16, root_of(LEAVES[:16]), [LEAVES[0], LEAVES[1]]),
    ):
        with pytest.raises(ProofError):
            check_consistency(first, old, second, new, hashes)


def test_impossible_questions_are_refused() -> None:
    hashes = in_memory(LEAVES[:9])
    for ask in (
        lambda: inclusion_proof(hashes, 9, 9),
        lambda: consistency_proof(hashes, 10, 9),
        lambda: batch_proof(hashes, [], 9),
        lambda: batch_proof(hashes, [3, 3], 9),
        lambda: batch_proof(hashes, [9], 9),
        lambda: root_from_batch([], 9, []),
        lambda: root_from_batch([(0, LEAVES[0])], 9, []),
        lambda: root_from_batch([(0, LEAVES[0]), (0, LEAVES[1])], 1, []),
        lambda: root_from_batch([(0, LEAVES[0])], 1, [LEAVES[1]]),
    ):
        with pytest.raises(ProofError):
            ask()
