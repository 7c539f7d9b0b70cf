"""Use cases of metering: one method per RPC. Called by `api`; uses domain, store, events and contract."""
