"""The library's own errors. A gateway's answer is turned into one of them in one place (`gateway_error`).

Source: gateway/gateway.proto (`ErrorDetail`) and google.rpc.Status in the trailer `grpc-status-details-bin`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import grpc
from fabric_protos.gateway import gateway_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

_DETAILS = "grpc-status-details-bin"
_CHAINCODE = re.compile(r"chaincode response (\d{3}), (.*)", re.DOTALL)
_DETAILS_MAX = 64
_KNOWN = ("request already processed", "request already exists")

RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
"""The call did not get through, or the gateway was at its limit: the same bytes may be sent again."""
REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.NOT_FOUND,
    }
)
"""A Submit that ends so was refused: the transaction was not ordered."""


class FabricError(Exception):
    """Root of the tree."""


class IdentityError(FabricError):
    """A certificate, key or signature cannot be used; the message says which and why."""


class FormError(FabricError):
    """Bytes from a peer that are not what the protocol says."""


class BlockDamaged(FormError):
    """A block whose content is not what its header says, or that does not follow the one before."""


class CheckpointError(FabricError):
    """A checkpoint file cannot be read or written, or is of other events."""


@dataclass(frozen=True, slots=True)
class PeerFault:
    """What one peer or orderer said (gateway.ErrorDetail)."""

    address: str
    msp_id: str
    message: str

    def __str__(self) -> str:
        return f"{self.address} ({self.msp_id}): {self.message}"


@dataclass(frozen=True, slots=True)
class ChaincodeFault:
    """A chaincode's own error response: status from 400 up, and its message as it was given."""

    status: int
    message: str


class GatewayError(FabricError):
    """A call to the gateway failed.

    Attributes:
        code: gRPC status.
        details: one entry for each peer or orderer that was asked.
        transaction_id: empty where the call is about none.
        repeated: it was tried more than once, so that an earlier try may have got through unanswered.
    """

    step = "call"
    repeated = False

    def __init__(
        self, message: str, code: grpc.StatusCode, details: tuple[PeerFault, ...] = (), transaction_id: str = ""
    ) -> None:
        said = "; ".join(str(detail) for detail in details)
        super().__init__(f"{self.step}: {code.name}: {message}{' — ' if said else ''}{said}")
        self.message = message
        self.code = code
        self.details = details
        self.transaction_id = transaction_id

    @property
    def chaincode(self) -> ChaincodeFault | None:
        """The chaincode's error response, where that is why the call failed."""
        for text in (*(detail.message for detail in self.details), self.message):
            if found := _CHAINCODE.search(text):
                return ChaincodeFault(int(found[1]), found[2])
        return None

    @property
    def unavailable(self) -> bool:
        """True if the gateway could not be reached, was busy, or did not answer in time."""
        return self.code in RETRIED or self.code is grpc.StatusCode.DEADLINE_EXCEEDED


class EvaluateError(GatewayError):
    step = "evaluate"


class EndorseError(GatewayError):
    """Not endorsed; nothing was ordered."""

    step = "endorse"


class SubmitError(GatewayError):
    """The orderer refused the transaction; nothing was ordered."""

    step = "submit"

    @property
    def known_to_orderers(self) -> bool:
        """True if an orderer has the transaction already: an earlier try got through (the words of BFT orderers)."""
        return any(words in detail.message for detail in self.details for words in _KNOWN)


class CommitStatusError(GatewayError):
    step = "commit status"


class EventsError(GatewayError):
    step = "events"


class OutcomeUnknown(FabricError):
    """The transaction may have been ordered, and its commit was not seen.

    Ask for its status later, or send the same signed transaction again: a peer commits a transaction id once.
    """

    def __init__(self, transaction_id: str, cause: GatewayError) -> None:
        super().__init__(f"the outcome of transaction {transaction_id} is not known yet: {cause}")
        self.transaction_id = transaction_id
        self.cause = cause


class CommitInvalid(FabricError):
    """Ordered and committed as invalid; nothing was written.

    Attributes:
        code: of protos.TxValidationCode, 11 is an MVCC conflict.
        code_name: its name, such as MVCC_READ_CONFLICT.
        block: number of the block that holds it.
    """

    def __init__(self, transaction_id: str, code: int, code_name: str, block: int) -> None:
        super().__init__(f"transaction {transaction_id} was committed in block {block} as invalid: {code_name}")
        self.transaction_id = transaction_id
        self.code = code
        self.code_name = code_name
        self.block = block


def gateway_error(kind: type[GatewayError], error: grpc.aio.AioRpcError, transaction_id: str = "") -> GatewayError:
    """The library's error for a failed call."""
    return kind(error.details() or "no message", error.code(), details_of(error.trailing_metadata()), transaction_id)


def details_of(metadata: Any) -> tuple[PeerFault, ...]:
    """The gateway's details in a call's trailers; none where there are none, or they cannot be read."""
    raw = next((value for key, value in metadata or () if key == _DETAILS), None)
    if not isinstance(raw, bytes):
        return ()
    try:
        status = status_pb2.Status.FromString(raw)
        found = [_detail(item) for item in status.details[:_DETAILS_MAX]]
    except DecodeError:
        return ()
    return tuple(item for item in found if item is not None)


def _detail(item: Any) -> PeerFault | None:
    detail = gateway_pb2.ErrorDetail()
    return PeerFault(detail.address, detail.msp_id, detail.message) if item.Unpack(detail) else None
