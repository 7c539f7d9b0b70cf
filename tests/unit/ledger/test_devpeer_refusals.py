"""Who and what the development peer turns away, and what happens when a chaincode is away, dies or is another."""

from __future__ import annotations

import asyncio
import datetime
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from fabric_protos.peer import peer_pb2_grpc, proposal_pb2

from citykit.errors import EnvironmentFault, FailedPrecondition, InvalidArgument
from citykit.ledger.devpeer import Chaincode, Client, Collection, Specification, development_peer, require_trial
from citykit.ledger.devpeer.certificates import Issued, Subject, issue, open_authority
from citykit.ledger.devpeer.check import check_peer
from citykit.ledger.fabric import Identity, Tls, blocks, connect, read_signer, system
from citykit.ledger.fabric.connection import Deadlines, Retry
from citykit.ledger.fabric.errors import CommitStatusError, EndorseError, EvaluateError, EventsError, SubmitError
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.shim import Stub
from citykit.ledger.fabric.transactions import Prepared, Proposal
from citykit.ledger.port import LedgerDamaged
from tests.unit.ledger.devpeer_network import CITY, Network, chaincode_server, network, specification

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Network]:
    async with network(tmp_path) as made:
        yield made


@pytest.fixture
def gateway(running: Network) -> Gateway:
    return running.gateway()


def member(running: Network, issued: Issued, channel: str = "city") -> Gateway:
    """A gateway that signs with another certificate."""
    signer = read_signer(issued.key)
    return Gateway(running.gateway().connection, channel, Identity(CITY, issued.certificate), signer)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


# --- members -----------------------------------------------------------------------------------------


async def test_another_channel_is_refused(running: Network) -> None:
    elsewhere = running.gateway(channel="town")
    with pytest.raises(EvaluateError, match="channel 'town' not found"):
        await elsewhere.evaluate("notes", "get", [b"a"])
    with pytest.raises(CommitStatusError, match="channel 'town' does not exist"):
        await elsewhere.commit_status("00")
    with pytest.raises(EventsError):
        await anext(blocks(elsewhere, start=0, stop=0))


async def test_an_expired_certificate_is_refused(running: Network) -> None:
    authority = running.peer.enrolment.authorities[CITY]
    old = issue(authority, Subject("old", CITY, "client"), now() - datetime.timedelta(days=2), 1)
    with pytest.raises(EndorseError, match="renew it"):
        await member(running, old).submit("notes", "put", [b"a", b"1"])


async def test_a_certificate_of_another_authority_is_refused(running: Network, tmp_path: Path) -> None:
    stranger = open_authority(tmp_path / "stranger", CITY, now(), 1)
    foreign = issue(stranger, Subject("metering", CITY, "client"), now(), 1)
    with pytest.raises(EndorseError, match="was not issued by the authority of CityMSP"):
        await member(running, foreign).submit("notes", "put", [b"a", b"1"])


async def test_an_authority_s_own_certificate_may_not_sign(running: Network) -> None:
    authority = running.peer.enrolment.authorities[CITY]
    own = Issued(authority.pem, (running.peer.state / "organisations" / CITY / "ca.key").read_bytes())
    with pytest.raises(EvaluateError, match="access denied"):
        await member(running, own).evaluate("notes", "get", [b"a"])


async def test_an_ed25519_member_is_taken(running: Network) -> None:
    assert (await running.gateway("edward").submit("notes", "put", [b"a", b"1"])).result == b"1"


async def test_without_a_tls_certificate_nobody_is_served(running: Network) -> None:
    roots = Path(running.peer.profile["gateway"]["tls_ca"]).read_bytes()
    once = Retry(tries=1)
    bare = connect(running.peer.address, tls=Tls(roots), retry=once, deadlines=Deadlines(evaluate_s=3.0))
    async with bare:
        known = running.gateway()
        with pytest.raises(EvaluateError) as refused:
            await Gateway(bare, "city", known.identity, known._signer).evaluate("notes", "get", [b"a"])
    assert refused.value.unavailable


# --- messages ----------------------------------------------------------------------------------------


async def test_a_signature_of_high_s_is_refused(gateway: Gateway) -> None:
    proposal = gateway.propose("notes", "get", [b"a"])
    r, s = decode_dss_signature(proposal.require_signature())
    with pytest.raises(EvaluateError, match="high S"):
        await gateway.evaluate_proposal(proposal.signed(encode_dss_signature(r, ORDER - s)))


async def test_a_changed_proposal_is_refused(gateway: Gateway) -> None:
    proposal = gateway.propose("notes", "get", [b"lamp"])
    changed = replace(proposal, message=proposal.message.replace(b"lamp", b"lamb"))
    with pytest.raises(EvaluateError, match="does not hold"):
        await gateway.evaluate_proposal(changed)


async def test_a_transaction_id_of_ones_own_making_is_refused(gateway: Gateway) -> None:
    proposal = gateway.propose("notes", "get", [b"lamp"])
    message = proposal.message.replace(proposal.transaction_id.encode(), b"0" * 64)
    made = Proposal("0" * 64, proposal.channel, message, ()).signed(gateway.sign(message))
    with pytest.raises(EvaluateError, match="incorrectly computed txid"):
        await gateway.evaluate_proposal(made)


async def test_a_proposal_that_was_committed_is_refused(gateway: Gateway) -> None:
    proposal = gateway.propose("notes", "put", [b"a", b"1"])
    await gateway.finish(await gateway.endorse(proposal))
    with pytest.raises(EndorseError, match="duplicate transaction found"):
        await gateway.endorse(proposal)


async def test_a_changed_transaction_is_refused_by_the_orderer(gateway: Gateway) -> None:
    prepared = await gateway.endorse(gateway.propose("notes", "put", [b"a", b"1"]))
    with pytest.raises(SubmitError, match="status=FORBIDDEN"):
        await gateway.send(replace(prepared, signature=gateway.sign(b"another message")))
    nonsense = Prepared(prepared.transaction_id, "city", b"nonsense").signed(gateway.sign(b"nonsense"))
    with pytest.raises(SubmitError, match="status=BAD_REQUEST"):
        await gateway.send(nonsense)


async def test_results_that_were_changed_after_endorsement_are_refused(gateway: Gateway) -> None:
    prepared = await gateway.endorse(gateway.propose("notes", "put", [b"a", b"one"]))
    forged = prepared.message.replace(b"\x12\x01a\x1a\x03one", b"\x12\x01a\x1a\x03two")
    forged = forged if forged != prepared.message else prepared.message.replace(b"one", b"two")
    with pytest.raises(SubmitError, match="status=BAD_REQUEST"):
        await gateway.send(Prepared(prepared.transaction_id, "city", forged).signed(gateway.sign(forged)))


async def test_an_empty_proposal_is_refused(running: Network, gateway: Gateway) -> None:
    signed = proposal_pb2.SignedProposal(proposal_bytes=b"\xff\xff")
    proposal = Proposal("", "city", signed.proposal_bytes, ()).signed(b"x")
    with pytest.raises(EvaluateError, match="does not decode"):
        await gateway.evaluate_proposal(proposal)


# --- the endorser's own service ----------------------------------------------------------------------


async def test_one_peer_can_be_asked_for_its_endorsement(running: Network, gateway: Gateway) -> None:
    endorser = peer_pb2_grpc.EndorserStub(gateway.connection.channel)

    async def ask(chaincode: str, function: str, *arguments: bytes) -> Any:
        proposal = gateway.propose(chaincode, function, arguments)
        signed = proposal_pb2.SignedProposal(proposal_bytes=proposal.message, signature=proposal.require_signature())
        return await endorser.ProcessProposal(signed)

    answer = await ask("notes", "put", b"a", b"1")
    assert (answer.response.status, answer.response.payload) == (200, b"1")
    signer = running.peer.members.signed(
        answer.endorsement.endorser, answer.payload + answer.endorsement.endorser, answer.endorsement.signature
    )
    assert (signer.msp_id, signer.role) == (CITY, "peer")
    refused = await ask("notes", "refuse", b"no")
    assert (refused.response.status, refused.response.message) == (400, "no")
    assert not refused.HasField("endorsement")
    absent = await ask("nobody", "get", b"a")
    assert (absent.response.status, absent.payload) == (500, b"")
    assert "it has notes, other" in absent.response.message
    with pytest.raises(grpc.aio.AioRpcError, match="does not decode"):
        await endorser.ProcessProposal(proposal_pb2.SignedProposal(proposal_bytes=b"\xff", signature=b"x"))


# --- chaincodes --------------------------------------------------------------------------------------


async def test_a_chaincode_that_is_not_there_is_named(gateway: Gateway) -> None:
    with pytest.raises(EvaluateError, match="it has notes, other"):
        await gateway.evaluate("nobody", "get", [b"a"])


async def test_a_chaincode_that_died_comes_back_and_goes_on(running: Network, gateway: Gateway) -> None:
    await gateway.submit("notes", "put", [b"a", b"1"])
    await running.servers["notes"].stop(0.0)
    assert await gateway.evaluate("other", "attribute", [b"x"]) == b""
    again = chaincode_server(running.peer.profile, "notes")
    waiting = asyncio.ensure_future(gateway.evaluate("notes", "get", [b"a"]))
    await again.start()
    try:
        assert await waiting == b"1"
    finally:
        await again.stop(0.0)


async def test_a_chaincode_that_dies_in_the_middle_fails_that_transaction(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def endless(stub: Stub) -> None:
        reached.set()
        await asyncio.Event().wait()

    wanted = specification(execute_s=20.0)
    async with development_peer(tmp_path, wanted) as peer:
        server = chaincode_server(peer.profile, "notes", handler=endless)
        await server.start()
        running = Network(peer, {}, {})
        gateway = running.gateway()
        waiting = asyncio.ensure_future(gateway.evaluate("notes", "get", [b"a"]))
        await reached.wait()
        await server.stop(0.0)
        with pytest.raises(EvaluateError, match="chaincode stream terminated"):
            await waiting
        await gateway.connection.close()


async def test_a_chaincode_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async def endless(stub: Stub) -> None:
        await asyncio.Event().wait()

    async with network(tmp_path, specification(execute_s=0.2)) as running:
        running.handlers["notes"] = endless
        with pytest.raises(EvaluateError, match="timeout expired while executing transaction"):
            await running.gateway().evaluate("notes", "get", [b"a"])


async def test_a_chaincode_of_another_name_is_not_taken(tmp_path: Path) -> None:
    wanted = specification(connect_s=0.5)
    wanted = replace(wanted, chaincodes=(replace(wanted.chaincodes[0], package_id="notes:2"),))
    async with development_peer(tmp_path, wanted) as peer:
        server = chaincode_server(peer.profile, "notes")
        server.package_id = "notes:1"
        await server.start()
        running = Network(peer, {}, {})
        gateway = running.gateway()
        with pytest.raises(EvaluateError, match="it registers as 'notes:1', not as 'notes:2'"):
            await gateway.evaluate("notes", "get", [b"a"])
        await server.stop(0.0)
        await gateway.connection.close()


# --- starting ----------------------------------------------------------------------------------------


async def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted = specification()
    async with network(tmp_path, wanted) as first:
        done = await first.gateway().submit("notes", "put", [b"a", b"1"])
        await first.gateway().submit("notes", "putPrivate", [b"both", b"k"], transient={"value": b"p"})
        port = first.peer.port
    async with network(tmp_path, wanted) as second:
        gateway = second.gateway()
        assert second.peer.port == port
        assert await gateway.evaluate("notes", "get", [b"a"]) == b"1"
        assert await gateway.evaluate("notes", "getPrivate", [b"both", b"k"]) == b"p"
        assert await system.transaction_code(gateway, done.transaction_id) == 0
        assert await system.height(gateway) == 3


async def test_a_year_later_certificates_are_renewed_and_old_blocks_still_verify(tmp_path: Path) -> None:
    def later() -> datetime.datetime:
        return now() + datetime.timedelta(days=366)

    wanted = specification()
    async with network(tmp_path, wanted) as first:
        await first.gateway().submit("notes", "put", [b"a", b"1"])
    with pytest.raises(FailedPrecondition, match="delete it to have it issued again"):
        async with development_peer(tmp_path, wanted, clock=later):
            pass
    for path in (path for path in tmp_path.rglob("*.pem") if path.name != "ca.pem"):
        path.unlink()
    async with development_peer(tmp_path, wanted, clock=later) as renewed:
        assert renewed.chain.height == 2


async def test_a_changed_block_is_found_at_the_next_start(tmp_path: Path) -> None:
    wanted = specification()
    async with network(tmp_path, wanted) as first:
        await first.gateway().submit("notes", "put", [b"lamp", b"on"])
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as database:
        data = database.execute("SELECT bytes FROM blocks WHERE number = 1").fetchone()[0]
        database.execute("UPDATE blocks SET bytes = ? WHERE number = 1", (data.replace(b"lamp", b"lamb"),))
    with pytest.raises(LedgerDamaged, match="block 1"):
        async with development_peer(tmp_path, wanted):
            pass


async def test_one_folder_is_held_by_one_peer(tmp_path: Path) -> None:
    async with development_peer(tmp_path, Specification()):
        with pytest.raises(EnvironmentFault, match="already runs on"):
            async with development_peer(tmp_path, Specification()):
                pass
        with pytest.raises(EnvironmentFault, match="already runs on"):
            check_peer(tmp_path)
    assert check_peer(tmp_path) == []


async def test_a_taken_port_is_told(tmp_path: Path) -> None:
    async with development_peer(tmp_path / "one", Specification()) as peer:
        second = Specification(port=peer.port)
        with pytest.raises(EnvironmentFault, match="cannot be listened on"):
            async with development_peer(tmp_path / "two", second):
                pass


def test_it_is_refused_outside_a_trial() -> None:
    require_trial("demo", trial=False)
    require_trial("cluster", trial=True)
    with pytest.raises(FailedPrecondition, match="not Fabric, one operator"):
        require_trial("cluster", trial=False)


def test_a_specification_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="different MSP ids"):
        Specification(organisations=("A", "A"))
    with pytest.raises(InvalidArgument, match="none of them qscc"):
        Specification(chaincodes=(Chaincode("qscc", "h:1"),))
    with pytest.raises(InvalidArgument, match="OtherMSP is not among"):
        Specification(chaincodes=(Chaincode("a", "h:1", collections=(Collection("c", ("OtherMSP",)),)),))
    with pytest.raises(InvalidArgument, match="client a: of one of the organisations"):
        Specification(clients=(Client("a", "OtherMSP"),))
    with pytest.raises(InvalidArgument, match="key p256 or ed25519"):
        Specification(clients=(Client("a", "CityMSP", key="rsa"),))
    with pytest.raises(InvalidArgument, match="no endorsement policy"):
        Specification(chaincodes=(Chaincode("a", "h:1", policy="AND(CityMSP.peer)"),))
