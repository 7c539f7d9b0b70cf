"""Values of the chaincode shim: responses, entries of a range, pages, limits."""

from __future__ import annotations

from dataclasses import dataclass

from citykit.ledger.fabric.shim_errors import ERROR_THRESHOLD

OK = 200
MESSAGE_MAX_BYTES = 100 * 1024 * 1024
"""Largest gRPC message a peer sends or takes."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a chaincode answers, or another chaincode answered.

    Attributes:
        status: 200 is success; from 400 up nothing is endorsed and nothing written.
    """

    status: int = OK
    message: str = ""
    payload: bytes = b""

    @property
    def ok(self) -> bool:
        return self.status < ERROR_THRESHOLD


@dataclass(frozen=True, slots=True)
class KeyValue:
    """An entry of the committed state."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Modification:
    """One committed change of a key.

    Attributes:
        time_ns: of the proposal that made it, nanoseconds since 1970.
        value: empty where it was deleted.
    """

    txid: str
    value: bytes
    time_ns: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of a paged query.

    Attributes:
        bookmark: give it to the next call; empty after the last page.
    """

    entries: tuple[KeyValue, ...]
    bookmark: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one chaincode server.

    Attributes:
        streams: peers connected at once.
        transactions: running at once on one stream; more are answered with status 503. 2,500 is what a peer endorses at once by default.
        transaction_s: from a transaction's arrival to its answer; a peer gives up after 30 s by default.
        writes: of one transaction.
        message_bytes: of one message to the peer.
        batch_bytes: of one batch of writes, well below `message_bytes`.
    """

    streams: int = 16
    transactions: int = 2_500
    transaction_s: float = 30.0
    writes: int = 100_000
    message_bytes: int = MESSAGE_MAX_BYTES
    batch_bytes: int = 16 * 1024 * 1024
