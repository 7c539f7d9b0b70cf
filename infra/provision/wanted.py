"""What is wanted of `city provision secrets`, what the cluster holds, and what is to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from citykit.ledger.devpeer.specification import Specification

GROUPS = ("tls", "root-key", "postgres", "ledger", "operator-token")
AUTHORITY, ROOT_KEY, TOKEN, PEER = "city-authority", "city-root-key", "operator-token", "ledger-peer"
PARTS = ("kafka", "postgres", "admin", "operator", "demo")
"""Who shows a certificate besides the services; `admin` is Kafka's administrator."""
AUTHORITY_DAYS, LEAF_DAYS, TOKEN_DAYS = 3_650.0, 365.0, 400.0
"""Renewed after half of it, whenever provisioning runs: at each upgrade, and by a schedule where the chart has one. A token that names an operator
lives as long as a city may go without either: it admits two questions that change nothing, and only together with the operator's certificate."""


@dataclass(frozen=True)
class Found:
    """A secret as the cluster holds it.

    Attributes:
        ours: provisioning made it, and may replace it.
        version: what the cluster calls this state of it.
    """

    data: Mapping[str, bytes] = field(repr=False)
    ours: bool = False
    version: str = ""


@dataclass(frozen=True)
class Change:
    """A secret to write.

    Attributes:
        replaces: what was found, where it is renewed.
        why: for people.
    """

    name: str
    kind: str
    data: Mapping[str, bytes] = field(repr=False)
    why: str
    replaces: Found | None = None


@dataclass(frozen=True)
class Wanted:
    """A city's secrets.

    Attributes:
        services: each shows a certificate.
        holders: the services with a database role, which submit to the ledger too.
        groups: of `GROUPS`.
        issue: whether certificates are issued here; else they are only checked.
        hosts: further DNS names and addresses in every certificate.
        specification: of the development peer; None where `ledger` is not among the groups.
    """

    namespace: str
    services: tuple[str, ...]
    holders: tuple[str, ...]
    groups: tuple[str, ...] = GROUPS
    issue: bool = True
    hosts: tuple[str, ...] = ()
    domain: str = "cluster.local"
    specification: Specification | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def hosts_of(self, name: str) -> tuple[str, ...]:
        """Every name under which a Service of the cluster, and the pods of a headless one, are reached."""
        short = f"{name}.{self.namespace}"
        full = f"{short}.svc.{self.domain}"
        return (short, f"{short}.svc", full, f"*.{short}.svc", f"*.{full}", *self.hosts)
