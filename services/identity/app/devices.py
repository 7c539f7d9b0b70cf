"""Devices: registered from vouchers, rotated, revoked. The ledger decides; rows and events follow its receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from sqlalchemy import insert, update

from city.identity.v1 import events_pb2
from city.identity.v1 import identity_service_pb2 as pb
from citykit.canonical import CanonicalError, decode, encode
from citykit.clock import iso, unix
from citykit.edge import fingerprint
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from citykit.ids import require_request_id
from citykit.ledger.contract import JsonObject
from citykit.package import verify_signature
from citykit.service import Context
from citykit.store.port import Store, Unit
from services.identity import store as tables
from services.identity.contract import DEVICES_MAX
from services.identity.domain import (
    Voucher,
    require_device,
    require_key,
    require_purpose,
    rotation_message,
    voucher_message,
    voucher_of,
)
from services.identity.events import publish_device_fact

PAGE_MAX = 500


@dataclass(frozen=True)
class Vouched:
    """A checked voucher, its manufacturer, and the hash that goes on the ledger."""

    voucher: Voucher
    manufacturer: str
    digest: str


class Devices:
    """The use cases."""

    def __init__(self, ctx: Context, store: Store) -> None:
        self._ctx = ctx
        self._store = store
        self._manufacturers = manufacturers_of(ctx.settings.identity.manufacturers)

    async def register(self, request: pb.RegisterDevicesRequest) -> pb.RegisterDevicesResponse:
        """All or none, in one ledger transaction.

        Raises:
            InvalidArgument: a voucher that is malformed or not signed by a trusted manufacturer.
            ContractRefused: a device is registered already.
        """
        require_request_id(request.request_id)
        if not 1 <= len(request.vouchers) <= DEVICES_MAX:
            raise InvalidArgument(f"register 1 to {DEVICES_MAX} devices at once", field="vouchers")
        vouched = [self._check(voucher) for voucher in request.vouchers]
        known = await self._store.write(
            lambda unit: unit.answered(request.request_id, "RegisterDevices", fingerprint(request))
        )
        if known is not None:
            return pb.RegisterDevicesResponse.FromString(known)
        now = await self._first_time(request.request_id)
        entries = [_entry(one, now) for one in vouched]
        receipt = await self._ctx.ledger.submit(
            "devices", "register_many", {"devices": entries}, submitter="identity", request_id=request.request_id
        )

        def unit(work: Unit) -> bytes:
            before = work.answered(request.request_id, "RegisterDevices", fingerprint(request))
            if before is not None:
                return before
            for one in vouched:
                self._save(work, one, receipt.transaction, now)
            names = [one.voucher.device for one in vouched]
            response = pb.RegisterDevicesResponse(devices=_messages(work, names), transaction=receipt.transaction)
            work.answer(request.request_id, "RegisterDevices", fingerprint(request), response.SerializeToString())
            return response.SerializeToString()

        return pb.RegisterDevicesResponse.FromString(await self._store.write(unit))

    async def rotate(self, request: pb.RotateDeviceKeyRequest) -> pb.RotateDeviceKeyResponse:
        """The request carries the signature of the key it replaces."""
        require_request_id(request.request_id)
        require_key(request.public_key, request.algorithm)
        current = (await self.get(request.device)).keys[-1]
        document = encode({
            "algorithm": request.algorithm, "device": request.device, "from_sequence": request.from_sequence,
            "key": request.public_key.hex(),
        })  # fmt: skip
        now = await self._first_time(request.request_id)
        if bytes(current.public_key) != request.public_key and not verify_signature(
            bytes(current.public_key), current.algorithm, rotation_message(document), request.signature
        ):
            raise InvalidArgument(
                "the signature is not of the key in force; sign with the key that is replaced",
                reason="bad-signature",
                field="signature",
            )
        args = {
            "device": request.device, "key": request.public_key.hex(), "algorithm": request.algorithm,
            "from_sequence": request.from_sequence, "from_time": iso(now),
        }  # fmt: skip
        receipt = await self._ctx.ledger.submit(
            "devices", "rotate", args, submitter="identity", request_id=request.request_id
        )

        def unit(work: Unit) -> None:
            if work.answered(request.request_id, "RotateDeviceKey", fingerprint(request)) is not None:
                return
            self._save_key(
                work, request.device, request.public_key, request.algorithm, request.from_sequence, receipt.transaction
            )
            event = events_pb2.DeviceKeyRotated(
                device=request.device, public_key=request.public_key, algorithm=request.algorithm,
                from_sequence=request.from_sequence, transaction=receipt.transaction,
            )  # fmt: skip
            publish_device_fact(work, self._ctx.randomness, request.device, event, now)
            work.answer(request.request_id, "RotateDeviceKey", fingerprint(request), b"")

        await self._store.write(unit)
        return pb.RotateDeviceKeyResponse(device=await self.get(request.device))

    async def revoke(self, request: pb.RevokeDeviceRequest) -> pb.RevokeDeviceResponse:
        require_request_id(request.request_id)
        reason = require_purpose(request.reason, "reason")
        await self.get(request.device)
        now = await self._first_time(request.request_id)
        args = {"device": request.device, "at": iso(now), "last_sequence": request.last_sequence, "reason": reason}
        receipt = await self._ctx.ledger.submit(
            "devices", "revoke", args, submitter="identity", request_id=request.request_id
        )

        def unit(work: Unit) -> None:
            if work.answered(request.request_id, "RevokeDevice", fingerprint(request)) is not None:
                return
            row = {"revoked_at": now, "last_sequence": request.last_sequence, "revoked_reason": reason}
            work.execute(update(tables.DEVICES).where(tables.DEVICES.c.id == request.device).values(row))
            event = events_pb2.DeviceRevoked(
                device=request.device, last_sequence=request.last_sequence, transaction=receipt.transaction
            )
            publish_device_fact(work, self._ctx.randomness, request.device, event, now)
            work.answer(request.request_id, "RevokeDevice", fingerprint(request), b"")

        await self._store.write(unit)
        return pb.RevokeDeviceResponse(device=await self.get(request.device))

    async def get(self, device: str) -> pb.Device:
        require_device(device)
        found = await self._store.read(lambda c: _read(c, [device]))
        if not found:
            raise NotFound(f"no device {device!r} is registered", field="device", reason="unknown-device")
        return found[0]

    async def page(self, page_size: int, page_token: str) -> pb.ListDevicesResponse:
        size = min(max(page_size or 100, 1), PAGE_MAX)
        rows = await self._store.read(lambda c: tables.devices(c, page_token, size))
        names = [row.id for row in rows]
        found = await self._store.read(lambda c: _read(c, names))
        return pb.ListDevicesResponse(devices=found, next_page_token=names[-1] if len(names) == size else "")

    async def _first_time(self, request_id: str) -> int:
        """City time of the first try of a request, so that a retry after a crash submits the same to the ledger."""
        rpc, mark = "FirstTime", b""
        key = f"first-time:{sha256(request_id.encode()).hexdigest()}"

        def unit(work: Unit) -> bytes:
            known = work.answered(key, rpc, mark)
            if known is None:
                known = str(unix(self._ctx.clock)).encode()
                work.answer(key, rpc, mark, known)
            return known

        return int(await self._store.write(unit))

    def _check(self, voucher: pb.Voucher) -> Vouched:
        key = self._manufacturers.get(voucher.manufacturer)
        if key is None:
            known = ", ".join(self._manufacturers) or "none"
            raise InvalidArgument(
                f"the manufacturer is not trusted here; trusted are: {known}",
                field="vouchers",
                reason="unknown-manufacturer",
            )
        try:
            VerifyKey(key).verify(voucher_message(voucher.document), voucher.signature)
            document = decode(voucher.document)
        except (BadSignatureError, ValueError, CanonicalError):
            raise InvalidArgument(
                "a voucher's signature does not hold over its canonical document; get a new voucher from the manufacturer",
                field="vouchers", reason="bad-signature",
            ) from None  # fmt: skip
        return Vouched(voucher_of(document), voucher.manufacturer, sha256(voucher.document).hexdigest())

    def _save(self, work: Unit, one: Vouched, transaction: str, now: int) -> None:
        voucher = one.voucher
        row = {"id": voucher.device, "model": voucher.model, "manufacturer": one.manufacturer, "registered_at": now}
        work.execute(insert(tables.DEVICES).values(row))
        self._save_key(work, voucher.device, voucher.key, voucher.algorithm, 1, transaction)
        event = events_pb2.DeviceRegistered(
            device=voucher.device,
            public_key=voucher.key,
            algorithm=voucher.algorithm,
            from_sequence=1,
            transaction=transaction,
        )
        publish_device_fact(work, self._ctx.randomness, voucher.device, event, now)

    def _save_key(self, work: Unit, device: str, key: bytes, algorithm: str, start: int, transaction: str) -> None:
        row = {
            "device": device,
            "from_sequence": start,
            "public_key": key,
            "algorithm": algorithm,
            "ledger_transaction": transaction,
        }
        work.execute(insert(tables.DEVICE_KEYS).values(row))


def manufacturers_of(setting: str) -> dict[str, bytes]:
    """`name=hex,name=hex` -> name -> Ed25519 public key.

    Raises:
        FailedPrecondition: an entry that is not of that form.
    """
    found: dict[str, bytes] = {}
    for item in filter(None, setting.split(",")):
        name, _, text = item.partition("=")
        try:
            found[name] = bytes(VerifyKey(bytes.fromhex(text)))
        except (ValueError, TypeError):
            raise FailedPrecondition(
                "CITY_IDENTITY_MANUFACTURERS holds name=hex pairs of Ed25519 keys, comma-separated"
            ) from None
    return found


def _entry(one: Vouched, now: int) -> JsonObject:
    voucher = one.voucher
    return {
        "algorithm": voucher.algorithm, "device": voucher.device, "from_sequence": 1, "from_time": iso(now),
        "key": voucher.key.hex(), "voucher": one.digest,
    }  # fmt: skip


def _messages(work: Unit, names: Sequence[str]) -> list[pb.Device]:
    return _read(work.connection, names)


def _read(connection: Any, names: Sequence[str]) -> list[pb.Device]:
    keys = tables.keys_of(connection, names)
    rows = [row for name in names if (row := tables.device(connection, name)) is not None]
    return [_message(row, keys.get(row.id, [])) for row in rows]


def _message(row: Any, keys: Sequence[Any]) -> pb.Device:
    message = pb.Device(
        id=row.id, model=row.model, revoked_reason=row.revoked_reason or "", last_sequence=row.last_sequence or 0
    )
    message.registered_at.seconds = row.registered_at
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
