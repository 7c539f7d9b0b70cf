"""Identifiers and request ids."""

from __future__ import annotations

import pytest

from citykit.errors import InvalidArgument
from citykit.ids import new_id, require_request_id, seeded_randomness, system_randomness


def test_ids_carry_their_kind_and_are_reproducible_from_a_seed() -> None:
    assert new_id("bill", seeded_randomness(7)) == new_id("bill", seeded_randomness(7))
    assert new_id("bill", seeded_randomness(7)).startswith("bill-")


def test_system_randomness_gives_as_many_bytes_as_asked_and_differs() -> None:
    assert len(system_randomness(32)) == 32
    assert system_randomness(32) != system_randomness(32)


@pytest.mark.parametrize("bad", ["", "x" * 101, "a\nb"])
def test_an_unusable_request_id_is_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="request_id"):
        require_request_id(bad)


def test_a_usable_request_id_is_returned() -> None:
    assert require_request_id("r-1") == "r-1"
