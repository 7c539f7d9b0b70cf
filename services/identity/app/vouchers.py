"""Manufacturers' vouchers: who is trusted, and whether a signature holds. Used by the registration of devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from city.identity.v1 import identity_service_pb2 as pb
from citykit.canonical import CanonicalError, decode
from citykit.errors import InvalidArgument, SettingsError
from services.identity.domain.devices import Voucher, voucher_message, voucher_of

_FORM = "CITY_IDENTITY_MANUFACTURERS holds pairs name=hex of Ed25519 keys, comma-separated"


@dataclass(frozen=True, slots=True)
class Vouched:
    """A voucher that holds.

    Attributes:
        digest: hex SHA-256 of its document; names it on the ledger.
    """

    voucher: Voucher
    manufacturer: str
    digest: str


def manufacturers_of(setting: str) -> dict[str, VerifyKey]:
    """`name=hex,name=hex` -> name -> key.

    Raises:
        SettingsError: an entry that is not of that form.
    """
    found: dict[str, VerifyKey] = {}
    for item in filter(None, setting.split(",")):
        name, _, text = item.partition("=")
        try:
            found[name] = VerifyKey(bytes.fromhex(text))
        except (ValueError, TypeError):
            raise SettingsError(
                f"{_FORM}; the entry of {name!r} is none", field="CITY_IDENTITY_MANUFACTURERS"
            ) from None
    return found


def checked(voucher: pb.Voucher, manufacturers: Mapping[str, VerifyKey]) -> Vouched:
    """The voucher, if a trusted manufacturer signed its canonical document.

    Raises:
        InvalidArgument: reason unknown-manufacturer, bad-signature or bad-voucher. IdentityError: what it says is wrong.
    """
    key = manufacturers.get(voucher.manufacturer)
    if key is None:
        known = ", ".join(manufacturers) or "none"
        raise _refused("unknown-manufacturer", f"the manufacturer is not trusted here; trusted are: {known}")
    try:
        key.verify(voucher_message(voucher.document), voucher.signature)
    except (BadSignatureError, ValueError):
        message = "a voucher's signature is not its manufacturer's; get a new voucher from the manufacturer"
        raise _refused("bad-signature", message) from None
    try:
        document = decode(voucher.document)
    except CanonicalError as error:
        raise _refused("bad-voucher", f"a voucher is {error}") from None
    return Vouched(voucher_of(document), voucher.manufacturer, sha256(voucher.document).hexdigest())


def _refused(reason: str, message: str) -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field="vouchers")
