"""Whatever bytes a client, an endorser or a stored block holds, the development peer says what is wrong with them and goes on."""

from __future__ import annotations

from functools import cache

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from citykit.errors import InvalidArgument
from citykit.ledger.devpeer.messages import (
    Malformed,
    Proposal,
    prepared,
    read_proposal,
    read_transaction,
    transaction_id,
)
from citykit.ledger.devpeer.policy import from_envelope, parse, to_envelope
from citykit.ledger.devpeer.simulation import Simulation
from citykit.ledger.devpeer.state import WorldState
from tests.property.test_devpeer_serial import VALID, transaction, validator

CREATOR, NONCE = b"creator", b"n" * 24
places = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)


@cache
def proposal() -> Proposal:
    """A proposal of right form."""
    channel = common_pb2.ChannelHeader(type=3, channel_id="city", tx_id=transaction_id(NONCE, CREATOR))
    chaincode = chaincode_pb2.ChaincodeID(name="notes")
    channel.extension = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode).SerializeToString()
    header = common_pb2.Header(channel_header=channel.SerializeToString())
    header.signature_header = common_pb2.SignatureHeader(creator=CREATOR, nonce=NONCE).SerializeToString()
    spec = chaincode_pb2.ChaincodeInvocationSpec()
    spec.chaincode_spec.chaincode_id.name = "notes"
    spec.chaincode_spec.input.args.extend([b"put", b"a", b"1"])
    payload = proposal_pb2.ChaincodeProposalPayload(input=spec.SerializeToString())
    message = proposal_pb2.Proposal(header=header.SerializeToString(), payload=payload.SerializeToString())
    return read_proposal(proposal_pb2.SignedProposal(proposal_bytes=message.SerializeToString(), signature=b"s"))


@cache
def envelope() -> bytes:
    """A transaction of right form."""
    action = proposal_pb2.ChaincodeAction(results=results())
    action.chaincode_id.name = "notes"
    response = proposal_response_pb2.ProposalResponsePayload(
        proposal_hash=proposal().hash, extension=action.SerializeToString()
    )
    made = prepared(proposal(), response.SerializeToString(), [(b"endorser", b"signature")])
    return bytes(made.SerializeToString())


@cache
def results() -> bytes:
    """A read-write set with some of everything."""
    run = Simulation(WorldState(), "CityMSP")
    run.get("notes", "a")
    list(run.range("notes", "a", "b"))
    run.put("notes", "a", b"1")
    run.put_metadata("notes", "a", "VALIDATION_PARAMETER", to_envelope(parse("'A.peer'")))
    run.private_hash("notes", "both", "k")
    run.put_private("notes", "both", "k", b"secret")
    return run.outcome().public


def changed(data: bytes, where: list[tuple[int, int]]) -> bytes:
    found = bytearray(data)
    for place, value in where:
        found[place % len(found)] = value
    return bytes(found)


def test_what_is_of_right_form_is_read() -> None:
    made = read_transaction(common_pb2.Envelope.FromString(envelope()))
    assert made.headers.transaction == proposal().headers.transaction
    assert made.action.results == results()
    held = Simulation(WorldState(), "CityMSP")
    held.put("notes", "a", b"1")
    assert validator(WorldState()).outcomes(1, [transaction(held, "t")])[0].code == VALID


@given(places)
@settings(max_examples=400, deadline=None)
def test_a_changed_proposal_is_read_or_called_malformed(where: list[tuple[int, int]]) -> None:
    data = changed(proposal().signed.proposal_bytes, where)
    try:
        read = read_proposal(proposal_pb2.SignedProposal(proposal_bytes=data, signature=b"s"))
    except Malformed as error:
        assert error.message
    else:
        assert read.headers.transaction == transaction_id(read.headers.nonce, read.headers.creator)


@given(places)
@settings(max_examples=400, deadline=None)
def test_a_changed_transaction_is_read_or_called_malformed(where: list[tuple[int, int]]) -> None:
    data = changed(envelope(), where)
    try:
        made = common_pb2.Envelope.FromString(data)
    except Exception as error:
        assert type(error).__name__ == "DecodeError"
        return
    try:
        read_transaction(made)
    except Malformed as error:
        assert error.validation_code in transaction_pb2.TxValidationCode.values()


@given(st.one_of(places.map(lambda where: changed(results(), where)), st.binary(max_size=200)))
@settings(max_examples=400, deadline=None)
def test_changed_results_get_a_code_and_the_next_transaction_goes_on(data: bytes) -> None:
    world = WorldState()
    strange = Simulation(world, "CityMSP")
    made = transaction(strange, "strange")
    made.action.results = data
    plain = Simulation(world, "CityMSP")
    plain.put("notes", "z", b"1")
    outcomes = validator(world).outcomes(1, [made, transaction(plain, "plain")])
    assert [one.transaction for one in outcomes] == ["strange", "plain"]
    assert outcomes[1].code == VALID
    world.apply(1, [change for one in outcomes for change in one.changes])


@given(places)
@settings(max_examples=200, deadline=None)
def test_a_changed_key_policy_is_read_or_told_to_be_none(where: list[tuple[int, int]]) -> None:
    data = changed(to_envelope(parse("AND('A.peer', OutOf(1, 'B.member', 'C.client'))")), where)
    found = from_envelope(data)
    assert found is None or from_envelope(to_envelope(found)) == found


@given(st.text(alphabet="ANDORutof(),'A.peer12 ", max_size=40))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    try:
        rule = parse(text)
    except InvalidArgument as error:
        assert "endorsement policy" in error.message
    else:
        assert from_envelope(to_envelope(rule)) == rule


def test_an_envelope_of_nothing_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_transaction(common_pb2.Envelope())
