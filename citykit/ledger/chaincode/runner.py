"""Runs a contract class as chaincode, by the convention. The same classes, limits and answers as on the embedded ledger.

Made by `citykit.ledger.chaincode.serving`; a handler of the shim, plain code that waits for the peer at each read.
"""

from __future__ import annotations

import json
import time

from citykit.canonical import CanonicalError
from citykit.errors import InvalidArgument
from citykit.ids import require_request_id
from citykit.ledger.chaincode import convention
from citykit.ledger.chaincode.convention import ConventionError, Fault, Invocation
from citykit.ledger.contract import Function, Json, JsonObject, Refusal, call, functions_of
from citykit.ledger.fabric.shim import Response, SyncStub
from citykit.ledger.lint import require_deterministic
from citykit.ledger.port import ARGS_MAX_BYTES
from citykit.ledger.rules import checked_key, checked_limit, checked_value, fits
from citykit.telemetry import CHAINCODE_SECONDS, span

_SECOND_NS = 1_000_000_000
_MESSAGE_MAX = 1_000
"""Characters of an error message; it travels in a gRPC header of the gateway."""


class ContractRunner:
    """The chaincode handler of one contract.

    Args:
        operator: MSP id of the organisation whose members are the city's services.

    Raises:
        InvalidArgument: the contract is not deterministic.
        ConventionError: its name is no chaincode name.
    """

    def __init__(self, contract: object, operator: str = convention.OPERATOR) -> None:
        require_deterministic(contract)
        self._operator = operator
        self.name = convention.chaincode_name(contract)
        self._contract = contract
        self._functions = functions_of(contract)

    def __call__(self, stub: SyncStub) -> Response:
        started = time.perf_counter()
        status = convention.FAILED
        try:
            response = self._responded(stub)
            status = response.status
            return response
        finally:
            CHAINCODE_SECONDS.labels(self.name, str(status)).observe(time.perf_counter() - started)

    def _responded(self, stub: SyncStub) -> Response:
        try:
            return self._answer(stub)
        except _Faulty as error:
            fault = error.fault
        except Refusal as refusal:
            fault = Fault(convention.REFUSED, refusal.code, refusal.message)
        except (ConventionError, InvalidArgument) as error:
            fault = Fault(convention.WRONG_CALL, convention.CODE_WRONG_CALL, str(error))
        clipped = Fault(fault.status, fault.code, fault.message[:_MESSAGE_MAX])
        return Response(fault.status, convention.fault_message(clipped))

    def _answer(self, stub: SyncStub) -> Response:
        invocation = convention.parse_invocation(stub.args)
        function = self._function(invocation)
        args = convention.parse_args(invocation)
        who = stub.creator
        submitter = convention.submitter_name(who.attributes, who.common_name, who.msp_id, self._operator)
        with span(f"chaincode/{self.name}.{function.name}", _trace(stub), transaction=stub.txid):
            return self._act(stub, invocation, function, args, submitter)

    def _act(
        self, stub: SyncStub, invocation: Invocation, function: Function, args: JsonObject, submitter: str
    ) -> Response:
        if not function.writes:
            return Response(payload=self._run(function, args, ChaincodeTransaction(stub, submitter))[0])
        mark = convention.request_key(submitter, require_request_id(invocation.request_id))
        transaction = ChaincodeTransaction(stub, submitter, mark)
        try:
            payload, events = self._act_once(function, args, transaction)
        except _DoneBefore as before:
            return self._repeated(before.mark, invocation)
        stub.put(mark, convention.request_mark(invocation, stub.txid))
        transaction.write()
        if transaction.events:
            stub.set_event(convention.EVENTS, events)
        return Response(payload=payload)

    def _act_once(self, function: Function, args: JsonObject, transaction: ChaincodeTransaction) -> tuple[bytes, bytes]:
        """Raises _DoneBefore where the request has its mark, whatever the contract says this time."""
        try:
            done = self._run(function, args, transaction)
        except Exception:
            transaction.require_new()
            raise
        transaction.require_new()
        return done

    def _function(self, invocation: Invocation) -> Function:
        """Raises ConventionError where the call is of the wrong kind."""
        function = self._functions.get(invocation.function)
        if function is None:
            known = ", ".join(f"{self.name}.{name}" for name in self._functions)
            text = f"no contract function {self.name}.{invocation.function}; there are {known}"
            raise _Faulty(Fault(convention.UNKNOWN_FUNCTION, convention.CODE_UNKNOWN_FUNCTION, text))
        if len(invocation.args) > ARGS_MAX_BYTES:
            raise ConventionError(
                f"arguments are at most {ARGS_MAX_BYTES} bytes, not {len(invocation.args)}; submit hashes of large documents"
            )
        if function.writes and not invocation.request_id:
            raise ConventionError(f"{self.name}.{function.name} writes; use submit")
        if invocation.request_id and not function.writes:
            raise ConventionError(f"{self.name}.{function.name} only reads; use evaluate")
        return function

    def _run(self, function: Function, args: JsonObject, transaction: ChaincodeTransaction) -> tuple[bytes, bytes]:
        """(answer, events) of a contract's run."""
        try:
            result = call(self._contract, function, transaction, args)
        except CanonicalError as error:
            raise _not_canonical(f"{self.name}.{function.name} stores no canonical value: {error}") from None
        try:
            return convention.answer_payload(result), convention.events_payload(transaction.events)
        except CanonicalError as error:
            raise _not_canonical(f"{self.name}.{function.name} gave back no canonical value: {error}") from None

    def _repeated(self, mark: bytes, invocation: Invocation) -> Response:
        transaction = convention.repeated_by(mark, invocation)
        if transaction is not None:
            return Response(payload=convention.repeated_payload(transaction))
        text = f"request id {invocation.request_id!r} was used before with other content; take a new id for a new act"
        raise _Faulty(Fault(convention.REUSED, convention.CODE_REUSED, text))


class ChaincodeTransaction:
    """`citykit.ledger.contract.Transaction` over the shim. Writes go to the stub in `write`, for functions that write.

    Each message to the peer costs more than a contract's own work: a key is asked for once (reads see the committed state, so the answer is
    the same), and the request's mark comes with the first of them.

    Args:
        mark: the key of the request's mark; None where nothing is to be written.
    """

    def __init__(self, stub: SyncStub, submitter: str, mark: str | None = None) -> None:
        self._stub = stub
        self._unread_mark = mark
        self.id = stub.txid
        self.time = stub.time_ns // _SECOND_NS
        self.submitter = submitter
        self._read: dict[str, bytes | None] = {}
        self._writes: dict[str, bytes | None] = {}
        self.events: list[tuple[str, JsonObject]] = []

    def get(self, key: str) -> Json:
        if not fits(key):
            return None
        if key not in self._read:
            self._read[key] = self._fetch(key)
        data = self._read[key]
        return None if data is None else json.loads(data)

    def _fetch(self, key: str) -> bytes | None:
        if self._unread_mark is None:
            return self._stub.get(key)
        mark, data = self._stub.get_many([self._unread_mark, key])
        self._unread_mark = None
        if mark is not None:
            raise _DoneBefore(mark)
        return data

    def require_new(self) -> None:
        """Raises _DoneBefore where the request has its mark; asks the peer at most once."""
        if self._unread_mark is not None:
            mark = self._stub.get(self._unread_mark)
            self._unread_mark = None
            if mark is not None:
                raise _DoneBefore(mark)

    def put(self, key: str, value: Json) -> None:
        data = checked_value(key, value)
        self._writes[checked_key(key)] = data

    def delete(self, key: str) -> None:
        self._writes[checked_key(key)] = None

    def range(self, prefix: str, *, limit: int) -> list[tuple[str, Json]]:
        checked_limit(limit)
        self.require_new()
        found: list[tuple[str, Json]] = []
        for start, end in convention.prefix_ranges(prefix):
            if len(found) < limit:
                entries = self._stub.range(start, end).take(limit - len(found))
                found.extend((entry.key, json.loads(entry.value)) for entry in entries)
        return found

    def emit(self, name: str, payload: JsonObject) -> None:
        self.events.append((name, payload))

    def write(self) -> None:
        """Hands the writes to the shim."""
        for key, value in self._writes.items():
            if value is None:
                self._stub.delete(key)
            else:
                self._stub.put(key, value)


class _DoneBefore(BaseException):
    """The request has its mark. Passes through a contract that catches Exception."""

    def __init__(self, mark: bytes) -> None:
        super().__init__()
        self.mark = mark


class _Faulty(Exception):
    """An answer with a status of its own."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _trace(stub: SyncStub) -> str | None:
    """The caller's trace context, where it sent one."""
    found = stub.transient.get(convention.TRACE_KEY)
    return found.decode("ascii", "replace") if found else None


def _not_canonical(text: str) -> _Faulty:
    return _Faulty(Fault(convention.REFUSED, convention.CODE_NOT_CANONICAL, text))
