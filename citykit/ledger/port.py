"""What a ledger must do; adapters: `citykit.ledger.local` (embedded) and, later, Fabric. `citykit.testing.ledger_suite` holds each to it.

A transaction is simulated, endorsed, ordered, validated (MVCC) and committed in a block: the commit comes after the call's simulation,
so a call can meet a conflict, be committed as invalid, or end with its outcome unknown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from citykit import errors
from citykit.ledger.contract import Json, JsonObject

ARGS_MAX_BYTES = 1_048_576
VALUE_MAX_BYTES = 1_048_576
RANGE_MAX = 1_000


class TransactionStatus(StrEnum):
    UNKNOWN = "UNKNOWN"
    """Never seen, or not ordered yet: submit again with the same request id."""
    VALID = "VALID"
    MVCC_READ_CONFLICT = "MVCC_READ_CONFLICT"
    INVALID = "INVALID"


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """Where an event stands; a checkpoint keeps the last one handled."""

    block: int
    transaction: int
    event: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A committed, valid transaction."""

    transaction: str
    block: int
    index: int
    result: Json


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    position: Position
    contract: str
    transaction: str
    name: str
    payload: JsonObject


class ContractRefused(errors.FailedPrecondition):
    """The contract's own refusal; `reason` is its code. Nothing was written."""


class CommitFailed(errors.Conflict):
    """Ordered and committed as invalid; nothing was written. `reason` is the validation code."""


class LedgerUnavailable(errors.Unavailable):
    """The ledger is away; nothing was submitted."""

    default_reason = "ledger-unavailable"


class LedgerOutcomeUnknown(errors.OutcomeUnknown):
    """Submitted, but the commit was not seen. Ask `status(transaction)`, or submit again with the same request id."""

    default_reason = "ledger-outcome-unknown"

    def __init__(self, transaction: str) -> None:
        super().__init__(
            f"the outcome of transaction {transaction} is not known yet; ask again with the same request id"
        )
        self.transaction = transaction


class LedgerDamaged(errors.Damaged):
    """Stored blocks do not verify; the message names the first damaged one."""


class Ledger(Protocol):
    """The port."""

    async def submit(
        self, contract: str, function: str, args: JsonObject, *, submitter: str, request_id: str
    ) -> Receipt:
        """Returns once the transaction is committed as valid. The same request id acts once and gets the first receipt.

        Args:
            args: at most 1 MiB in canonical JSON.

        Raises:
            ContractRefused, RequestReused, Conflict (after a bounded number of simulations), LedgerUnavailable,
            LedgerOutcomeUnknown, NotFound (no such contract or function), InvalidArgument.
        """

    async def evaluate(self, contract: str, function: str, args: JsonObject) -> Json:
        """Runs a function on committed state without submitting."""

    async def status(self, transaction: str) -> TransactionStatus: ...

    async def evidence(self, transaction: str) -> JsonObject:
        """What proves the transaction offline (docs/PROOFS.md, "Evidence").

        Raises:
            NotFound: no such transaction is committed.
        """

    def events(
        self, *, after: Position | None = None, contract: str | None = None, follow: bool = True
    ) -> AsyncIterator[LedgerEvent]:
        """Events of valid transactions after a position, in order, at least once; ends at the newest unless `follow`."""

    async def height(self) -> int:
        """Number of blocks."""

    async def block(self, number: int) -> JsonObject:
        """A block: {"header", "signature", "envelopes"}."""

    def trust(self) -> JsonObject:
        """The `ledger` part of the trust file."""

    async def close(self) -> None: ...
