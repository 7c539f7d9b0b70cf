"""Tables and queries of payments. Called by `app` only."""
