"""`city token`: prints a token a running demo takes, and refuses everything that is no demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from city.identity.v1 import identity_service_pb2 as pb
from services.__main__ import main
from tests.system.identity_city import claims_of, identity_city, settings

PERSON = {
    "resident:ada": {"login": "ada", "password": "-"},
    "staff:billing": {"login": "staff-billing", "password": "-"},
}


def logins(state: Path) -> None:
    state.mkdir(exist_ok=True)
    (state / "demo-logins.json").write_text(json.dumps(PERSON), encoding="utf-8")


async def test_a_token_is_taken_by_the_city_it_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logins(tmp_path)
    async with identity_city(tmp_path, settings(), services=("identity",)) as city:
        await city.create("ada")
        await city.create("staff-billing", "billing")
        for who, login in (("resident:ada", "ada"), ("staff:billing", "staff-billing")):
            assert main(["token", "--as", who, "--state", str(tmp_path)]) == 0
            token = capsys.readouterr().out.strip()
            me = city.bearer(await city.exchange(token, "identity"))
            assert (await me.GetPerson(pb.GetPersonRequest())).person.login == login
            assert claims_of(token)["sub"] == claims_of(await city.token(login))["sub"]
        assert main(["token", "--as", "resident:ada", "--state", str(tmp_path), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)


def test_where_there_is_no_demo_there_is_no_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["token", "--as", "resident:ada", "--state", str(tmp_path / "city")]
    assert main(asked) == 3
    assert "holds no demo" in capsys.readouterr().err
    logins(tmp_path / "city")
    assert main(asked) == 3
    assert "has not made its people yet" in capsys.readouterr().err
    assert main(["token", "--as", "resident:bob", "--state", str(tmp_path / "city")]) == 2
    assert "there are resident:ada, staff:billing" in capsys.readouterr().err
    monkeypatch.setenv("CITY_GENERAL_MODE", "cluster")
    assert main(asked) == 2
    printed = capsys.readouterr()
    assert "log in at the city's login page" in printed.err
    assert printed.out == ""


async def test_a_token_can_be_had_while_the_city_stands_still(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logins(tmp_path)
    async with identity_city(tmp_path, settings(), services=("identity",)) as city:
        await city.create("ada")
    assert main(["token", "--as", "resident:ada", "--state", str(tmp_path)]) == 0
    assert claims_of(capsys.readouterr().out)["roles"] == ["resident"]
