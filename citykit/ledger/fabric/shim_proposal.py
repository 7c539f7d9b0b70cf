"""Who proposed a transaction, when, and with what transient data: what a chaincode reads from the signed proposal.

The peer has checked signature and certificate before the chaincode sees them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import proposal_pb2

from citykit.ledger.fabric.shim_errors import ShimError

_ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
"""Where a Fabric CA puts attributes into a certificate: JSON {"attrs": {name: value}}."""
_CREATORS = 1_024
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Creator:
    """The identity that signed the proposal.

    Attributes:
        msp_id: its organisation.
        certificate: PEM; empty where the identity is none of X.509.
        common_name: of the certificate's subject; empty where there is none.
        attributes: of the certificate's attribute extension.
        units: organisational units of the subject ("client", "admin", ...).
    """

    msp_id: str
    certificate: bytes
    common_name: str
    attributes: Mapping[str, str]
    units: tuple[str, ...]

    def attribute(self, name: str) -> str | None:
        """An attribute's value, or None."""
        return self.attributes.get(name)


class ProposalFacts:
    """What a signed proposal says.

    Attributes:
        signed: the proposal as it came, with its signature.
        creator_bytes: the serialised identity.
        time_ns: the proposal's time, nanoseconds since 1970; the same on every peer, and the client's word only.
    """

    __slots__ = ("_channel_header", "_payload", "_signature_header", "creator_bytes", "signed", "time_ns")

    def __init__(self, signed: Any) -> None:
        proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
        header = common_pb2.Header.FromString(proposal.header)
        self._payload: bytes = proposal.payload
        self._channel_header = common_pb2.ChannelHeader.FromString(header.channel_header)
        self._signature_header = common_pb2.SignatureHeader.FromString(header.signature_header)
        self.signed = signed
        self.creator_bytes = bytes(self._signature_header.creator)
        stamp = self._channel_header.timestamp
        self.time_ns = int(stamp.seconds) * _SECOND_NS + int(stamp.nanos)

    @property
    def creator(self) -> Creator:
        return read_creator(self.creator_bytes)

    def transient(self) -> Mapping[str, bytes]:
        """Data that reaches the chaincode and never the ledger."""
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(self._payload)
        return MappingProxyType({key: bytes(value) for key, value in payload.TransientMap.items()})

    @property
    def binding(self) -> bytes:
        """SHA-256 over nonce, creator and epoch: binds other signatures to this proposal."""
        epoch = int(self._channel_header.epoch).to_bytes(8, "little")
        return sha256(bytes(self._signature_header.nonce) + self.creator_bytes + epoch).digest()


@lru_cache(maxsize=_CREATORS)
def read_creator(serialised: bytes) -> Creator:
    """The identity behind its serialised form; kept, since the same few call again and again.

    Raises:
        ShimError: an attribute extension that does not read.
    """
    identity = identities_pb2.SerializedIdentity.FromString(serialised)
    try:
        certificate = x509.load_pem_x509_certificate(identity.id_bytes)
    except ValueError:
        return Creator(identity.mspid, b"", "", MappingProxyType({}), ())
    names = [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    units = [str(item.value) for item in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    return Creator(
        identity.mspid, bytes(identity.id_bytes), names[0] if names else "", _attributes(certificate), tuple(units)
    )


def _attributes(certificate: x509.Certificate) -> Mapping[str, str]:
    try:
        extension = certificate.extensions.get_extension_for_oid(_ATTRIBUTES).value
    except x509.ExtensionNotFound:
        return MappingProxyType({})
    try:
        attributes = json.loads(getattr(extension, "value", b""))["attrs"]
        return MappingProxyType({str(name): str(value) for name, value in attributes.items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ShimError("the attribute extension of the creator's certificate does not read") from None
