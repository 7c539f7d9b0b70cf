"""Documents are held to the program."""

from __future__ import annotations

import pytest

from tools import readme

DOCUMENT = """
Type `make run` and then `city data list`; see `Makefile`.

```sh
$ make run ARGS="--for 90s"   # starts
make test
CI=true make check
.venv/bin/city verify out/bundles/bill.json --trust out/trust.json
echo make nothing of it
```

```python
make = 1
```
"""


def test_the_commands_of_a_document() -> None:
    assert readme.commands(DOCUMENT) == [
        '$ make run ARGS="--for 90s"',
        "make test",
        "CI=true make check",
        ".venv/bin/city verify out/bundles/bill.json --trust out/trust.json",
        "make run",
        "city data list",
    ]


@pytest.mark.parametrize(
    "command",
    [
        "make run",
        'make run ARGS="--port 8080"',
        "make crash N=25",
        "city run --port 8080",
        "city data [NAME...]",
        "make test-real",
        "city ledger network up --profile raft1",
    ],
)
def test_commands_that_exist(command: str) -> None:
    assert readme.wrong(command) is None


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("make coffee", "no target 'coffee'"),
        ("city brew", "there is no command 'brew'"),
        ("city run --sugar 2", "run has no option --sugar"),
        ("city data brew", "data has no 'brew'"),
        ("make test-brew", "no target 'test-brew'"),
        ("city ledger network brew", "ledger network has no 'brew'"),
        ("city ledger network up --sugar 2", "ledger has no option --sugar"),
    ],
)
def test_commands_that_do_not(command: str, what: str) -> None:
    assert what in (readme.wrong(command) or "")
