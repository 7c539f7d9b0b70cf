"""Writes a note with a key this process never has: `python -m citykit.ledger.fabric.examples.sign_elsewhere MEMBER.json ID TEXT`.

Each stage is carried as bytes to `elsewhere`, which stands for a device or a service that holds the key and sees what it signs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from citykit.ledger.fabric import Gateway, Prepared, Proposal, StatusQuestion
from citykit.ledger.fabric.examples.member import read_member

Elsewhere = Callable[[bytes], bytes]


async def put(gateway: Gateway, elsewhere: Elsewhere, note: str, text: str) -> str:
    """The name of the validation code."""
    proposal = gateway.propose("notes", "put", [note.encode(), text.encode()])
    carried = Proposal.from_bytes(proposal.to_bytes())
    prepared = await gateway.endorse(proposal.signed(elsewhere(carried.message)))
    carried_on = Prepared.from_bytes(prepared.to_bytes())
    await gateway.send(prepared.signed(elsewhere(carried_on.message)))
    question = gateway.ask(prepared.transaction_id)
    asked = StatusQuestion.from_bytes(question.to_bytes())
    commit = await gateway.commit_status(question.signed(elsewhere(asked.message)))
    return commit.code_name


async def main(member: str, note: str, text: str) -> None:
    who = read_member(Path(member))
    async with who.connect() as connection:
        gateway = Gateway(connection, who.channel, who.identity)  # no signer
        print(await put(gateway, who.signer.sign, note, text))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
