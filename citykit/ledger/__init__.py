"""The port for decisions."""
