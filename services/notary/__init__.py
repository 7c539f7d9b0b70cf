"""notary: Merkle logs of all facts, anchored on the ledger."""
