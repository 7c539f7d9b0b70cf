"""Tables and queries of parking."""
