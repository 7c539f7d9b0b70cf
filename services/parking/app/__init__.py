"""Use cases of parking."""
