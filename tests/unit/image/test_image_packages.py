"""What packages bring into an image, and what is refused: paths that leave it, set-uid files, devices, wheels that are not what they say."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault, InvalidArgument
from infra.image import debian, tree, wheels
from infra.image.tree import FILE, FOLDER, LINK
from tests.unit.image import packages

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
SITE = wheels.SITE


@needs_dpkg
def test_a_package_is_unpacked_and_its_scripts_are_not_run(tmp_path: Path) -> None:
    made = packages.deb(tmp_path, "tool", {"usr/bin/tool": b"#!", "etc/tool": b"x"}, links={"usr/bin/t": "tool"})
    found = {one.path: one for one in debian.entries(made, "deb tool 1.0")}
    assert {path: (one.kind, one.mode, one.target) for path, one in found.items()} == {
        "usr/bin/tool": (FILE, 0o644, ""),
        "etc/tool": (FILE, 0o644, ""),
        "usr/bin/t": (LINK, 0o777, "tool"),
    }
    assert not Path("/nobody-runs-this").exists()


@needs_dpkg
@pytest.mark.parametrize(
    ("member", "message"),
    [
        (packages.member("./usr/../../escape"), "leaves the image"),
        (packages.member("/etc/passwd"), "leaves the image"),
        (packages.member("./usr/bin/su", mode=0o4755), "set-uid"),
        (packages.member("./usr/bin/wall", mode=0o2755), "set-uid"),
        (packages.member("./dev/null", tarfile.CHRTYPE), "neither file, folder nor link"),
        (packages.member("./usr/lib/x", tarfile.SYMTYPE, target="../../../etc"), "leaves the image"),
    ],
)
def test_a_package_with_what_no_image_may_hold_is_refused_by_name(
    tmp_path: Path, member: tarfile.TarInfo, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"deb bad 1.*{message}"):
        debian.entries(packages.raw_deb(tmp_path, [member]), "deb bad 1")


@needs_dpkg
def test_what_is_no_package_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"no package")
    with pytest.raises(InvalidArgument, match="deb x 1 cannot be unpacked"):
        debian.entries(tmp_path / "x.deb", "deb x 1")


def test_without_dpkg_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(EnvironmentFault, match="install dpkg"):
        debian.dpkg_deb()


def test_licences_of_a_package_are_read_where_they_are_machine_readable() -> None:
    text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2+\n text\n\nLicense: Expat\n"
    assert debian.licences(text) == ["Expat", "GPL-2+"]
    assert debian.licences("This is prose.\nLicense: none of ours\n") == []


def test_a_wheel_goes_to_where_python_looks(tmp_path: Path) -> None:
    files = {
        "one/__init__.py": b"",
        "one-1.0.data/purelib/two.py": b"2",
        "one-1.0.data/platlib/three.py": b"3",
        "one-1.0.data/scripts/one": b"#!python",
        "one-1.0.data/headers/one.h": b"",
        "one-1.0.data/data/share/man/one.1": b"",
    }
    found = wheels.entries(packages.wheel(tmp_path, "one", files), "wheel one 1.0")
    info = f"{SITE}/one-1.0.dist-info"
    assert sorted(one.path for one in found) == [
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{SITE}/one/__init__.py",
        f"{SITE}/three.py",
        f"{SITE}/two.py",
    ]
    assert wheels.licences(wheels.metadata(found)) == ["MIT"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../escape.py": b""}, "leaves the image"),
        ({"one/../../escape.py": b""}, "leaves the image"),
        ({"/etc/escape.py": b""}, "leaves the image"),
        ({"one\\escape.py": b""}, "leaves the image"),
        ({"one-1.0.data/sbin/x": b""}, "only purelib, platlib, scripts, headers, data are known"),
        ({"other-1.0.dist-info/METADATA": b""}, "has 2 folders .dist-info"),
    ],
)
def test_a_wheel_with_what_no_image_may_hold_is_refused_by_name(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"wheel one 1.0.*{message}"):
        wheels.entries(packages.wheel(tmp_path, "one", files), "wheel one 1.0")


def test_a_wheel_that_is_not_what_its_record_says_is_refused(tmp_path: Path) -> None:
    made = packages.wheel(tmp_path, "one", {"one.py": b"changed"}, record={"one.py": b"as published"})
    with pytest.raises(InvalidArgument, match=r"one\.py is not what its RECORD says"):
        wheels.entries(made, "wheel one 1.0")


def test_what_is_no_wheel_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no zip")
    with pytest.raises(InvalidArgument, match="wheel x 1 is no wheel"):
        wheels.entries(tmp_path / "x.whl", "wheel x 1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\n", ["MIT OR Apache-2.0"]),
        ("License: BSD\n", ["BSD"]),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", ["MIT License"]),
        ("Name: x\n", []),
    ],
)
def test_licences_of_a_wheel_are_as_its_authors_state_them(text: str, expected: list[str]) -> None:
    assert wheels.licences(wheels.metadata([tree.file("x-1.dist-info/METADATA", text)])) == expected


def test_two_packages_with_different_files_under_one_path_are_refused() -> None:
    same, other = tree.file("etc/a", "1"), tree.file("etc/a", "2")
    assert set(tree.merged([("x", [same]), ("y", [same])])) == {"etc", "etc/a"}
    with pytest.raises(InvalidArgument, match="y brings another etc/a"):
        tree.merged([("x", [same]), ("y", [other])])


def test_a_path_through_a_link_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a/b goes through a, which is a link"):
        tree.merged([("x", [tree.link("a", "/etc"), tree.file("a/b", "")])])


def test_folders_that_files_need_are_there_and_those_of_ours_keep_their_owner() -> None:
    made = tree.merged([("x", [tree.folder("var/lib/city", 0o755, 7), tree.file("var/lib/city/deep/file", "")])])
    assert [(path, one.kind, one.owner) for path, one in sorted(made.items())] == [
        ("var", FOLDER, 0),
        ("var/lib", FOLDER, 0),
        ("var/lib/city", FOLDER, 7),
        ("var/lib/city/deep", FOLDER, 0),
        ("var/lib/city/deep/file", FILE, 0),
    ]
