"""The gateway client against a scripted gateway: each step, every error, retries that act once, offline signing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2

from citykit.ledger.fabric import (
    Connection,
    Deadlines,
    EcdsaSigner,
    Gateway,
    Prepared,
    Proposal,
    Retry,
    StatusQuestion,
    connect,
    wire,
)
from citykit.ledger.fabric.errors import (
    CommitInvalid,
    CommitStatusError,
    EndorseError,
    EvaluateError,
    FormError,
    IdentityError,
    OutcomeUnknown,
    SubmitError,
)
from tests.unit.ledger.fake_gateway import (
    CONFLICT,
    KEY,
    MEMBER,
    FakeGateway,
    answers,
    creator_of,
    digest,
    fails,
    hangs,
    served,
)

QUICK = Retry(tries=4, first_s=0.001, longest_s=0.002)
BUSY, AWAY = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def fake() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def connection(fake: FakeGateway) -> AsyncIterator[Connection]:
    server, address = await served(fake)
    async with connect(address, retry=QUICK) as made:
        yield made
    await server.stop(None)


@pytest.fixture
def gateway(connection: Connection) -> Gateway:
    return Gateway(connection, "city", MEMBER, EcdsaSigner(KEY), clock=lambda: 1_478_563_200.25)


# --- the steps ----------------------------------------------------------------------------------------


async def test_evaluate_sends_a_signed_proposal_and_gives_the_answer(fake: FakeGateway, gateway: Gateway) -> None:
    fake.result = b"seen"
    found = await gateway.evaluate("assets", "read", [b"x", b"y"], transient={"t": b"1"}, organisations=["OrgMSP"])
    assert found == b"seen"
    request = fake.asked["Evaluate"][0]
    signed = request.proposed_transaction
    KEY.public_key().verify(signed.signature, signed.proposal_bytes, ec.ECDSA(hashes.SHA256()))
    creator, nonce = creator_of(signed)
    assert (creator, len(nonce)) == (MEMBER.serialized, 24)
    assert request.transaction_id == digest(nonce + creator).hex()
    assert list(request.target_organizations) == ["OrgMSP"]
    payload = proposal_pb2.ChaincodeProposalPayload.FromString(
        proposal_pb2.Proposal.FromString(signed.proposal_bytes).payload
    )
    spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    assert (spec.chaincode_id.name, list(spec.input.args)) == ("assets", [b"read", b"x", b"y"])
    assert dict(payload.TransientMap) == {"t": b"1"}


async def test_submit_endorses_orders_and_waits_for_the_commit(fake: FakeGateway, gateway: Gateway) -> None:
    fake.result = b"made"
    done = await gateway.submit("assets", "create", [b"x"], transient={"t": b"1"}, organisations=["A", "B"])
    assert (done.block, done.result) == (9, b"made")
    assert list(fake.asked["Endorse"][0].endorsing_organizations) == ["A", "B"]
    sent = fake.asked["Submit"][0]
    assert sent.transaction_id == done.transaction_id == fake.asked["Endorse"][0].transaction_id
    envelope = sent.prepared_transaction
    KEY.public_key().verify(envelope.signature, envelope.payload, ec.ECDSA(hashes.SHA256()))
    header = common_pb2.ChannelHeader.FromString(common_pb2.Payload.FromString(envelope.payload).header.channel_header)
    assert (header.channel_id, header.timestamp.seconds, header.timestamp.nanos) == ("city", 1_478_563_200, 250_000_000)
    assert b"TransientMap" not in envelope.payload and wire.transaction_id_of(envelope.payload) == done.transaction_id
    asked = fake.asked["CommitStatus"][0]
    KEY.public_key().verify(asked.signature, asked.request, ec.ECDSA(hashes.SHA256()))
    question = gateway_pb2.CommitStatusRequest.FromString(asked.request)
    assert (question.transaction_id, question.channel_id, question.identity) == (
        done.transaction_id,
        "city",
        MEMBER.serialized,
    )


async def test_everything_can_be_signed_elsewhere(fake: FakeGateway, connection: Connection) -> None:
    gateway, elsewhere = Gateway(connection, "city", MEMBER), EcdsaSigner(KEY)
    proposal = gateway.propose("assets", "create", [b"x"], organisations=["A"])
    with pytest.raises(IdentityError, match="not signed"):
        await gateway.endorse(proposal)
    carried = Proposal.from_bytes(proposal.to_bytes())
    assert carried == proposal
    signed = carried.signed(elsewhere.sign_digest(carried.digest))
    prepared = await gateway.endorse(Proposal.from_bytes(signed.to_bytes()))
    with pytest.raises(IdentityError, match="not signed"):
        await gateway.send(prepared)
    with pytest.raises(IdentityError, match="no signer"):
        await gateway.finish(prepared)
    carried_on = Prepared.from_bytes(prepared.to_bytes())
    assert (carried_on, carried_on.result) == (prepared, b"fine")
    await gateway.send(carried_on.signed(elsewhere.sign_digest(carried_on.digest)))
    question = StatusQuestion.from_bytes(gateway.ask(prepared.transaction_id).to_bytes())
    with pytest.raises(IdentityError, match="not signed"):
        await gateway.commit_status(question)
    commit = await gateway.commit_status(question.signed(elsewhere.sign_digest(question.digest)))
    assert (commit.transaction_id, commit.valid, commit.code_name) == (proposal.transaction_id, True, "VALID")
    assert len(fake.asked["Endorse"]) == len(fake.asked["Submit"]) == 1


@pytest.mark.parametrize("kind", [Proposal, Prepared, StatusQuestion])
def test_bytes_that_are_no_stage_are_refused(kind: type[Proposal | Prepared | StatusQuestion]) -> None:
    with pytest.raises(FormError, match="these bytes"):
        kind.from_bytes(b"\xff\xff")


async def test_a_transaction_that_was_not_proposed_is_not_signed(fake: FakeGateway, gateway: Gateway) -> None:
    other = gateway.propose("assets", "give_everything", [b"mallory"])
    payload = wire.prepare(other.message, b"", [])
    changed = gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=payload))
    unreadable = gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=b"\xff\xff"))
    fake.script["Endorse"] = [answers(changed), answers(unreadable)]
    with pytest.raises(FormError, match="another transaction"):
        await gateway.submit("assets", "create", [b"x"])
    with pytest.raises(FormError, match="cannot be read"):
        await gateway.submit("assets", "create", [b"x"])
    assert fake.asked["Submit"] == []


# --- what goes wrong ----------------------------------------------------------------------------------


async def test_a_chaincodes_own_error_is_told_by_every_peer(fake: FakeGateway, gateway: Gateway) -> None:
    said = (("peer1:7051", "AMSP", "chaincode response 409, {taken}\nmore"), ("peer2:7051", "BMSP", "away"))
    fake.script["Endorse"] = [fails(grpc.StatusCode.ABORTED, "see attached details", said)]
    fake.script["Evaluate"] = [fails(grpc.StatusCode.UNKNOWN, "evaluate call: chaincode response 500, no such asset")]
    with pytest.raises(EndorseError, match=r"peer2:7051 \(BMSP\): away") as refused:
        await gateway.submit("assets", "create", [b"x"])
    error = refused.value
    assert error.chaincode is not None
    assert (error.code, error.chaincode.status, error.chaincode.message) == (
        grpc.StatusCode.ABORTED, 409, "{taken}\nmore",
    )  # fmt: skip
    assert [(d.address, d.msp_id) for d in error.details] == [("peer1:7051", "AMSP"), ("peer2:7051", "BMSP")]
    assert error.transaction_id == fake.asked["Endorse"][0].transaction_id
    with pytest.raises(EvaluateError) as failed:
        await gateway.evaluate("assets", "read", [b"x"])
    assert failed.value.chaincode is not None and failed.value.chaincode.message == "no such asset"
    assert fake.asked["Submit"] == []


async def test_details_that_cannot_be_read_do_not_hide_the_error(fake: FakeGateway, gateway: Gateway) -> None:
    async def act(_: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.ABORTED, "plain", (("grpc-status-details-bin", b"\xff\xff\xff"),))

    fake.script["Evaluate"] = [act]
    with pytest.raises(EvaluateError, match="plain") as failed:
        await gateway.evaluate("assets", "read")
    assert (failed.value.details, failed.value.chaincode) == ((), None)


@pytest.mark.parametrize("code", [AWAY, BUSY])
async def test_a_submit_that_does_not_get_through_is_sent_again_with_the_same_bytes(
    fake: FakeGateway, gateway: Gateway, code: grpc.StatusCode
) -> None:
    fake.script["Submit"] = [fails(code), fails(code)]
    fake.script["CommitStatus"] = [fails(code), fails(code)]
    done = await gateway.submit("assets", "create", [b"x"])
    assert len(fake.asked["Endorse"]) == 1
    assert len(fake.asked["Submit"]) == len(fake.asked["CommitStatus"]) == 3
    for method in ("Submit", "CommitStatus"):
        assert len({request.SerializeToString() for request in fake.asked[method]}) == 1
    assert {request.transaction_id for request in fake.asked["Submit"]} == {done.transaction_id}


async def test_an_orderers_refusal_means_nothing_was_ordered(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Submit"] = [fails(grpc.StatusCode.ABORTED, "status=BAD_REQUEST")]
    with pytest.raises(SubmitError, match="BAD_REQUEST"):
        await gateway.submit("assets", "create", [b"x"])
    assert fake.asked["CommitStatus"] == []


async def test_an_orderer_that_has_it_already_counts_as_an_answer(fake: FakeGateway, gateway: Gateway) -> None:
    """BFT orderers refuse a second copy; the first try's answer was lost."""
    has_it = (("o:1", "OMSP", "status=SERVICE_UNAVAILABLE, info=failed to submit request: request already processed"),)
    fake.script["Submit"] = [fails(AWAY), *[fails(AWAY, "no quorum", has_it)] * 3]
    assert (await gateway.submit("assets", "create", [b"x"])).block == 9


async def test_a_submit_without_an_answer_is_looked_for(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["Submit"] = [fails(grpc.StatusCode.INTERNAL)]
    done = await gateway.submit("assets", "create", [b"x"])
    assert done.transaction_id == fake.asked["Submit"][0].transaction_id
    fake.script["Submit"] = [fails(AWAY), fails(grpc.StatusCode.ABORTED, "status=FORBIDDEN")]
    assert (await gateway.submit("assets", "create", [b"x"])).block == 9


@pytest.mark.parametrize(
    "script", [[AWAY, grpc.StatusCode.ABORTED], [AWAY] * 10, [grpc.StatusCode.INTERNAL], [grpc.StatusCode.CANCELLED]]
)
async def test_a_submit_without_an_answer_that_is_not_found_leaves_the_outcome_unknown(
    fake: FakeGateway, connection: Connection, script: list[grpc.StatusCode]
) -> None:
    brief = Connection(connection.channel, deadlines=Deadlines(doubt_s=0.1), retry=QUICK)
    gateway = Gateway(brief, "city", MEMBER, EcdsaSigner(KEY))
    fake.script["Submit"] = [fails(code) for code in script]
    fake.script["CommitStatus"] = [hangs()]
    with pytest.raises(OutcomeUnknown, match="not known yet") as unknown:
        await gateway.submit("assets", "create", [b"x"])
    assert unknown.value.transaction_id == fake.asked["Submit"][0].transaction_id
    assert len(fake.asked["Submit"]) == min(len(script), QUICK.tries)
    prepared = await gateway.endorse(gateway.propose("assets", "create", [b"x"]))
    fake.script["Submit"] = [fails(code) for code in script]
    with pytest.raises(OutcomeUnknown) as unsent:
        await gateway.send(prepared)
    assert isinstance(unsent.value.cause, SubmitError)


async def test_a_timeout_after_the_commit_can_be_taken_up_with_the_same_transaction(
    fake: FakeGateway, connection: Connection
) -> None:
    hasty = Connection(connection.channel, deadlines=Deadlines(commit_s=0.2), retry=QUICK)
    gateway = Gateway(hasty, "city", MEMBER, EcdsaSigner(KEY))
    prepared = await gateway.endorse(gateway.propose("assets", "create", [b"x"]))
    fake.script["CommitStatus"] = [hangs()]
    with pytest.raises(OutcomeUnknown) as unknown:
        await gateway.finish(prepared)
    assert unknown.value.transaction_id == prepared.transaction_id
    gateway = Gateway(connection, "city", MEMBER, EcdsaSigner(KEY))
    commit = await gateway.commit_status(unknown.value.transaction_id)
    done = await gateway.finish(prepared)
    assert commit.valid and done.transaction_id == prepared.transaction_id
    assert {request.transaction_id for request in fake.asked["Submit"]} == {prepared.transaction_id}
    assert len({request.SerializeToString() for request in fake.asked["Submit"]}) == 1


@pytest.mark.parametrize(
    ("method", "deadlines", "kind"),
    [
        ("Evaluate", Deadlines(evaluate_s=0.2), EvaluateError),
        ("Endorse", Deadlines(endorse_s=0.2), EndorseError),
        ("Submit", Deadlines(submit_s=0.2), OutcomeUnknown),
        ("CommitStatus", Deadlines(commit_s=0.2), OutcomeUnknown),
    ],
)
async def test_each_step_has_its_deadline(
    fake: FakeGateway, connection: Connection, method: str, deadlines: Deadlines, kind: type[Exception]
) -> None:
    brief = Connection(connection.channel, deadlines=deadlines, retry=QUICK)
    gateway = Gateway(brief, "city", MEMBER, EcdsaSigner(KEY))
    fake.script[method] = [hangs()]
    with pytest.raises(kind, match="DEADLINE_EXCEEDED"):
        if method == "Evaluate":
            await gateway.evaluate("assets", "read")
        else:
            prepared = await gateway.endorse(gateway.propose("assets", "create"))
            await gateway.send(prepared)
            await gateway.commit_status(prepared.transaction_id)
    assert len(fake.asked[method]) == 1


async def test_invalid_commits_say_why(fake: FakeGateway, gateway: Gateway) -> None:
    for code, name in ((CONFLICT, "MVCC_READ_CONFLICT"), (10, "ENDORSEMENT_POLICY_FAILURE"), (77, "CODE_77")):
        prepared = await gateway.endorse(gateway.propose("assets", "create", [b"x"]))
        fake.codes[prepared.transaction_id] = code
        with pytest.raises(CommitInvalid, match=f"block 9 as invalid: {name}") as invalid:
            await gateway.finish(prepared)
        assert (invalid.value.code, invalid.value.code_name, invalid.value.block) == (code, name, 9)


async def test_a_refused_question_is_no_outcome(fake: FakeGateway, gateway: Gateway) -> None:
    fake.script["CommitStatus"] = [fails(grpc.StatusCode.PERMISSION_DENIED, "not a reader")]
    with pytest.raises(CommitStatusError, match="not a reader"):
        await gateway.commit_status("0" * 64)


async def test_evaluate_and_endorse_are_tried_again_only_where_they_did_not_get_through(
    fake: FakeGateway, gateway: Gateway
) -> None:
    fake.script["Evaluate"] = [fails(AWAY), fails(BUSY)]
    assert await gateway.evaluate("assets", "read") == b"fine"
    fake.script["Endorse"] = [fails(AWAY)] * 9
    with pytest.raises(EndorseError, match="UNAVAILABLE") as away:
        await gateway.submit("assets", "create")
    assert away.value.unavailable
    assert (len(fake.asked["Evaluate"]), len(fake.asked["Endorse"])) == (3, QUICK.tries)
    assert len({request.SerializeToString() for request in fake.asked["Endorse"]}) == 1


async def test_many_are_in_flight_up_to_a_limit(fake: FakeGateway, connection: Connection) -> None:
    gateway = Gateway(Connection(connection.channel, in_flight_max=7), "city", MEMBER, EcdsaSigner(KEY))

    all_there = asyncio.Event()

    async def once_all_are_there(_: object, context: Any) -> object:
        if fake.at_once == 7:
            all_there.set()
        await all_there.wait()
        return gateway_pb2.EvaluateResponse()

    fake.script["Evaluate"] = [once_all_are_there] * 50
    await asyncio.gather(*(gateway.evaluate("assets", "read") for _ in range(50)))
    assert fake.most_at_once == 7


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    retry = Retry(first_s=0.1, factor=2.0, longest_s=1.0, spread=random.Random(1))
    pauses = [retry.pause_s(failures) for failures in range(1, 200)]
    assert all(0.05 <= pauses[0] <= 0.1 for _ in range(1)) and all(0.5 <= pause <= 1.0 for pause in pauses[4:])
    assert len(set(pauses[4:])) > 100


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    async with connect("127.0.0.1:1", retry=QUICK) as connection:
        with pytest.raises(EvaluateError, match="UNAVAILABLE") as away:
            await Gateway(connection, "city", MEMBER, EcdsaSigner(KEY)).evaluate("assets", "read")
    assert away.value.unavailable
