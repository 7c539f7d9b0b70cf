"""`city provision`: its arguments, what it prints and its exit codes."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault
from citykit.store.postgres.connections import is_private
from infra.postgres import roles
from infra.postgres.roles import Admin, role_of, until_ready
from infra.provision import GROUPS
from services.__main__ import main
from services.commands import provision as command
from services.commands.provision import HOLDERS
from services.registry import tables
from tests.unit.infra.fake_secrets import NAMESPACE, MemorySecrets


@dataclass
class Cluster:
    """What `cluster_secrets` answers with."""

    store: MemorySecrets
    asked: str = ""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster(MemorySecrets())

    def opened(namespace: str) -> MemorySecrets:
        found.asked = namespace
        return found.store

    monkeypatch.setattr("infra.provision.cluster.cluster_secrets", opened)
    return found


def test_secrets_are_made_once_and_no_value_is_printed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["provision", "secrets", "--namespace", NAMESPACE]) == 0
    assert cluster.asked == NAMESPACE
    printed = "".join(capsys.readouterr())
    assert "made city-root-key (missing)" in printed
    values = [value for found in cluster.store.kept.values() for value in found.data.values()]
    assert not [value for value in values if value.decode(errors="replace") in printed]
    assert not [value for value in values if base64.b64encode(value).decode() in printed]
    assert main(["provision", "secrets", "--namespace", NAMESPACE]) == 0
    assert capsys.readouterr().out == "0 secrets written; the others are as they must be\n"


def test_a_check_changes_nothing_and_says_what_is_missing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["provision", "secrets", "--only", "postgres, root-key", "--check"]
    assert main(arguments) == 1
    assert "postgres-admin: missing" in capsys.readouterr().out.splitlines()
    assert cluster.store.kept == {}
    assert main(arguments[:-1]) == 0
    assert main(arguments) == 0


def test_what_was_made_can_be_removed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.store.put("postgres-admin", {"password": b"theirs"})
    main(["provision", "secrets", "--only", "postgres"])
    assert main(["provision", "secrets", "--only", "postgres", "--remove"]) == 0
    assert capsys.readouterr().out.endswith(f"{len(HOLDERS)} secrets removed\n")
    assert set(cluster.store.kept) == {"postgres-admin"}


def test_a_wrong_word_and_a_wrong_secret_end_with_two(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["provision", "secrets", "--only", "tsl"]) == 2
    assert f"'tsl' is not known; there are {', '.join(GROUPS)}" in capsys.readouterr().err
    cluster.store.put("postgres-admin", {"pasword": b"hidden"})
    assert main(["provision", "secrets"]) == 2
    refused = capsys.readouterr().err
    assert "the secret postgres-admin, key password: is missing" in refused
    assert "hidden" not in refused
    assert main(["provision", "secrets", "--only", "tls", "--tls-mode", "existing"]) == 2
    assert "--tls-mode provision" in capsys.readouterr().err


def test_who_holds_rows_has_a_role_and_the_groups_are_those_of_infra() -> None:
    assert {one.name for one in tables()} == set(HOLDERS)
    assert command._GROUPS == GROUPS


# --- database -----------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Admin:
    for name in ("admin", *HOLDERS):
        (tmp_path / name).mkdir()
        (tmp_path / name / "password").write_text(f"of {name}\n", encoding="utf-8")
        (tmp_path / name / "password").chmod(0o440)
        (tmp_path / name).chmod(0o550)
    return Admin(1, tmp_path, password_file=tmp_path / "admin" / "password")


def test_passwords_come_from_mounted_files_and_none_is_made(mounted: Admin, tmp_path: Path) -> None:
    assert mounted.password("postgres") == "of admin"
    assert mounted.password(role_of("metering")) == "of metering"
    with pytest.raises(EnvironmentFault, match=r"gateway/password cannot be read \(No such file"):
        mounted.password(role_of("gateway"))
    assert not (tmp_path / "gateway").exists()
    (tmp_path / "admin" / "password").chmod(0o600)
    (tmp_path / "admin" / "password").write_bytes(b"\n")
    with pytest.raises(EnvironmentFault, match="admin/password is empty"):
        mounted.password("postgres")


@pytest.mark.parametrize(
    ("mode", "owner", "private"),
    [(0o600, 1000, True), (0o400, 0, True), (0o440, 0, True), (0o640, 0, True),
     (0o440, 1000, False), (0o460, 0, False), (0o444, 0, False), (0o604, 1000, False), (0o601, 1000, False)],
)  # fmt: skip
def test_a_mounted_secrets_group_may_read_and_nobody_else(mode: int, owner: int, private: bool) -> None:
    assert is_private(os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))) is private


def test_a_server_that_does_not_answer_is_waited_for_so_long(mounted: Admin) -> None:
    with pytest.raises(EnvironmentFault, match=r"127\.0\.0\.1:1 does not answer within 0 s"):
        until_ready(mounted, ["metering"], 0.0)
    with pytest.raises(EnvironmentFault, match="nobody/password cannot be read"):
        until_ready(mounted, ["nobody"], 60.0)


def test_the_command_says_which_database(
    mounted: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provisioned: list[tuple[Admin, tuple[str, ...]]] = []
    monkeypatch.setattr(roles, "until_ready", lambda admin, services, limit_s: None)
    monkeypatch.setattr(roles, "provision", lambda admin, services: provisioned.append((admin, services)))
    monkeypatch.setenv("CITY_POSTGRES_HOST", "postgres")
    monkeypatch.setenv("CITY_POSTGRES_TLS_ROOT", "/etc/city/tls/ca.crt")
    files = ["--admin-password-file", str(mounted.password_file), "--passwords", str(tmp_path)]
    assert main(["provision", "database", *files]) == 0
    root = Path("/etc/city/tls/ca.crt")
    assert provisioned == [(replace(mounted, port=5432, host="postgres", root=root), HOLDERS)]
    assert "database city at postgres" in capsys.readouterr().out
    assert "of admin" not in "".join(capsys.readouterr())
