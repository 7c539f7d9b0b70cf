"""Bringing packages: what is missing is asked for by name, what has another hash or is gone stops the build and says what to do."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault
from infra.image import __main__ as command
from infra.image import fetching, lockfile, locking, recipes
from infra.image.fetching import fetch
from infra.image.lockfile import Input
from infra.image.store import Store
from infra.postgres.binaries import SERVER, SERVER_VERSION
from tests.unit.image import packages

CONTENT = b"the pinned content"
PINNED = Input("deb", "libc6", "1:2.36", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def serving(files: dict[str, bytes], told: str = "") -> Callable[[Sequence[Input], Path], str]:
    def client(wanted: Sequence[Input], folder: Path) -> str:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return told

    return client


def test_what_is_missing_is_brought_once(store: Store) -> None:
    fetch(store, [PINNED], clients={"deb": serving({"libc6_1%3a2.36_amd64.deb": CONTENT})})
    assert store.checked(PINNED).read_bytes() == CONTENT
    fetch(store, [PINNED], clients={"deb": serving({}, "not asked")})


def test_offline_nothing_is_asked_for(store: Store) -> None:
    with pytest.raises(EnvironmentFault, match=r"deb libc6 1:2\.36 is not in the cache .*without --offline"):
        fetch(store, [PINNED], offline=True)


@pytest.mark.parametrize(
    ("files", "told", "message"),
    [
        (
            {"libc6_1%3a2.36_amd64.deb": b"other"},
            "",
            "deb libc6 1:2.36 is served with another content.*make image-lock",
        ),
        (
            {},
            "E: Version '1:2.36' for 'libc6' was not found",
            "libc6 1:2.36 is not served: E: Version .* not found.*make image-lock",
        ),
        ({}, "", "libc6 1:2.36 is not served: no reason was given"),
        ({}, "noise\nERROR: libc6\nExpected sha256 x", "another content"),
        ({}, "noise without a known word", "not served: noise without a known word"),
    ],
)
def test_a_package_that_is_gone_or_changed_stops_the_build(
    store: Store, files: dict[str, bytes], told: str, message: str
) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        fetch(store, [PINNED], clients={"deb": serving(files, told)})
    assert not store.input(PINNED).exists()


def test_of_several_only_the_one_that_is_gone_is_named(store: Store) -> None:
    gone = Input("deb", "dash", "0.5", "a" * 64)
    with pytest.raises(EnvironmentFault, match=r"^deb dash 0\.5 is not served"):
        fetch(store, [PINNED, gone], clients={"deb": serving({}, "E: Version '0.5' for 'dash' was not found")})


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines of package clients, which are not run."""
    lines: list[list[str]] = []

    def run(argv: Sequence[str], folder: Path) -> str:
        lines.append(list(argv))
        if "-r" in argv:
            lines.append(Path(argv[argv.index("-r") + 1]).read_text().splitlines())
        return "E: nothing is served here"

    monkeypatch.setattr(fetching, "run", run)
    return lines


def test_debian_s_client_has_lists_of_its_own_and_is_asked_for_versions(store: Store, called: list[list[str]]) -> None:
    with pytest.raises(EnvironmentFault, match="nothing is served here"):
        fetch(store, [PINNED])
    update, download = called
    assert update[-1] == "update"
    assert download[-2:] == ["download", "libc6=1:2.36"]
    assert all(any(word.startswith(f"-oDir::{part}=") for word in download) for part in ("State::Lists", "Cache"))
    assert not list(store.folder.glob("room-*"))


def test_pip_is_asked_for_exactly_the_pinned_wheels(store: Store, called: list[list[str]]) -> None:
    with pytest.raises(EnvironmentFault, match=r"wheel one 1\.0 is not served"):
        fetch(store, [Input("wheel", "one", "1.0", "a" * 64)])
    argv, requirements = called
    assert {"--require-hashes", "--no-deps", "--only-binary", "manylinux_2_28_x86_64", "cp311"} <= set(argv)
    assert requirements == [f"one==1.0 --hash=sha256:{'a' * 64}"]


def test_maven_is_asked_for_the_jars_and_nothing_they_need(store: Store, called: list[list[str]]) -> None:
    with pytest.raises(EnvironmentFault, match="jar g:a 1 is not served"):
        fetch(store, [Input("jar", "g:a", "1", "a" * 64)])
    assert "-DexcludeTransitive=true" in called[0]


def test_a_client_s_complaint_comes_without_colours(tmp_path: Path) -> None:
    told = fetching.run([sys.executable, "-c", r"import sys; print('\x1b[31mE: no\x1b[m'); sys.exit(1)"], tmp_path)
    assert told == "E: no"
    assert fetching.run([sys.executable, "-c", "print('fine')"], tmp_path) == ""


def test_a_client_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="`no-such-client` and it is not on the PATH"):
        fetching.run(["no-such-client"], tmp_path)


def test_a_client_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **more: object) -> None:
        raise subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(subprocess, "run", never)
    with pytest.raises(EnvironmentFault, match="brought no packages within"):
        fetching.run([sys.executable], tmp_path)


LISTING = "\nThe following files have been resolved:\n   org.x:kafka_2.13:jar:4.3.1:compile -- module a\n   g:b:jar:1:runtime\n"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny world that `lock` asks."""

    def debs(names: Sequence[str], folder: Path) -> str:
        for name in names:
            (folder / f"{name}_1.0_all.deb").write_bytes(packages.deb(tmp_path, name, {}).read_bytes())
        return ""

    def wheels(requirements: Path, folder: Path) -> str:
        for name in {"requirements.lock": ("Some_Thing", "pip")}.get(requirements.name, ("other",)):
            packages.wheel(folder, name, {})
        return ""

    def run(argv: Sequence[str], folder: Path) -> str:
        Path(argv[-1].removeprefix("-DoutputFile=")).write_text(LISTING)
        return ""

    def jars(wanted: Sequence[Input], folder: Path) -> str:
        for one in wanted:
            (folder / f"{one.name.rpartition(':')[2]}-{one.version}.jar").write_bytes(one.name.encode())
        return ""

    monkeypatch.setattr(fetching, "download_debs", debs)
    monkeypatch.setattr(fetching, "download_wheels", wheels)
    monkeypatch.setattr(fetching, "run", run)
    monkeypatch.setattr(fetching, "CLIENTS", {"jar": jars})
    monkeypatch.setattr(locking, "DEBS", ("libc6", "dash"))
    monkeypatch.setattr(locking, "_PYTHON", sys.version_info[:2])


@pytest.mark.usefixtures("served")
def test_the_list_is_what_is_served(store: Store, tmp_path: Path) -> None:
    made = locking.lock(store, tmp_path / "inputs.lock")
    assert {(one.kind, one.name, one.version) for one in made} == {
        ("deb", "dash", "1.0"),
        ("deb", "libc6", "1.0"),
        ("wheel", "some-thing", "1.0"),
        ("wheel", "other", "1.0"),
        ("jar", "org.x:kafka_2.13", "4.3.1"),
        ("jar", "g:b", "1"),
        ("jar", SERVER, SERVER_VERSION),
    }
    assert set(lockfile.read(tmp_path / "inputs.lock")) == set(made)
    assert all(store.checked(one).exists() for one in made)


@pytest.mark.usefixtures("served")
def test_a_package_that_nobody_serves_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "download_debs", lambda names, folder: "E: Unable to locate package dash")
    with pytest.raises(EnvironmentFault, match="dash, libc6 did not come: E: Unable to locate package dash"):
        locking.lock(store, tmp_path / "inputs.lock")
    assert not (tmp_path / "inputs.lock").exists()


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("name", "message"), [("download_wheels", "pip could not bring"), ("run", "Maven could not list")]
)
def test_a_client_that_fails_writes_no_list(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(fetching, name, lambda *arguments: "it failed")
    with pytest.raises(EnvironmentFault, match=f"{message}.*it failed"):
        locking.lock(store, tmp_path / "inputs.lock")
    assert not (tmp_path / "inputs.lock").exists()


def test_the_list_is_made_with_the_image_s_python(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_PYTHON", (3, 0))
    with pytest.raises(EnvironmentFault, match=r"needs Python 3\.11"):
        locking.lock(store, tmp_path / "inputs.lock")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "provable-city" / "image"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["build", "unknown"],
            2,
            "there is no image 'unknown'; there are city, forecasting, kafka, postgres, pause and all",
        ),
        (["build", "--version", "a b"], 2, "--version 'a b' is no image's tag"),
        (["build", "--offline", "pause"], 3, "deb catatonit 0.1.7-1+b2 is not in the cache"),
    ],
)
def test_the_command_says_what_is_wrong(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert command.main([*arguments, "--out", str(tmp_path)]) == code
    assert message in capsys.readouterr().err


def test_the_command_refuses_a_list_of_other_requirements(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockfile, "read", lambda: ())
    assert command.main(["build"]) == 2
    assert "inputs.lock is not of requirements.lock" in capsys.readouterr().err


def test_the_command_writes_an_image_its_bill_and_its_layers(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = packages.stored(
        Store(cache), "deb", packages.deb(tmp_path, "catatonit", {"usr/bin/catatonit": b"x"}), "catatonit"
    )
    monkeypatch.setattr(command, "_inputs", lambda: (one,))
    assert command.main(["build", "pause", "--out", str(tmp_path / "out"), "--layers", "--json"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pause-1.cdx.json",
        "pause-1.oci.tar",
        "pause.layers",
    ]
    assert (tmp_path / "out" / "pause.layers" / "1-pause.tar").exists()
    assert '"reference": "localhost/pause:1"' in capsys.readouterr().out
    assert command.main(["build", "pause", "--out", str(tmp_path / "out"), "--offline"]) == 0
    assert "localhost/pause:1  sha256:" in capsys.readouterr().out


def test_the_recipes_name_every_package_once() -> None:
    assert len(set(recipes.DEBS)) == len(recipes.DEBS)
    assert not recipes.MODELS & recipes.LEFT_OUT
