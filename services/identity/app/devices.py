"""Devices: registered from vouchers, rotated, revoked. The ledger decides; rows and events follow its receipt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import insert, update

from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.canonical import encode
from citykit.clock import iso, unix
from citykit.errors import InvalidArgument, NotFound
from citykit.package import verify_signature
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.app.decisions import Decisions, Intent
from services.identity.app.once import asked
from services.identity.app.pages import page_of
from services.identity.app.vouchers import Vouched, checked, manufacturers_of
from services.identity.domain.devices import (
    DEVICES_MAX,
    require_begin,
    require_device,
    require_key,
    require_sequence,
    rotation_message,
)
from services.identity.domain.people import require_purpose
from services.identity.events import publish_device_fact


class Devices:
    """The use cases."""

    def __init__(self, ctx: Context, store: Store) -> None:
        self._ctx = ctx
        self._store = store
        self._key = ctx.key("request-fingerprint")
        self._manufacturers = manufacturers_of(ctx.settings.identity.manufacturers)
        self._decisions = Decisions(
            ctx,
            store,
            {"RegisterDevices": self._registered, "RotateDeviceKey": self._rotated, "RevokeDevice": self._revoked},
        )

    async def finish(self) -> None:
        """Finishes decisions that a crash interrupted."""
        await self._decisions.finish()

    async def register(self, request: pb.RegisterDevicesRequest) -> pb.RegisterDevicesResponse:
        """All or none, in one ledger transaction. Devices that are registered with these very vouchers are answered as they are.

        Raises:
            InvalidArgument: a voucher that is malformed or not signed by a trusted manufacturer; in service from the future, or too long ago.
            ContractRefused: a device is registered with another voucher.
        """
        once = asked(self._key, request)
        if not 1 <= len(request.vouchers) <= DEVICES_MAX:
            raise InvalidArgument(f"register 1 to {DEVICES_MAX} devices at once", field="vouchers")
        vouched = [checked(voucher, self._manufacturers) for voucher in request.vouchers]
        found = await self._store.read(lambda c: _same(c, vouched))
        if found:
            return pb.RegisterDevicesResponse(devices=found, transaction=found[0].keys[0].transaction)
        now = unix(self._ctx.clock)
        begins = require_begin(request.in_service_from.seconds if request.HasField("in_service_from") else now, now)
        entries = [_entry(one, begins) for one in vouched]
        details = {"devices": [{"model": one.voucher.model, "manufacturer": one.manufacturer} for one in vouched]}
        answer = await self._decisions.decide(Intent(once, "register_many", {"devices": entries}, details, now))
        return pb.RegisterDevicesResponse.FromString(answer)

    async def rotate(self, request: pb.RotateDeviceKeyRequest) -> pb.RotateDeviceKeyResponse:
        """The request carries a signature of the key it replaces.

        Raises:
            NotFound: no such device. InvalidArgument: the signature is not of the key in force. ContractRefused.
        """
        once = asked(self._key, request)
        known = await self._store.write(once.before)
        if known is None:
            known = await self._decisions.decide(await self._rotation(request))
        return pb.RotateDeviceKeyResponse.FromString(known)

    async def _rotation(self, request: pb.RotateDeviceKeyRequest) -> Intent:
        key = require_key(request.public_key.hex(), request.algorithm)
        require_sequence(request.from_sequence, "from_sequence")
        current = (await self.get(request.device)).keys[-1]
        arguments = {
            "algorithm": request.algorithm, "device": request.device, "from_sequence": request.from_sequence, "key": key,
        }  # fmt: skip
        message = rotation_message(encode(arguments))
        if not verify_signature(current.public_key, current.algorithm, message, request.signature):
            raise InvalidArgument(
                "the signature is not of the key in force; sign with the key that is replaced",
                reason="bad-signature",
                field="signature",
            )
        now = unix(self._ctx.clock)
        return Intent(asked(self._key, request), "rotate", {**arguments, "from_time": iso(now)}, {}, now)

    async def revoke(self, request: pb.RevokeDeviceRequest) -> pb.RevokeDeviceResponse:
        """Ends a device for good.

        Raises:
            NotFound: no such device. ContractRefused: revoked before.
        """
        once = asked(self._key, request)
        require_purpose(request.reason, "reason")
        require_sequence(request.last_sequence, "last_sequence", 0)
        await self.get(request.device)
        now = unix(self._ctx.clock)
        arguments = {
            "device": request.device, "at": iso(now), "last_sequence": request.last_sequence, "reason": request.reason,
        }  # fmt: skip
        answer = await self._decisions.decide(Intent(once, "revoke", arguments, {}, now))
        return pb.RevokeDeviceResponse.FromString(answer)

    async def get(self, device: str) -> pb.Device:
        """Raises NotFound, reason unknown-device."""
        require_device(device)
        found = await self._store.read(lambda c: _read(c, [device]))
        if not found:
            message = f"no device {device!r} is registered; ListDevices names those that are"
            raise NotFound(message, field="device", reason="unknown-device")
        return found[0]

    async def page(self, page_size: int, page_token: str) -> pb.ListDevicesResponse:
        """Devices by id."""
        size = page_of(page_size)
        rows = await self._store.read(lambda c: tables.devices(c, page_token, size))
        names = [row.id for row in rows]
        found = await self._store.read(lambda c: _read(c, names))
        return pb.ListDevicesResponse(devices=found, next_page_token=names[-1] if len(names) == size else "")

    # --- what follows a decision -------------------------------------------------------------------

    def _registered(self, unit: Unit, intent: Intent, transaction: str) -> bytes:
        entries = intent.arguments["devices"]
        for entry, details in zip(entries, intent.details["devices"], strict=True):
            begins = int(datetime.fromisoformat(entry["from_time"]).timestamp())
            row = {
                "id": entry["device"], "voucher": entry["voucher"], "registered_at": intent.at, "in_service_from": begins, **details,
            }  # fmt: skip
            unit.execute(insert(tables.DEVICES).values(row))
            event = events_pb2.DeviceRegistered(**_save_key(unit, entry, transaction))
            publish_device_fact(unit, self._ctx.randomness, entry["device"], event, intent.at)
        devices = _read(unit.connection, [entry["device"] for entry in entries])
        return _bytes(pb.RegisterDevicesResponse(devices=devices, transaction=transaction))

    def _rotated(self, unit: Unit, intent: Intent, transaction: str) -> bytes:
        event = events_pb2.DeviceKeyRotated(**_save_key(unit, intent.arguments, transaction))
        publish_device_fact(unit, self._ctx.randomness, event.device, event, intent.at)
        return _bytes(pb.RotateDeviceKeyResponse(device=_read(unit.connection, [event.device])[0]))

    def _revoked(self, unit: Unit, intent: Intent, transaction: str) -> bytes:
        device, last = intent.arguments["device"], intent.arguments["last_sequence"]
        row = {"revoked_at": intent.at, "last_sequence": last, "revoked_reason": intent.arguments["reason"]}
        unit.execute(update(tables.DEVICES).where(tables.DEVICES.c.id == device).values(row))
        event = events_pb2.DeviceRevoked(device=device, last_sequence=last, transaction=transaction)
        publish_device_fact(unit, self._ctx.randomness, device, event, intent.at)
        return _bytes(pb.RevokeDeviceResponse(device=_read(unit.connection, [device])[0]))


def _entry(one: Vouched, begins: int) -> dict[str, Any]:
    voucher = one.voucher
    return {
        "algorithm": voucher.algorithm, "device": voucher.device, "from_sequence": 1, "from_time": iso(begins),
        "key": voucher.key.hex(), "voucher": one.digest,
    }  # fmt: skip


def _same(connection: Any, vouched: Sequence[Vouched]) -> list[pb.Device]:
    """The devices, if all are registered with these vouchers; else none."""
    names = [one.voucher.device for one in vouched]
    rows = tables.devices_named(connection, names)
    if any(name not in rows or rows[name].voucher != one.digest for name, one in zip(names, vouched, strict=True)):
        return []
    return _read(connection, names)


def _save_key(unit: Unit, entry: dict[str, Any], transaction: str) -> dict[str, Any]:
    """Keeps a key and returns the fields of its event."""
    fields = {
        "device": entry["device"], "from_sequence": entry["from_sequence"], "public_key": bytes.fromhex(entry["key"]),
        "algorithm": entry["algorithm"],
    }  # fmt: skip
    unit.execute(insert(tables.DEVICE_KEYS).values(ledger_transaction=transaction, **fields))
    return {**fields, "transaction": transaction}


def _read(connection: Any, names: Sequence[str]) -> list[pb.Device]:
    keys, rows = tables.keys_of(connection, names), tables.devices_named(connection, names)
    return [_message(rows[name], keys[name]) for name in names if name in rows]


def _message(row: Any, keys: Sequence[Any]) -> pb.Device:
    reason, last = row.revoked_reason or "", row.last_sequence or 0
    message = pb.Device(id=row.id, model=row.model, revoked_reason=reason, last_sequence=last)
    message.registered_at.seconds = row.registered_at
    message.in_service_from.seconds = row.registered_at if row.in_service_from is None else row.in_service_from
    if row.revoked_at is not None:
        message.revoked_at.seconds = row.revoked_at
    for key in keys:
        message.keys.add(
            public_key=key.public_key,
            algorithm=key.algorithm,
            from_sequence=key.from_sequence,
            transaction=key.ledger_transaction,
        )
    return message


def _bytes(answer: Message) -> bytes:
    return answer.SerializeToString(deterministic=True)
