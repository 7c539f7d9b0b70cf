"""Logins of the demo: made once, kept, and completed where a newer version knows more people."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from services.demo.bootstrap import PEOPLE, demo_logins
from services.demo.place import SET_UP, Place, read_place


def test_logins_are_made_once_and_completed_later(tmp_path: Path) -> None:
    path = tmp_path / "demo-logins.json"
    first = demo_logins(path)
    assert set(first) == set(PEOPLE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    older = {who: login for who, login in first.items() if "parker" not in who}
    path.write_text(json.dumps(older), encoding="utf-8")
    second = demo_logins(path)
    assert set(second) == set(PEOPLE)
    assert {who: second[who] for who in older} == older
    assert demo_logins(path) == second


def test_a_place_of_the_first_version_is_set_up_again(tmp_path: Path) -> None:
    kept = {"city_time": 5.0, "seed": 7, "runs": ["run-1"], "set_up": True}
    (tmp_path / "place.json").write_text(json.dumps(kept), encoding="utf-8")
    assert read_place(tmp_path, Place(0.0, 7)).set_up < SET_UP
