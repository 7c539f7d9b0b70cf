"""The store on PostgreSQL: a schema and a role a service, one writer at a time, opened by `open_postgres`."""

from citykit.store.postgres.opening import open_postgres

__all__ = ["open_postgres"]
