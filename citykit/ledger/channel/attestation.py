"""Peers' signatures under a transaction's validation code: orderers sign what is in a block, not whether it counted.

An endorsed call of the system chaincode `qscc` gives them: its answer, `protos.ProcessedTransaction`, is signed as any endorsement is.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.contract import JsonObject
from citykit.ledger.fabric import Gateway, Prepared, system
from citykit.ledger.fabric.errors import EndorseError, FormError


async def attested(gateway: Gateway, transaction: str, organisations: Sequence[str], needed: int) -> list[JsonObject]:
    """What peers of enough of these organisations sign of a transaction.

    Peers commit a block at different moments, so one that does not know the transaction yet is asked again.

    Raises:
        EndorseError: fewer than `needed` organisations sign it, also after the connection's number of tries.
    """
    if needed == 0:
        return []
    retry = gateway.connection.retry
    for failures in range(1, retry.tries + 1):
        try:
            return await _enough(gateway, transaction, organisations, needed)
        except EndorseError as error:
            fault = error
            if not (system.absent(error) or error.unavailable):
                break
        await asyncio.sleep(retry.pause_s(failures))
    raise fault


async def _enough(gateway: Gateway, transaction: str, organisations: Sequence[str], needed: int) -> list[JsonObject]:
    """All are asked at once; where one of them cannot, each by itself."""
    try:
        return [await _asked(gateway, transaction, organisations)]
    except EndorseError:
        if needed >= len(organisations):
            raise
    found = await asyncio.gather(
        *(_asked(gateway, transaction, [name]) for name in organisations), return_exceptions=True
    )
    faults = [item for item in found if isinstance(item, BaseException)]
    if len(found) - len(faults) < needed:
        raise faults[0]
    return [item for item in found if not isinstance(item, BaseException)]


async def _asked(gateway: Gateway, transaction: str, organisations: Sequence[str]) -> JsonObject:
    arguments = [gateway.channel.encode(), transaction.encode()]
    proposal = gateway.propose(system.CHAINCODE, "GetTransactionByID", arguments, organisations=organisations)
    return _shown(await gateway.endorse(proposal))


def _shown(prepared: Prepared) -> JsonObject:
    try:
        data = common_pb2.Payload.FromString(prepared.message).data
        transaction = transaction_pb2.Transaction.FromString(data)
        action = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload).action
    except (DecodeError, IndexError) as error:
        raise FormError(f"the peers' statement cannot be read: {error}") from None
    return {
        "payload": _base64(action.proposal_response_payload),
        "endorsements": [
            {"endorser": _base64(item.endorser), "signature": _base64(item.signature)} for item in action.endorsements
        ],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
