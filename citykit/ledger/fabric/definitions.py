"""The definition of a chaincode that organisations approve and commit, as a value and as Fabric's messages. Pure; used by `lifecycle`.

The bytes are those the `peer` command makes of `--signature-policy` and `--collections-config`, so that organisations that use it approve the
same definition. Sources: peer/lifecycle/lifecycle.proto, common/policies.proto, peer/collection.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from fabric_protos.peer import collection_pb2, policy_pb2


@dataclass(frozen=True)
class Agreement:
    """So many of these organisations.

    Attributes:
        organisations: MSP ids, in the order all agreed on: another order is another definition.
    """

    needed: int
    organisations: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """Private data that the peers of some organisations hold.

    Attributes:
        organisations: MSP ids.
        keep_blocks: blocks after which it is forgotten; 0 for never.
    """

    name: str
    organisations: tuple[str, ...]
    keep_blocks: int = 0


@dataclass(frozen=True)
class Definition:
    """A version of a chaincode, and who has to endorse what it does."""

    name: str
    version: str
    endorsed_by: Agreement
    collections: tuple[Collection, ...] = ()

    def fill(self, message: Any, sequence: int) -> Any:
        """Writes it into the arguments of an approval, a question for readiness or a commit, and returns them."""
        message.sequence = sequence
        message.name, message.version = self.name, self.version
        message.validation_parameter = _endorsement(self.endorsed_by)
        if self.collections:
            message.collections.config.extend(_collection(one) for one in self.collections)
        return message


def _endorsement(agreement: Agreement) -> bytes:
    envelope = _envelope(agreement, msp_principal_pb2.MSPRole.PEER)
    return bytes(policy_pb2.ApplicationPolicy(signature_policy=envelope).SerializeToString())


def _envelope(agreement: Agreement, role: int) -> Any:
    rules = [policies_pb2.SignaturePolicy(signed_by=place) for place in range(len(agreement.organisations))]
    envelope = policies_pb2.SignaturePolicyEnvelope()
    envelope.rule.n_out_of.n = agreement.needed
    envelope.rule.n_out_of.rules.extend(rules)
    for msp_id in agreement.organisations:
        principal = msp_principal_pb2.MSPRole(msp_identifier=msp_id, role=role).SerializeToString()
        envelope.identities.add(principal_classification=msp_principal_pb2.MSPPrincipal.ROLE, principal=principal)
    return envelope


def _collection(one: Collection) -> Any:
    """Held by any member of one of the organisations, who alone read and write it; sent to all their peers where that can be done."""
    members = _envelope(Agreement(1, one.organisations), msp_principal_pb2.MSPRole.MEMBER)
    static = collection_pb2.StaticCollectionConfig(
        name=one.name,
        member_orgs_policy=collection_pb2.CollectionPolicyConfig(signature_policy=members),
        required_peer_count=0,
        maximum_peer_count=len(one.organisations) - 1,
        block_to_live=one.keep_blocks,
        member_only_read=True,
        member_only_write=True,
    )
    return collection_pb2.CollectionConfig(static_collection_config=static)
