"""The City resource's `spec`, read and checked. What is wrong is refused by field, before anything changes. Called by `reconcile` and `admission`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from citykit.errors import InvalidArgument
from operators.city.conditions import FORM, read_condition
from operators.city.model import Analysis, Canary, CitySpec, Freeze, ServiceSpec, Target, Window
from operators.city.order import find_cycle

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PROFILES = ("trial", "small", "city", "region")
SERVICES_MAX, ANALYSES_MAX, WINDOWS_MAX, FREEZES_MAX, STEPS_MAX = 50, 20, 20, 50, 10
TIMEOUT_MAX_S = 86_400.0
_SHOWN_MAX = 80
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$")
_OBJECT = re.compile(r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$")
_VERSION = re.compile(r"^[0-9A-Za-z][-+.0-9A-Za-z]{0,62}$")
_START = re.compile(r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
_KNOWN = (
    "version", "profile", "paused", "services", "order", "prepare", "gates", "windows", "freezes", "approvals", "timeouts", "historyLimit",
)  # fmt: skip
T = TypeVar("T")


def read_spec(body: Mapping[str, Any]) -> CitySpec:
    """The specification in a City's `spec`.

    Raises:
        InvalidArgument: with the field and what is allowed.
    """
    top = _Fields(body, "spec", _KNOWN)
    gates = top.fields("gates", ("prometheus", "analyses", "invariants"))
    timeouts = top.fields("timeouts", ("readySeconds", "deadlineSeconds"))
    spec = CitySpec(
        version=top.text("version", _VERSION, "a version like 1.4.0"),
        services=top.each("services", SERVICES_MAX, _service),
        order=tuple(top.texts("order", SERVICES_MAX)),
        profile=top.choice("profile", PROFILES, "trial"),
        paused=top.flag("paused", False),
        prepare=top.fields("prepare", ("manifests",)).optional("manifests", _OBJECT, "the name of a ConfigMap"),
        analyses=gates.each("analyses", ANALYSES_MAX, _analysis),
        prometheus_url=_url(gates.fields("prometheus", ("url",))),
        invariants=gates.fields("invariants", ("enabled",)).flag("enabled", True),
        windows=top.each("windows", WINDOWS_MAX, _window),
        freezes=top.each("freezes", FREEZES_MAX, _freeze),
        approvals=top.fields("approvals", ("required",)).whole("required", 0, 0, 2),
        ready_s=timeouts.number("readySeconds", 300, 10, TIMEOUT_MAX_S),
        deadline_s=timeouts.number("deadlineSeconds", 3_600, 60, TIMEOUT_MAX_S),
        history_limit=top.whole("historyLimit", 10, 1, 50),
    )
    _together(spec)
    return spec


def _together(spec: CitySpec) -> None:
    """What fields mean for each other."""
    names = [one.target.name for one in spec.services]
    if not names:
        raise _wrong("spec.services", "names no service; a city has at least one")
    for name in names:
        if names.count(name) > 1:
            raise _wrong("spec.services", f"names {name} twice")
    for one in spec.services:
        for other in one.depends_on:
            if other not in names:
                raise _wrong(
                    f"spec.services[{one.target.name}].dependsOn",
                    f"names {other}, which is no service of this city; there are {', '.join(names)}",
                )
    if circle := find_cycle(names, {one.target.name: one.depends_on for one in spec.services}):
        raise _wrong(
            "spec.services", f"depend on each other in a circle: {' -> '.join(circle)}; leave one of these out"
        )
    analyses = [one.name for one in spec.analyses]
    for name in analyses:
        if analyses.count(name) > 1 or name == "invariants":
            why = "which is what the services' own say is called" if name == "invariants" else "twice"
            raise _wrong("spec.gates.analyses", f"names {name}, {why}; give each a name of its own")
    if spec.order:
        _in_order(spec, names)
    if spec.analyses and not spec.prometheus_url:
        raise _wrong(
            "spec.gates.prometheus.url", "is missing, and spec.gates.analyses asks it; name it or leave them out"
        )


def _in_order(spec: CitySpec, names: Sequence[str]) -> None:
    if sorted(spec.order) != sorted(names):
        odd = sorted(set(spec.order) ^ set(names)) or ["a service twice"]
        raise _wrong("spec.order", f"must name every service once; look at {odd[0]}")
    for one in spec.services:
        for other in one.depends_on:
            if spec.order.index(other) > spec.order.index(one.target.name):
                raise _wrong("spec.order", f"has {one.target.name} before {other}, which it depends on")


# --- the lists' items ---------------------------------------------------------------------------------


def _service(item: Any, where: str) -> ServiceSpec:
    fields = _Fields(item, where, ("name", "version", "manifests", "dependsOn", "canary"))
    target = Target(
        name=fields.text("name", _NAME, "a DNS label"),
        version=fields.text("version", _VERSION, "a version like 1.4.0"),
        manifests=fields.text("manifests", _OBJECT, "the name of a ConfigMap"),
    )
    canary = None
    if fields.has("canary"):
        inner = fields.fields("canary", ("steps", "pauseSeconds"))
        canary = Canary(_steps(inner), inner.number("pauseSeconds", 30, 0, 3_600))
    return ServiceSpec(target, tuple(fields.texts("dependsOn", SERVICES_MAX)), canary)


def _steps(fields: _Fields) -> tuple[int, ...]:
    found = fields.items("steps", STEPS_MAX)
    whole = all(isinstance(one, int) and not isinstance(one, bool) and 1 <= one <= 99 for one in found)  # noqa: PLR2004 - percent
    if not whole or sorted(set(found)) != found:
        raise _wrong(
            f"{fields.where}.steps",
            f"must be percents from 1 to 99, each higher than the one before, not {_shown(found)}",
        )
    return tuple(found)


def _analysis(item: Any, where: str) -> Analysis:
    known = (
        "name", "query", "successCondition", "failureCondition", "intervalSeconds", "count", "deadlineSeconds",
    )  # fmt: skip
    fields = _Fields(item, where, known)
    return Analysis(
        name=fields.text("name", _NAME, "a DNS label"),
        query=fields.text("query", re.compile(r"^(?s:.*\S.*)$"), "a PromQL query"),
        success=_condition(fields, "successCondition"),
        failure=_condition(fields, "failureCondition") if fields.has("failureCondition") else "",
        interval_s=fields.number("intervalSeconds", 10, 1, 3_600),
        count=fields.whole("count", 3, 1, 100),
        deadline_s=fields.number("deadlineSeconds", 120, 1, TIMEOUT_MAX_S),
    )


def _condition(fields: _Fields, name: str) -> str:
    found = fields.raw(name)
    if not isinstance(found, str) or read_condition(found) is None:
        raise _wrong(f"{fields.where}.{name}", f"must be {FORM}, not {_shown(found)}")
    return found


def _window(item: Any, where: str) -> Window:
    fields = _Fields(item, where, ("days", "start", "minutes", "zone"))
    days = fields.texts("days", len(DAYS))
    for day in days:
        if day not in DAYS:
            raise _wrong(f"{where}.days", f"has {day}; days are {', '.join(DAYS)}")
    zone = fields.optional("zone", re.compile(r"^[A-Za-z0-9_+/-]{1,64}$"), "an IANA time zone") or "UTC"
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _wrong(f"{where}.zone", f"{zone} is no IANA time zone; write one like Europe/London") from None
    return Window(
        days=tuple(sorted(DAYS.index(day) for day in set(days or DAYS))),
        start=fields.text("start", _START, "a time like 02:00"),
        minutes=fields.whole("minutes", 0, 1, 1_440),
        zone=zone,
    )


def _freeze(item: Any, where: str) -> Freeze:
    fields = _Fields(item, where, ("from", "until", "reason"))
    begins, ends = (_moment(fields, name) for name in ("from", "until"))
    if ends <= begins:
        raise _wrong(f"{where}.until", "must lie after `from`")
    return Freeze(begins, ends, fields.text("reason", re.compile(r"^.{1,200}$"), "a reason people understand"))


def _moment(fields: _Fields, name: str) -> datetime:
    said = fields.raw(name)
    try:
        found = said if isinstance(said, datetime) else datetime.fromisoformat(str(said))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise _wrong(
            f"{fields.where}.{name}", f"must be a time with its zone like 2026-12-24T00:00:00Z, not {_shown(said)}"
        )
    return found


def _url(fields: _Fields) -> str:
    return fields.optional("url", re.compile(r"^https?://[^\s/]+(/\S*)?$"), "an http or https address")


# --- reading ------------------------------------------------------------------------------------------


class _Fields:
    """One object of the resource. An unknown field is refused: a newer chart may mean something by it."""

    def __init__(self, found: Any, where: str, known: Sequence[str]) -> None:
        if not isinstance(found, Mapping):
            raise _wrong(where, "must be an object")
        self._found = {name: value for name, value in found.items() if value is not None}  # as the API server has it
        self.where = where
        for name in found:
            if name not in known:
                raise _wrong(
                    f"{where}.{name}",
                    "is not known to this operator, which is older than the resource; upgrade the operator first, or leave it out",
                )

    def has(self, name: str) -> bool:
        return name in self._found

    def raw(self, name: str) -> Any:
        return self._found.get(name)

    def fields(self, name: str, known: Sequence[str]) -> _Fields:
        return _Fields(self._found.get(name, {}), f"{self.where}.{name}", known)

    def items(self, name: str, most: int) -> list[Any]:
        found = self._found.get(name, [])
        if not isinstance(found, list) or len(found) > most:
            raise _wrong(f"{self.where}.{name}", f"must be a list of at most {most}")
        return found

    def each(self, name: str, most: int, read: Callable[[Any, str], T]) -> tuple[T, ...]:
        return tuple(read(item, f"{self.where}.{name}[{n}]") for n, item in enumerate(self.items(name, most)))

    def texts(self, name: str, most: int) -> list[str]:
        found = self.items(name, most)
        if not all(isinstance(one, str) for one in found):
            raise _wrong(f"{self.where}.{name}", "must be a list of names")
        return found

    def text(self, name: str, form: re.Pattern[str], what: str) -> str:
        found = self._found.get(name)
        if not isinstance(found, str) or not form.fullmatch(found):
            raise _wrong(f"{self.where}.{name}", f"must be {what}, not {_shown(found)}")
        return found

    def optional(self, name: str, form: re.Pattern[str], what: str) -> str:
        return self.text(name, form, what) if self._found.get(name) else ""

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        found = self._found.get(name, default)
        if found not in allowed:
            raise _wrong(f"{self.where}.{name}", f"must be one of {', '.join(allowed)}, not {_shown(found)}")
        return str(found)

    def flag(self, name: str, default: bool) -> bool:
        found = self._found.get(name, default)
        if not isinstance(found, bool):
            raise _wrong(f"{self.where}.{name}", f"must be true or false, not {_shown(found)}")
        return found

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        found = self.number(name, default, low, high)
        if found != int(found):
            raise _wrong(f"{self.where}.{name}", f"must be a whole number, not {_shown(found)}")
        return int(found)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        found = self._found.get(name, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
            raise _wrong(f"{self.where}.{name}", f"must be a number from {low:g} to {high:g}, not {_shown(found)}")
        return float(found)


def _shown(found: Any) -> str:
    return repr(found)[:_SHOWN_MAX]


def _wrong(field: str, what: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {what}", field=field)
