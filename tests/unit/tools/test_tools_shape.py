"""The shape every service has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import shape
from tools.project import ROOT

WHOLE = ["README.md", "__init__.py", "domain/", "contract.py", "app/", "events.py", "store.py", "migrations/", "api.py"]


def make(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    return folder


def test_a_whole_service_passes(tmp_path: Path) -> None:
    assert shape.service("parking", make(tmp_path / "parking", [*WHOLE, "main.py", "bench.py", "__pycache__/"])) == []


@pytest.mark.parametrize("missing", [*WHOLE, "main.py"])
def test_every_part_is_missed(tmp_path: Path, missing: str) -> None:
    names = [name for name in [*WHOLE, "main.py"] if name != missing]
    part = missing.removesuffix("/") if missing == "__init__.py" else missing.removesuffix("/").removesuffix(".py")
    found = shape.service("parking", make(tmp_path / "parking", names))
    assert found == [f"services/parking: {part} is missing; every service has it"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    found = shape.service("parking", make(tmp_path / "parking", [*WHOLE, "main.py", "extra.py", "page/"]))
    assert [line.split(":")[0] for line in found] == ["services/parking/extra", "services/parking/page"]


def test_the_gateway_keeps_no_state_and_has_a_page(tmp_path: Path) -> None:
    names = ["README.md", "__init__.py", "api/", "app/", "main.py", "page/"]
    assert shape.service("gateway", make(tmp_path / "gateway", names)) == []
    (tmp_path / "gateway" / "store.py").touch()
    assert shape.service("gateway", tmp_path / "gateway") == [
        "services/gateway/store: no file of a service; move it into one"
    ]


def test_a_listed_service_without_a_folder(tmp_path: Path) -> None:
    assert "not there" in shape.service("voting", tmp_path / "voting")[0]


@pytest.mark.parametrize(("name", "count"), [("utils.py", 1), ("store_helpers.py", 1), ("database.py", 0)])
def test_empty_names(name: str, count: int) -> None:
    assert len(shape.names([ROOT / "citykit" / name])) == count


def test_long_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape, "ROOT", tmp_path)
    (tmp_path / "fits.py").write_text("x = 1\n" * 450, encoding="utf-8")
    (tmp_path / "long.py").write_text("x = 1\n" * 451, encoding="utf-8")
    assert shape.lengths([tmp_path / "fits.py", tmp_path / "long.py"]) == ["long.py: 451 lines, 450 at most"]


def test_the_report_names_long_functions(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    body = "    pass\n" * 69
    path.write_text(
        f"def short():\n    pass\n\n\nclass Thing:\n    async def long(self):\n{body.replace('    ', '        ')}"
    )
    text = shape.report(shape.functions([path]))
    assert text.startswith("2 functions: median 36 lines")
    assert "70 lines" in text
    assert "code.py:6 long" in text
