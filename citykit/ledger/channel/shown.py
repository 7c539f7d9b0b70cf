"""Blocks and transactions of a channel in the kit's words: JSON forms, events, evidence, trust (docs/PROOFS.md). Pure functions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError

from citykit.clock import iso
from citykit.ledger.chaincode import convention
from citykit.ledger.contract import JsonObject
from citykit.ledger.fabric.blocks import Block, Call, Transaction
from citykit.ledger.fabric.configuration import CONSENSUS, ChannelConfiguration, Organisation
from citykit.ledger.fabric.errors import FormError
from citykit.ledger.fabric.gateway import code_name
from citykit.ledger.port import LedgerEvent, Position
from citykit.settings import FabricSettings

TYPE = "fabric.v1"
FABRIC, DEVELOPMENT_PEER = "fabric", "development-peer"
_ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
"""Where Fabric's certificate authority puts attributes, as JSON."""


def events_of(block: Block) -> Iterator[LedgerEvent]:
    """Events of valid transactions of contracts; chaincodes that do not follow the convention have none."""
    for index, item in enumerate(block.transactions):
        if item.code != 0 or item.call is None or item.call.event is None or item.call.event[0] != convention.EVENTS:
            continue
        try:
            found = convention.parse_events(item.call.event[1])
        except convention.ConventionError:
            continue
        for place, (name, payload) in enumerate(found):
            position = Position(block.number, index, place)
            yield LedgerEvent(position, item.call.chaincode, item.transaction_id, name, payload)


def shown_block(block: Block, channel: str, operator: str) -> JsonObject:
    """A block as JSON. `others` counts what is no contract's transaction: configurations, lifecycle.

    Args:
        operator: MSP id of the organisation whose members are the city's services.
    """
    shown = [(item, shown_transaction(item, channel, operator)) for item in block.transactions]
    own = [item.time for item, transaction in shown if transaction is not None]
    times = own or [item.time for item in block.transactions]  # a configuration names machine time, not the city's
    return {
        "header": {
            **shown_header(block),
            "channel": channel,
            "count": len(block.transactions),
            "time": iso(max(times, default=0)),
        },
        "signature": shown_signatures(block),
        "envelopes": [
            {"transaction": transaction, "code": code_name(item.code)}
            for item, transaction in shown
            if transaction is not None
        ],
        "others": sum(transaction is None for _, transaction in shown),
    }


def shown_header(block: Block) -> JsonObject:
    return {"number": block.number, "previous": block.previous_hash.hex(), "data": block.data_hash.hex()}


def shown_signatures(block: Block) -> JsonObject:
    """The orderers' signatures under a block.

    Raises:
        FormError: its metadata cannot be read.
    """
    try:
        metadata = common_pb2.Metadata.FromString(block.message.metadata.metadata[common_pb2.SIGNATURES])
    except (DecodeError, IndexError):
        raise FormError(f"block {block.number} has no signatures") from None
    return {
        "metadata": _base64(metadata.value),
        "signatures": [
            {
                "header": _base64(item.signature_header),
                "identifier": _base64(item.identifier_header),
                "signature": _base64(item.signature),
            }
            for item in metadata.signatures
        ],
    }


def shown_transaction(item: Transaction, channel: str, operator: str) -> JsonObject | None:
    """A contract's transaction, in the fields of the embedded ledger's; None for anything else."""
    if item.call is None or item.call.chaincode.startswith("_"):
        return None
    try:
        invocation = convention.parse_invocation(item.call.arguments)
        args = convention.parse_args(invocation)
        answer = convention.parse_answer(item.call.result)
        submitter = submitter_of(*item.creator, operator)
    except (convention.ConventionError, ValueError):
        return None
    return {
        "args": args,
        "channel": channel,
        "contract": item.call.chaincode,
        "endorsers": sorted(set(item.call.endorsers)),
        "events": [{"name": name, "payload": payload} for name, payload in _events(item.call)],
        "function": invocation.function,
        "id": item.transaction_id,
        "result": answer.result,
        "submitter": submitter,
        "time": iso(item.time),
    }


def submitter_of(msp_id: str, certificate: bytes, operator: str) -> str:
    """Who submitted, by the convention. Raises ValueError (ConventionError) where a certificate names nobody."""
    found = x509.load_pem_x509_certificate(certificate)
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return convention.submitter_name(_attributes(found), str(names[0].value) if names else "", msp_id, operator)


def evidence_of(block: Block, index: int, attestations: list[JsonObject]) -> JsonObject:
    """What proves a transaction offline (docs/PROOFS.md, "Evidence of a ledger transaction").

    The whole block's envelopes are in it: the hash the orderers sign is over all of them, joined.
    """
    return {
        "type": TYPE,
        "transaction": block.transactions[index].transaction_id,
        "index": index,
        "code": code_name(block.transactions[index].code),
        "header": shown_header(block),
        "envelopes": [_base64(item.envelope) for item in block.transactions],
        "signature": shown_signatures(block),
        "attestations": attestations,
    }


def trust_of(configuration: ChannelConfiguration, settings: FabricSettings) -> JsonObject:
    """The `ledger` part of the trust file, out of the channel's configuration."""
    genuine = configuration.consensus in CONSENSUS
    names = ", ".join(item.msp_id for item in configuration.members)
    note = (
        f"Fabric channel of {names}, ordered by {configuration.consensus}"
        if genuine
        else "one operator, not Fabric: a development peer endorses and orders alone; its blocks show tampering by others"
    )
    return {
        "type": TYPE,
        "kind": FABRIC if genuine else DEVELOPMENT_PEER,
        "channel": settings.channel,
        "organisations": [_organisation(item, item.peer_unit) for item in configuration.members],
        "orderers": [_organisation(item, item.orderer_unit) for item in configuration.orderers],
        "consenters": [
            {"number": item.number, "msp": item.msp_id, "certificate": item.certificate.decode()}
            for item in configuration.consenters
        ],
        "policy": {
            "endorsements": settings.endorsements,
            "attestations": settings.endorsements if settings.attest else 0,
            "orderers": orderers_needed(configuration),
        },
        "submitters": [settings.msp],
        "note": note,
    }


def orderers_needed(configuration: ChannelConfiguration) -> int:
    """Orderers that must have signed a block: a quorum under BFT (⌈(n + f + 1) / 2⌉ of n with f = ⌊(n - 1) / 3⌋), else one."""
    count = len(configuration.consenters)
    if configuration.consensus != "BFT" or count == 0:
        return 1
    faulty = (count - 1) // 3
    return (count + faulty + 2) // 2


def _organisation(item: Organisation, unit: str) -> JsonObject:
    return {
        "msp": item.msp_id,
        "roots": [pem.decode() for pem in item.roots],
        "intermediates": [pem.decode() for pem in item.intermediates],
        "unit": unit,
    }


def _events(call: Call) -> list[tuple[str, JsonObject]]:
    if call.event is None or call.event[0] != convention.EVENTS:
        return []
    return convention.parse_events(call.event[1])


def _attributes(certificate: x509.Certificate) -> dict[str, str]:
    try:
        extension: Any = certificate.extensions.get_extension_for_oid(_ATTRIBUTES).value
        attributes = json.loads(extension.value)["attrs"]
    except (x509.ExtensionNotFound, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(value) for name, value in attributes.items()} if isinstance(attributes, dict) else {}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
