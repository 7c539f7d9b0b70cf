"""Use cases of payments: called by `api` and the jobs; uses domain, store, events and contract."""
