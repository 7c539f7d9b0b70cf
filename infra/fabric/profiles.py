"""Who takes part in a Fabric network, and the profiles it comes in: raft1, raft3, bft4. Data only; used by everything in infra.fabric."""

from __future__ import annotations

from dataclasses import dataclass

from citykit.errors import InvalidArgument

CHANNEL = "city"
ADMIN = "Admin"


@dataclass(frozen=True)
class Organisation:
    """One organisation: its peers answer under `msp`, the orderers it runs under `orderer_msp`, each with a CA of its own."""

    name: str

    @property
    def msp(self) -> str:
        return f"{self.name.capitalize()}MSP"

    @property
    def orderer_msp(self) -> str:
        return f"{self.name.capitalize()}OrdererMSP"

    @property
    def domain(self) -> str:
        return f"{self.name}.test"

    @property
    def orderer_domain(self) -> str:
        return f"orderers.{self.name}.test"


@dataclass(frozen=True)
class Profile:
    """How blocks are ordered.

    Attributes:
        consensus: `etcdraft` (crash faults: 1 of 3) or `BFT` (any fault of 1 of 4).
        orderers: the organisation that runs each ordering node.
    """

    name: str
    consensus: str
    orderers: tuple[str, ...]


ORGANISATIONS = tuple(Organisation(name) for name in ("city", "utility", "auditor"))
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("raft1", "etcdraft", ("city",)),
        Profile("raft3", "etcdraft", ("city", "utility", "auditor")),
        # Four nodes stand against any fault of one node. Three organisations have to run them, so the city runs two: this profile
        # does not stand against the city's two nodes acting together; a fourth organisation would.
        Profile("bft4", "BFT", ("city", "utility", "auditor", "city")),
    )
}


def profile_named(name: str) -> Profile:
    """The profile.

    Raises:
        InvalidArgument: no such profile.
    """
    if name not in PROFILES:
        raise InvalidArgument(f"no profile {name!r}; there are {', '.join(PROFILES)}", field="profile")
    return PROFILES[name]


def organisation_named(name: str) -> Organisation:
    """The organisation, one that was there from the start or that joins later."""
    if not name.isalpha() or not name.islower():
        raise InvalidArgument(f"{name!r} is no organisation: lower-case letters only", field="organisation")
    return Organisation(name)
