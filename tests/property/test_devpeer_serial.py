"""Whatever runs at once on the development peer, what commits as valid is as if the valid ones had run one after another."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.peer import proposal_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from citykit.ledger.devpeer.members import Members
from citykit.ledger.devpeer.messages import Headers, Transaction
from citykit.ledger.devpeer.policy import OutOf
from citykit.ledger.devpeer.simulation import Simulation
from citykit.ledger.devpeer.specification import Chaincode
from citykit.ledger.devpeer.state import Place, WorldState
from citykit.ledger.devpeer.validation import Validator

NOTES = Place("public", "notes")
KEYS = ("a", "b", "c", "d")
VALID = 0


@dataclass(frozen=True)
class Step:
    """What a program does: read a key, count a range, write what was seen so far, delete."""

    kind: str
    key: str
    end: str


steps = st.builds(
    Step,
    st.sampled_from(["get", "range", "part", "put", "delete"]),
    st.sampled_from(KEYS),
    st.sampled_from([*KEYS, ""]),
)
programs = st.lists(steps, min_size=1, max_size=5)
blocks = st.lists(st.lists(st.tuples(programs, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=6)


def run(program: list[Step], simulation: Simulation, name: str) -> None:
    """A program's writes depend on everything it saw."""
    seen = [name]
    for step in program:
        match step.kind:
            case "get":
                seen.append(simulation.get("notes", step.key).decode())
            case "range":
                found = simulation.range("notes", step.key, step.end)
                seen.append(str([(key, entry.value) for key, entry in found]))
            case "part":
                first = next(simulation.range("notes", step.key, step.end), None)
                seen.append(str(first and (first[0], first[1].value)))
            case "put":
                simulation.put("notes", step.key, "|".join(seen).encode()[-60:])
            case "delete":
                simulation.put("notes", step.key, b"")


def transaction(simulation: Simulation, name: str) -> Transaction:
    headers = Headers(3, "city", name, (0, 0), "notes", b"", b"", b"", b"", b"")
    action = proposal_pb2.ChaincodeAction(results=simulation.outcome().public)
    return Transaction(headers, b"", b"", b"", b"", (), action)


def content(world: WorldState) -> dict[str, bytes | None]:
    return {key: entry.value for key, entry in world.range(NOTES, "", "", world.height)}


def validator(world: WorldState) -> Validator:
    members = Members({}, lambda: datetime.datetime.now(datetime.UTC))
    anybody = OutOf(0, ())
    private: dict[str, rwset_pb2.TxPvtReadWriteSet] = {}
    return Validator(
        world, members, {"notes": Chaincode("notes", "h:1")}, {"notes": anybody}, lambda _: False, private.get
    )


@given(blocks)
@settings(max_examples=150, deadline=None)
def test_what_commits_is_as_if_it_had_run_one_by_one(history: list[list[tuple[list[Step], bool]]]) -> None:
    world, serial = WorldState(), WorldState()
    late: list[tuple[list[Step], Simulation, str]] = []
    for number, block in enumerate(history):
        begun = [
            (program, Simulation(world, "CityMSP"), f"{number}.{n}", waits) for n, (program, waits) in enumerate(block)
        ]
        ready = late + [(program, simulation, name) for program, simulation, name, waits in begun if not waits]
        late = [(program, simulation, name) for program, simulation, name, waits in begun if waits]
        transactions = []
        for program, simulation, name in ready:
            run(program, simulation, name)  # some only now, on the height they began at
            transactions.append(transaction(simulation, name))
            simulation.close()
        outcomes = validator(world).outcomes(number, transactions)
        world.apply(number, [change for outcome in outcomes for change in outcome.changes])
        again = [item for item, outcome in zip(ready, outcomes, strict=True) if outcome.code == VALID]
        for program, _, name in again:
            alone = Simulation(serial, "CityMSP")
            run(program, alone, name)
            done = validator(serial).outcomes(serial.height, [transaction(alone, name)])
            alone.close()
            assert done[0].code == VALID
            serial.apply(serial.height, list(done[0].changes))
        assert content(world) == content(serial)
    for _, simulation, _ in late:
        simulation.close()
