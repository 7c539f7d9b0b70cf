"""Prometheus for the city: configuration, rules, dashboards. The server is Debian's package; `make up` and the tests start it."""

from infra.observability.prometheus import RULES, Target, install, program

__all__ = ["RULES", "Target", "install", "program"]
