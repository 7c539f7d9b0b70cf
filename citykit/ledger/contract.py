"""What a contract is written with; the only part of the kit a contract may import. The same classes run on every ledger.

A contract is a plain class with a `name` and methods marked `@submits` or `@evaluates`. It is deterministic: no clock (use `tx.time`),
no randomness, no float, no order of a set; `citykit.ledger.lint` refuses it otherwise. Reads see committed state, never own writes.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints, overload

Json = Any
"""None, bool, int (up to 2^53-1), str, list of Json, or dict of str to Json."""
JsonObject = dict[str, Any]

_INTEGER_MAX = 2**53 - 1
_MARK = "_city_contract_function"
F = TypeVar("F", bound=Callable[..., Any])


class Refusal(Exception):
    """A contract refuses; nothing is written.

    Args:
        code: machine word, kebab-case.
        message: what was wrong and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Transaction(Protocol):
    """What a contract sees of the ledger."""

    id: str
    time: int
    """Unix seconds, set by the proposal, the same on every peer."""
    submitter: str

    def get(self, key: str) -> Json:
        """The committed value, or None."""

    def put(self, key: str, value: Json) -> None: ...

    def delete(self, key: str) -> None: ...

    def range(self, prefix: str, *, limit: int) -> list[tuple[str, Json]]:
        """Committed entries whose key starts with `prefix`, in key order, at most `limit` (up to 1,000)."""

    def emit(self, name: str, payload: JsonObject) -> None:
        """An event, delivered if the transaction commits as valid."""


class Contract(Protocol):
    name: ClassVar[str]


@dataclass(frozen=True)
class Function:
    """A function of a contract, as the ledger needs to know it."""

    name: str
    writes: bool
    by: tuple[str, ...]
    """Submitters that may call it; empty: any."""
    parameters: Mapping[str, Any]
    required: frozenset[str]


@overload
def submits(function: F) -> F: ...
@overload
def submits(*, by: tuple[str, ...]) -> Callable[[F], F]: ...
def submits(function: Any = None, *, by: tuple[str, ...] = ()) -> Any:
    """Marks a function that writes; `by` names the submitters that may call it."""

    def mark(method: F) -> F:
        setattr(method, _MARK, (True, by))
        return method

    return mark if function is None else mark(function)


def evaluates(function: F) -> F:
    """Marks a function that only reads."""
    setattr(function, _MARK, (False, ()))
    return function


def functions_of(contract: object) -> dict[str, Function]:
    """The marked functions of a contract, by name.

    Raises:
        TypeError: a contract without a name or without functions, or a parameter that is not keyword-only and typed.
    """
    found = {
        name: _function(name, method, *getattr(method, _MARK))
        for name, method in inspect.getmembers(contract, callable)
        if hasattr(method, _MARK)
    }
    if not getattr(contract, "name", "") or not found:
        raise TypeError(
            f"{type(contract).__name__} needs a class attribute `name` and functions marked @submits or @evaluates"
        )
    return found


def call(contract: object, function: Function, tx: Transaction, args: JsonObject) -> Json:
    """Runs a function with checked arguments.

    Raises:
        Refusal: unknown, missing or wrongly typed arguments, a submitter that may not call it, or the contract's own.
    """
    if function.by and tx.submitter not in function.by:
        raise Refusal(
            "submitter-not-allowed", f"only {', '.join(function.by)} may call {function.name}, not {tx.submitter}"
        )
    unknown = sorted(set(args) - set(function.parameters))
    missing = sorted(function.required - set(args))
    if unknown or missing:
        what = f"unknown argument {unknown[0]!r}" if unknown else f"missing argument {missing[0]!r}"
        raise Refusal("bad-arguments", f"{function.name}: {what}; it takes {', '.join(function.parameters) or 'none'}")
    for name, value in args.items():
        if not _fits(value, function.parameters[name]):
            raise Refusal("bad-arguments", f"{function.name}: {name} must be {_words(function.parameters[name])}")
    return getattr(contract, function.name)(tx, **args)


def _function(name: str, method: Callable[..., Any], writes: bool, by: tuple[str, ...]) -> Function:
    hints = get_type_hints(method)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    for parameter in parameters:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.name not in hints:
            raise TypeError(f"{name}: parameter {parameter.name} must be keyword-only and typed")
    required = frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty)
    return Function(name, writes, by, {p.name: hints[p.name] for p in parameters}, required)


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    origin = get_origin(kind) or kind
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if origin in (None, types.NoneType):
        return value is None
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _INTEGER_MAX
    if origin is list:
        inner = get_args(kind)
        return isinstance(value, list) and (not inner or all(_fits(item, inner[0]) for item in value))
    return isinstance(value, origin)


def _words(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)).replace("typing.", "")
