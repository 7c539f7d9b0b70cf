"""The port for a service's own state."""
