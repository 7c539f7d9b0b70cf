"""Round by round until nothing is missing: look, decide, write. Two that run at once meet in what the first of them wrote.

What is made from another secret is made from what the cluster holds, never from what this process would have written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from citykit.errors import FailedPrecondition, Unavailable
from infra.provision.items import City, names, needs
from infra.provision.wanted import ROOT_KEY, Change, Found, Wanted

ROUNDS = 8
"""Three do without others; each further one answers another writer."""
_FROM_ROOT = "operator-token"


class SecretStore(Protocol):
    """Where secrets are kept."""

    def read(self, names: Sequence[str]) -> Mapping[str, Found]:
        """Those that are there."""

    def write(self, change: Change) -> bool:
        """False where another was first: it exists already, or is not what it was; the secret is as the other left it."""

    def delete(self, name: str, found: Found) -> None:
        """Removes it where it is still what was found."""


def provision(store: SecretStore, wanted: Wanted, say: Callable[[str], None]) -> int:
    """Makes what is missing and renews what is due.

    Args:
        say: told a line for each secret that was written; never a value.

    Returns:
        How many were written.

    Raises:
        InvalidArgument, FailedPrecondition: a secret is wrong or missing; nothing was written.
        EnvironmentFault: the cluster refuses.
        Unavailable: others keep changing them.
    """
    written = 0
    for _ in range(ROUNDS):
        found = store.read(names(wanted))
        told = needs(wanted, found)
        if not told:
            return written
        if not _possible(wanted, found):
            raise FailedPrecondition(
                f"{_FROM_ROOT} is signed with {ROOT_KEY}, which is not there; provision the group root-key too"
            )
        city = City(wanted, found)
        for change in [change for need in told if (change := need.change(city))]:
            if store.write(change):
                say(f"{'renewed' if change.replaces else 'made'} {change.name} ({change.why})")
                written += 1
    raise Unavailable(
        "others change the city's secrets at the same time, round after round; see who does, then provision again"
    )


def _possible(wanted: Wanted, found: Mapping[str, Found]) -> bool:
    return _FROM_ROOT not in wanted.groups or "root-key" in wanted.groups or ROOT_KEY in found


def remove(store: SecretStore, wanted: Wanted, say: Callable[[str], None]) -> int:
    """Deletes the secrets that provisioning made; supplied ones stay. Returns how many went."""
    ours = {name: found for name, found in store.read(names(wanted)).items() if found.ours}
    for name, found in ours.items():
        store.delete(name, found)
        say(f"removed {name}")
    return len(ours)
