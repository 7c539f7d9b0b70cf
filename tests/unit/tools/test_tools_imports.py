"""The import allow-lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import imports


def findings(root: Path, path: str, text: str) -> list[str]:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")
    return imports.findings(Path(path), root)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("services/metering/domain.py", "from citykit.errors import CityError"),
        ("services/metering/domain/tariff.py", "import sqlalchemy"),
        ("services/metering/domain/deep/er.py", "import grpc"),
        ("services/metering/domain/tariff.py", "from services.metering import store"),
        ("services/metering/domain/tariff.py", "from services.notary.domain import WIDTH"),
        ("services/metering/contract.py", "from citykit.store.port import Unit"),
        ("services/metering/contract.py", "from services.notary.domain import WIDTH"),
        ("verifier/cbor.py", "from citykit import merkle"),
        ("verifier/__main__.py", "import cbor2"),
        ("tools/bootstrap.py", "import tools.project"),
        ("citykit/ledger/fabric/wire.py", "from citykit.errors import CityError"),
        ("citykit/ledger/fabric/examples/deep.py", "import nacl"),
    ],
)
def test_refused(tmp_path: Path, path: str, line: str) -> None:
    found = findings(tmp_path, path, f"def late() -> None:\n    {line}\n")
    assert len(found) == 1
    assert found[0].startswith(f"{path}:2: imports ")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("services/metering/domain/tariff.py", "from services.metering.domain.errors import TariffError"),
        ("services/metering/domain.py", "import hashlib"),
        ("services/metering/contract.py", "from citykit.ledger.contract import Ledger"),
        ("services/metering/contract.py", "from services.metering import domain"),
        ("services/metering/app.py", "import sqlalchemy"),
        ("services/metering/app/domain_of_others.py", "import sqlalchemy"),
        ("verifier/keys.py", "from cryptography.hazmat.primitives.asymmetric import ed25519"),
        ("verifier/keys.py", "from verifier import cbor"),
        ("citykit/ledger/fabric/wire.py", "from fabric_protos.peer import proposal_pb2"),
        ("citykit/ledger/channel/ledger.py", "from citykit.errors import CityError"),
    ],
)
def test_allowed(tmp_path: Path, path: str, line: str) -> None:
    assert findings(tmp_path, path, f"{line}\n") == []


def test_names_that_only_begin_like_an_allowed_one_are_refused() -> None:
    assert not imports.permitted("verifier_extras.cbor", ("verifier",))
