"""The list of services. A new service is a folder in protos/, a folder here, and one line below."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from citykit.run import Build

SERVICES: tuple[str, ...] = ("identity", "metering", "forecasting", "parking", "payments", "notary", "gateway")


def builders(names: Sequence[str] = SERVICES) -> dict[str, Build]:
    """Each service's `build`, by name."""
    return {name: import_module(f"services.{name}.main").build for name in names}


def contracts(names: Sequence[str] = SERVICES) -> list[object]:
    """The contracts of the services that have any, for the ledger."""
    modules = [import_module(f"services.{name}.contract") for name in names if find_spec(f"services.{name}.contract")]
    return [contract for module in modules for contract in module.CONTRACTS]
