"""The port over a scripted gateway: what the suite on a real channel cannot bring about, and how Fabric's errors are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.msp import msp_config_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2
from fabric_protos.peer import proposal_response_pb2

from citykit.errors import (
    CityError,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RequestReused,
    SettingsError,
)
from citykit.ledger.channel import ChannelLedger, faults, open_channel_ledger, shown
from citykit.ledger.channel.members import read_members, read_tls, reader_name, watched_tls
from citykit.ledger.fabric import EcdsaSigner, Retry, connect
from citykit.ledger.fabric.blocks import parse_block
from citykit.ledger.fabric.configuration import read_configuration
from citykit.ledger.fabric.errors import BlockDamaged, EndorseError, FormError, PeerFault
from citykit.ledger.port import (
    CommitFailed,
    ContractRefused,
    LedgerDamaged,
    LedgerOutcomeUnknown,
    LedgerUnavailable,
    TransactionStatus,
)
from citykit.settings import FabricSettings
from tests.unit.ledger.fake_gateway import (
    CONFLICT,
    KEY,
    MEMBER,
    FakeGateway,
    answers,
    certificate,
    fails,
    made_block,
    served,
)

SETTINGS = FabricSettings(msp="TestMSP", attest=0)
AWAY = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def fake() -> FakeGateway:
    fake = FakeGateway()
    fake.result = b'{"result":7}'
    return fake


@pytest.fixture
async def ledger(fake: FakeGateway) -> AsyncIterator[ChannelLedger]:
    server, address = await served(fake)
    connection = connect(address, retry=Retry(tries=3, first_s=0.001, longest_s=0.002))
    members = {"tester": (MEMBER, EcdsaSigner(KEY))}
    made = ChannelLedger(connection, SETTINGS, lambda: members, lambda: 1_478_563_200.0, 2)
    yield made
    await made.close()
    await server.stop(None)


async def add(ledger: ChannelLedger) -> Any:
    return await ledger.submit("assets", "add", {"by": 1}, submitter="tester", request_id="r")


def held(fake: FakeGateway, number: int = 9) -> None:
    """Lets block `number` hold whatever was submitted last, behind another transaction."""

    async def act(envelope: Any, _: Any) -> Any:
        block = made_block(number, [0])
        sent = fake.asked["Submit"][-1].prepared_transaction
        block.data.data.append(sent.SerializeToString())
        block.metadata.metadata[2] = b"\x00\x00"
        return {"block": block}

    async def delivered(envelope: Any, context: Any) -> Any:
        from fabric_protos.peer import events_pb2  # noqa: PLC0415

        return events_pb2.DeliverResponse(block=(await act(envelope, context))["block"])

    fake.script["DeliverFiltered"] = [delivered] * 9


# --- submit -----------------------------------------------------------------------------------------------


async def test_a_receipt_tells_where_the_transaction_stands(fake: FakeGateway, ledger: ChannelLedger) -> None:
    held(fake)
    receipt = await add(ledger)
    assert (receipt.block, receipt.index, receipt.result) == (9, 1, 7)
    assert receipt.transaction == fake.asked["Submit"][0].transaction_id


async def test_conflicts_are_proposed_anew_with_new_ids_and_end(fake: FakeGateway, ledger: ChannelLedger) -> None:
    conflict = answers(gateway_pb2.CommitStatusResponse(result=CONFLICT, block_number=9))
    fake.script["CommitStatus"] = [conflict, conflict]
    held(fake)
    assert (await add(ledger)).result == 7
    assert len({request.transaction_id for request in fake.asked["Submit"]}) == 3
    fake.script["CommitStatus"] = [conflict] * 3
    with pytest.raises(Conflict, match="met a conflict 3 times"):
        await add(ledger)


async def test_peers_that_answer_differently_are_tried_again_and_then_told(
    fake: FakeGateway, ledger: ChannelLedger
) -> None:
    differ = fails(grpc.StatusCode.ABORTED, "see details", (("p:1", "AMSP", "ProposalResponsePayloads do not match"),))
    fake.script["Endorse"] = [differ]
    held(fake)
    assert (await add(ledger)).result == 7
    fake.script["Endorse"] = [differ] * 3
    with pytest.raises(FailedPrecondition, match="versions of the contract") as told:
        await add(ledger)
    assert told.value.reason == "peers-differ"


async def test_an_invalid_commit_that_is_no_conflict_is_told(fake: FakeGateway, ledger: ChannelLedger) -> None:
    fake.script["CommitStatus"] = [answers(gateway_pb2.CommitStatusResponse(result=10, block_number=9))]  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(CommitFailed, match="ENDORSEMENT_POLICY_FAILURE") as invalid:
        await add(ledger)
    assert invalid.value.reason == "endorsement-policy-failure"


async def test_an_unseen_commit_is_an_unknown_outcome_with_its_id(fake: FakeGateway, ledger: ChannelLedger) -> None:
    fake.script["CommitStatus"] = [fails(AWAY)] * 3
    with pytest.raises(LedgerOutcomeUnknown) as unknown:
        await add(ledger)
    assert unknown.value.transaction == fake.asked["Submit"][0].transaction_id


async def test_a_block_that_cannot_be_read_after_the_commit_is_no_failure(
    fake: FakeGateway, ledger: ChannelLedger
) -> None:
    """It was committed: to say that nothing was submitted would have it done twice by others than the same request id."""
    fake.script["DeliverFiltered"] = [fails(AWAY)] * 3
    with pytest.raises(LedgerOutcomeUnknown):
        await add(ledger)
    held(fake)
    assert (await add(ledger)).index == 1


async def test_one_look_at_a_block_serves_all_its_transactions(fake: FakeGateway, ledger: ChannelLedger) -> None:
    ids: list[str] = []

    async def delivered(envelope: Any, _: Any) -> Any:
        from fabric_protos.peer import events_pb2  # noqa: PLC0415

        block = made_block(9, [])
        sent = [request.prepared_transaction.SerializeToString() for request in fake.asked["Submit"]]
        block.data.data.extend(sent)
        block.metadata.metadata[2] = bytes(len(sent))
        ids.extend(request.transaction_id for request in fake.asked["Submit"])
        return events_pb2.DeliverResponse(block=block)

    async def once_all_are_sent(request: Any, _: Any) -> Any:
        while len(fake.asked["Submit"]) < 6:
            await asyncio.sleep(0.001)
        return gateway_pb2.CommitStatusResponse(result=0, block_number=9)  # type: ignore[arg-type, unused-ignore]

    fake.script["CommitStatus"] = [once_all_are_sent] * 6
    fake.script["DeliverFiltered"] = [delivered] * 6
    calls = [ledger.submit("assets", "add", {"by": n}, submitter="tester", request_id=f"r{n}") for n in range(6)]
    receipts = await asyncio.gather(*calls)
    assert {receipt.index for receipt in receipts} == set(range(6))
    assert all(ids[receipt.index] == receipt.transaction for receipt in receipts)
    assert len(fake.asked["DeliverFiltered"]) == 1


async def test_a_repeated_request_gets_the_first_receipt_and_orders_nothing(
    fake: FakeGateway, ledger: ChannelLedger
) -> None:
    block = made_block(4, [0])
    first = parse_block(block).transactions[0].transaction_id
    fake.result = json.dumps({"repeated": first}, separators=(",", ":")).encode()
    response = proposal_response_pb2.Response(status=200, payload=block.SerializeToString())
    fake.script["Evaluate"] = [answers(gateway_pb2.EvaluateResponse(result=response))]
    with pytest.raises(FailedPrecondition, match="not by the convention"):
        await add(ledger)  # that block's answer is none of a contract
    assert fake.asked["Submit"] == []


async def test_what_is_wrong_is_refused_before_the_network(fake: FakeGateway, ledger: ChannelLedger) -> None:
    with pytest.raises(PermissionDenied, match="no certificate of parking"):
        await ledger.submit("assets", "add", {}, submitter="parking", request_id="r")
    with pytest.raises(InvalidArgument, match="request_id"):
        await ledger.submit("assets", "add", {}, submitter="tester", request_id="")
    with pytest.raises(InvalidArgument, match="canonical"):
        await ledger.evaluate("assets", "add", {"by": 0.5})
    assert fake.asked == {}


# --- looking ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status"), [(0, "VALID"), (11, "MVCC_READ_CONFLICT"), (12, "MVCC_READ_CONFLICT"), (10, "INVALID")]
)
async def test_statuses(fake: FakeGateway, ledger: ChannelLedger, code: int, status: str) -> None:
    from fabric_protos.peer import transaction_pb2  # noqa: PLC0415

    processed = transaction_pb2.ProcessedTransaction(validationCode=code).SerializeToString()
    response = proposal_response_pb2.Response(status=200, payload=processed)
    fake.script["Evaluate"] = [answers(gateway_pb2.EvaluateResponse(result=response))]
    assert await ledger.status("t") is TransactionStatus(status)


async def test_a_ledger_that_is_away_says_so(fake: FakeGateway, ledger: ChannelLedger) -> None:
    fake.script["Evaluate"] = [fails(AWAY)] * 30
    for call in (ledger.status("t"), ledger.height(), ledger.block(1), ledger.evidence("t"), ledger.refresh()):
        with pytest.raises(LedgerUnavailable) as away:
            await call
        assert away.value.retry_after_s == 1.0
    with pytest.raises(LedgerUnavailable, match="was not read yet"):
        ledger.trust()
    fake.script["Deliver"] = [fails(AWAY)] * 3
    with pytest.raises(LedgerUnavailable):
        await anext(ledger.events())


# --- errors ---------------------------------------------------------------------------------------------------


def endorsing(message: str, code: grpc.StatusCode = grpc.StatusCode.ABORTED) -> EndorseError:
    return EndorseError("see details", code, (PeerFault("p:1", "AMSP", message),))


def refused(status: int, code: str) -> str:
    return f'chaincode response {status}, {{"code":"{code}","message":"why"}}'


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        (refused(400, "out-of-range"), ContractRefused, "out-of-range"),
        (refused(409, "request-reused"), RequestReused, "request-id-reused"),
        (refused(404, "unknown-function"), NotFound, "unknown-function"),
        (refused(422, "invalid-argument"), InvalidArgument, "invalid-argument"),
        ("chaincode response 500, it broke", FailedPrecondition, "contract-failed"),
        ("error validating proposal: access denied: creator org unknown", PermissionDenied, "ledger-access"),
        ("No metadata was found for chaincode assets in channel city", NotFound, "unknown-function"),
        ("could not launch chaincode: connection refused", LedgerUnavailable, "ledger-unavailable"),
    ],
)
def test_each_fault_is_told_in_the_ports_words(message: str, kind: type[CityError], reason: str) -> None:
    error = faults.translated(endorsing(message), "assets.add")
    assert (type(error), error.reason) == (kind, reason)


def test_refusals_by_status() -> None:
    for code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        assert isinstance(faults.translated(endorsing("no", code), "a.b"), PermissionDenied)
    assert isinstance(faults.translated(FormError("bytes"), "a.b"), LedgerUnavailable)
    assert isinstance(faults.translated(BlockDamaged("block 2"), "reading blocks"), LedgerDamaged)
    late = endorsing(
        "chaincode response 500, Failed to get transaction with id t, error no such transaction ID [t] in index"
    )
    assert "ask again" in faults.not_attested(late).message
    assert isinstance(faults.not_attested(endorsing("away", AWAY)), LedgerUnavailable)
    assert "CITY_FABRIC_CHANNEL" in str(faults.stopping(endorsing("could not get last config for channel x", AWAY)))
    assert faults.stopping(endorsing("away", AWAY)) is None
    assert faults.stopping(FormError("bytes")) is None


# --- settings -------------------------------------------------------------------------------------------------


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / f"{name}.pem").write_bytes(certificate(name=name))
        how = serialization.NoEncryption()
        key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        (path / f"{name}.key").write_bytes(key)
    return path


def test_members_are_read_from_a_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "members", "metering", "notary")
    (folder / "ca.pem").write_bytes(certificate())  # no key beside it: nobody's
    settings = FabricSettings(members=str(folder))
    members = read_members(settings)
    assert list(members) == ["metering", "notary"]
    assert reader_name(settings, members) == "metering"
    assert reader_name(FabricSettings(reader="notary"), members) == "notary"
    with pytest.raises(SettingsError, match="CITY_FABRIC_READER is 'x'; the members are metering, notary"):
        reader_name(FabricSettings(reader="x"), members)


@pytest.mark.parametrize("members", ["", "/nowhere"])
def test_a_folder_is_needed(members: str) -> None:
    with pytest.raises(SettingsError, match="CITY_FABRIC_MEMBERS must name a folder"):
        read_members(FabricSettings(members=members))


def test_members_that_cannot_be_used_are_told_without_their_content(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not 0"):
        read_members(FabricSettings(members=str(tmp_path)))
    folder = folder_of(tmp_path / "members", "metering")
    other = ec.derive_private_key(9, ec.SECP256R1())
    how = serialization.NoEncryption()
    secret = other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    (folder / "metering.key").write_bytes(secret)
    with pytest.raises(SettingsError, match=r"metering\.key, .*not that of the certificate") as refused_:
        read_members(FabricSettings(members=str(folder)))
    assert "PRIVATE" not in str(refused_.value)


def test_certificates_that_have_run_out_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "members", "metering", "notary")
    (folder / "notary.pem").write_bytes(certificate(days=1))
    with pytest.raises(
        SettingsError, match=r"notary\.pem is valid from 2016-01-01 00:00 to 2016-01-02 00:00 UTC, not now"
    ):
        read_members(FabricSettings(members=str(folder)))
    tls = FabricSettings(
        tls_ca=str(folder / "notary.pem"), tls_cert=str(folder / "notary.pem"), tls_key=str(folder / "notary.key")
    )
    with pytest.raises(SettingsError, match="CITY_FABRIC_TLS_CERT: the certificate"):
        watched_tls(tls)


def test_tls_files_are_named_where_they_are_missing(tmp_path: Path) -> None:
    assert read_tls(FabricSettings()) is None
    with pytest.raises(SettingsError, match=r"CITY_FABRIC_TLS_CA: .* cannot be read"):
        read_tls(FabricSettings(tls_ca=str(tmp_path / "no.pem")))
    with pytest.raises(SettingsError, match="go together"):
        read_tls(FabricSettings(tls_ca="a", tls_cert="b"))
    (tmp_path / "ca.pem").write_bytes(b"roots")
    found = read_tls(FabricSettings(tls_ca=str(tmp_path / "ca.pem"), tls_name="peer"))
    assert found is not None and (found.roots, found.name, found.certificate) == (b"roots", "peer", None)


async def test_a_peer_that_is_away_does_not_stop_the_start(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "members", "tester")
    ledger = await open_channel_ledger(FabricSettings(peer="127.0.0.1:1", members=str(folder), evaluate_s=0.2))
    with pytest.raises(LedgerUnavailable):
        await ledger.height()
    await ledger.close()


async def test_a_peer_that_refuses_stops_the_start(fake: FakeGateway, tmp_path: Path) -> None:
    server, address = await served(fake)
    folder = folder_of(tmp_path / "members", "tester")
    fake.script["Evaluate"] = [fails(grpc.StatusCode.FAILED_PRECONDITION, "access denied")]
    with pytest.raises(SettingsError, match="check CITY_FABRIC_CHANNEL, CITY_FABRIC_MSP and the certificates"):
        await open_channel_ledger(FabricSettings(peer=address, members=str(folder)))
    await server.stop(None)


# --- configuration and trust --------------------------------------------------------------------------------------


def organisation(msp_id: str, *, units: bool = True) -> bytes:
    msp = msp_config_pb2.FabricMSPConfig(name=msp_id, root_certs=[certificate(name=msp_id)])
    msp.fabric_node_ous.enable = units
    msp.fabric_node_ous.peer_ou_identifier.organizational_unit_identifier = "peer"
    msp.fabric_node_ous.orderer_ou_identifier.organizational_unit_identifier = "orderer"
    return bytes(msp_config_pb2.MSPConfig(config=msp.SerializeToString()).SerializeToString())


def configured(consensus: str, consenters: int = 0, kind: int = common_pb2.CONFIG) -> Any:
    """A configuration block."""
    envelope = configtx_pb2.ConfigEnvelope()
    group = envelope.config.channel_group
    for name in ("UtilityMSP", "CityMSP"):
        group.groups["Application"].groups[name].values["MSP"].value = organisation(name)
    orderer = group.groups["Orderer"]
    orderer.groups["O"].values["MSP"].value = organisation("OrdererMSP", units=False)
    orderer.values["ConsensusType"].value = orderer_pb2.ConsensusType(type=consensus).SerializeToString()
    if consenters:
        mapping = [
            configuration_pb2.Consenter(id=n + 1, msp_id="OrdererMSP", identity=certificate(name=f"o{n}"))
            for n in range(consenters)
        ]
        orderer.values["Orderers"].value = configuration_pb2.Orderers(consenter_mapping=mapping).SerializeToString()
    header = common_pb2.Header(channel_header=common_pb2.ChannelHeader(type=kind).SerializeToString())
    payload = common_pb2.Payload(header=header, data=envelope.SerializeToString())
    block = common_pb2.Block()
    block.data.data.append(common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString())
    return block


def test_a_configuration_says_who_is_who() -> None:
    found = read_configuration(configured("BFT", 4))
    assert [item.msp_id for item in found.members] == ["CityMSP", "UtilityMSP"]
    assert (found.members[0].peer_unit, found.orderers[0].orderer_unit) == ("peer", "")
    assert [item.number for item in found.consenters] == [1, 2, 3, 4]
    for block in (configured("BFT", kind=common_pb2.ENDORSER_TRANSACTION), common_pb2.Block(), made_block(3, [0])):
        with pytest.raises(FormError, match="no configuration of a channel"):
            read_configuration(block)


@pytest.mark.parametrize(
    ("consensus", "consenters", "kind", "orderers"),
    [
        ("etcdraft", 0, "fabric", 1),
        ("BFT", 4, "fabric", 3),
        ("BFT", 7, "fabric", 5),
        ("solo", 0, "development-peer", 1),
    ],
)
def test_trust_is_what_the_configuration_says(consensus: str, consenters: int, kind: str, orderers: int) -> None:
    settings = FabricSettings(endorsements=2)
    trust = shown.trust_of(read_configuration(configured(consensus, consenters)), settings)
    assert (trust["kind"], trust["policy"]) == (kind, {"endorsements": 2, "attestations": 2, "orderers": orderers})
    assert ("not Fabric" in trust["note"]) == (kind == "development-peer")
    assert [item["msp"] for item in trust["organisations"]] == ["CityMSP", "UtilityMSP"]
    assert json.loads(json.dumps(trust)) == trust


def test_a_block_of_other_chaincodes_shows_none_of_a_contract() -> None:
    block = made_block(4, [0, 11])
    common = common_pb2.Metadata(value=b"v")
    block.metadata.metadata[0] = common.SerializeToString()
    found = shown.shown_block(parse_block(block), "city", "CityMSP")
    assert (found["envelopes"], found["others"], found["header"]["count"]) == ([], 2, 2)
    assert found["header"]["time"] == "2023-11-14T22:13:20Z"
    assert list(shown.events_of(parse_block(block))) == []
    with pytest.raises(FormError, match="no signatures"):
        del block.metadata.metadata[:]
        shown.shown_signatures(parse_block(block))
