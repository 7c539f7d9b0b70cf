"""The port over a gateway client: submit with request ids and conflicts, evaluate, status, events, blocks, evidence, trust.

By the convention of `citykit.ledger.chaincode.convention`. State is the peer's; this keeps only where blocks' transactions stand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing

from citykit.canonical import CanonicalError
from citykit.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, SettingsError
from citykit.ids import require_request_id
from citykit.ledger.chaincode import convention
from citykit.ledger.channel import attestation, faults, shown
from citykit.ledger.channel.members import Credentials, credentials_of, reader_name, watched_members, watched_tls
from citykit.ledger.channel.places import Places
from citykit.ledger.channel.renewal import Renewed
from citykit.ledger.contract import Json, JsonObject
from citykit.ledger.fabric import Commits, Connection, Deadlines, Gateway, Tls, blocks, system
from citykit.ledger.fabric.blocks import Block, last_config, parse_block
from citykit.ledger.fabric.configuration import ChannelConfiguration, read_configuration
from citykit.ledger.fabric.connection import open_channel, tls_hash_of
from citykit.ledger.fabric.errors import FabricError, FormError
from citykit.ledger.fabric.gateway import code_name
from citykit.ledger.port import (
    ARGS_MAX_BYTES,
    LedgerEvent,
    LedgerOutcomeUnknown,
    LedgerUnavailable,
    Position,
    Receipt,
    TransactionStatus,
)
from citykit.renewing import RenewingChannel
from citykit.settings import FabricSettings
from citykit.telemetry import LEDGER_CONFLICTS, traceparent

_RETRY_AFTER_S = 1.0


async def open_channel_ledger(
    settings: FabricSettings, *, clock: Callable[[], float] = time.time, conflict_retries: int = 8
) -> ChannelLedger:
    """The ledger behind the peer of the settings. A peer that is away is no error: parts may start in any order.

    Args:
        clock: unix seconds that transactions name.
        conflict_retries: new simulations after a conflict.

    Raises:
        SettingsError: files that cannot be used, or a peer that refuses this channel or these members.
    """
    members, tls = watched_members(settings), watched_tls(settings)
    connection = _connection(settings, tls)
    ledger = ChannelLedger(connection, settings, members.value, clock, conflict_retries)
    try:
        await ledger.refresh()
    except LedgerUnavailable:
        pass
    except BaseException:
        await connection.close()
        raise
    return ledger


class ChannelLedger:
    """The adapter. Made by `open_channel_ledger`."""

    def __init__(
        self, connection: Connection, settings: FabricSettings, members: Callable[[], Mapping[str, Credentials]],
        clock: Callable[[], float], conflict_retries: int,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._settings = settings
        self._members = members
        self._known = known = members()
        self._conflict_retries = conflict_retries
        self._reader = Gateway(connection, settings.channel, *known[reader_name(settings, known)], clock=clock)
        self._commits = Commits(self._reader)
        self._gateways = {
            name: Gateway(connection, settings.channel, identity, signer, clock=clock, watch=self._commits)
            for name, (identity, signer) in known.items()
        }
        self._places = Places(self._reader)
        self._configuration: tuple[int, ChannelConfiguration] | None = None

    # --- calls ---------------------------------------------------------------------------------------

    async def submit(
        self, contract: str, function: str, args: JsonObject, *, submitter: str, request_id: str
    ) -> Receipt:
        require_request_id(request_id)
        credentials_of(self._known, submitter)
        self._renew()
        gateway, what = self._gateways[submitter], f"{contract}.{function}"
        arguments = _arguments(what, function, args, request_id)
        for failures in range(self._conflict_retries + 1):
            try:
                return await self._try(gateway, contract, arguments)
            except FabricError as error:
                if not faults.is_conflict(error):
                    raise faults.translated(error, what) from None
                fault = error
                LEDGER_CONFLICTS.labels(contract).inc()
            await asyncio.sleep(self._connection.retry.pause_s(failures + 1))
        met = faults.translated(fault, what)
        if isinstance(met, FailedPrecondition):
            raise met
        raise Conflict(
            f"{what} met a conflict {self._conflict_retries + 1} times; try again with the same request id",
            reason="mvcc-read-conflict",
            retry_after_s=_RETRY_AFTER_S,
        )

    async def _try(self, gateway: Gateway, contract: str, arguments: list[bytes]) -> Receipt:
        """One simulation and its commit, or the receipt of the transaction that did this request before."""
        proposal = gateway.propose(contract, arguments[0].decode(), arguments[1:], transient=_traced())
        prepared = await gateway.endorse(proposal)
        answer = _answer(prepared.result)
        if answer.repeated is not None:
            return await self._receipt(answer.repeated)
        done = await gateway.finish(prepared)
        if done.index >= 0:
            return Receipt(done.transaction_id, done.block, done.index, answer.result)
        try:
            index = await self._places.index(done.block, done.transaction_id)
        except FabricError:  # committed, but where is not known: the same request id gets the receipt
            raise LedgerOutcomeUnknown(done.transaction_id) from None
        return Receipt(done.transaction_id, done.block, index, answer.result)

    async def _receipt(self, transaction: str) -> Receipt:
        block, index = await self._find(transaction)
        call = block.transactions[index].call
        result = _answer(call.result).result if call else None
        return Receipt(transaction, block.number, index, result)

    async def evaluate(self, contract: str, function: str, args: JsonObject) -> Json:
        what = f"{contract}.{function}"
        arguments = _arguments(what, function, args, "")
        try:
            return _answer(await self._reading.evaluate(contract, function, arguments[1:])).result
        except FabricError as error:
            raise faults.translated(error, what) from None

    # --- looking -------------------------------------------------------------------------------------

    async def status(self, transaction: str) -> TransactionStatus:
        try:
            code = await system.transaction_code(self._reading, transaction)
        except FabricError as error:
            raise faults.translated(error, "asking for a transaction") from None
        return _status(code)

    async def evidence(self, transaction: str) -> JsonObject:
        block, index = await self._find(transaction)
        needed = self._settings.endorsements if self._settings.attest else 0
        try:
            members = (await self._configured_as(block)).members
            names = [item.msp_id for item in members]
            proof = await attestation.attested(self._reading, transaction, names, needed)
            return shown.evidence_of(block, index, proof)
        except FabricError as error:
            raise faults.not_attested(error) from None

    async def events(
        self, *, after: Position | None = None, contract: str | None = None, follow: bool = True
    ) -> AsyncIterator[LedgerEvent]:
        start = after.block if after else 0
        stop = None if follow else await self.height() - 1
        if stop is not None and stop < start:
            return
        try:
            async with aclosing(blocks(self._reading, start=start, stop=stop)) as found:
                async for block in found:
                    for event in shown.events_of(block):
                        if (after is None or event.position > after) and contract in (None, event.contract):
                            yield event
        except FabricError as error:
            raise faults.translated(error, "reading blocks") from None

    async def height(self) -> int:
        try:
            return await system.height(self._reading)
        except FabricError as error:
            raise faults.translated(error, "asking for the height") from None

    async def block(self, number: int) -> JsonObject:
        try:
            found = await system.block_by_number(self._reading, number) if number >= 0 else None
            if found is not None:
                return shown.shown_block(parse_block(found), self._settings.channel, self._settings.msp)
        except FabricError as error:
            raise faults.translated(error, f"reading block {number}") from None
        raise NotFound(f"no block {number} is on the channel", field="number")

    def trust(self) -> JsonObject:
        """Raises LedgerUnavailable until the channel's configuration was read once."""
        if self._configuration is None:
            raise LedgerUnavailable(
                "the channel's configuration was not read yet: its peer is away", retry_after_s=_RETRY_AFTER_S
            )
        return shown.trust_of(self._configuration[1], self._settings)

    async def refresh(self) -> None:
        """Reads the channel's configuration, as the newest block names it.

        Raises:
            LedgerUnavailable: the peer is away.
            SettingsError: it refuses this channel, or these members.
        """
        try:
            newest = await system.block_by_number(self._reading, await system.height(self._reading) - 1)
            await self._configured_as(parse_block(newest))
        except FabricError as error:
            if what := faults.stopping(error):
                raise SettingsError(
                    f"the peer {self._settings.peer} cannot be used for channel {self._settings.channel} by a member of"
                    f" {self._settings.msp}: {what}. It said: {error}",
                    field="CITY_FABRIC_PEER",
                ) from None
            raise faults.translated(error, "reading the channel's configuration") from None

    @property
    def _reading(self) -> Gateway:
        self._renew()
        return self._reader

    def _renew(self) -> None:
        """Goes on with renewed certificates, where members' files were replaced."""
        found = self._members()
        if found is self._known:
            return
        self._known = found
        for name, credentials in found.items():
            if name in self._gateways:
                self._gateways[name].renew(*credentials)
        self._reader.renew(*found[reader_name(self._settings, found)])

    async def close(self) -> None:
        await self._commits.close()
        await self._connection.close()

    async def _find(self, transaction: str) -> tuple[Block, int]:
        try:
            found = await system.block_by_transaction(self._reading, transaction)
            block = parse_block(found) if found is not None else None
        except FabricError as error:
            raise faults.translated(error, "looking for a transaction") from None
        ids = [item.transaction_id for item in block.transactions] if block else []
        if block is None or transaction not in ids:
            raise NotFound(f"no transaction {transaction} is on the ledger", field="transaction")
        return block, ids.index(transaction)

    async def _configured_as(self, block: Block) -> ChannelConfiguration:
        """The configuration a block was made under, or a newer one that is known. Raises FabricError."""
        number = last_config(block.message)
        if self._configuration is None or self._configuration[0] < number:
            found = await system.block_by_number(self._reading, number)
            if found is None:
                raise FormError(f"block {number}, which block {block.number} names, is not on the channel")
            self._configuration = (number, read_configuration(found))
        return self._configuration[1]


def _connection(settings: FabricSettings, tls: Renewed[Tls | None]) -> Connection:
    """A connection that shows a renewed TLS certificate to the peer without a restart."""
    channel = RenewingChannel(lambda found: open_channel(settings.peer, found), tls.value)
    deadlines = Deadlines(settings.evaluate_s, settings.endorse_s, settings.submit_s, settings.commit_s)
    return Connection(
        channel, deadlines=deadlines, in_flight_max=settings.in_flight, tls_hash=lambda: tls_hash_of(tls.value())
    )


def _arguments(what: str, function: str, args: JsonObject, request_id: str) -> list[bytes]:
    try:
        arguments = convention.invocation_arguments(function, args, request_id)
    except CanonicalError as error:
        raise InvalidArgument(f"the arguments of {what} have no canonical form: {error}") from None
    if len(arguments[1]) > ARGS_MAX_BYTES:
        raise InvalidArgument(
            f"arguments are at most {ARGS_MAX_BYTES} bytes, not {len(arguments[1])}; submit hashes of large documents"
        )
    return arguments


def _traced() -> dict[str, bytes] | None:
    """The present trace as transient data: the chaincode may read it, and it is never ordered, hashed or kept."""
    trace = traceparent()
    return {convention.TRACE_KEY: trace.encode()} if trace else None


def _answer(payload: bytes) -> convention.Answer:
    try:
        return convention.parse_answer(payload)
    except convention.ConventionError as error:
        raise FailedPrecondition(
            f"the chaincode's answer is not by the convention: {error}; is it the city's contract?"
        ) from None


def _status(code: int | None) -> TransactionStatus:
    if code is None:
        return TransactionStatus.UNKNOWN
    if code == 0:
        return TransactionStatus.VALID
    return TransactionStatus.MVCC_READ_CONFLICT if code_name(code) in faults.CONFLICTS else TransactionStatus.INVALID
