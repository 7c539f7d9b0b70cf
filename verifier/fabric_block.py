"""Blocks of a Fabric channel: whole, signed by orderers, and what peers sign of a transaction in them. Called by `verifier.fabric`."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from verifier.canonical import Failure, fields, unbase64, unhex
from verifier.fabric_ledger import FabricLedger, counted
from verifier.members import certificate_of, member_of, signature_holds, signers
from verifier.wire import Message, require_envelope

_HASH = 32
_OK = 200
_SHORT = 0x80
_NUMBER_MAX = 2**53


def require_whole(given: list[Any], header: Any, where: str) -> list[bytes]:
    """The block's envelopes; raises Failure unless they are all of it. Its hash is over them joined, so each must be whole."""
    if not 0 < header["number"] < _NUMBER_MAX:
        raise Failure(f"{where}: block {header['number']} holds no transactions")
    envelopes = [unbase64(item, f"{where}.envelopes[{place}]") for place, item in enumerate(given)]
    for place, data in enumerate(envelopes):
        require_envelope(data, f"{where}.envelopes[{place}]")
    if sha256(b"".join(envelopes)).hexdigest() != header["data"]:
        raise Failure(f"{where}: the transaction is not in block {header['number']}, or what is there was changed")
    return envelopes


def header_bytes(header: Any, where: str) -> bytes:
    """ASN.1 DER of SEQUENCE {number INTEGER, previous OCTET STRING, data OCTET STRING}: what orderers sign and the next block names."""
    number = header["number"]
    integer = number.to_bytes(number.bit_length() // 8 + 1, "big")
    previous, data = (unhex(header[name], _HASH, f"{where}.header.{name}") for name in ("previous", "data"))
    return _der(0x30, _der(0x02, integer) + _der(0x04, previous) + _der(0x04, data))


def require_ordered(signature: Any, header: Any, ledger: FabricLedger, where: str) -> int:
    """How many trusted orderers signed the block; raises Failure unless they are enough and every signature given holds."""
    given = fields(signature, f"{where}.signature", metadata=str, signatures=list)
    metadata, known = unbase64(given["metadata"], f"{where}.signature.metadata"), set()
    for place, item in enumerate(given["signatures"]):
        here = f"{where}.signature.signatures[{place}]"
        fields(item, here, header=str, identifier=str, signature=str)
        said, certificate = _orderer(item, ledger, here)
        message = metadata + said + header_bytes(header, where)
        if not signature_holds(certificate, message, unbase64(item["signature"], here)):
            raise Failure(f"{where}: an orderer's signature under block {header['number']} does not hold")
        known.add(certificate.public_bytes(Encoding.DER))
    if len(known) < ledger.signatures:
        raise Failure(
            f"{where}: {counted(len(known), 'trusted orderer')} signed block {header['number']}, {ledger.signatures} are needed"
        )
    return len(known)


def require_attested(given: list[Any], envelope: bytes, ledger: FabricLedger, where: str) -> int:
    """How many organisations' peers signed that the transaction was committed as valid; raises Failure unless they are enough.

    Each is an endorsed call `GetTransactionByID` of the system chaincode `qscc`: orderers sign what is in a block, not what counted.
    """
    organisations: set[str] = set()
    for place, item in enumerate(given):
        here = f"{where}.attestations[{place}]"
        fields(item, here, payload=str, endorsements=list)
        payload = unbase64(item["payload"], f"{here}.payload")
        _require_valid(payload, envelope, here)
        pairs = [_endorsement(one, here) for one in item["endorsements"]]
        if not pairs:
            raise Failure(f"{here}: nobody signed")
        organisations |= signers(payload, pairs, ledger.organisations, here)
    if len(organisations) < ledger.attestations:
        raise Failure(
            f"{where}: {counted(len(organisations), 'organisation')} signed that it was committed as valid, {ledger.attestations} are needed"
        )
    return len(organisations)


def _orderer(item: Any, ledger: FabricLedger, where: str) -> tuple[bytes, x509.Certificate]:
    """(what the signature is also over, certificate) of an orderer that names itself, or gives its number."""
    header, identifier = (unbase64(item[name], where) for name in ("header", "identifier"))
    if bool(header) == bool(identifier):
        raise Failure(f"{where} must name its orderer in one way")
    if header:
        return header, member_of(Message(header, where).data(1), ledger.orderers, f"{where}: the orderer").certificate
    number = Message(identifier, where).number(1)
    if number not in ledger.consenters:
        raise Failure(f"{where}: orderer {number} is not trusted")
    return identifier, certificate_of(ledger.consenters[number], where)


def _endorsement(item: Any, where: str) -> tuple[bytes, bytes]:
    fields(item, f"{where}: an endorsement", endorser=str, signature=str)
    return unbase64(item["endorser"], where), unbase64(item["signature"], where)


def _require_valid(payload: bytes, envelope: bytes, where: str) -> None:
    action = Message(payload, where).message(2)
    response = action.message(3)
    if action.message(4).text(2) != "qscc" or response.number(1) != _OK:
        raise Failure(f"{where} is no answer of the ledger's own chaincode")
    processed = Message(response.data(3), where)
    about = processed.message(1)
    if (about.data(1), about.data(2)) != require_envelope(envelope, where):
        raise Failure(f"{where} is about another transaction")
    if processed.number(2) != 0:
        raise Failure(f"{where} says that the transaction was not committed as valid")


def _der(tag: int, content: bytes) -> bytes:
    if len(content) >= _SHORT:
        raise Failure("a block's header is longer than any is")
    return bytes([tag, len(content)]) + content
