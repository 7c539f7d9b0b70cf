"""The chaincode shim's public names: `from citykit.ledger.fabric.shim import ChaincodeServer, Stub, ...`. The README shows how."""

from citykit.ledger.fabric.shim_errors import BadKey, ChaincodeError, LimitExceeded, PeerError, ShimError
from citykit.ledger.fabric.shim_keys import composite_key, split_composite_key
from citykit.ledger.fabric.shim_listener import ServerTls
from citykit.ledger.fabric.shim_proposal import Creator
from citykit.ledger.fabric.shim_server import ChaincodeServer, Handler
from citykit.ledger.fabric.shim_stub import Results, Stub
from citykit.ledger.fabric.shim_sync import SyncResults, SyncStub, run_plain, wait
from citykit.ledger.fabric.shim_types import KeyValue, Limits, Modification, Page, Response

__all__ = [
    "BadKey",
    "ChaincodeError",
    "ChaincodeServer",
    "Creator",
    "Handler",
    "KeyValue",
    "LimitExceeded",
    "Limits",
    "Modification",
    "Page",
    "PeerError",
    "Response",
    "Results",
    "ServerTls",
    "ShimError",
    "Stub",
    "SyncResults",
    "SyncStub",
    "composite_key",
    "run_plain",
    "split_composite_key",
    "wait",
]
