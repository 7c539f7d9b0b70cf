"""The sandbox provider's own books: what it was asked under which key, and what it did. Used by `simulation.provider`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

AUTHORISE, CAPTURE, VOID, REFUND = "authorise", "capture", "void", "refund"
DONE, REFUSED, PENDING = "done", "refused", "pending"
DECLINED_METHOD, LATER_METHOD = "pm_declined", "pm_later"
"""Methods that begin so are declined, or decided only later."""
_FIELDS = {"key": str, "kind": str, "payment": str, "amount_minor": int, "currency": str, "method": str, "at": int}


class BadCall(ValueError):
    """What cannot be an operation, or a key that came before with another one."""


@dataclass(frozen=True)
class Operation:
    """As asked, with its outcome. `at` is the caller's time, by which operations are listed."""

    key: str
    kind: str
    payment: str
    amount_minor: int
    currency: str
    method: str
    at: int
    outcome: str = DONE
    reason: str = ""

    def shown(self) -> dict[str, Any]:
        """Without the method."""
        return {name: value for name, value in asdict(self).items() if name != "method"}


@dataclass
class _Standing:
    """A payment as the provider sees it."""

    currency: str
    held: int = 0
    captured: int = 0
    refunded: int = 0
    over: bool = False


@dataclass
class ProviderBooks:
    """Operations by key, payments by name. `wrote` is told of each operation before it is answered (`provider_journal`)."""

    operations: dict[str, Operation] = field(default_factory=dict)
    standings: dict[str, _Standing] = field(default_factory=dict)
    wrote: Callable[[Operation], None] = field(default=lambda operation: None)

    def act(self, body: Any) -> tuple[Operation, bool]:
        """(the operation with its outcome, whether it is new).

        Raises:
            BadCall.
        """
        asked = _parsed(body)
        known = self.operations.get(asked.key)
        if known is not None:
            if replace(asked, method="", outcome=known.outcome, reason=known.reason) != replace(known, method=""):
                raise BadCall(f"the key {asked.key} came before with another operation")
            return known, False
        later = asked.kind == AUTHORISE and asked.method.startswith(LATER_METHOD)
        done = replace(asked, outcome=PENDING) if later else self._done(asked)
        self.operations[asked.key] = done
        self.wrote(done)
        return done, True

    def decide(self, key: str) -> Operation:
        """The outcome of what was pending."""
        done = self._done(replace(self.operations[key], outcome=DONE))
        self.operations[key] = done
        self.wrote(done)
        return done

    def restore(self, operation: Operation) -> None:
        """Takes up what was written before, in the same order."""
        self.operations[operation.key] = operation
        if operation.outcome == DONE:
            self._done(operation)

    def between(self, from_time: int, to_time: int) -> list[Operation]:
        return [item for item in self.operations.values() if from_time <= item.at < to_time]

    def moved_minor(self, kind: str) -> int:
        """What all operations of a kind that were done come to."""
        return sum(item.amount_minor for item in self.operations.values() if item.kind == kind and item.outcome == DONE)

    def _done(self, asked: Operation) -> Operation:
        reason = _ACTS[asked.kind](self, asked)
        return replace(asked, outcome=REFUSED if reason else DONE, reason=reason)

    def _authorise(self, asked: Operation) -> str:
        if asked.method.startswith(DECLINED_METHOD):
            return "declined"
        self.standings[asked.payment] = _Standing(asked.currency, held=asked.amount_minor)
        return ""

    def _capture(self, asked: Operation) -> str:
        found = self.standings.get(asked.payment)
        if found is None or found.over:
            return "no-hold"
        if asked.amount_minor > found.held or asked.currency != found.currency:
            return "over-hold"
        found.captured, found.over = asked.amount_minor, True
        return ""

    def _void(self, asked: Operation) -> str:
        found = self.standings.get(asked.payment)
        if found is None or found.over:
            return "no-hold"
        found.over = True
        return ""

    def _refund(self, asked: Operation) -> str:
        found = self.standings.get(asked.payment)
        if found is None or asked.amount_minor > found.captured - found.refunded:
            return "over-captured"
        found.refunded += asked.amount_minor
        return ""


_ACTS = {
    AUTHORISE: ProviderBooks._authorise,
    CAPTURE: ProviderBooks._capture,
    VOID: ProviderBooks._void,
    REFUND: ProviderBooks._refund,
}


def _parsed(body: Any) -> Operation:
    if not isinstance(body, Mapping) or set(body) != set(_FIELDS):
        raise BadCall(f"an operation has exactly {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if type(body[name]) is not kind:
            raise BadCall(f"{name} must be {kind.__name__}")
    if body["kind"] not in _ACTS or body["amount_minor"] < 1 or not body["key"]:
        raise BadCall(f"kind is one of {', '.join(_ACTS)}, amount_minor and key are not empty")
    return Operation(**body)
