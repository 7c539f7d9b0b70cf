"""Writes and reads notes: `python -m citykit.ledger.fabric.examples.notes_client MEMBER.json put ID TEXT | get ID | list PREFIX`.

What changes the ledger is submitted; what only reads is evaluated on one peer. A conflict is proposed anew; an outcome that is not known
is asked for by the transaction's id.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from citykit.ledger.fabric import Gateway
from citykit.ledger.fabric.errors import CommitInvalid, GatewayError, OutcomeUnknown
from citykit.ledger.fabric.examples.member import read_member

TRIES = 5
CONFLICTS = ("MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT")


async def submit(gateway: Gateway, function: str, *arguments: str) -> str:
    """What happened, in words."""
    for _ in range(TRIES):
        try:
            done = await gateway.submit("notes", function, [argument.encode() for argument in arguments])
        except CommitInvalid as invalid:
            if invalid.code_name not in CONFLICTS:
                raise
        except OutcomeUnknown as unknown:
            commit = await gateway.commit_status(unknown.transaction_id)
            return f"{commit.transaction_id} in block {commit.block}: {commit.code_name}"
        else:
            return f"{done.transaction_id} in block {done.block}"
    return "others write the same note; try again"


async def main(member: str, function: str, *arguments: str) -> int:
    who = read_member(Path(member))
    async with who.connect() as connection:
        gateway = who.gateway(connection)
        try:
            if function in ("put", "remove"):
                print(await submit(gateway, function, *arguments))
            else:
                found = await gateway.evaluate("notes", function, [argument.encode() for argument in arguments])
                print(found.decode())
        except GatewayError as error:
            print(error.chaincode.message if error.chaincode else error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
