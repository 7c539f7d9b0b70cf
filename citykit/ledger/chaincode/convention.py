"""How the city's contracts look on a Fabric channel: names, arguments, answers, request marks, events. Pure functions.

Used by the client adapter (`citykit.ledger.channel`), the runner of contracts (`citykit.ledger.chaincode`) and the development peer.
One chaincode per contract, of the contract's name; contract data lies under the contract's own keys, values in canonical JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from citykit.canonical import CanonicalError, decode, encode
from citykit.ledger.contract import Json, JsonObject
from citykit.ledger.rules import RESERVED, fits

CHANNEL = "city"
EVENTS = "city.events.v1"
"""Name of the one chaincode event of a transaction; Fabric allows one, a contract several, so they travel in a list."""
OPERATOR = "CityMSP"
"""The organisation whose members are known by their bare names (CITY_FABRIC_MSP)."""
SUBMITTER_ATTRIBUTE = "city.service"
"""X.509 attribute that names the calling service; a certificate without it is known by its common name."""
TRACE_KEY = "traceparent"
"""Transient field that may carry the caller's trace context (https://www.w3.org/TR/trace-context/); it is never on the ledger."""
OK = 200
REFUSED = 400
"""The contract's own refusal, or arguments it does not take."""
UNKNOWN_FUNCTION = 404
REUSED = 409
"""The request id came before with other content."""
WRONG_CALL = 422
"""No arguments by this convention, too large, or submitted where it only reads."""
FAILED = 500
"""The contract raised something else than a refusal: a fault of its author."""

CODE_REUSED = "request-reused"
CODE_UNKNOWN_FUNCTION = "unknown-function"
CODE_WRONG_CALL = "invalid-argument"
CODE_NOT_CANONICAL = "failed-precondition"
CODE_FAILED = "contract-failed"

_NAME = re.compile(r"[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*")
_ARGUMENTS = 3
_RELAYED = re.compile(r"chaincode response (\d{3}), (.*)", re.DOTALL)


class ConventionError(ValueError):
    """Bytes that do not follow the convention; the message says which."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call as it arrives in a chaincode.

    Attributes:
        args: canonical JSON, not decoded yet.
        request_id: empty where nothing is to be written.
    """

    function: str
    args: bytes
    request_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a chaincode answers with status 200.

    Attributes:
        result: of a first run.
        repeated: id of the transaction that did this request before; the result is in that transaction's answer.
    """

    result: Json
    repeated: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What a chaincode answers with a status from 400 up; nothing is written."""

    status: int
    code: str
    message: str


def chaincode_name(contract: object) -> str:
    """The chaincode of a contract.

    Raises:
        ConventionError: a contract name Fabric does not take as a chaincode name.
    """
    name = str(getattr(contract, "name", ""))
    if not _NAME.fullmatch(name):
        raise ConventionError(f"{name!r} is no chaincode name: letters and digits, joined by single - or _")
    return name


def invocation_arguments(function: str, args: JsonObject, request_id: str = "") -> list[bytes]:
    """The chaincode arguments of a call; without a request id it is one that only reads.

    Raises:
        CanonicalError: `args` have no canonical form.
    """
    return [function.encode(), encode(args), request_id.encode()]


def parse_invocation(arguments: Sequence[bytes]) -> Invocation:
    """The call behind chaincode arguments; its `args` are checked by `parse_args`.

    Raises:
        ConventionError: not three arguments, or a name that is not text.
    """
    if len(arguments) != _ARGUMENTS:
        raise ConventionError(
            f"a call has 3 arguments (function, arguments in canonical JSON, request id), not {len(arguments)}"
        )
    try:
        return Invocation(arguments[0].decode(), bytes(arguments[1]), arguments[2].decode())
    except UnicodeDecodeError:
        raise ConventionError("function and request id are UTF-8 text") from None


def parse_args(invocation: Invocation) -> JsonObject:
    """The arguments as an object.

    Raises:
        ConventionError: not canonical JSON, or no object.
    """
    value = _decoded(invocation.args, "the arguments")
    if not isinstance(value, dict):
        raise ConventionError(f"the arguments are a JSON object, not {type(value).__name__}")
    return value


def request_key(submitter: str, request_id: str) -> str:
    """Where the mark of a request lies. A submitter holds no slash (`submitter_name`), so two never share a key."""
    return f"{RESERVED}{submitter}/{request_id}"


def submitter_name(
    attributes: Mapping[str, str], common_name: str, msp_id: str = OPERATOR, operator: str = OPERATOR
) -> str:
    """Who calls, by the caller's certificate: of the operator's members the bare name, of others' MSPID.NAME.

    Every organisation's authority can put any name into a certificate; only the operator's makes somebody a service of the city.

    Raises:
        ConventionError: no name, or one with a slash.
    """
    name = attributes.get(SUBMITTER_ATTRIBUTE) or common_name
    if not name or "/" in name:
        raise ConventionError(
            f"the caller's certificate needs a common name, or the attribute {SUBMITTER_ATTRIBUTE}, without a slash"
        )
    return name if msp_id == operator else f"{msp_id}.{name}"


def fingerprint(invocation: Invocation) -> str:
    """What tells one content of a request from another: SHA-256 over function, newline, arguments; hex."""
    return sha256(invocation.function.encode() + b"\n" + invocation.args).hexdigest()


def request_mark(invocation: Invocation, transaction: str) -> bytes:
    """The value under `request_key`."""
    return encode({"fingerprint": fingerprint(invocation), "transaction": transaction})


def repeated_by(mark: bytes, invocation: Invocation) -> str | None:
    """The transaction that did this same request before, or None where the mark is of other content.

    Raises:
        ConventionError: the mark does not follow the convention.
    """
    value = _decoded(mark, "a request mark")
    try:
        return str(value["transaction"]) if value["fingerprint"] == fingerprint(invocation) else None
    except (TypeError, KeyError):
        raise ConventionError("a request mark has fingerprint and transaction") from None


def answer_payload(result: Json) -> bytes:
    """The payload of a first run.

    Raises:
        CanonicalError: the result has no canonical form.
    """
    return encode({"result": result})


def repeated_payload(transaction: str) -> bytes:
    """The payload where the request was done before."""
    return encode({"repeated": transaction})


def parse_answer(payload: bytes) -> Answer:
    """What a payload of status 200 says.

    Raises:
        ConventionError: neither of the two forms.
    """
    match _decoded(payload, "an answer"):
        case {"result": result, **rest} if not rest:
            return Answer(result)
        case {"repeated": str(transaction), **rest} if not rest:
            return Answer(None, transaction)
        case _:
            raise ConventionError('an answer is {"result": ...} or {"repeated": transaction}')


def fault_message(fault: Fault) -> str:
    """The message of an error response."""
    return encode({"code": fault.code, "message": fault.message}).decode()


def parse_fault(status: int, message: str) -> Fault:
    """The fault behind an error response; a message that is not ours is kept as it is, of code `contract-failed`."""
    try:
        value = decode(message.encode())
        return Fault(status, str(value["code"]), str(value["message"]))
    except (CanonicalError, TypeError, KeyError, UnicodeEncodeError):
        return Fault(status, CODE_FAILED, message)


def relayed_fault(message: str) -> Fault | None:
    """The fault in a gateway's or endorser's `chaincode response STATUS, MESSAGE`; None where the text is another."""
    found = _RELAYED.search(message)
    return None if found is None else parse_fault(int(found[1]), found[2])


def events_payload(events: Iterable[tuple[str, JsonObject]]) -> bytes:
    """The payload of the one chaincode event, in the order the contract emitted.

    Raises:
        CanonicalError: a payload without a canonical form.
    """
    return encode([[name, payload] for name, payload in events])


def parse_events(payload: bytes) -> list[tuple[str, JsonObject]]:
    """The events behind a payload of the chaincode event `EVENTS`.

    Raises:
        ConventionError: not a list of [name, object].
    """
    value = _decoded(payload, "an event payload")
    if not isinstance(value, list):
        raise ConventionError("an event payload is a list of [name, object]")
    return [_event(item) for item in value]


def prefix_end(prefix: str) -> str:
    """The first key after all keys that start with `prefix`; empty where there is none (the end of all keys).

    Keys are ordered by their UTF-8 bytes, which is the order of code points.
    """
    for index in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[index])
        if point < 0x10FFFF:  # noqa: PLR2004 - the last code point
            following = 0xE000 if point == 0xD7FF else point + 1  # noqa: PLR2004 - surrogates are no characters
            return prefix[:index] + chr(following)
    return ""


def prefix_ranges(prefix: str) -> list[tuple[str, str]]:
    """The key ranges [start, end) that hold a contract's keys under `prefix` and no request mark; an empty end is open."""
    if prefix and not fits(prefix):
        return []
    end = prefix_end(prefix)
    if not RESERVED.startswith(prefix):
        return [(prefix, end)]
    return [(prefix, RESERVED), (prefix_end(RESERVED), end)]


def _event(item: Any) -> tuple[str, JsonObject]:
    match item:
        case [str(name), dict(payload)]:
            return name, payload
        case _:
            raise ConventionError("an event is [name, object]")


def _decoded(data: bytes, what: str) -> Any:
    try:
        return decode(data)
    except CanonicalError as error:
        raise ConventionError(f"{what}: {error}") from None
