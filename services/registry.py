"""The list of services. A new service is a folder in protos/, a folder here, and one line below."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from citykit.run import Build
from citykit.store.inspection import Tables

SERVICES: tuple[str, ...] = ("identity", "metering", "forecasting", "parking", "payments", "notary", "gateway")
WITHOUT_PARTS: tuple[str, ...] = ("gateway",)
"""Services that hold nothing: no store, no bus, no ledger."""


def builders(names: Sequence[str] = SERVICES) -> dict[str, Build]:
    """Each service's `build`, by name."""
    return {name: import_module(f"services.{name}.main").build for name in names}


def tables(names: Sequence[str] = SERVICES) -> list[Tables]:
    """What the database of each service that has one must hold."""
    found: list[Tables] = []
    for name in names:
        migrations = Path(__file__).parent / name / "migrations"
        if migrations.is_dir():
            store = import_module(f"services.{name}.main")
            found.append(Tables(name, store.METADATA, migrations))
    return found


def contracts(names: Sequence[str] = SERVICES) -> list[object]:
    """The contracts of the services that have any, for the ledger."""
    modules = [import_module(f"services.{name}.contract") for name in names if find_spec(f"services.{name}.contract")]
    return [contract for module in modules for contract in module.CONTRACTS]


def contract_versions() -> dict[str, str]:
    """The version of each contract's code, by its name."""
    from citykit.ledger.chaincode import contract_version  # noqa: PLC0415 - most commands need no chaincode

    return {str(getattr(one, "name", "")): contract_version(one) for one in contracts()}
