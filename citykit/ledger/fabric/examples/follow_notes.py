"""Tells of notes as they are written: `python -m citykit.ledger.fabric.examples.follow_notes MEMBER.json PLACE.json [COUNT]`.

PLACE.json keeps where it stands: started again, it goes on there, without a gap and without telling a note twice.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from citykit.ledger.fabric import FileCheckpointer, chaincode_events
from citykit.ledger.fabric.examples.member import read_member


async def main(member: str, place: str, count: str = "0") -> None:
    who = read_member(Path(member))
    kept = FileCheckpointer(Path(place), f"{who.channel}/notes")
    told = 0
    async with who.connect() as connection:
        async for event in chaincode_events(who.gateway(connection), "notes", start=0, checkpoint=kept):
            print(f"{event.block} {event.name} {event.payload.decode()}", flush=True)
            kept.save(event)
            told += 1
            if told == int(count):
                return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
