"""How the test images start: variables become settings, a new folder is prepared once, and what is missing is said in one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.image.entrypoints import kafka, postgres

QUORUM = {"KAFKA_CONTROLLER_QUORUM_VOTERS": "1@kafka:9094"}
NEEDED = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "CLIENT://:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    **QUORUM,
}


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("KAFKA_NODE_ID", "node.id"),
        (
            "KAFKA_LISTENER_NAME_CLIENT_SCRAM___SHA___512_SASL_JAAS_CONFIG",
            "listener.name.client.scram-sha-512.sasl.jaas.config",
        ),
        ("KAFKA_A__B_C", "a_b.c"),
    ],
)
def test_a_variable_s_name_becomes_a_setting_s(variable: str, expected: str) -> None:
    assert kafka.setting(variable) == expected


def test_variables_become_the_broker_s_settings() -> None:
    more = {"KAFKA_HEAP_OPTS": "-Xmx1g", "KAFKA_OPTS": "-Dx=y", "CLUSTER_ID": "x", "PATH": "/usr/bin"}
    assert kafka.properties({**NEEDED, **more}) == {
        "node.id": "1",
        "process.roles": "broker,controller",
        "listeners": "CLIENT://:9093",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": "1@kafka:9094",
        "log.dirs": "/var/lib/kafka/data",
    }


@pytest.mark.parametrize("variable", sorted(NEEDED))
def test_a_missing_variable_is_named(variable: str) -> None:
    left = {name: value for name, value in NEEDED.items() if name != variable}
    with pytest.raises(kafka.Refused, match=f"{variable}.* is missing"):
        kafka.properties(left)


def test_stores_are_found_among_the_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "SECRETS", tmp_path)
    (tmp_path / "key.pem").write_text("key")
    (tmp_path / "word").write_text("secret\n")
    stores = {"KAFKA_SSL_KEYSTORE_FILENAME": "key.pem", "KAFKA_SSL_KEYSTORE_CREDENTIALS": "word"}
    found = kafka.properties({**NEEDED, **stores})
    assert found["ssl.keystore.location"] == str(tmp_path / "key.pem")
    assert found["ssl.keystore.password"] == "secret"
    with pytest.raises(kafka.Refused, match=r"absent\.pem is missing; mount the secret"):
        kafka.properties({**NEEDED, "KAFKA_SSL_TRUSTSTORE_FILENAME": "absent.pem"})


def test_settings_are_written_as_java_reads_them() -> None:
    text = kafka.text({"b": "RULE:^CN=(.*?),.*$/$1/", "a": "x\\y\nz"})
    assert text == "a=x\\\\y\\nz\nb=RULE:^CN=(.*?),.*$/$1/\n"


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"process.roles": "broker,controller", "controller.quorum.voters": "1@a:1,2@b:1"}, []),
        ({"process.roles": "broker", "controller.quorum.bootstrap.servers": "a:1,b:1"}, []),
        ({"process.roles": "broker,controller", "controller.quorum.bootstrap.servers": "a:1"}, ["--standalone"]),
    ],
)
def test_a_new_folder_is_formatted_as_the_quorum_asks(settings: dict[str, str], more: list[str]) -> None:
    assert kafka.formatting(settings, "id") == ["format", "--cluster-id", "id", "--ignore-formatted", *more]


def test_several_new_controllers_must_be_named() -> None:
    settings = {"process.roles": "controller", "controller.quorum.bootstrap.servers": "a:1,b:1"}
    with pytest.raises(kafka.Refused, match="KAFKA_CONTROLLER_QUORUM_VOTERS must name them"):
        kafka.formatting(settings, "id")


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Kafka's variables in a pod whose Java writes down how it is called and formats as it is asked."""
    java = tmp_path / "jre" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/called\n[ -e {tmp_path}/broken ] && {{ echo "it is broken" >&2; exit 1; }}\nexit 0\n'
    )
    java.chmod(0o755)
    (tmp_path / "config").mkdir()
    monkeypatch.setattr(kafka, "CONFIG", tmp_path / "config")

    def execv(path: str, argv: list[str]) -> None:
        raise SystemExit(subprocess.run([path, *argv[1:]], check=False).returncode)

    monkeypatch.setattr(os, "execv", execv)
    return {
        **NEEDED,
        "JAVA_HOME": str(tmp_path / "jre"),
        "KAFKA_LOG_DIRS": str(tmp_path / "data"),
        "KAFKA_HEAP_OPTS": "-Xmx99m",
    }


def test_kafka_formats_a_new_folder_and_starts(pod: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        kafka.main({**pod, "CLUSTER_ID": "the-cluster"})
    assert ended.value.code == 0
    formatting, starting = (tmp_path / "called").read_text().splitlines()
    assert "kafka.tools.StorageTool format --cluster-id the-cluster" in formatting
    assert "-Xmx99m" in starting and starting.endswith(f"kafka.Kafka {tmp_path}/config/server.properties")
    assert (tmp_path / "config" / "server.properties").stat().st_mode & 0o777 == 0o600


def test_kafka_leaves_a_folder_that_is_formatted(pod: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").touch()
    with pytest.raises(SystemExit):
        kafka.main(pod)
    assert len((tmp_path / "called").read_text().splitlines()) == 1


def test_kafka_that_cannot_format_says_why(
    pod: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").touch()
    assert kafka.main(pod) == kafka.FAILED
    assert "cannot be formatted: it is broken" in capsys.readouterr().err


def test_kafka_without_variables_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert kafka.main({}) == kafka.FAILED
    assert "kafka: KAFKA_NODE_ID is missing" in capsys.readouterr().err


def test_kafka_without_a_place_to_write_says_what_to_mount(tmp_path: Path) -> None:
    with pytest.raises(kafka.Refused, match="mount an emptyDir"):
        kafka.writable([tmp_path / "absent"])


def test_postgres_reads_the_official_variables(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    wanted = postgres.read(
        {
            "POSTGRES_USER": "admin",
            "POSTGRES_PASSWORD_FILE": str(tmp_path / "password"),
            "POSTGRES_DB": "city",
            "PGDATA": str(tmp_path / "data"),
            "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale='C.UTF-8'",
        }
    )
    initdb = ("--encoding=UTF8", "--locale=C.UTF-8")
    assert wanted == postgres.Wanted("admin", "secret", "city", tmp_path / "data", initdb, "scram-sha-256")
    assert postgres.read({"POSTGRES_USER": "a", "POSTGRES_PASSWORD": "p"}).database == "a"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "POSTGRES_PASSWORD_FILE .* is missing or empty"),
        ({"POSTGRES_PASSWORD": "a", "POSTGRES_PASSWORD_FILE": "b"}, "both set"),
        (
            {"POSTGRES_PASSWORD": "a", "POSTGRES_HOST_AUTH_METHOD": "ident"},
            "'ident' is not allowed; allowed are scram-sha-256",
        ),
        ({"POSTGRES_PASSWORD": "a", "POSTGRES_INITDB_ARGS": "'open"}, "POSTGRES_INITDB_ARGS cannot be read"),
    ],
)
def test_postgres_says_which_variable_is_wrong(
    environment: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(postgres.Refused, match=message):
        postgres.read(environment)
    assert postgres.main([], {**environment, "PGDATA": str(tmp_path)}) == postgres.FAILED
    assert capsys.readouterr().err.startswith("postgres: ")


def test_a_password_is_not_wanted_of_a_cluster_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").touch()
    assert postgres.read({"PGDATA": str(tmp_path)}).password == ""


def test_arguments_of_the_server_come_after_ours() -> None:
    for arguments in (["-c", "listen_addresses=x"], ["postgres", "-c", "listen_addresses=x"]):
        line = postgres.server(Path("/data"), "", arguments)
        assert line[1:] == [
            "-D",
            "/data",
            "-c",
            "listen_addresses=*",
            "-c",
            "unix_socket_directories=",
            "-c",
            "listen_addresses=x",
        ]


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "other").touch()
    wanted = postgres.Wanted("a", "p", "a", tmp_path / "data", (), "scram-sha-256")
    with pytest.raises(postgres.Refused, match="holds something else; point it at a new folder below the volume"):
        postgres.make(wanted, tmp_path / "scripts")


def test_only_sql_is_run_and_in_order(tmp_path: Path) -> None:
    for name in ("2.sql", "1.sql"):
        (tmp_path / name).touch()
    assert [path.name for path in postgres.ordered(tmp_path)] == ["1.sql", "2.sql"]
    assert postgres.ordered(tmp_path / "absent") == []
    (tmp_path / "3.sh").touch()
    with pytest.raises(postgres.Refused, match=r"3\.sh is not run: only \*\.sql are"):
        postgres.ordered(tmp_path)


PROGRAM = """#!/bin/sh
echo "$(basename $0) $@" >> {log}
case "$(basename $0)" in
initdb) mkdir -p "$2"; touch "$2/PG_VERSION" "$2/pg_hba.conf";;
postgres) trap 'exit 0' INT TERM; while :; do sleep 0.01; done;;
psql) [ ! -e {log}.fail ] || {{ echo "ERROR near PASSWORD 'abc'" >&2; exit 3; }};;
esac
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that write down how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("initdb", "postgres", "psql", "pg_isready"):
        (folder / name).write_text(PROGRAM.format(log=tmp_path / "log"))
        (folder / name).chmod(0o755)
    monkeypatch.setattr(postgres, "BIN", folder)
    monkeypatch.setattr(postgres, "TOOLS", folder)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "1.sql").touch()
    return scripts


def test_a_new_cluster_is_made_whole_or_not_at_all(server: Path, tmp_path: Path) -> None:
    wanted = postgres.Wanted("admin", "secret", "city", tmp_path / "v" / "data", ("--encoding=UTF8",), "scram-sha-256")
    (tmp_path / "log.fail").touch()
    with pytest.raises(postgres.Refused, match=r"CREATE DATABASE failed: ERROR near PASSWORD '\.\.\.'"):
        postgres.make(wanted, server)
    assert not wanted.data.exists()
    (tmp_path / "log.fail").unlink()
    postgres.make(wanted, server)
    assert (wanted.data / "pg_hba.conf").read_text() == "\nhost all all all scram-sha-256\n"
    lines = (tmp_path / "log").read_text()
    assert "secret" not in lines
    assert "--username=admin --auth-local=trust --auth-host=scram-sha-256" in lines and "--encoding=UTF8" in lines
    assert 'CREATE DATABASE "city"' in lines and f"-d city -f {server}/1.sql" in lines


def test_a_server_that_does_not_start_is_said_so(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("postgres", "#!/bin/sh\nexit 1\n"), ("pg_isready", "#!/bin/sh\nexit 2\n")):
        (tmp_path / "bin" / name).write_text(text)
    wanted = postgres.Wanted("a", "p", "a", tmp_path / "v" / "data", (), "scram-sha-256")
    with pytest.raises(postgres.Refused, match="server did not start"):
        postgres.make(wanted, server)


def test_a_name_between_quotes_cannot_end_them() -> None:
    assert postgres.quoted('a"b') == 'a""b'
