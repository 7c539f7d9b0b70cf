"""Contracts of the city as Fabric chaincode: the convention of calls, and the runner that serves contract classes over the shim."""

from citykit.ledger.chaincode.runner import ContractRunner
from citykit.ledger.chaincode.serving import Place, Serving, read_places, serve
from citykit.ledger.chaincode.version import contract_version, package_label

__all__ = ["ContractRunner", "Place", "Serving", "contract_version", "package_label", "read_places", "serve"]
