"""What of identity's rules runs on the ledger: which key a device signs with, from which package on, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from citykit.ledger.contract import Json, Refusal, Transaction, evaluates, submits
from services.identity.domain import devices as rules
from services.identity.domain.errors import IdentityError


class Devices:
    """Keys: the device's id -> `rules.State`; `key/<hex>` -> the device that has, or had, this key."""

    name: ClassVar[str] = "devices"

    @submits(by=("identity",))
    def register(
        self,
        tx: Transaction,
        *,
        device: str,
        key: str,
        algorithm: str,
        voucher: str,
        from_sequence: int,
        from_time: str,
    ) -> int:
        """Registers one device."""
        entry = {
            "algorithm": algorithm, "device": device, "from_sequence": from_sequence, "from_time": from_time, "key": key,
            "voucher": voucher,
        }  # fmt: skip
        return self._register(tx, [entry])

    @submits(by=("identity",))
    def register_many(self, tx: Transaction, *, devices: list[dict[str, Any]]) -> int:
        """Registers 1 to 1,000 devices, all or none; returns how many."""
        return self._register(tx, devices)

    @submits(by=("identity",))
    def rotate(
        self, tx: Transaction, *, device: str, key: str, algorithm: str, from_sequence: int, from_time: str
    ) -> None:
        """Gives a device another key from a sequence number on. Identity has checked the signature of the key in force."""
        state = _ruled(lambda: rules.in_service(device, tx.get(device)))
        changed = _ruled(lambda: rules.rotated(device, state, key, algorithm, from_sequence, tx.id))
        self._take_key(tx, device, key)
        tx.put(device, changed)
        tx.emit("rotated", {"device": device, "from_sequence": from_sequence, "from_time": from_time})

    @submits(by=("identity",))
    def revoke(self, tx: Transaction, *, device: str, at: str, last_sequence: int, reason: str) -> None:
        """Ends a device: packages after `last_sequence` no longer count. Nothing brings it back."""
        state = _ruled(lambda: rules.in_service(device, tx.get(device)))
        tx.put(device, _ruled(lambda: rules.revoked(device, state, at, last_sequence, reason)))
        tx.emit("revoked", {"device": device, "last_sequence": last_sequence})

    @evaluates
    def get(self, tx: Transaction, *, device: str) -> Json:
        """The device's state, or None."""
        return tx.get(device)

    def _register(self, tx: Transaction, entries: list[dict[str, Any]]) -> int:
        for entry in _ruled(lambda: rules.registrations(entries)):
            device = entry["device"]
            if tx.get(device) is not None:
                raise Refusal("already-registered", f"{device} is registered; rotate its key instead")
            self._take_key(tx, device, entry["key"])
            tx.put(device, rules.registered(entry, tx.id))
            tx.emit("registered", {"device": device})
        return len(entries)

    def _take_key(self, tx: Transaction, device: str, key: str) -> None:
        """A key belongs to one device and is used once, so that no signature speaks for two."""
        if tx.get(f"key/{key}") is not None:
            raise Refusal("key-reused", f"{device}: this key was registered before; make a new one in the device")
        tx.put(f"key/{key}", device)


def _ruled(rule: Callable[[], Any]) -> Any:
    """A broken rule is the contract's refusal."""
    try:
        return rule()
    except IdentityError as error:
        raise Refusal(error.reason, error.message) from None


CONTRACTS: tuple[object, ...] = (Devices(),)
