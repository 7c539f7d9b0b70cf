"""Parking's decisions on the ledger: published tariffs and the keys that sign access documents and instructions. Thin."""

from __future__ import annotations

from typing import Any

from citykit.ledger.contract import JsonObject, Refusal, Transaction, evaluates, submits
from services.parking.domain.errors import TariffInvalid
from services.parking.domain.tariff import parse_tariff

_KEY_HEX = 130
_ID_MAX = 64


class ParkingTariffs:
    """Tariffs as published: a version never changes."""

    name = "parking-tariffs"

    @submits(by=("parking",))
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
            tx.emit("ParkingTariffPublished", {"id": parsed.id, "version": parsed.version})
        return {"id": parsed.id, "version": parsed.version}

    @evaluates
    def get(self, tx: Transaction, *, id: str, version: int) -> Any:
        """The tariff, or None."""
        return tx.get(_tariff_key(id, version))


class ParkingKeys:
    """Public keys of the service: what locks take for its signature. A key id never changes its key."""

    name = "parking-keys"

    @submits(by=("parking",))
    def publish(self, tx: Transaction, *, kid: str, key: str) -> JsonObject:
        """Publishes an ES256 key: 65 bytes, uncompressed point, hex."""
        point = (
            len(key) == _KEY_HEX and key.startswith("04") and not any(char not in "0123456789abcdef" for char in key)
        )
        if not 0 < len(kid) <= _ID_MAX or not point:
            raise Refusal("key-invalid", "kid has 1 to 64 characters and key is the hex of an uncompressed P-256 point")
        before = tx.get(f"key/{kid}")
        if before is not None and before != key:
            raise Refusal("key-published", f"the key id {kid} is published with another key; take a new id")
        if before is None:
            tx.put(f"key/{kid}", key)
        return {"kid": kid}

    @evaluates
    def get(self, tx: Transaction, *, kid: str) -> Any:
        """The key, or None."""
        return tx.get(f"key/{kid}")


def _tariff_key(id_: str, version: int) -> str:
    return f"tariff/{id_}/{version:07d}"


CONTRACTS: tuple[object, ...] = (ParkingTariffs(), ParkingKeys())
