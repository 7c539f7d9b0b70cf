"""Checks a bundle, step by step, each with what it found. Called by the command; usable as a library."""

from __future__ import annotations

from typing import Any

from verifier.bill_steps import BILL_STEPS
from verifier.canonical import Failure, Unreadable, decode, fields
from verifier.device_steps import ENERGY_STEP, MEASURES_STEP, SIGNED_STEPS
from verifier.found import Check, Found, Report, Step
from verifier.log_steps import EVENT_STEPS, PACKAGE_STEPS, logs_of
from verifier.receipt import RECEIPT_FORMAT, RECEIPT_STEP
from verifier.session import SESSION_STEPS
from verifier.statement import STATEMENT_STEPS
from verifier.trust import Trust

__all__ = ["Report", "Step", "check_bundle"]

_HEAD = {"format": str, "kind": str, "city": str}
_COMMON = {**_HEAD, "log": dict, "earlier": (dict, None)}
_PACKAGES = {"packages": list, "devices": list}
_BILL = {"bill": dict, "bill_salt": str, "run": dict, "tariff": dict}
_EVENT = {"event": object, "salt": str, "index": int}
_STATEMENT = {
    "account": str, "currency": str, "from_time": int, "to_time": int, "before": (dict, None), "sets": list, "closing": dict,
}  # fmt: skip
_SESSION = {
    "logs": list, "earlier": None, "reservation": list, "receipts": list, "access": list, "keys": list, "tariff": dict,
}  # fmt: skip
_KINDS: dict[str, dict[str, Any]] = {
    "bill": {**_COMMON, **_PACKAGES, **_BILL},
    "package": {**_COMMON, **_PACKAGES},
    "event": {**_COMMON, **_EVENT},
    "statement": {**_COMMON, **_STATEMENT},
    "parking-session": {**_HEAD, **_PACKAGES, **_SESSION},
}
_STEPS: dict[str, list[tuple[str, Check]]] = {
    "bill": [*PACKAGE_STEPS, *SIGNED_STEPS, ENERGY_STEP, *BILL_STEPS],
    "package": [*PACKAGE_STEPS, *SIGNED_STEPS, MEASURES_STEP],
    "event": EVENT_STEPS,
    "statement": STATEMENT_STEPS,
    "parking-session": SESSION_STEPS,
}
_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError, OSError,
)  # fmt: skip
"""What reading a document of another form than the checks expect can raise."""


def check_bundle(data: bytes, trust: Trust, earlier: str | None = None) -> Report:
    """Checks the bytes of a bundle.

    Args:
        earlier: a checkpoint note of the same log kept from before.
    """
    report = Report()
    try:
        bundle = _read(data)
    except (Unreadable, Failure) as error:
        report.steps.append(Step("bundle-format", ok=False, detail=str(error)))
        return report
    report.steps.append(Step("bundle-format", ok=True, detail=f"city.bundle.v1, kind {bundle['kind']}"))
    _run(Found(bundle, trust, earlier, report, logs_of(bundle)), _steps(bundle))
    return report


def _read(data: bytes) -> Any:
    bundle = decode(data, "the bundle")
    kind = bundle.get("kind") if isinstance(bundle, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise Failure(f"the bundle is of no known kind ({', '.join(_KINDS)})")
    fields(bundle, "bundle", **_KINDS[kind])
    if bundle["format"] != "city.bundle.v1":
        raise Failure("the bundle's format is not city.bundle.v1")
    return bundle


def _steps(bundle: Any) -> list[tuple[str, Check]]:
    """The steps of the bundle's kind; an event that is a receipt is checked as one."""
    steps = _STEPS[bundle["kind"]]
    event = bundle.get("event")
    is_receipt = isinstance(event, dict) and event.get("format") == RECEIPT_FORMAT
    return [*steps, RECEIPT_STEP] if is_receipt else steps


def _run(found: Found, steps: list[tuple[str, Check]]) -> None:
    failed = ""
    for name, check in steps:
        if failed:
            found.report.steps.append(Step(name, ok=False, detail=f"not checked, since {failed} failed"))
            continue
        step = _step(name, check, found)
        found.report.steps.append(step)
        failed = "" if step.ok else name


def _step(name: str, check: Check, found: Found) -> Step:
    try:
        return Step(name, ok=True, detail=check(found))
    except (Failure, Unreadable) as error:
        return Step(name, ok=False, detail=str(error))
    except _MALFORMED as error:
        return Step(name, ok=False, detail=f"a field is malformed ({type(error).__name__}: {error})")
