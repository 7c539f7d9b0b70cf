"""Tables and queries of metering. Called by `app` only."""
