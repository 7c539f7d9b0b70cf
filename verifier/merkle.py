"""Merkle trees of RFC 6962: batch inclusion (docs/PROOFS.md, "Batch inclusion proof") and consistency (RFC 9162, 2.1.4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

from verifier.canonical import Failure

SIZE_MAX = 2**48


def leaf(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def batch_root(leaves: Mapping[int, bytes], size: int, hashes: list[bytes], where: str) -> bytes:
    """The root that leaves (index -> leaf hash) and the other subtrees' hashes lead to.

    Raises:
        Failure: an index outside the tree, or hashes missing or left over.
    """
    if not leaves or min(leaves) < 0 or max(leaves) >= size or size > SIZE_MAX:
        raise Failure(f"{where}: an index is outside the tree of {size} leaves")
    rest = iter(hashes)
    found = _walk(sorted(leaves.items()), 0, size, rest, where)
    if next(rest, None) is not None:
        raise Failure(f"{where}: the proof has hashes left over")
    return found


def _walk(leaves: list[tuple[int, bytes]], low: int, high: int, rest: Iterator[bytes], where: str) -> bytes:
    if not leaves:
        found = next(rest, None)
        if found is None:
            raise Failure(f"{where}: the proof lacks hashes")
        return found
    if high - low == 1:
        return leaves[0][1]
    half = 1
    while half * 2 < high - low:
        half *= 2
    left = [item for item in leaves if item[0] < low + half]
    right = leaves[len(left) :]
    return node(_walk(left, low, low + half, rest, where), _walk(right, low + half, high, rest, where))


def require_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: list[bytes]) -> None:
    """Checks that the tree of `first` leaves is a prefix of that of `second`.

    Raises:
        Failure: it is not shown.
    """
    if first == second and not proof and first_root == second_root:
        return
    if not 0 < first < second:
        raise Failure(
            f"the log had {first} entries before and {second} now, or another root for the same number: it was rewritten"
        )
    path = proof if first & (first - 1) else [first_root, *proof]
    if not path:
        raise Failure("the consistency proof is empty")
    number, last = first - 1, second - 1
    while number % 2:
        number, last = number // 2, last // 2
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Failure("the consistency proof is too long")
        if number % 2 or number == last:
            old, new = node(sibling, old), node(sibling, new)
            while number and number % 2 == 0:
                number, last = number // 2, last // 2
        else:
            new = node(new, sibling)
        number, last = number // 2, last // 2
    if last or (old, new) != (first_root, second_root):
        raise Failure("the log does not continue the earlier checkpoint: it was rewritten")
