"""Contracts that could answer differently on two peers are refused, with file, line and what to do instead."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from citykit.errors import InvalidArgument
from citykit.ledger.contract import functions_of
from citykit.ledger.lint import faults_in, require_deterministic
from citykit.testing.counter import Counter
from services.registry import contracts


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import time", "reads a clock: take tx.time instead"),
        ("from datetime import datetime", "reads a clock"),
        ("import random", "reads randomness: derive it from tx.id"),
        ("import secrets", "reads randomness"),
        ("from os import environ", "reads the environment"),
        ("import socket", "reads the network"),
        ("x = 1.5", "uses a float (1.5)"),
        ("x = 3 / 2", "divides with /"),
        ("x /= 2", "divides with /"),
        ("x = float('1')", "reads a float"),
        ("x = hash('a')", "reads the process's hash seed"),
        ("x = id(x)", "reads a memory address"),
        ("open('f')", "reads files"),
        ("x = {1, 2}", "reads the order of a set: sort it"),
        ("x = {n for n in y}", "reads the order of a set"),
        ("x = set(y)", "reads the order of a set"),
        ("x = d.today()", "reads a clock"),
        ("def f():\n    global x", "changes global state"),
    ],
)
def test_what_is_not_deterministic_is_named(line: str, what: str) -> None:
    faults = faults_in(line, "contract.py")
    assert faults
    assert any(what in str(fault) for fault in faults)
    assert str(faults[0]).startswith("contract.py:")


@pytest.mark.parametrize(
    "line",
    ["from datetime import date, timedelta", "x = 3 // 2", "x = sorted([3, 1])", "x = {'a': 1}", "x = frozenset('ab')"],
)
def test_what_is_deterministic_passes(line: str) -> None:
    assert faults_in(line, "contract.py") == []


def test_the_city_s_own_contracts_pass() -> None:
    for contract in [*contracts(), Counter()]:
        require_deterministic(contract)
        assert functions_of(contract)


def test_a_contract_s_own_domain_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "shady"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "domain.py").write_text(
        "import time\n\n\ndef now() -> int:\n    return int(time.time())\n", encoding="utf-8"
    )
    (package / "contract.py").write_text(
        "from shady.domain import now\nfrom citykit.ledger.contract import submits\n\n\nclass Shady:\n    name = 'shady'\n\n"
        "    @submits\n    def act(self, tx, *, key: str) -> int:\n        return now()\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        shady = import_module("shady.contract").Shady()
        with pytest.raises(InvalidArgument, match=r"shady/domain.py:1 reads a clock"):
            require_deterministic(shady)
    finally:
        for name in [name for name in sys.modules if name.startswith("shady")]:
            del sys.modules[name]


def test_contracts_without_name_functions_or_typed_keywords_are_refused() -> None:
    class Nameless:
        pass

    class Positional:
        name = "positional"

        def act(self, tx: object, key: str) -> None: ...

    with pytest.raises(TypeError, match="name"):
        functions_of(Nameless())
    Positional.act._city_contract_function = (True, ())  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="keyword-only"):
        functions_of(Positional())
