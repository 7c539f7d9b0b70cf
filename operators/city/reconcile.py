"""The one loop: read the City, look at the cluster, ask the plan, do its step, again. Started by `main`, woken by `handlers`.

Each round begins with a fresh read and takes one step; what a step did is seen by the next look, not remembered. So a round may end anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from citykit.errors import CityError, Conflict, Damaged, InvalidArgument, NotFound, Unavailable
from citykit.operations.pulse import Pulse
from citykit.telemetry import logger
from operators.city.act import Act, Actor
from operators.city.approvals import APPROVALS, approvers
from operators.city.events import Events
from operators.city.finalize import ensure_finalizer, let_go
from operators.city.gates import Gates
from operators.city.handlers import Waker
from operators.city.kube import CITY, Api, Object, annotations_of, name_of
from operators.city.lease import Lease, NotLeading
from operators.city.metrics import (
    EVENTS_DROPPED,
    PHASE,
    REACTION_SECONDS,
    ROLLOUTS,
    ROUND_MAX_S,
    ROUND_SECONDS,
    ROUNDS,
    STEPS,
)
from operators.city.model import Ask, CitySpec, Direction, Progress, Save, State, Step, Wait, World
from operators.city.observe import Observer, jobs, tracks, utc_now, wanted_config_maps
from operators.city.plan import next_step, rollout_identity
from operators.city.report import Report, composed, lost, refused_status, same, specimen
from operators.city.spec import read_spec
from operators.city.status import read_state

FOLLOW_S = 5.0
"""Between two looks of one that does not lead."""
NOTHING_S = 15.0
"""Between two looks where there is no City, or it is as it should be: a watch that died silently is made good for."""
ACTED_S = 0.2
"""After an act, so that the cluster has begun to do it."""
STALE_S = 0.1
AWAY_S = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
"""Between two tries, the longer the more of them failed in a row."""
DEFINITION_S = 60.0
ANNOTATION = "provable.city/"


@dataclass(frozen=True)
class Round:
    """What one round read.

    Attributes:
        pending: a rollout is wanted and not begun.
        job_reasons: why Jobs failed or wait, by name.
    """

    city: Object
    spec: CitySpec
    state: State
    world: World
    pending: bool
    job_reasons: Mapping[str, str]

    @property
    def generation(self) -> int:
        return int(self.city["metadata"].get("generation", 1))


class Reconciler:
    """The loop of one namespace, which holds one city."""

    def __init__(
        self,
        api: Api,
        lease: Lease,
        observer: Observer,
        actor: Actor,
        gates: Gates,
        events: Events,
        pulse: Pulse,
        waker: Waker,
    ) -> None:
        self._api = api
        self._lease = lease
        self._observer = observer
        self._actor = actor
        self._gates = gates
        self._events = events
        self._pulse = pulse
        self._waker = waker
        self._failures = 0
        self._rollout = ""
        self._tidied = ""
        self._probed = float("-inf")
        self._last: Step | None = None
        self._same = 0

    async def run(self) -> None:
        """For as long as the process runs."""
        while True:
            await self._waker.wait(await self.turn())

    async def turn(self) -> float:
        """One round, whatever happens in it; returns seconds until the next."""
        heard, begun = self._waker.taken(), time.monotonic()
        with self._pulse.doing("operator/round", ROUND_MAX_S):
            again_s, outcome = await self._survived()
        ROUNDS.labels(outcome).inc()
        ROUND_SECONDS.observe(time.monotonic() - begun)
        if heard is not None and outcome == "done":
            REACTION_SECONDS.observe(begun - heard)
        self._failures = 0 if outcome == "done" else self._failures + 1
        return again_s

    async def _survived(self) -> tuple[float, str]:
        try:
            return await self._round(), "done"
        except NotLeading:
            return FOLLOW_S, "done"
        except Conflict:
            return STALE_S if self._failures < len(AWAY_S) else AWAY_S[0], "stale"
        except Unavailable as error:
            self._say_once("api-away", error.message)
            return self._patience(), "unavailable"
        except CityError as error:
            self._say_once("round-failed", error.message)
            return self._patience(), "failed"
        except Exception as error:  # a fault of ours must not end the loop: the next look may find another cluster
            logger("operator").exception("round-failed", exc_info=error)
            return self._patience(), "failed"

    def _say_once(self, event: str, why: str) -> None:
        if self._failures == 0:
            logger("operator").warning(event, extra={"fields": {"why": why}})

    def _patience(self) -> float:
        return AWAY_S[min(self._failures, len(AWAY_S) - 1)]

    # --- one round -------------------------------------------------------------------------------

    async def _round(self) -> float:
        if not self._lease.held:
            return FOLLOW_S
        cities = sorted(
            await self._api.list(CITY), key=lambda one: (one["metadata"]["creationTimestamp"], name_of(one))
        )
        if not cities:
            return NOTHING_S
        for extra in cities[1:]:
            await self._refuse_second(extra, cities[0])
        city = {**cities[0], "kind": CITY, "apiVersion": "provable.city/v1"}
        if city["metadata"].get("deletionTimestamp"):
            return await self._finalize(city)
        return 0.0 if await ensure_finalizer(self._api, city) else await self._of(city)

    async def _of(self, city: Object) -> float:
        try:
            spec = read_spec(city["spec"])
        except InvalidArgument as error:
            return await self._refuse(city, error.message)
        try:
            found = await self._read(city, spec)
        except Damaged as error:  # the status is not overwritten: it may be the only trace of a rollout under way
            await self._events.tell(city, "Damaged", error.message, warning=True)
            return NOTHING_S
        return await self._step(found)

    async def _read(self, city: Object, spec: CitySpec) -> Round:
        state = read_state(city.get("status") or {})
        now = utc_now()
        identity = rollout_identity(spec, int(city["metadata"].get("generation", 1)), state)
        if identity != self._rollout:
            self._rollout = identity
            self._actor.forget()
        seen = await self._observer.look(wanted_config_maps(spec, state), time.monotonic())
        found = tracks(seen, self._actor.refused, now, state.rollout.weight if state.rollout else 100)
        work = jobs(seen, self._actor.refused_jobs, now)
        notes = annotations_of(city)
        if notes.get(f"{ANNOTATION}paused") in (identity or "true", "true"):
            spec = replace(spec, paused=True)
        pending = bool(identity) and state.rollout is None
        world = World(
            now=now,
            available=seen.config_maps,
            contracts=seen.contracts,
            stable=found["stable"],
            canary=found["canary"],
            jobs={name: progress for name, (progress, _) in work.items()},
            frozen=await self._gates.freezes(found["stable"], fresh=pending) if identity else {},
            approved_by=approvers(notes.get(APPROVALS, ""), identity),
            promote=promotes(notes.get(f"{ANNOTATION}promote", ""), identity, state),
            abort=notes.get(f"{ANNOTATION}abort") == identity != "",
            retry=notes.get(f"{ANNOTATION}retry", "") == state.refused != "",
        )
        return Round(city, spec, state, world, pending, {name: reason for name, (_, reason) in work.items() if reason})

    async def _step(self, found: Round) -> float:
        if found.pending and (field := await self._not_kept(found)):
            why = f"the definition of City does not keep {field}, which this operator needs: upgrade the chart city-crds first"
            await self._report(found, Wait(why, "Failed"))
            return NOTHING_S
        if found.pending and (wrong := await self._gates.wrong_query(found.spec)):
            await self._report(found, Wait(f"{wrong}; nothing is begun until the query is mended", "Failed"))
            return NOTHING_S
        step = next_step(found.spec, found.generation, found.state, found.world)
        if isinstance(step, Ask):
            step = await self._judged(found)
        STEPS.labels(type(step).__name__).inc()
        match step:
            case Wait(_, phase, again_s):
                self._last = None
                await self._report(found, step)
                await self._rest(found, phase)
                return min(again_s, NOTHING_S)
            case Save(state, event):
                await self._save(found, state, event)
                return self._again(step, 0.0)
            case Ask():
                return ACTED_S
            case _:
                await self._act(found, step)
                return self._again(step, ACTED_S)

    def _again(self, step: Step, pause_s: float) -> float:
        """The same step once more means that it did nothing: what is refused is not asked for all the time."""
        self._same = self._same + 1 if step == self._last else 0
        self._last = step
        return AWAY_S[min(self._same, len(AWAY_S)) - 1] if self._same else pause_s

    async def _not_kept(self, found: Round) -> str:
        """A field of the status that the API server drops, so that we would not remember it; looked at now and then before something begins."""
        now = time.monotonic()
        if now - self._probed > DEFINITION_S:
            written = specimen(found.world.now)
            kept = await self._api.replace({**found.city, "status": written}, status=True, pretend=True)
            if field := lost(written, kept.get("status")):
                return field
            self._probed = now
        return ""

    async def _judged(self, found: Round) -> Step:
        rollout = found.state.rollout
        if rollout is None:
            return Wait("the gates were asked of no rollout", "Idle")
        judgement = await self._gates.judge(found.spec, rollout, found.world.stable, found.world.now)
        return next_step(found.spec, found.generation, found.state, replace(found.world, judgement=judgement))

    async def _act(self, found: Round, step: Act) -> None:
        logger("operator").info("acts", extra={"fields": {"step": type(step).__name__, "of": str(step)}})
        await self._actor.act(step, found.city)

    # --- the resource ----------------------------------------------------------------------------

    async def _save(self, found: Round, state: State, event: str) -> None:
        past = state.history[-1] if state.history and state.history != found.state.history else None
        back = state.rollout is not None and state.rollout.direction is Direction.BACK
        message = event or str((found.city.get("status") or {}).get("message", ""))
        await self._write(found, Report("RollingBack" if back else "Progressing", message), state)
        logger("operator").info("saved", extra={"fields": {"told": event}})
        if past is not None:
            ROLLOUTS.labels(past.outcome).inc()
        if event:
            bad = back or (past is not None and past.outcome in ("RolledBack", "Failed"))
            await self._events.tell(found.city, "Rollout", event, warning=bad)
        EVENTS_DROPPED.set(self._events.dropped)

    async def _report(self, found: Round, wait: Wait) -> None:
        await self._write(found, Report(wait.phase, wait.reason), found.state)

    async def _write(self, found: Round, report: Report, state: State) -> None:
        failed = [why for name, why in found.job_reasons.items() if found.world.jobs[name] is Progress.FAILED]
        before = found.city.get("status") or {}
        after = composed(
            before, found.generation, report, state, found.world, found.spec, list(self._gates.evidence), failed
        )
        if not same(before, after):
            await self._put_status(found.city, after)
            if before.get("phase") != after["phase"]:
                if before.get("phase"):
                    PHASE.labels(before["phase"]).set(0)
                PHASE.labels(after["phase"]).set(1)

    async def _put_status(self, city: Object, status: Object) -> None:
        """Written onto what was read; or onto what somebody touched meanwhile without changing what is wanted or what was done.

        Raises:
            Conflict: that did change; the step must be decided anew.
        """
        read = city
        for _ in range(_TRIES):
            self._lease.require()
            try:
                await self._api.replace({**read, "status": status}, status=True)
            except Conflict:
                found = await self._api.get(CITY, name_of(city))
                if found is None or any(_of(found, path) != _of(city, path) for path in _DECISIVE):
                    raise
                read = {**found, "kind": CITY, "apiVersion": city["apiVersion"]}
            else:
                return
        raise Conflict(f"the City {name_of(city)} is written by somebody else all the time")

    async def _refuse(self, city: Object, why: str) -> float:
        before = city.get("status") or {}
        after = refused_status(before, int(city["metadata"].get("generation", 1)), why, utc_now())
        if not same(before, after):
            await self._put_status(city, after)
            await self._events.tell(city, "Refused", why, warning=True)
        return NOTHING_S

    async def _refuse_second(self, extra: Object, first: Object) -> None:
        if extra["metadata"].get("deletionTimestamp"):
            return
        why = f"the namespace holds the City {name_of(first)} already, and a namespace holds one city; delete this one"
        await self._refuse({**extra, "kind": CITY, "apiVersion": "provable.city/v1"}, why)

    async def _finalize(self, city: Object) -> float:
        try:
            said = await let_go(self._api, self._actor, city, datetime.now(UTC))
        except NotFound:
            return 0.0
        logger("operator").info("let-go", extra={"fields": {"said": said}})
        return 0.0

    # --- between rollouts --------------------------------------------------------------------------

    async def _rest(self, found: Round, phase: str) -> None:
        """Once after every rollout: ends what a crash left, and drops what nobody needs."""
        state = found.state
        done = state.history[-1].identity if state.history else ""
        if state.rollout is not None or not done or self._tidied == done or phase not in ("Ready", "Idle"):
            return
        await self._actor.tidy(state)
        running = [one.manifests for one in (*found.world.stable.values(), *found.world.canary.values())]
        kept = wanted_config_maps(found.spec, state) | frozenset(running)
        versions = frozenset(one for past in state.history for one in (past.from_version, past.to_version))
        gone = await self._actor.collect(kept, versions, [past.identity for past in state.history])
        self._tidied = done
        if gone:
            logger("operator").info("collected", extra={"fields": {"names": gone}})


def promotes(note: str, identity: str, state: State) -> bool:
    """Whether an annotation promotes the service in hand: `ROLLOUT/SERVICE`, or `ROLLOUT`, whichever service that is."""
    service = state.rollout.service if state.rollout else ""
    return identity != "" and note in (identity, f"{identity}/{service}")


_TRIES = 5
_DECISIVE = (("metadata", "uid"), ("metadata", "generation"), ("metadata", "deletionTimestamp"), ("status",))


def _of(city: Object, path: tuple[str, ...]) -> object:
    found: object = city
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found
