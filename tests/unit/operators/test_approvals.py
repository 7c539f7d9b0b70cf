"""Two people: each entry is in its maker's own name, each person counts once, and the annotation's form is checked."""

from __future__ import annotations

import json

import pytest

from citykit.errors import InvalidArgument
from operators.city.approvals import ENTRIES_MAX, approvers, changed_by, read_approvals, with_approval
from operators.city.versions import order_of, refused_downgrade

ADA, BEN = "ada", "system:serviceaccount:city:ben"


def test_each_person_counts_once_and_only_for_this_rollout() -> None:
    text = json.dumps([f"g2:{ADA}", f"g2:{BEN}", f"g1:{ADA}", "g2:"])
    assert approvers(text, "g2") == {ADA, BEN}
    assert approvers(text, "g3") == set()
    assert approvers("nonsense", "g2") == set()


def test_approving_adds_ones_own_name_and_drops_ones_older_entries() -> None:
    first = with_approval("", "g1", ADA)
    second = with_approval(first, "g1", BEN)
    assert approvers(second, "g1") == {ADA, BEN}
    assert json.loads(with_approval(second, "g2", ADA)) == [f"g1:{BEN}", f"g2:{ADA}"]


def test_one_may_add_and_take_back_ones_own_entry() -> None:
    one = with_approval("", "g1", ADA)
    changed_by(ADA, "", one)
    changed_by(ADA, one, "")
    changed_by(BEN, one, with_approval(one, "g1", BEN))
    changed_by(BEN, one, one)
    changed_by(ADA, "nonsense", one)


@pytest.mark.parametrize(
    ("user", "before", "after", "said"),
    [
        (BEN, [], [f"g1:{ADA}"], f"{BEN} may add and take back their own approval only, not one of {ADA}"),
        (BEN, [f"g1:{ADA}"], [], "not one of ada"),
        (ADA, [f"g1:{ADA}"], [f"g1:{ADA}", f"g1:{ADA}"], "each person counts once"),
        (ADA, [], ["g1"], "must be a JSON list of `rollout:user`"),
        (ADA, [], {"g1": ADA}, "must be a JSON list"),
        (ADA, [], [f"g{n}:{ADA}" for n in range(ENTRIES_MAX + 1)], "50 are the most"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(user: str, before: object, after: object, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        changed_by(user, json.dumps(before), json.dumps(after))


def test_no_annotation_is_no_approval() -> None:
    assert read_approvals("") == []


@pytest.mark.parametrize(
    ("version", "numbers"), [("1.10.0", (1, 10, 0)), ("1.4.0-rc1+b2", (1, 4, 0)), ("v2", (2,)), ("latest", ())]
)
def test_versions_are_compared_by_their_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert order_of(version) == numbers


STATUS = {
    "lastGood": {"version": "1.2.0"},
    "history": [{"from": "", "to": "1.1.0"}, {"from": "1.1.0", "to": "1.2.0"}, {"from": "1.2.0", "to": "1.3.0"}],
}


@pytest.mark.parametrize("version", ["1.2.0", "1.3.0", "1.1.0", "1.10.0"])
def test_forward_and_one_back_is_allowed(version: str) -> None:
    refused_downgrade(version, STATUS)
    refused_downgrade(version, {})


def test_further_back_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidArgument, match=r"Allowed: 1\.1\.0 or a newer one than 1\.2\.0\. .*restore a backup"):
        refused_downgrade("1.0.0", STATUS)
    with pytest.raises(InvalidArgument, match=r"Allowed: 1\.2\.0 or a newer one"):
        refused_downgrade("1.1.0", {"lastGood": {"version": "1.2.0"}})
