"""Identifiers and randomness, handed to services so that tests can seed them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from citykit.errors import InvalidArgument

Randomness = Callable[[int], bytes]
"""Gives that many random bytes; `os.urandom` outside tests."""

REQUEST_ID_MAX = 100


def system_randomness(count: int) -> bytes:
    """Bytes fit for salts and keys."""
    return os.urandom(count)


def seeded_randomness(seed: int) -> Randomness:
    """Reproducible bytes for tests and simulation. Never for salts or keys of a real city."""
    return random.Random(seed).randbytes  # noqa: S311 - reproducible on purpose


def new_id(prefix: str, randomness: Randomness) -> str:
    """`prefix-` and 16 hex digits."""
    return f"{prefix}-{randomness(8).hex()}"


def require_request_id(request_id: str) -> str:
    """Returns it if usable.

    Raises:
        InvalidArgument: empty or longer than 100 characters.
    """
    if not request_id or len(request_id) > REQUEST_ID_MAX or not request_id.isprintable():
        raise InvalidArgument(
            f"request_id must be 1 to {REQUEST_ID_MAX} printable characters, new for each act and the same for its retries",
            field="request_id",
        )
    return request_id
