"""Brings versions of chaincodes onto a channel, for our organisation: looks what is there, installs, approves, waits for others, commits.

For whoever deploys; `lifecycle` does each step. The same version again needs no commit, another one takes the next sequence, and nothing is
committed before enough organisations have approved everything. Any step may have been done before, so a run that broke is simply run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from citykit.ledger.fabric.definitions import Definition
from citykit.ledger.fabric.errors import CommitInvalid, EndorseError, EvaluateError
from citykit.ledger.fabric.lifecycle import InForce, Lifecycle, LifecycleError, Peer, Readiness, Unapproved

POLL_S = 2.0


@dataclass(frozen=True)
class Release:
    """A version of a chaincode and the package our peers run it by.

    Attributes:
        package, package_id: empty where our organisation does not run it, and only agrees to it.
    """

    definition: Definition
    package: bytes = b""
    package_id: str = ""

    @property
    def name(self) -> str:
        return self.definition.name


@dataclass(frozen=True)
class Step:
    """What a release needs.

    Attributes:
        sequence: that it has, or will have.
        done: it is in force already.
        install: names of the peers that lack its package.
        approve: our organisation has not approved it with this package.
        readiness: who has approved it; of nobody where it is in force.
    """

    release: Release
    sequence: int
    done: bool
    install: tuple[str, ...] = ()
    approve: bool = False
    readiness: Readiness = field(default_factory=lambda: Readiness({}))

    @property
    def title(self) -> str:
        return f"{self.release.name} {self.release.definition.version} (sequence {self.sequence})"

    def intended(self, ours: str) -> list[str]:
        """What would be done, a line each."""
        lines = [f"{self.title}: would be installed on {', '.join(self.install)}"] if self.install else []
        if self.approve:
            lines.append(f"{self.title}: would be approved for {ours}")
        if self.done:
            return lines or [f"{self.title}: in force"]
        approvals = Readiness({**self.readiness.approvals, ours: True}, self.readiness.differing)
        ready = approvals.enough(self.release.definition)
        lines.append(f"{self.title}: would be committed" if ready else f"{self.title}: would wait: {approvals}")
        return lines


class Deployment:
    """Releases on one channel.

    Args:
        peers: all of our organisation.
        tell: takes a line for each thing done.
        poll_s: pause between two looks for others' approvals.
    """

    def __init__(
        self, lifecycle: Lifecycle, peers: Sequence[Peer], tell: Callable[[str], None], poll_s: float = POLL_S
    ) -> None:
        self._lifecycle = lifecycle
        self._peers = peers
        self._tell = tell
        self._poll_s = poll_s

    async def look(self, releases: Sequence[Release]) -> list[Step]:
        """What each release needs; changes nothing.

        Raises:
            PeerError, EvaluateError: a peer is away, or refuses to say.
        """
        installed = {peer.name: await peer.installed() for peer in self._peers}
        in_force = await self._lifecycle.in_force()
        return [await self._step(one, in_force.get(one.name), installed) for one in releases]

    async def bring(self, releases: Sequence[Release], wait_s: float) -> None:
        """Does what `look` says.

        Args:
            wait_s: how long others' approvals are waited for, of all releases together.

        Raises:
            Unapproved: not enough approved in time; nothing was committed.
            LifecycleError: another organisation committed something else under the same sequence, or a peer takes a package for another.
            PeerError, EvaluateError, EndorseError, SubmitError, CommitInvalid, OutcomeUnknown: as they came.
        """
        steps = await self.look(releases)
        for step in steps:
            await self._prepare(step)
        ready = await self._wait([step for step in steps if not step.done], wait_s)
        for step, readiness in ready:
            await self._commit(step, readiness)

    async def _step(self, release: Release, before: InForce | None, installed: Mapping[str, frozenset[str]]) -> Step:
        definition, package = release.definition, release.package_id
        lacking = tuple(name for name, ids in installed.items() if package and package not in ids)
        done = before is not None and before.version == definition.version
        sequence = (before.sequence if before else 0) + (0 if done else 1)
        same = await self._lifecycle.approved_package(release.name, sequence) == package
        if done:
            return Step(release, sequence, done, lacking, not same)
        readiness = await self._lifecycle.readiness(definition, sequence)
        agreed = same and readiness.approvals.get(self._lifecycle.organisation, False)
        return Step(release, sequence, done, lacking, not agreed, readiness)

    async def _prepare(self, step: Step) -> None:
        release = step.release
        for peer in self._peers:
            if peer.name in step.install:
                await peer.install(release.package, release.package_id)
                self._tell(f"{step.title}: installed on {peer.name}")
        if step.approve:
            await self._lifecycle.approve(release.definition, step.sequence, release.package_id)
            self._tell(f"{step.title}: approved for {self._lifecycle.organisation}")
        elif step.done:
            self._tell(f"{step.title}: in force, nothing to do")

    async def _wait(self, steps: Sequence[Step], wait_s: float) -> list[tuple[Step, Readiness]]:
        """Each step with its approvals, once all have enough. Somebody else may commit one meanwhile."""
        clock = asyncio.get_running_loop().time
        end, told = clock() + wait_s, ""
        while True:
            looked = [(step, await self._approvals(step)) for step in steps]
            open_ = [(step, found) for step, found in looked if found is not None]
            steps = [step for step, _ in open_]
            missing = [f"{step.title}: {found}" for step, found in open_ if not found.enough(step.release.definition)]
            if not missing:
                return open_
            if clock() >= end:
                raise Unapproved(_unapproved(missing, open_[0][1]))
            if "; ".join(missing) != told:
                told = "; ".join(missing)
                self._tell(f"waiting: {told}")
            await asyncio.sleep(min(self._poll_s, max(0.0, end - clock())))

    async def _approvals(self, step: Step) -> Readiness | None:
        """None: it is in force, by another organisation's commit."""
        if await self._overtaken(step):
            return None
        try:
            return await self._lifecycle.readiness(step.release.definition, step.sequence)
        except EvaluateError:
            if await self._overtaken(step):
                return None
            raise

    async def _commit(self, step: Step, readiness: Readiness) -> None:
        """A commit that does not get through is looked at again: another organisation may have made it first."""
        approved = tuple(sorted(name for name, done in readiness.approvals.items() if done))
        try:
            await self._lifecycle.commit(step.release.definition, step.sequence, approved)
        except (EndorseError, CommitInvalid):
            if not await self._overtaken(step):
                raise
            return
        self._tell(f"{step.title}: committed, approved by {', '.join(approved)}")

    async def _overtaken(self, step: Step) -> bool:
        """Whether another organisation has committed this definition.

        Raises:
            LifecycleError: it committed something else under this sequence.
        """
        now = (await self._lifecycle.in_force()).get(step.release.name)
        if now is None or now.sequence < step.sequence:
            return False
        if now.version == step.release.definition.version:
            self._tell(f"{step.title}: in force, committed by another organisation")
            return True
        raise LifecycleError(
            f"{step.title}: another organisation committed {now.version} as sequence {now.sequence} meanwhile;"
            " agree which version it is to be, then run this again"
        )


def _unapproved(missing: Sequence[str], one: Readiness) -> str:
    all_ = len(one.approvals)
    return (
        f"too few approvals, and nothing was committed: {'; '.join(missing)}. {all_ // 2 + 1} of the {all_} organisations have to approve,"
        " and of those that run a contract as many as must endorse it. Run this again once they have"
    )
