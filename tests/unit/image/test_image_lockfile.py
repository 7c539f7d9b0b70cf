"""The list of inputs: what a line may be, that the committed one is of requirements.lock and of Kafka's pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from citykit.errors import InvalidArgument
from infra.image import lockfile, recipes
from infra.image.lockfile import Input
from infra.image.wheels import SITE
from infra.postgres.binaries import SERVER

HASH = "a" * 64


def test_a_list_is_read_and_written_in_one_order() -> None:
    inputs = (
        Input("wheel", "b", "1", HASH),
        Input("deb", "libc6", "2.36-9+deb12u14", HASH),
        Input("jar", "g:a", "1", HASH),
    )
    text = lockfile.text(inputs)
    assert lockfile.parse(text) == tuple(sorted(inputs))
    assert lockfile.text(lockfile.parse(text)) == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("deb libc6 2.36", "line 2: `kind name version sha256` is wanted, and there are 3 words"),
        (f"rpm libc6 2.36 {HASH}", "line 2: 'rpm' is no kind; allowed are deb, jar, wheel"),
        (f"deb --option 2.36 {HASH}", "line 2: '--option' is no name"),
        (f"deb libc6 -o=x {HASH}", "line 2: '-o=x' is no version"),
        ("deb libc6 2.36 abc", "line 2: 'abc' is no sha256"),
        (f"deb libc6 2.36 {HASH.upper()}", "is no sha256"),
        (f"deb one 1 {HASH}", "line 2: deb one is listed twice"),
        (f"deb https://x/y 1 {HASH}", "is no name"),
    ],
)
def test_a_malformed_line_is_named_by_number(line: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        lockfile.parse(f"deb one 1 {HASH}\n{line}\n")


def test_a_list_without_end_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="2000 at most"):
        lockfile.parse("#\n" * 2_001)


REQUIREMENTS = f"""\
one==1.0 \\
    --hash=sha256:{HASH}
    # via two
two==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:{HASH}
two==3.0 ; python_full_version >= '3.12' \\
    --hash=sha256:{HASH}
only-windows==1 ; sys_platform == 'win32' \\
    --hash=sha256:{HASH}
pip==26 \\
    --hash=sha256:{HASH}
"""


@pytest.mark.parametrize(
    ("inputs", "lines"),
    [
        ([("one", "1.0", HASH), ("two", "2.0", HASH)], []),
        ([("one", "1.1", HASH), ("two", "3.0", HASH)], ["one 1.0 is locked, and inputs.lock has 1.1"]),
        ([("one", "1.0", "b" * 64), ("two", "2.0", HASH)], ["one 1.0 is locked, and inputs.lock has 1.0"]),
        ([("two", "2.0", HASH)], ["one 1.0 is locked, and inputs.lock has none"]),
    ],
)
def test_wheels_must_be_those_of_the_requirements(inputs: list[tuple[str, str, str]], lines: list[str]) -> None:
    assert lockfile.outdated([Input("wheel", *one) for one in inputs], REQUIREMENTS, frozenset({"pip"})) == lines


def test_the_committed_list_is_of_the_committed_requirements_and_pins() -> None:
    inputs = lockfile.read()
    text = (recipes.ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert lockfile.outdated(inputs, text, recipes.LEFT_OUT) == [], "run `make image-lock`"
    assert lockfile.text(inputs) == lockfile.FILE.read_text(encoding="utf-8")
    rows = (line.split() for line in (recipes.ROOT / "infra/kafka/jars.sha256").read_text().splitlines())
    pinned = {name: digest for digest, name in rows}
    jars = {
        f"{one.name.partition(':')[2]}-{one.version}.jar": one.sha256
        for one in inputs
        if one.kind == "jar" and one.name != SERVER
    }
    assert jars == pinned


def test_every_image_finds_its_packages_in_the_committed_list() -> None:
    inputs = lockfile.read()
    wheels, jars = (tuple(one.name for one in inputs if one.kind == kind) for kind in ("wheel", "jar"))
    known = {(one.kind, one.name) for one in inputs}
    images = recipes.images(wheels, jars, "1.0")
    assert set(images) == {"city", "forecasting", "kafka", "postgres", "pause"}
    for image in images.values():
        for layer in image.layers:
            assert {("deb", name) for name in layer.debs} <= known
            assert {("wheel", name) for name in layer.wheels} <= known
            assert {("jar", name) for name in layer.jars} <= known


def test_the_city_s_image_has_its_code_and_neither_tests_nor_models() -> None:
    inputs = lockfile.read()
    wheels = tuple(one.name for one in inputs if one.kind == "wheel")
    city = recipes.images(wheels, (), "1.0")["city"]
    files = {entry.path for layer in city.layers for entry in layer.files}
    for path in (
        "services/__main__.py",
        "services/gateway/page/index.html",
        "services/metering/migrations/0001_first.py",
    ):
        assert f"opt/city/{path}" in files
    for path in (
        "infra/kafka/topics.yaml",
        "gen/city/py.typed",
        "infra/fabric/builder/bin/detect",
        "verifier/__main__.py",
    ):
        assert f"opt/city/{path}" in files
    assert not [
        path for path in files if "__pycache__" in path or path.startswith(("opt/city/tests", "opt/city/infra/image"))
    ]
    held = {wheel for layer in city.layers for wheel in layer.wheels}
    assert not held & (recipes.MODELS | recipes.LEFT_OUT | {recipes.POSTGRES_TOOLS})
    assert {"grpcio", "kopf", "lightkube", "confluent-kafka"} <= held


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("usr/bin/python3.11", True),
        ("usr/share/doc/libc6/copyright", True),
        ("usr/share/doc/libc6/changelog.gz", False),
        ("usr/share/man/man1/x.1", False),
        ("usr/lib/python3.11/lib-dynload/_dbm.cpython-311-x86_64-linux-gnu.so", False),
        ("usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", True),
        (f"{SITE}/pandas/tests/test_x.py", False),
        (f"{SITE}/numpy/_core/tests/_natype.py", True),
        (f"{SITE}/tests.py", True),
        (f"{SITE}/grpc/_cython/cygrpc.pyx", False),
    ],
)
def test_what_an_image_wants_of_a_package(path: str, expected: bool) -> None:
    assert recipes.wanted(path) is expected


def test_a_list_that_is_not_there_is_an_error_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lockfile.read(tmp_path / "inputs.lock")
