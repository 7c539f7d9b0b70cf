"""The port for facts on their way between services."""
