"""Evidence of a transaction on a Fabric channel: `fabric.v1` (docs/PROOFS.md, "Evidence on a Fabric channel"). Endorsement is here.

Endorsed by enough trusted organisations; in a block that enough trusted orderers signed; committed as valid, by peers' own signatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from verifier.canonical import Failure, Unreadable, decode, fields, unbase64
from verifier.fabric_block import require_attested, require_ordered, require_whole
from verifier.fabric_ledger import FabricLedger, counted
from verifier.members import Member, member_of, service_of, signature_holds, signers
from verifier.wire import Message, require_envelope

_ENDORSED_KIND, _OK, _ARGUMENTS = 3, 200, 3
_TIME_MAX = 253_402_300_799
_FIELDS: dict[str, Any] = {
    "type": str, "transaction": str, "index": int, "code": str, "header": dict, "envelopes": list, "signature": dict, "attestations": list,
}  # fmt: skip


@dataclass(frozen=True)
class _Envelope:
    """The parts of an endorsed transaction. `asked` is the call, `answered` what was endorsed, `hashed` what that must name."""

    payload: bytes
    signature: bytes
    header: Message
    creator: bytes
    nonce: bytes
    asked: bytes
    answered: bytes
    endorsements: list[bytes]
    hashed: bytes


def transaction_of(evidence: Any, ledger: FabricLedger, where: str) -> Any:
    """The transaction, once everything that proves it holds.

    Raises:
        Failure: naming what does not.
    """
    _, transaction = _endorsed(evidence, ledger, where)
    require_in_block(evidence, ledger, where)
    return transaction


def require_endorsed(evidence: Any, ledger: FabricLedger, where: str) -> str:
    """Says who endorsed the transaction; raises Failure unless they are enough, and what they signed is what was asked."""
    envelope, transaction = _endorsed(evidence, ledger, where)
    return f"{counted(len(envelope.endorsements), 'endorsement')} of transaction {transaction['id'][:16]}…"


def require_in_block(evidence: Any, ledger: FabricLedger, where: str) -> str:
    """Says which block; raises Failure unless the envelope is in it, orderers signed it, and it was committed as valid."""
    fields(evidence, where, **_FIELDS)
    header = fields(evidence["header"], f"{where}.header", number=int, previous=str, data=str)
    envelopes = require_whole(evidence["envelopes"], header, where)
    signed = require_ordered(evidence["signature"], header, ledger, where)
    if evidence["code"] != "VALID":
        raise Failure(f"{where}: the transaction was committed as {evidence['code']}, not as valid")
    attested = require_attested(evidence["attestations"], _at(envelopes, evidence, where), ledger, where)
    by = "the orderer" if signed == 1 else f"{signed} orderers"
    if attested:
        return f"block {header['number']}, signed by {by}; {counted(attested, 'organisation')} signed that it is valid"
    return f"block {header['number']}, signed by {by}; that it is valid is the word of the peer it was read from"


def _endorsed(evidence: Any, ledger: FabricLedger, where: str) -> tuple[_Envelope, Any]:
    fields(evidence, where, **_FIELDS)
    data = unbase64(_at(evidence["envelopes"], evidence, where), f"{where}.envelopes[{evidence['index']}]")
    envelope = _opened(data, f"{where}: the transaction")
    channel = envelope.header.text(4)
    if channel != ledger.channel:
        raise Failure(f"{where}: the transaction is of channel {channel}")
    identifier = sha256(envelope.nonce + envelope.creator).hexdigest()
    if not identifier == envelope.header.text(5) == evidence["transaction"]:
        raise Failure(f"{where}: the transaction's id is not that of its creator and nonce")
    creator = member_of(envelope.creator, ledger.submitters, f"{where}: the submitter")
    if not signature_holds(creator.certificate, envelope.payload, envelope.signature):
        raise Failure(f"{where}: the submitter's signature does not hold")
    _require_endorsements(envelope, ledger, where)
    return envelope, _transaction(envelope, identifier, creator, where)


def _at(items: list[Any], evidence: Any, where: str) -> Any:
    if not 0 <= evidence["index"] < len(items):
        raise Failure(f"{where}: the block has no transaction {evidence['index']}")
    return items[evidence["index"]]


def _opened(data: bytes, where: str) -> _Envelope:
    payload, signature = require_envelope(data, where)
    whole = Message(payload, where)
    header = whole.message(1)
    channel, by = header.message(1), header.message(2)
    actions = whole.message(2).every(1)
    if channel.number(1) != _ENDORSED_KIND or len(actions) != 1:
        raise Failure(f"{where} is no endorsed transaction of one action")
    action = Message(actions[0], where).message(2)
    asked, endorsed = action.data(1), action.message(2)
    return _Envelope(
        payload=payload,
        signature=signature,
        header=channel,
        creator=by.data(1),
        nonce=by.data(2),
        asked=asked,
        answered=endorsed.data(1),
        endorsements=endorsed.every(2),
        hashed=sha256(header.data(1) + header.data(2) + asked).digest(),
    )


def _require_endorsements(envelope: _Envelope, ledger: FabricLedger, where: str) -> None:
    """Every endorsement holds, and they are of enough organisations."""
    given = [Message(item, f"{where}: an endorsement") for item in envelope.endorsements]
    pairs = [(item.data(1), item.data(2)) for item in given]
    organisations = signers(envelope.answered, pairs, ledger.organisations, f"{where}: an endorsement")
    if len(organisations) < ledger.endorsements:
        raise Failure(
            f"{where}: {counted(len(organisations), 'organisation')} endorsed, {ledger.endorsements} are needed"
        )


def _transaction(envelope: _Envelope, identifier: str, creator: Member, where: str) -> Any:
    """What was asked and answered, once they belong together."""
    response = Message(envelope.answered, where)
    if response.data(1) != envelope.hashed:
        raise Failure(f"{where}: what was endorsed is not what was asked")
    action, spec = response.message(2), Message(envelope.asked, where).message(1).message(1)
    contract, answer = spec.message(2).text(2), action.message(3)
    if action.message(4).text(2) != contract or answer.number(1) != _OK:
        raise Failure(f"{where}: the answer is of another contract, or an error")
    arguments = spec.message(3).every(1)
    if len(arguments) != _ARGUMENTS:
        raise Failure(f"{where}: a call has {_ARGUMENTS} arguments, not {len(arguments)}")
    return {
        "args": _json(arguments[1], f"{where}: the arguments"),
        "contract": contract,
        "function": _text(arguments[0], where),
        "id": identifier,
        "result": fields(_json(answer.data(3), f"{where}: the answer"), f"{where}: the answer", result=object)[
            "result"
        ],
        "submitter": service_of(creator, f"{where}: the submitter"),
        "time": _time(envelope.header.message(3).number(1), where),
    }


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failure(f"{where}: a name is no text") from None


def _json(data: bytes, where: str) -> Any:
    try:
        value = decode(data, where)
    except Unreadable as error:
        raise Failure(str(error)) from None
    if not isinstance(value, dict):
        raise Failure(f"{where} is no object")
    return value


def _time(seconds: int, where: str) -> str:
    if not 0 < seconds <= _TIME_MAX:
        raise Failure(f"{where}: the transaction names no time")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
