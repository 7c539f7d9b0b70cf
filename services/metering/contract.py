"""Metering's decisions on the ledger: published tariffs and closed billing runs. Thin: the rules are in `domain`."""

from __future__ import annotations

from typing import Any

from citykit.ledger.contract import JsonObject, Refusal, Transaction, evaluates, submits
from services.metering.domain.errors import TariffInvalid
from services.metering.domain.tariff import parse_tariff

_ROOT_HEX = 64
_ID_MAX = 128


class Tariffs:
    """Tariffs as published: a version never changes."""

    name = "tariffs"

    @submits(by=("metering",))
    def publish(self, tx: Transaction, *, tariff: dict[str, Any]) -> JsonObject:
        """Publishes a tariff version; the same content again is no change."""
        try:
            parsed = parse_tariff(tariff)
        except TariffInvalid as error:
            raise Refusal("tariff-invalid", str(error)) from None
        key = _tariff_key(parsed.id, parsed.version)
        before = tx.get(key)
        if before is not None and before != tariff:
            raise Refusal(
                "tariff-published",
                f"version {parsed.version} of {parsed.id} is published with other content; publish the change as a new version",
            )
        if before is None:
            tx.put(key, tariff)
            tx.emit("TariffPublished", {"id": parsed.id, "version": parsed.version, "valid_from": parsed.valid_from})
        return {"id": parsed.id, "version": parsed.version}

    @evaluates
    def get(self, tx: Transaction, *, id: str, version: int) -> Any:
        """The tariff, or None."""
        return tx.get(_tariff_key(id, version))


class Billing:
    """Closed billing runs: the root over the commitments to their bills, once per run id."""

    name = "billing"

    @submits(by=("metering",))
    def close(
        self, tx: Transaction, *, run: str, period: str, count: int, root: str, tariff: dict[str, Any]
    ) -> JsonObject:
        """Closes a run. A correction is a run of its own."""
        if not 0 < len(run) <= _ID_MAX or count < 1:
            raise Refusal("run-invalid", "a run has an id of 1 to 128 characters and at least one bill")
        if len(root) != _ROOT_HEX or any(char not in "0123456789abcdef" for char in root):
            raise Refusal("run-invalid", "root is the hex of 32 bytes")
        if sorted(tariff) != ["id", "version"]:
            raise Refusal("run-invalid", "tariff names id and version")
        if tx.get(f"run/{run}") is not None:
            raise Refusal("run-closed", f"the run {run} is closed; corrections are runs of their own")
        tx.put(f"run/{run}", {"period": period, "count": count, "root": root, "tariff": tariff})
        tx.emit("RunClosed", {"run": run, "period": period, "count": count})
        return {"run": run}

    @evaluates
    def get(self, tx: Transaction, *, run: str) -> Any:
        """The closed run, or None."""
        return tx.get(f"run/{run}")


def _tariff_key(id_: str, version: int) -> str:
    return f"tariff/{id_}/{version:07d}"


CONTRACTS: tuple[object, ...] = (Tariffs(), Billing())
