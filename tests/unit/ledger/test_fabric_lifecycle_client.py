"""Chaincodes brought onto a channel by our own client: what is asked first, who must approve, what stops it. Against a channel in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from fabric_protos.common import policies_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import policy_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2

from citykit.ledger.devpeer.policy import from_envelope, parse
from citykit.ledger.fabric import Connection, EcdsaSigner, Gateway, Identity, Retry, connect
from citykit.ledger.fabric.definitions import Agreement, Collection, Definition
from citykit.ledger.fabric.deployment import Deployment, Release
from citykit.ledger.fabric.errors import CommitInvalid, EndorseError, EvaluateError, FormError
from citykit.ledger.fabric.lifecycle import InForce, Lifecycle, LifecycleError, Peer, PeerError, Readiness, Unapproved
from infra.fabric.policies import Policy
from tests.unit.ledger.fake_gateway import KEY, answers, certificate, fails
from tests.unit.ledger.fake_lifecycle import MEMBERS, OURS, FakeChannel, package_id_of, serving

QUICK = Retry(tries=3, first_s=0.001, longest_s=0.002)
LONG_S = 20.0
RUNS = Agreement(2, ("CityMSP", "UtilityMSP"))
AWAY = grpc.StatusCode.UNAVAILABLE


def release(version: str = "a", name: str = "billing", content: str = "") -> Release:
    package = f"{name}_{version}|{content or name}".encode()
    return Release(Definition(name, version, RUNS), package, package_id_of(package))


@pytest.fixture
async def fake() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
async def connection(fake: FakeChannel) -> AsyncIterator[Connection]:
    server, address = await serving(fake)
    async with connect(address, retry=QUICK) as found:
        yield found
    await server.stop(None)


@pytest.fixture
def told() -> list[str]:
    return []


def gateway(connection: Connection, channel: str) -> Gateway:
    return Gateway(connection, channel, Identity(OURS, certificate()), EcdsaSigner(KEY))


@pytest.fixture
def peer(connection: Connection) -> Peer:
    return Peer("peer-0", gateway(connection, ""))


@pytest.fixture
def lifecycle(connection: Connection) -> Lifecycle:
    return Lifecycle(gateway(connection, "city"))


@pytest.fixture
def deployment(lifecycle: Lifecycle, peer: Peer, told: list[str]) -> Deployment:
    return Deployment(lifecycle, [peer], told.append, poll_s=0.001)


class TestDefinition:
    def test_the_policy_is_the_one_the_peer_command_makes(self) -> None:
        message = Definition("c", "1", Agreement(2, MEMBERS)).fill(lifecycle_pb2.CommitChaincodeDefinitionArgs(), 3)
        policy = policy_pb2.ApplicationPolicy.FromString(message.validation_parameter)
        assert from_envelope(policy.signature_policy.SerializeToString()) == parse(
            Policy("c", ("auditor", "city", "utility"), 2).signature_policy
        )
        assert (message.name, message.version, message.sequence) == ("c", "1", 3)
        assert not message.HasField("collections")  # as without --collections-config

    def test_collections_are_held_by_any_member_of_their_organisations(self) -> None:
        wanted = Definition("c", "1", RUNS, (Collection("both", RUNS.organisations, 7),))
        message = wanted.fill(lifecycle_pb2.CheckCommitReadinessArgs(), 1)
        (one,) = message.collections.config
        static = one.static_collection_config
        envelope = policies_pb2.SignaturePolicyEnvelope.FromString(
            static.member_orgs_policy.signature_policy.SerializeToString()
        )
        roles = [msp_principal_pb2.MSPRole.FromString(item.principal) for item in envelope.identities]
        assert [(role.msp_identifier, role.role) for role in roles] == [
            ("CityMSP", msp_principal_pb2.MSPRole.MEMBER),
            ("UtilityMSP", msp_principal_pb2.MSPRole.MEMBER),
        ]
        assert envelope.rule.n_out_of.n == 1
        assert (static.name, static.block_to_live, static.maximum_peer_count) == ("both", 7, 1)
        assert static.member_only_read
        assert static.member_only_write


class TestReadiness:
    @pytest.mark.parametrize(
        ("approved", "enough"),
        [
            (("CityMSP", "UtilityMSP"), True),
            (("CityMSP", "AuditorMSP"), False),  # a majority, but only one of those that run it: nobody could endorse
            (("CityMSP",), False),
            (MEMBERS, True),
        ],
    )
    def test_a_majority_and_those_that_must_endorse(self, approved: tuple[str, ...], enough: bool) -> None:
        readiness = Readiness({one: one in approved for one in MEMBERS})
        assert readiness.enough(release().definition) is enough

    def test_half_of_the_organisations_is_no_majority(self) -> None:
        four = Readiness({"CityMSP": True, "UtilityMSP": True, "AuditorMSP": False, "CountyMSP": False})
        assert not four.enough(release().definition)

    def test_it_says_who_has_approved_and_who_otherwise(self) -> None:
        found = Readiness(
            {"CityMSP": True, "UtilityMSP": False, "AuditorMSP": False},
            {"UtilityMSP": ("EndorsementInfo",), "AuditorMSP": ("ChaincodeParameters",)},
        )
        assert str(found) == (
            "approved by CityMSP, not by AuditorMSP, UtilityMSP (which approved it with other EndorsementInfo)"
        )
        assert str(Readiness({})) == "approved by nobody, not by nobody"


async def test_it_installs_approves_and_commits_with_those_that_approved(
    fake: FakeChannel, deployment: Deployment, told: list[str]
) -> None:
    fake.approve("UtilityMSP", release().definition, 1)
    await deployment.bring([release()], 0)
    assert fake.committed["billing"][:2] == ("a", 1)
    assert fake.installed == {"billing_a": release().package_id}
    assert fake.approved[OURS, "billing", 1][1] == release().package_id
    assert fake.endorsed_by == [(OURS,), ("CityMSP", "UtilityMSP")]
    assert told == [
        "billing a (sequence 1): installed on peer-0",
        "billing a (sequence 1): approved for CityMSP",
        "billing a (sequence 1): committed, approved by CityMSP, UtilityMSP",
    ]


async def test_the_same_version_again_changes_nothing(
    fake: FakeChannel, deployment: Deployment, told: list[str]
) -> None:
    fake.approve("UtilityMSP", release().definition, 1)
    await deployment.bring([release()], 0)
    fake.asked_for.clear()
    told.clear()
    await deployment.bring([release()], 0)
    assert not {"InstallChaincode", "ApproveChaincodeDefinitionForMyOrg", "CommitChaincodeDefinition"} & set(
        fake.asked_for
    )
    assert told == ["billing a (sequence 1): in force, nothing to do"]


async def test_an_older_version_comes_back_by_the_next_sequence(fake: FakeChannel, deployment: Deployment) -> None:
    for sequence, version in enumerate(("a", "b", "a"), 1):
        fake.approve("UtilityMSP", release(version).definition, sequence)
        await deployment.bring([release(version)], 0)
    assert fake.committed["billing"][:2] == ("a", 3)
    assert fake.asked_for.count("InstallChaincode") == 2  # the older package is still there


async def test_a_chaincode_that_moved_is_approved_again_and_not_committed(
    fake: FakeChannel, deployment: Deployment, told: list[str]
) -> None:
    fake.approve("UtilityMSP", release().definition, 1)
    await deployment.bring([release()], 0)
    moved = release(content="elsewhere")
    await deployment.bring([moved], 0)
    assert fake.approved[OURS, "billing", 1][1] == moved.package_id
    assert fake.asked_for.count("CommitChaincodeDefinition") == 1
    assert told[-1] == "billing a (sequence 1): approved for CityMSP"


async def test_an_organisation_that_does_not_run_it_approves_without_a_package(
    fake: FakeChannel, deployment: Deployment
) -> None:
    agreed = Release(release().definition)
    fake.approve("UtilityMSP", agreed.definition, 1)
    await deployment.bring([agreed], 0)
    await deployment.bring([agreed], 0)
    assert fake.approved[OURS, "billing", 1][1] == ""
    assert fake.installed == {}
    assert fake.asked_for.count("ApproveChaincodeDefinitionForMyOrg") == 1


class TestMissingApprovals:
    async def test_nothing_is_committed_and_who_has_not_approved_is_named(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        """Of two contracts one could be committed: it is not, before all can."""
        fake.approve("UtilityMSP", release(name="anchors").definition, 1)
        fake.approve("AuditorMSP", release("other").definition, 1)
        with pytest.raises(Unapproved) as missing:
            await deployment.bring([release(name="anchors"), release()], 0)
        said = str(missing.value)
        assert "billing a (sequence 1): approved by CityMSP, not by AuditorMSP" in said
        assert "AuditorMSP (which approved it with other EndorsementInfo), UtilityMSP" in said
        assert "2 of the 3 organisations" in said
        assert "anchors" not in said
        assert fake.committed == {}

    async def test_it_goes_on_when_run_again(self, fake: FakeChannel, deployment: Deployment) -> None:
        with pytest.raises(Unapproved):
            await deployment.bring([release()], 0)
        fake.approve("UtilityMSP", release().definition, 1)
        await deployment.bring([release()], 0)
        assert fake.committed["billing"][:2] == ("a", 1)
        assert fake.asked_for.count("ApproveChaincodeDefinitionForMyOrg") == 1

    async def test_it_waits_for_them_and_says_so_once(
        self, fake: FakeChannel, deployment: Deployment, told: list[str]
    ) -> None:
        running = asyncio.create_task(deployment.bring([release()], LONG_S))
        async with asyncio.timeout(LONG_S):
            while fake.asked_for.count("CheckCommitReadiness") < 5:
                await asyncio.sleep(0.001)
        assert [line for line in told if line.startswith("waiting")] == [
            "waiting: billing a (sequence 1): approved by CityMSP, not by AuditorMSP, UtilityMSP"
        ]
        fake.approve("AuditorMSP", release().definition, 1)
        fake.approve("UtilityMSP", release().definition, 1)
        await running
        assert fake.endorsed_by[-1] == MEMBERS


class TestRaces:
    async def test_the_same_was_committed_by_another_organisation_while_waiting(
        self, fake: FakeChannel, deployment: Deployment, told: list[str]
    ) -> None:
        running = asyncio.create_task(deployment.bring([release()], LONG_S))
        async with asyncio.timeout(LONG_S):
            while not any(line.startswith("waiting") for line in told):
                await asyncio.sleep(0.001)
        fake.commit(release().definition, 1)
        await running
        assert told[-1] == "billing a (sequence 1): in force, committed by another organisation"
        assert "CommitChaincodeDefinition" not in fake.asked_for

    async def test_something_else_was_committed_at_the_last_moment(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        fake.approve("UtilityMSP", release().definition, 1)
        fake.before_commit.append(lambda: fake.commit(release("other").definition, 1))
        with pytest.raises(LifecycleError, match="committed other as sequence 1 meanwhile"):
            await deployment.bring([release()], 0)
        assert fake.committed["billing"][0] == "other"

    async def test_the_same_was_committed_at_the_last_moment(
        self, fake: FakeChannel, deployment: Deployment, told: list[str]
    ) -> None:
        fake.approve("UtilityMSP", release().definition, 1)
        fake.before_commit.append(lambda: fake.commit(release().definition, 1))
        await deployment.bring([release()], 0)
        assert told[-1] == "billing a (sequence 1): in force, committed by another organisation"

    async def test_a_sequence_that_moves_between_two_questions(self, fake: FakeChannel, deployment: Deployment) -> None:
        """What is in force was asked before the other's commit, who approved after it."""
        release_, other = release(), release("other").definition
        fake.approve(OURS, release_.definition, 1)
        fake.approved[OURS, "billing", 1] = (fake.approved[OURS, "billing", 1][0], release_.package_id)

        async def overtaken(request: Any, context: Any) -> Any:
            fake.commit(other, 1)
            return nothing_in_force()

        looked = [usual(fake)] * 3
        fake.script["Evaluate"] = [*looked, overtaken]
        with pytest.raises(LifecycleError, match="committed other as sequence 1 meanwhile"):
            await deployment.bring([release_], 0)

    async def test_a_commit_that_is_invalid_for_another_reason_is_said(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        fake.approve("UtilityMSP", release().definition, 1)
        fake.script["CommitStatus"] = [status(0), status(10)]
        fake.keep_commits = False
        with pytest.raises(CommitInvalid) as error:
            await deployment.bring([release()], 0)
        assert error.value.code == 10


class TestRefusals:
    async def test_whoever_is_no_administrator_learns_and_changes_nothing(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        fake.administrator = False
        with pytest.raises(PeerError) as error:
            await deployment.bring([release()], 0)
        assert error.value.refused
        assert error.value.peer == "peer-0"
        assert fake.approved == {}

    async def test_a_peer_that_is_away_is_named_before_anything_is_changed(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        fake.script["ProcessProposal"] = [fails(AWAY)] * QUICK.tries
        with pytest.raises(PeerError) as error:
            await deployment.bring([release()], 0)
        assert error.value.unavailable
        assert error.value.peer == "peer-0"
        assert not fake.asked_for

    async def test_a_peer_that_was_away_for_a_moment_is_asked_again(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        fake.script["ProcessProposal"] = [fails(AWAY)]
        await deployment.look([release()])
        assert len(fake.asked["ProcessProposal"]) == 2

    async def test_a_peer_that_takes_a_package_for_another(self, fake: FakeChannel, deployment: Deployment) -> None:
        wrong = replace(release(), package_id="billing_a:" + "0" * 64)
        with pytest.raises(LifecycleError, match="its content differs"):
            await deployment.bring([wrong], 0)
        assert fake.approved == {}

    async def test_a_package_that_came_meanwhile_is_as_good(self, fake: FakeChannel, peer: Peer) -> None:
        """Two of our administrators at once."""
        await peer.install(release().package, release().package_id)
        await peer.install(release().package, release().package_id)
        with pytest.raises(PeerError, match="already successfully installed"):
            await peer.install(release().package, "another:id")

    async def test_an_answer_that_is_none(self, fake: FakeChannel, peer: Peer) -> None:
        response = proposal_response_pb2.Response(status=200, payload=b"\xff\xff")
        fake.script["ProcessProposal"] = [answers(proposal_response_pb2.ProposalResponse(response=response))]
        with pytest.raises(FormError, match="QueryInstalledChaincodesResult"):
            await peer.installed()

    async def test_a_definition_in_force_with_other_rules_is_not_approved(
        self, fake: FakeChannel, deployment: Deployment
    ) -> None:
        """Somebody committed our version with another policy: that is not taken for ours."""
        other = replace(release().definition, endorsed_by=Agreement(1, RUNS.organisations))
        fake.commit(other, 1)
        with pytest.raises(EndorseError, match="with different parameters"):
            await deployment.bring([release()], 0)

    async def test_a_question_that_fails_otherwise_is_not_taken_for_an_answer(
        self, fake: FakeChannel, lifecycle: Lifecycle
    ) -> None:
        fake.script["Evaluate"] = [fails(grpc.StatusCode.UNKNOWN, "no such channel")]
        with pytest.raises(EvaluateError, match="no such channel"):
            await lifecycle.approved_package("billing", 1)
        fake.script["Evaluate"] = [fails(grpc.StatusCode.UNKNOWN, "no such channel")]
        with pytest.raises(EvaluateError, match="no such channel"):
            await lifecycle.readiness(release().definition, 1)


class TestLooking:
    async def test_it_says_what_would_be_done_and_does_nothing(self, fake: FakeChannel, deployment: Deployment) -> None:
        (step,) = await deployment.look([release()])
        assert step.intended(OURS) == [
            "billing a (sequence 1): would be installed on peer-0",
            "billing a (sequence 1): would be approved for CityMSP",
            "billing a (sequence 1): would wait: approved by CityMSP, not by AuditorMSP, UtilityMSP",
        ]
        assert (fake.installed, fake.approved, fake.committed) == ({}, {}, {})
        fake.approve("UtilityMSP", release().definition, 1)
        (step,) = await deployment.look([release()])
        assert step.intended(OURS)[-1] == "billing a (sequence 1): would be committed"
        await deployment.bring([release()], 0)
        (step,) = await deployment.look([release()])
        assert step.intended(OURS) == ["billing a (sequence 1): in force"]

    async def test_what_is_in_force_can_be_asked(self, fake: FakeChannel, lifecycle: Lifecycle) -> None:
        fake.commit(release().definition, 4)
        assert await lifecycle.in_force() == {"billing": InForce("a", 4)}
        assert (await lifecycle.definition("billing")).sequence == 4


def usual(fake: FakeChannel) -> Any:
    """An act that answers as the channel does without a script."""

    async def act(request: Any, context: Any) -> Any:
        rest, fake.script["Evaluate"] = fake.script["Evaluate"], []
        try:
            return await fake.Evaluate(request, context)
        finally:
            fake.script["Evaluate"] = rest

    return act


def nothing_in_force() -> Any:
    payload = lifecycle_pb2.QueryChaincodeDefinitionsResult().SerializeToString()
    response = proposal_response_pb2.Response(status=200, payload=payload)
    return gateway_pb2.EvaluateResponse(result=response)


def status(code: int) -> Any:
    return answers(gateway_pb2.CommitStatusResponse(result=code, block_number=9))
