"""Whether a step of a rollout may be followed by the next: analyses by Prometheus and the invariants of the services. Called by `reconcile`.

Samples are kept in memory: after a crash they are taken again, and the step takes so much longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from operators.city.asking import Said, Services
from operators.city.model import Analysis, CitySpec, Judgement, Rollout, Verdict
from operators.city.prometheus import Prometheus, judged

INVARIANTS_S = 120.0
"""How long a service may fail to say that its invariants hold. They are looked at every 30 s."""
FREEZE_FRESH_S = 5.0
EVIDENCE_MAX = 10
NO_PROMETHEUS = "judged by health and invariants only: spec.gates.prometheus names no server"


@dataclass
class Series:
    """The samples of one question in one step."""

    due: float
    passed: int = 0
    verdict: Verdict = Verdict.UNKNOWN
    reason: str = "not asked yet"


@dataclass(frozen=True)
class Evidence:
    """What a gate said, for the status.

    Attributes:
        at: when.
        step: service and weight it was asked of.
    """

    at: datetime
    step: str
    gate: str
    verdict: Verdict
    reason: str


@dataclass
class _Step:
    """The step in hand."""

    key: tuple[str, str, int, str]
    started: float
    series: dict[str, Series] = field(default_factory=dict)


class Gates:
    """Judges one rollout at a time.

    Args:
        services: None: nobody can be asked.
        client: for Prometheus; closed by its owner.
        monotonic: seconds that never go back.
    """

    def __init__(
        self, services: Services | None, client: httpx.AsyncClient, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._services = services
        self._client = client
        self._monotonic = monotonic
        self._step: _Step | None = None
        self._frozen: tuple[float, tuple[str, ...], dict[str, str]] = (float("-inf"), (), {})
        self.evidence: deque[Evidence] = deque(maxlen=EVIDENCE_MAX)

    async def judge(self, spec: CitySpec, rollout: Rollout, running: Iterable[str], now: datetime) -> Judgement:
        """What the gates say of the step in hand so far.

        Args:
            running: services whose invariants must hold.
        """
        step = self._of(rollout)
        series = await asyncio.gather(
            *(self._analysis(step, spec, one, rollout) for one in spec.analyses if spec.prometheus_url),
            *([self._invariants(step, sorted(running), rollout.since or now)] if spec.invariants else []),
        )
        judgement = combined(series)
        note = "" if spec.prometheus_url else NO_PROMETHEUS
        if note and judgement.verdict is not Verdict.FAILED:
            judgement = Judgement(judgement.verdict, "; ".join(filter(None, (judgement.reason, note))))
        return judgement

    async def wrong_query(self, spec: CitySpec) -> str:
        """Why a gate's query can never be answered, in Prometheus' own words; empty: every one can, as far as is known now."""
        if not spec.prometheus_url:
            return ""
        server = Prometheus(spec.prometheus_url, self._client)
        answers = await asyncio.gather(*(server.ask(filled(one.query, "none", "")) for one in spec.analyses))
        for one, answer in zip(spec.analyses, answers, strict=True):
            if answer.wrong:
                return f"the query of the gate {one.name} is wrong, Prometheus says: {answer.wrong}"
        return ""

    async def freezes(self, services: Iterable[str], *, fresh: bool = False) -> dict[str, str]:
        """Reasons services give to be left alone, at most some seconds old; `fresh`: asked for now, as something is about to begin."""
        names = tuple(sorted(services))
        at, asked, found = self._frozen
        if self._services is None:
            return {}
        if fresh or asked != names or self._monotonic() - at > FREEZE_FRESH_S:
            found = await self._services.freezes(names)
            self._frozen = (self._monotonic(), names, found)
        return dict(found)

    def _of(self, rollout: Rollout) -> _Step:
        key = (rollout.identity, rollout.service, rollout.weight, rollout.direction.value)
        if self._step is None or self._step.key != key:
            self._step = _Step(key, self._monotonic())
        return self._step

    async def _analysis(self, step: _Step, spec: CitySpec, one: Analysis, rollout: Rollout) -> Series:
        now = self._monotonic()
        series = step.series.setdefault(one.name, Series(due=now))
        if series.verdict is not Verdict.UNKNOWN or now < series.due:
            return series
        server = Prometheus(spec.prometheus_url, self._client)
        query = filled(one.query, rollout.service, rollout.goal_version)
        verdict, reason = judged(await server.ask(query), one.success, one.failure)
        reason = f"{one.name}: {reason}"
        series.due = now + one.interval_s
        series.passed = series.passed + 1 if verdict is Verdict.PASSED else 0
        waited_s = self._monotonic() - step.started
        self._settle(step, series, verdict, reason, enough=series.passed >= one.count, late=waited_s >= one.deadline_s)
        return series

    async def _invariants(self, step: _Step, running: Sequence[str], since: datetime) -> Series:
        now = self._monotonic()
        series = step.series.setdefault("invariants", Series(due=now))
        if series.verdict is not Verdict.UNKNOWN:
            return series
        if self._services is None:
            verdict, reason = Verdict.UNKNOWN, "the operator has no certificate or token to ask services with"
        else:
            verdict, reason = summed(await self._services.invariants(running, since))
        late = self._monotonic() - step.started >= INVARIANTS_S
        self._settle(step, series, verdict, reason, enough=verdict is Verdict.PASSED, late=late)
        return series

    def _settle(self, step: _Step, series: Series, verdict: Verdict, reason: str, *, enough: bool, late: bool) -> None:
        """A failure counts at once, a success when there are enough of them, anything else once its time is up."""
        series.reason = reason
        if verdict is Verdict.FAILED or enough:
            series.verdict = verdict
        elif late and verdict is Verdict.UNKNOWN:
            series.verdict, series.reason = Verdict.FAILED, f"{reason}; waited until the deadline"
        if series.verdict is not Verdict.UNKNOWN:
            gate = next(name for name, one in step.series.items() if one is series)
            where = f"{step.key[1] or 'city'} at {step.key[2]} %"
            self.evidence.append(Evidence(datetime.now(UTC), where, gate, series.verdict, series.reason))


def combined(series: Sequence[Series]) -> Judgement:
    """One failure fails all; all must pass."""
    for verdict in (Verdict.FAILED, Verdict.UNKNOWN):
        reasons = [one.reason for one in series if one.verdict is verdict]
        if reasons:
            return Judgement(verdict, "; ".join(reasons))
    return Judgement(Verdict.PASSED, "; ".join(one.reason for one in series))


def summed(answers: Sequence[Said]) -> tuple[Verdict, str]:
    """What all services say together."""
    broken = [text for one in answers for text in one.broken]
    if broken:
        return Verdict.FAILED, "; ".join(broken)
    silent = [one.silent for one in answers if one.silent]
    if silent:
        return Verdict.UNKNOWN, "; ".join(silent)
    old = [f"{name} of {one.service}" for one in answers for name in one.old]
    if old:
        return Verdict.UNKNOWN, f"not looked at since this step began: {', '.join(old)}"
    return Verdict.PASSED, f"{sum(len(one.held) for one in answers)} invariants hold"


def filled(query: str, service: str, version: str) -> str:
    """`${service}` and `${version}` in a query stand for the service in hand and the version it gets."""
    return query.replace("${service}", service).replace("${version}", version)
