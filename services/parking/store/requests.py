"""Request ids that held a bay, from the kit's table of answers. Called by `app.remembered`."""

from __future__ import annotations

from sqlalchemy import Connection, select

from citykit.store.tables import REQUEST_IDS


def hold_requests(connection: Connection, limit: int) -> list[str]:
    """At most `limit` ids."""
    query = select(REQUEST_IDS.c.request_id).where(REQUEST_IDS.c.rpc == "Hold").limit(limit)
    return [row.request_id for row in connection.execute(query)]
