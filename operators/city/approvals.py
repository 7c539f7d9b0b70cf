"""Who approved a rollout: one annotation, one rule. Held by `admission`, read by `reconcile`, written by `city rollout approve`.

The annotation is a JSON list of `<rollout>:<user>`. A person may add and take back entries of their own name, as the API server knows it, and
nothing else; so an entry says that this person made it.
"""

from __future__ import annotations

import json

from citykit.errors import InvalidArgument

APPROVALS = "provable.city/approvals"
ENTRIES_MAX = 50


def read_approvals(text: str) -> list[str]:
    """The entries.

    Raises:
        InvalidArgument: of another form.
    """
    if not text:
        return []
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) and ":" in one for one in found):
        raise InvalidArgument(
            f"{APPROVALS} must be a JSON list of `rollout:user`; `city rollout approve` writes it", field=APPROVALS
        )
    if len(found) > ENTRIES_MAX:
        raise InvalidArgument(
            f"{APPROVALS} holds {len(found)} entries; {ENTRIES_MAX} are the most: take back old ones", field=APPROVALS
        )
    return found


def approvers(text: str, rollout: str) -> frozenset[str]:
    """Who approved a rollout, each once. An annotation of another form approves nothing."""
    try:
        entries = read_approvals(text)
    except InvalidArgument:
        return frozenset()
    return frozenset(user for found, _, user in (one.partition(":") for one in entries) if found == rollout and user)


def with_approval(text: str, rollout: str, user: str) -> str:
    """The annotation with one more entry; entries of other rollouts by the same user are left out, as nobody needs them any more."""
    kept = [one for one in read_approvals(text) if one.partition(":")[2] != user]
    return json.dumps([*kept, f"{rollout}:{user}"])


def changed_by(user: str, before: str, after: str) -> None:
    """Checks that somebody changed only what is theirs.

    Raises:
        InvalidArgument: an entry in another's name was added or taken away, or one is there twice.
    """
    if before == after:
        return
    new = read_approvals(after)
    if len(set(new)) != len(new):
        raise InvalidArgument(
            f"{user} approved already, and each person counts once; another person has to approve as well",
            field=APPROVALS,
        )
    changed = set(new).symmetric_difference(read_approvals(before) if _readable(before) else [])
    others = sorted({one.partition(":")[2] for one in changed} - {user})
    if others:
        raise InvalidArgument(
            f"{user} may add and take back their own approval only, not one of {', '.join(others)};"
            " `city rollout approve` writes the right entry",
            field=APPROVALS,
        )


def _readable(text: str) -> bool:
    try:
        read_approvals(text)
    except InvalidArgument:
        return False
    return True
