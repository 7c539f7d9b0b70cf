"""What is read out of committed blocks: chaincode events and filtered blocks. Used by the event and delivery services. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import chaincode_event_pb2, events_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from citykit.ledger.devpeer.blocks import FILTER
from citykit.ledger.devpeer.messages import Malformed, read_transaction


def events_of(block: common_pb2.Block) -> list[chaincode_event_pb2.ChaincodeEvent]:
    """The chaincode events of a block's valid transactions, in order."""
    codes = block.metadata.metadata[FILTER]
    found = [_event(data) for data, code in zip(block.data.data, codes, strict=True) if code == transaction_pb2.VALID]
    return [event for event in found if event is not None]


def filtered(block: common_pb2.Block, channel: str) -> events_pb2.FilteredBlock:
    """A block without what its transactions wrote and without the payloads of their events."""
    result = events_pb2.FilteredBlock(channel_id=channel, number=block.header.number)
    for data, code in zip(block.data.data, block.metadata.metadata[FILTER], strict=True):
        header = _header(data)
        one = result.filtered_transactions.add(txid=header.tx_id, type=header.type, tx_validation_code=code)
        one.transaction_actions.SetInParent()
        event = _event(data)
        if event is not None:
            event.payload = b""
            one.transaction_actions.chaincode_actions.add(chaincode_event=event)
    return result


def with_private(
    block: common_pb2.Block, private: Mapping[int, bytes], may_see: Callable[[str, str], bool]
) -> events_pb2.BlockAndPrivateData:
    """A block with those private write sets whose (chaincode, collection) may be seen."""
    result = events_pb2.BlockAndPrivateData(block=block)
    for place, data in private.items():
        shown = rwset_pb2.TxPvtReadWriteSet()
        for one in rwset_pb2.TxPvtReadWriteSet.FromString(data).ns_pvt_rwset:
            seen = [held for held in one.collection_pvt_rwset if may_see(one.namespace, held.collection_name)]
            if seen:
                shown.ns_pvt_rwset.add(namespace=one.namespace, collection_pvt_rwset=seen)
        if shown.ns_pvt_rwset:
            result.private_data_map[place].CopyFrom(shown)
    return result


def _header(data: bytes) -> common_pb2.ChannelHeader:
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
    return common_pb2.ChannelHeader.FromString(payload.header.channel_header)


def _event(data: bytes) -> chaincode_event_pb2.ChaincodeEvent | None:
    if _header(data).type != common_pb2.ENDORSER_TRANSACTION:
        return None
    try:
        transaction = read_transaction(common_pb2.Envelope.FromString(data))
        event = chaincode_event_pb2.ChaincodeEvent.FromString(transaction.action.events)
    except (DecodeError, Malformed):
        return None
    return event if event.event_name else None
