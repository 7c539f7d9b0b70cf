"""Any order of delays, failures, old and partial looks, crashes, doubled steps and changes of mind ends in the goal, or where it began, or
stands still with a reason; and nothing is skipped on the way. Checked against what really happened to the cluster, not against what the plan noted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from operators.city.model import (
    ApplyCanary,
    ApplyStable,
    Ask,
    Canary,
    CitySpec,
    Direction,
    Freeze,
    Progress,
    Remove,
    RemoveCanary,
    Rollout,
    RunJob,
    Save,
    ServiceSpec,
    Stage,
    State,
    Step,
    Target,
    Wait,
    World,
    job_name,
)
from operators.city.plan import next_step, rollout_identity
from operators.city.status import read_state, write_state
from tests.property.simulated_cluster import BEGINS, FULL, Cluster, Faults, Placed

NAMES = ("gateway", "metering", "payments", "identity")
NEEDS = {"metering": ("identity",), "payments": ("identity",), "gateway": ("metering", "payments")}
PHASES = {"Idle", "Waiting", "Progressing", "Paused", "RollingBack", "RolledBack", "Failed", "Ready"}
STEPS = (25, 50)
CALM_ROUNDS = 2_500
PEOPLE = ("ada", "bob")
Forward = ApplyStable | ApplyCanary | Remove | RunJob


def city(version: str, names: tuple[str, ...] = NAMES, **more: object) -> CitySpec:
    """Version 1.1 leaves identity as it is in 1.0."""
    services = tuple(
        ServiceSpec(
            target(name, version), tuple(one for one in NEEDS.get(name, ()) if one in names), Canary(STEPS, 3.0)
        )
        for name in names
    )
    spec = CitySpec(version, services, prepare=f"prepare-{version}", ready_s=60, deadline_s=900, approvals=1)
    return replace(spec, **more)  # type: ignore[arg-type]  # fields of CitySpec


def target(name: str, version: str) -> Target:
    return Target(name, version, f"{name}-{'1.0' if (name, version) == ('identity', '1.1') else version}")


def running(version: str, faults: Faults) -> tuple[Cluster, State]:
    """A city that runs well."""
    spec = city(version)
    targets = tuple(one.target for one in reversed(spec.services))
    cluster = Cluster(faults, stable={one.name: Placed(one, FULL, BEGINS - timedelta(days=1)) for one in targets})
    for one in ("1.0", "1.1", "2.0", "3.0"):
        cluster.config_maps |= {f"prepare-{one}", *(item.target.manifests for item in city(one).services)}
    return cluster, State(last_good=targets, last_good_version=version, last_good_prepare=spec.prepare)


@dataclass
class Witness:
    """Watches every step and says when one must not be.

    Attributes:
        kept: the state as the status holds it: all that survives.
        admitted: rollouts that people approved and no freeze held, when they began.
        returned: services in the order they went back, by rollout.
        hurried: (rollout, service) a person promoted.
    """

    cluster: Cluster
    kept: State
    spec: CitySpec
    generation: int = 2
    admitted: set[str] = field(default_factory=set)
    returned: dict[str, list[str]] = field(default_factory=dict)
    hurried: set[tuple[str, str]] = field(default_factory=set)
    approvals: dict[str, set[str]] = field(default_factory=dict)
    promote: str = ""
    abort: str = ""
    retry: str = ""

    def turn(self, world: World, *, saves: bool = True, times: int = 1) -> Step:
        """One round of the loop: decide, check, do.

        Args:
            saves: whether the write of the status arrives; without, it is as if the operator had died before.
            times: how often the step is done.
        """
        identity = rollout_identity(self.spec, self.generation, self.kept)
        world = replace(
            world,
            approved_by=frozenset(self.approvals.get(identity, ())),
            promote=self.promote == identity != "",
            abort=self.abort == identity != "",
            retry=self.retry == self.kept.refused != "",
        )
        step = self._decided(world)
        if isinstance(step, Ask):
            assert self.kept.rollout is not None and step.service == self.kept.rollout.service
            tries = self.kept.rollout.weight < FULL
            assert self.cluster.is_ready(step.service, tries=tries), "judged before it is ready"
            step = self._decided(replace(world, judgement=self.cluster.judge(self.kept.rollout)))
        self._check(step, world)
        for _ in range(times):
            self.cluster.do(step)
        self.cluster.seen.append(self.cluster.look())
        if isinstance(step, Save) and saves:
            self.kept = read_state(write_state(step.state))
            assert self.kept == step.state, "what is written is read as it was"
        return step

    def _decided(self, world: World) -> Step:
        step = next_step(self.spec, self.generation, self.kept, world)
        assert step == next_step(self.spec, self.generation, self.kept, world)
        return step

    # --- what must hold --------------------------------------------------------------------------

    def _check(self, step: Step, world: World) -> None:
        rollout = self.kept.rollout
        match step:
            case Wait(reason, phase, again_s):
                assert len(reason) > 10 and reason.endswith(".") and not reason.endswith("..")
                assert phase in PHASES and again_s > 0
            case Save(state):
                self._check_save(rollout, state, world)
            case RemoveCanary(service):
                assert service in world.canary
            case ApplyStable() | ApplyCanary() | Remove() | RunJob():
                assert rollout is not None, f"{step} outside a rollout"
                self._check_act(step, rollout, world)

    def _check_act(self, step: Forward, rollout: Rollout, world: World) -> None:
        name = (
            step.target.name
            if isinstance(step, ApplyStable | ApplyCanary)
            else step.service
            if isinstance(step, Remove)
            else ""
        )
        assert name == ("" if isinstance(step, RunJob) else rollout.service), "one service in hand"
        assert set(world.canary) <= {name}, "a canary of another service"
        if rollout.direction is Direction.BACK:
            self._check_back(step, rollout, name)
        else:
            assert not self.spec.paused, f"{step} while it is paused"
            assert rollout.identity in self.admitted, "nobody approved it"
            self._check_forward(step, rollout, name)

    def _check_back(self, step: Forward, rollout: Rollout, name: str) -> None:
        if isinstance(step, RunJob):
            assert step.manifests == rollout.origin_prepare and step.key == "contracts.yaml", (
                "no migration on the way back"
            )
            return
        assert not isinstance(step, ApplyCanary)
        assert isinstance(step, Remove) or step.target in rollout.origin
        order = self.returned.setdefault(rollout.identity, [])
        if name not in order:
            left = [one.name for one in rollout.origin if one.name in order and not self.cluster.is_ready(one.name)]
            assert not left, f"{name} goes back before {left} is ready"
            order.append(name)
        for one in rollout.goal:
            for other in one.depends_on:
                if one.target.name in order and other in order:
                    assert order.index(one.target.name) < order.index(other), (
                        f"{other} went back before {one.target.name}"
                    )

    def _check_forward(self, step: Forward, rollout: Rollout, name: str) -> None:
        if isinstance(step, RunJob):
            assert step.name == job_name(rollout, rollout.stage) and step.manifests == rollout.prepare
            return
        for stage in (Stage.PREFLIGHT, Stage.MIGRATE, Stage.CONTRACTS):
            assert self.cluster.job(job_name(rollout, stage)) is Progress.DONE, f"before the Job of {stage}"
        goal = {one.target.name: one for one in rollout.goal}
        if isinstance(step, Remove):
            assert name not in goal
            left = [one for one in goal.values() if self.cluster.runs().get(one.target.name) != one.target.manifests]
            assert not left, "something is removed before the goal is reached"
            return
        for other in goal[name].depends_on:
            assert self.cluster.runs()[other] == goal[other].target.manifests, f"{name} before {other}"
            assert self.cluster.is_ready(other), f"{name} before {other} was ready"
        if isinstance(step, ApplyCanary):
            self._check_passed(rollout, goal[name], [one for one in STEPS if one < step.weight])
        elif self.cluster.runs().get(name) != step.target.manifests:
            self._check_passed(rollout, goal[name], list(STEPS))

    def _check_passed(self, rollout: Rollout, service: ServiceSpec, weights: list[int]) -> None:
        """What ran before is not tried again; what is new has nothing to be compared with."""
        name, manifests = service.target.name, service.target.manifests
        known = {one.name: one.manifests for one in rollout.origin}
        if name not in known or known[name] == manifests or (rollout.identity, name) in self.hurried:
            return
        for weight in weights:
            assert (rollout.identity, name, manifests, weight) in self.cluster.passed, (
                f"{name} was not judged at {weight} %"
            )

    def _check_save(self, before: Rollout | None, state: State, world: World) -> None:
        after = state.rollout
        if after is not None and self.kept.last_good:
            assert after.origin == self.kept.last_good, (
                "the way back leads to what ran well, whatever was wanted meanwhile"
            )
        if after is not None and after.direction is Direction.FORWARD:
            self._check_progress(before, after)
            if after.admitted and after.identity not in self.admitted:
                self._check_admission(after)
        turned = (
            before is not None
            and before.direction is Direction.FORWARD
            and (after is None or after.direction is Direction.BACK)
        )
        if (turned and before is not None and state.refused == before.identity) or (turned and after is not None):
            assert before is not None
            for stage in (Stage.MIGRATE, Stage.CONTRACTS):
                seen = world.jobs.get(job_name(before, stage))
                assert before.stage is not stage or seen is not Progress.RUNNING, (
                    "turned back while a Job was in flight"
                )
        if after is None:
            self._check_end(before, state)

    def _check_progress(self, before: Rollout | None, after: Rollout) -> None:
        if before is None or before.identity != after.identity:
            return
        if after.hurried and not before.hurried:
            assert self.promote == after.identity
            self.hurried.add((after.identity, after.service))
        for name in set(after.promoted) - set(before.promoted):
            service = next(one for one in after.goal if one.target.name == name)
            self._check_passed(after, service, [*STEPS, FULL])
            assert self.cluster.runs()[name] == service.target.manifests, f"{name} is promoted and does not run"
            assert self.cluster.is_ready(name), f"{name} is promoted and not ready"

    def _check_admission(self, after: Rollout) -> None:
        restores = {one.target for one in after.goal} == set(self.kept.last_good)
        if not restores or self.kept.rollout is not None:
            assert len(self.approvals.get(after.identity, ())) >= self.spec.approvals, "begun without approval"
        assert not [one for one in self.spec.freezes if one.begins <= self.cluster.now < one.ends], "begun in a freeze"
        assert not self.spec.paused
        self.admitted.add(after.identity)

    def _check_end(self, before: Rollout | None, state: State) -> None:
        assert before is not None and state.history[-1].identity == before.identity
        outcome = state.history[-1].outcome
        assert outcome in ("Succeeded", "RolledBack", "Failed")
        assert (outcome == "Succeeded") == (not state.refused), "what failed is refused"
        assert outcome == "Succeeded" or state.history[-1].reason
        if outcome == "Succeeded":
            assert before.direction is Direction.FORWARD
            assert set(state.last_good) == {one.target for one in before.goal}


# --- the test -----------------------------------------------------------------------------------------

DISTORTIONS = ("old pods", "old jobs", "lost service", "lost canaries", "lost data")
EVENTS = (
    *("none",) * 12, *DISTORTIONS, "crash", "crash", "twice", "abort", "goal", "pause", "resume", "promote", "promote", "release", "retry",
    "freeze", "long", "edit", "delete", "stubborn",
)  # fmt: skip
SECONDS = (0.5, 2.0, 15.0)
GOALS = (("1.0", NAMES), ("1.1", NAMES), ("3.0", NAMES), ("2.0", NAMES[1:]), ("3.0", ("metering", "identity")))


def disturb(witness: Witness, event: str, number: int) -> None:
    """What people and machines do between two rounds."""
    identity = rollout_identity(witness.spec, witness.generation, witness.kept)
    cluster, spec = witness.cluster, witness.spec
    match event:
        case "abort":
            witness.abort = identity
        case "promote":
            witness.promote = identity
        case "release":
            witness.promote = ""
        case "retry":
            witness.retry = witness.kept.refused
        case "goal":
            version, names = GOALS[number % len(GOALS)]
            witness.spec, witness.generation = city(version, names), witness.generation + 1
        case "pause" | "resume":
            witness.spec = replace(spec, paused=event == "pause")
        case "freeze":
            freeze = Freeze(cluster.now, cluster.now + timedelta(seconds=20 + number), "elections")
            witness.spec = replace(spec, freezes=(freeze,))
        case "stubborn":
            cluster.frozen = {} if cluster.frozen else {NAMES[number % len(NAMES)]: "the month is closed"}
        case "edit" | "delete" if witness.kept.rollout is None:
            name = NAMES[number % len(NAMES)]
            cluster.stable.pop(name, None)
            if event == "edit":
                cluster.stable[name] = Placed(Target(name, "", f"{name}-edited"), FULL, cluster.now)


def approve(witness: Witness, number: int) -> None:
    identity = rollout_identity(witness.spec, witness.generation, witness.kept)
    if identity:
        witness.approvals.setdefault(identity, set()).add(PEOPLE[number % len(PEOPLE)])


def calm(witness: Witness) -> Step:
    """Nobody disturbs any more: rounds until nothing changes; a way back that is stuck is tried once more."""
    witness.spec = replace(witness.spec, paused=False, freezes=())
    witness.cluster.frozen = {}
    witness.abort = ""
    tried = False
    for _ in range(CALM_ROUNDS):
        approve(witness, 0)
        step = witness.turn(witness.cluster.look())
        if isinstance(step, Wait) and witness.kept.rollout is None:
            return step
        if isinstance(step, Wait) and step.phase == "Failed":
            if witness.retry == witness.kept.refused or tried:
                return step
            witness.retry, tried = witness.kept.refused, True
        witness.cluster.pass_time(1.0)
    raise AssertionError(f"it does not come to rest: {witness.kept.rollout}")


def rests_well(witness: Witness, step: Step) -> None:
    """In the goal or where it began, all of it; or it stands still and says why."""
    assert isinstance(step, Wait)
    state, cluster = witness.kept, witness.cluster
    assert not cluster.canary
    if state.rollout is not None:
        assert step.phase == "Failed" and "city rollout retry" in step.reason
        name = state.rollout.service
        assert cluster.stable[name].target.manifests in cluster.faults.slow | cluster.faults.broken
        return
    assert cluster.runs() == {one.name: one.manifests for one in state.last_good} or _failed_first(state)
    if step.phase in ("Ready", "Waiting"):
        assert set(state.last_good) == {one.target for one in witness.spec.services}
    else:
        assert step.phase in ("RolledBack", "Failed") and state.refused


def _failed_first(state: State) -> bool:
    return not state.last_good and state.history[-1].outcome == "Failed"


VERSIONED = [f"{name}-{version}" for name in NAMES for version in ("2.0", "3.0")]


@st.composite
def faults(draw: st.DrawFn) -> Faults:
    some = st.frozensets(st.sampled_from(VERSIONED), max_size=1)
    rare = st.sampled_from([frozenset[str]()] * 5 + [frozenset(["metering-1.0"]), frozenset(["identity-1.0"])])
    jobs = st.tuples(
        st.sampled_from(["prepare-2.0", "prepare-3.0"]),
        st.sampled_from(["preflight.yaml", "migrate.yaml", "contracts.yaml"]),
    )
    return Faults(
        broken=draw(some),
        slow=draw(some) | draw(rare),
        bad=draw(st.dictionaries(st.sampled_from(VERSIONED), st.sampled_from([25, 50, FULL]), max_size=2)),
        silent=draw(some),
        failing=draw(st.frozensets(jobs, max_size=1)),
        ready_s=draw(st.sampled_from([0.0, 3.0, 20.0])),
        unsure=draw(st.integers(0, 3)),
    )


SCRIPT = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 59)), min_size=5, max_size=90)


FAILS_FIRST = Faults(bad={"gateway-2.0": FULL, "gateway-3.0": FULL}, ready_s=0.0)


@example(
    faults=Faults(slow=frozenset(["identity-1.0"])), script=[], goal="1.1", first=False
)  # what it depends on is not well
@example(
    faults=FAILS_FIRST, script=[("none", 0)] * 80 + [("goal", 12)], goal="2.0", first=True
)  # what failed is no way back
@settings(max_examples=600, derandomize=True, database=None, deadline=None)
@given(
    faults=st.one_of(st.just(Faults()), faults()),
    script=SCRIPT,
    goal=st.sampled_from(["2.0", "2.0", "1.1"]),
    first=st.booleans(),
)
def test_whatever_happens_it_ends_well_or_where_it_began_or_says_why_not(
    faults: Faults, script: list[tuple[str, int]], goal: str, first: bool
) -> None:
    cluster, state = running("1.0", faults)
    if first:
        cluster.stable, state = {}, State()
    witness = Witness(cluster, state, city(goal))
    for event, number in script:
        disturb(witness, event, number)
        if number % 3 == 0:
            approve(witness, number)
        world = cluster.distorted(event, number)
        witness.turn(world, saves=event != "crash", times=2 if event == "twice" else 1)
        cluster.pass_time({"long": 400.0}.get(event, SECONDS[number % 3]))
    rests_well(witness, calm(witness))


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(dies=st.sets(st.integers(0, 80)), doubled=st.sets(st.integers(0, 80)), first=st.booleans())
def test_it_can_die_at_every_step_and_every_step_can_be_done_twice(
    dies: set[int], doubled: set[int], first: bool
) -> None:
    """Without faults it arrives, however often it died."""
    cluster, state = running("1.0", Faults(ready_s=1.0))
    if first:
        cluster.stable, state = {}, State()
    witness = Witness(cluster, state, city("2.0"))
    for number in range(81):
        approve(witness, 0)
        witness.turn(cluster.look(), saves=number not in dies, times=2 if number in doubled else 1)
        cluster.pass_time(0.5)
    step = calm(witness)
    assert isinstance(step, Wait) and step.phase == "Ready", step
    assert [one.outcome for one in witness.kept.history] == ["Succeeded"]
    assert sorted(cluster.jobs) == sorted(
        f"{stage}-{witness.kept.history[0].identity}" for stage in ("preflight", "migrate", "contracts")
    )
