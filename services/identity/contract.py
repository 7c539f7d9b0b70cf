"""What of identity's rules runs on the ledger: which key a device signs with, from which package on, and when it ends."""

from __future__ import annotations

from typing import Any, ClassVar

from citykit.ledger.contract import Json, Refusal, Transaction, evaluates, submits

DEVICES_MAX = 1_000
_FIELDS = ["algorithm", "device", "from_sequence", "from_time", "key", "voucher"]


class Devices:
    """Device -> {"keys": [{"key", "algorithm", "from_sequence", "transaction"}], "revoked": None or {"at", "last_sequence"}}."""

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
    ) -> None:
        """Registers one device."""
        self._register(tx, {
            "algorithm": algorithm, "device": device, "from_sequence": from_sequence, "from_time": from_time, "key": key,
            "voucher": voucher,
        })  # fmt: skip

    @submits(by=("identity",))
    def register_many(self, tx: Transaction, *, devices: list[dict[str, Any]]) -> int:
        """Registers up to 1,000 devices, all or none."""
        names = [item.get("device") for item in devices]
        if not 1 <= len(devices) <= DEVICES_MAX or len(dict.fromkeys(names)) != len(names):
            raise Refusal("bad-devices", f"register 1 to {DEVICES_MAX} different devices at once")
        for item in devices:
            self._register(tx, item)
        return len(devices)

    @submits(by=("identity",))
    def rotate(
        self, tx: Transaction, *, device: str, key: str, algorithm: str, from_sequence: int, from_time: str
    ) -> None:
        """Gives a device another key from a sequence number on. Identity has checked the signature of the key in force."""
        known = self._in_service(tx, device)
        if from_sequence <= known["keys"][-1]["from_sequence"]:
            raise Refusal(
                "sequence-not-rising",
                f"{device}: the new key must start after package {known['keys'][-1]['from_sequence']}",
            )
        if any(old["key"] == key for old in known["keys"]):
            raise Refusal("key-reused", f"{device}: this key was used before; make a new one")
        added = _key(tx, key, algorithm, from_sequence)
        tx.put(device, {**known, "keys": [*known["keys"], added]})
        tx.emit("rotated", {"device": device, "from_sequence": from_sequence, "from_time": from_time})

    @submits(by=("identity",))
    def revoke(self, tx: Transaction, *, device: str, at: str, last_sequence: int, reason: str) -> None:
        """Ends a device: packages after `last_sequence` no longer count. Nothing brings it back."""
        known = self._in_service(tx, device)
        if last_sequence < 0:
            raise Refusal("bad-sequence", f"{device}: the last sequence number that counts is at least 0")
        tx.put(device, {**known, "revoked": {"at": at, "last_sequence": last_sequence, "reason": reason}})
        tx.emit("revoked", {"device": device, "last_sequence": last_sequence})

    @evaluates
    def get(self, tx: Transaction, *, device: str) -> Json:
        """The device, or None."""
        return tx.get(device)

    def _register(self, tx: Transaction, item: Json) -> None:
        if sorted(item) != _FIELDS:
            raise Refusal("bad-devices", f"a device is registered with exactly {', '.join(_FIELDS)}")
        if not isinstance(item["from_sequence"], int) or item["from_sequence"] < 1:
            raise Refusal("bad-sequence", f"{item['device']}: the first sequence number is at least 1")
        if tx.get(item["device"]) is not None:
            raise Refusal("already-registered", f"{item['device']} is registered; rotate its key instead")
        key = _key(tx, item["key"], item["algorithm"], item["from_sequence"])
        tx.put(item["device"], {"keys": [key], "revoked": None})
        tx.emit("registered", {"device": item["device"]})

    def _in_service(self, tx: Transaction, device: str) -> Json:
        known = tx.get(device)
        if known is None:
            raise Refusal("unknown-device", f"{device} is not registered")
        if known["revoked"] is not None:
            raise Refusal("revoked", f"{device} was revoked at {known['revoked']['at']}; register a new device")
        return known


def _key(tx: Transaction, key: str, algorithm: str, from_sequence: int) -> Json:
    if algorithm not in ("EdDSA", "ES256"):
        raise Refusal("bad-algorithm", "the algorithm is EdDSA or ES256")
    return {"algorithm": algorithm, "from_sequence": from_sequence, "key": key, "transaction": tx.id}


CONTRACTS = (Devices(),)
