"""The embedded ledger: one process, one operator, production code. Says what it is in every trust file it gives out."""

from citykit.ledger.local.check import Finding, check_ledger
from citykit.ledger.local.ledger import LocalLedger

__all__ = ["Finding", "LocalLedger", "check_ledger"]
