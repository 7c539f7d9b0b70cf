"""Migrations go forward, and each leaves the version that still runs able to work: they add, and take nothing away."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from citykit.store.inspection import revisions
from citykit.store.migrate import KIT_MIGRATIONS
from services.registry import tables

FOLDERS = {"kit": KIT_MIGRATIONS, **{one.name: one.migrations for one in tables()}}
TAKES_AWAY = {
    "drop_table",
    "drop_column",
    "rename_table",
    "alter_column",
    "drop_constraint",
    "drop_index",
    "batch_alter_table",
}
FILES = [path for folder in FOLDERS.values() for path in sorted(folder.glob("*.py"))]


@pytest.mark.parametrize("name", FOLDERS)
def test_revisions_are_one_line_in_the_order_of_their_files(name: str) -> None:
    folder = FOLDERS[name]
    assert revisions(folder) == [f"{name}_{path.name[:4]}" for path in sorted(folder.glob("[0-9]*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_migration_adds_and_cannot_go_back(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "upgrade" in functions and "downgrade" not in functions
    called = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not called & TAKES_AWAY


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_column_that_comes_later_may_be_left_out_by_the_version_still_running(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_column":
            said = ast.unparse(node)
            assert "nullable=False" not in said or "server_default" in said, said
