"""What a channel's ledger says of itself: height, blocks, transactions, through the system chaincode `qscc`.

Source: https://hyperledger-fabric.readthedocs.io/en/release-2.5/smartcontract/smartcontract.html and core/scc/qscc of Fabric.
"""

from __future__ import annotations

from typing import Any

from fabric_protos.common import common_pb2, ledger_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.fabric.errors import EvaluateError, FormError, GatewayError
from citykit.ledger.fabric.gateway import Gateway

CHAINCODE = "qscc"


async def height(gateway: Gateway) -> int:
    """Number of blocks. Raises EvaluateError."""
    return int(_read(ledger_pb2.BlockchainInfo, await _ask(gateway, "GetChainInfo")).height)


async def block_by_number(gateway: Gateway, number: int) -> Any:
    """A block (common.Block), or None where it is not there yet. Raises EvaluateError."""
    try:
        return _read(common_pb2.Block, await _ask(gateway, "GetBlockByNumber", str(number)))
    except EvaluateError as error:
        if absent(error):
            return None
        raise


async def block_by_transaction(gateway: Gateway, transaction_id: str) -> Any:
    """The block that holds a transaction, valid or not; None where there is none. Raises EvaluateError."""
    try:
        return _read(common_pb2.Block, await _ask(gateway, "GetBlockByTxID", transaction_id))
    except EvaluateError as error:
        if absent(error):
            return None
        raise


async def transaction_code(gateway: Gateway, transaction_id: str) -> int | None:
    """A transaction's validation code (protos.TxValidationCode), or None where it is on no block. Raises EvaluateError."""
    try:
        answer = await _ask(gateway, "GetTransactionByID", transaction_id)
        return int(_read(transaction_pb2.ProcessedTransaction, answer).validationCode)
    except EvaluateError as error:
        if absent(error):
            return None
        raise


def absent(error: GatewayError) -> bool:
    """True if `qscc` says that there is no such block or transaction; it has no code for it, only words."""
    fault = error.chaincode
    said = fault.message.lower() if fault else ""
    return any(words in said for words in ("no such transaction id", "not found in index", "no such block number"))


async def _ask(gateway: Gateway, function: str, *arguments: str) -> bytes:
    return await gateway.evaluate(
        CHAINCODE, function, [gateway.channel.encode(), *(item.encode() for item in arguments)]
    )


def _read(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise FormError(f"the ledger's answer is no {kind.DESCRIPTOR.name}: {error}") from None
