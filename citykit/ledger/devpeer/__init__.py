"""The development peer: one operator's ledger behind Fabric's own protocols. It is not Fabric and says so."""

from citykit.ledger.devpeer.peer import DevelopmentPeer, development_peer, require_trial, serve
from citykit.ledger.devpeer.specification import Chaincode, Client, Collection, Specification, read_specification

__all__ = [
    "Chaincode",
    "Client",
    "Collection",
    "DevelopmentPeer",
    "Specification",
    "development_peer",
    "read_specification",
    "require_trial",
    "serve",
]
