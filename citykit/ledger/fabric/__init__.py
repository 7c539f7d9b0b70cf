"""Hyperledger Fabric for asyncio: a gateway client and a chaincode shim. Free of any application; see README.md beside this file.

The client: `connect`, `Gateway`, `chaincode_events`, `blocks`. The shim is in `citykit.ledger.fabric.shim`.
"""

from citykit.ledger.fabric.checkpoint import FileCheckpointer, MemoryCheckpointer, Place
from citykit.ledger.fabric.commits import Commits
from citykit.ledger.fabric.connection import Connection, Deadlines, Retry, Tls, connect
from citykit.ledger.fabric.events import blocks, chaincode_events
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.identity import EcdsaSigner, Ed25519Signer, Identity, read_identity, read_signer
from citykit.ledger.fabric.transactions import Commit, Done, Prepared, Proposal, StatusQuestion

__all__ = [
    "Commit", "Commits", "Connection", "Deadlines", "Done", "EcdsaSigner", "Ed25519Signer", "FileCheckpointer", "Gateway", "Identity",
    "MemoryCheckpointer", "Place", "Prepared", "Proposal", "Retry", "StatusQuestion", "Tls", "blocks", "chaincode_events",
    "connect", "read_identity", "read_signer",
]  # fmt: skip
