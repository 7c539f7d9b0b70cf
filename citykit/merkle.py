"""Merkle trees as RFC 6962, section 2.1: roots, inclusion, consistency and batch proofs over SHA-256.

A tree of n leaves is read through a function that gives the hash of any aligned full subtree, so that a proof touches
only the hashes it needs, wherever they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise

EMPTY_ROOT = sha256(b"").digest()

SubtreeHash = Callable[[int, int], bytes]
"""(level, index) -> hash of the full subtree over leaves [index * 2^level, (index + 1) * 2^level)."""


class ProofError(ValueError):
    """A proof does not hold, or cannot be made for the numbers asked."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two smaller than `size` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def in_memory(leaves: Sequence[bytes]) -> SubtreeHash:
    """Subtree hashes over leaf hashes held in memory; for small trees (blocks, billing runs)."""
    levels: list[Sequence[bytes]] = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[n], below[n + 1]) for n in range(0, len(below) - 1, 2)])
    return lambda level, index: levels[level][index]


def range_hash(hashes: SubtreeHash, low: int, high: int) -> bytes:
    """The hash of leaves [low, high), where low is a multiple of a power of two not smaller than the range."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return hashes(level, low >> level)
    middle = low + split(size)
    return node_hash(range_hash(hashes, low, middle), range_hash(hashes, middle, high))


def root(hashes: SubtreeHash, size: int) -> bytes:
    """The root of the first `size` leaves."""
    return range_hash(hashes, 0, size) if size else EMPTY_ROOT


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes held in memory."""
    return root(in_memory(leaves), len(leaves))


def inclusion_proof(hashes: SubtreeHash, index: int, size: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves, leaf to root (RFC 6962, 2.1.1).

    Raises:
        ProofError: index not below size.
    """
    if not 0 <= index < size:
        raise ProofError(f"index {index} is not in a log of {size} entries")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + split(high - low)
        if index < middle:
            path.append(range_hash(hashes, middle, high))
            high = middle
        else:
            path.append(range_hash(hashes, low, middle))
            low = middle
    return path[::-1]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that `path` leads to (RFC 9162, 2.1.3.2).

    Raises:
        ProofError: the path has a wrong length, or index is not below size.
    """
    if not 0 <= index < size:
        raise ProofError(f"index {index} is not in a log of {size} entries")
    number, last, current = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if number & 1 or number == last:
            current = node_hash(sibling, current)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        number, last = number >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    return current


def consistency_proof(hashes: SubtreeHash, first: int, second: int) -> list[bytes]:
    """Proof that the tree of `first` leaves is a prefix of the tree of `second` (RFC 6962, 2.1.2).

    Raises:
        ProofError: not 0 <= first <= second.
    """
    if not 0 <= first <= second:
        raise ProofError(f"a log of {second} entries has no earlier size {first}")
    if first in (0, second):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, second, True
    while first != high:
        middle = low + split(high - low)
        if first <= middle:
            proof.append(range_hash(hashes, middle, high))
            high = middle
        else:
            proof.append(range_hash(hashes, low, middle))
            low, whole = middle, False
    if not whole:
        proof.append(range_hash(hashes, low, high))
    return proof[::-1]


def check_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Checks a consistency proof (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: it does not hold.
    """
    if first > second or first < 0:
        raise ProofError(f"size {second} is smaller than the earlier {first}")
    if first in (0, second):
        if proof or (first == second and first_root != second_root) or (first == 0 and first_root != EMPTY_ROOT):
            raise ProofError("two different roots for one size, or a proof where none is needed")
        return
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise ProofError("the consistency proof is empty")
    number, last = first - 1, second - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if number & 1 or number == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        number, last = number >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise ProofError("the consistency proof does not lead to the two roots")


def batch_proof(hashes: SubtreeHash, indexes: Sequence[int], size: int) -> list[bytes]:
    """One proof for many leaves: hashes of the subtrees without any of them, left to right (docs/PROOFS.md).

    Args:
        indexes: sorted, without repetition, each below `size`.

    Raises:
        ProofError: the indexes are not of that form.
    """
    if not indexes or any(a >= b for a, b in pairwise(indexes)) or not 0 <= indexes[0] <= indexes[-1] < size:
        raise ProofError(f"indexes must be sorted, different and below {size}")
    return list(_missing(hashes, indexes, 0, size))


def _missing(hashes: SubtreeHash, indexes: Sequence[int], low: int, high: int) -> Iterator[bytes]:
    if not indexes:
        yield range_hash(hashes, low, high)
    elif high - low > 1:
        middle = low + split(high - low)
        cut = _cut(indexes, middle)
        yield from _missing(hashes, indexes[:cut], low, middle)
        yield from _missing(hashes, indexes[cut:], middle, high)


def root_from_batch(leaves: Sequence[tuple[int, bytes]], size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a batch proof leads to.

    Args:
        leaves: (index, leaf hash), sorted by index, without repetition.

    Raises:
        ProofError: hashes are left over or missing, or an index is not below size.
    """
    if not leaves or not 0 <= leaves[0][0] <= leaves[-1][0] < size:
        raise ProofError(f"a batch proof needs indexes below {size}")
    rest = iter(proof)
    result = _walk(leaves, 0, size, rest)
    if next(rest, None) is not None:
        raise ProofError("the batch proof has hashes left over")
    return result


def _walk(leaves: Sequence[tuple[int, bytes]], low: int, high: int, rest: Iterator[bytes]) -> bytes:
    if not leaves:
        found = next(rest, None)
        if found is None:
            raise ProofError("the batch proof lacks hashes")
        return found
    if high - low == 1:
        if len(leaves) > 1:
            raise ProofError(f"index {low} stands twice in the batch")
        return leaves[0][1]
    middle = low + split(high - low)
    cut = _cut([index for index, _ in leaves], middle)
    left = _walk(leaves[:cut], low, middle, rest)
    return node_hash(left, _walk(leaves[cut:], middle, high, rest))


def _cut(indexes: Sequence[int], middle: int) -> int:
    """How many of the sorted indexes lie below `middle`."""
    low, high = 0, len(indexes)
    while low < high:
        half = (low + high) // 2
        low, high = (half + 1, high) if indexes[half] < middle else (low, half)
    return low
