"""Rolls a city out: in dependency order, gated by facts, back in reverse order when something is wrong."""
