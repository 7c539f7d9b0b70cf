"""The development peer's identities made ahead: one file, the same for the same content, renewed under its authorities, and nothing else in it."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from citykit.errors import EnvironmentFault, FailedPrecondition, InvalidArgument
from citykit.ledger.devpeer.carried import adopt, made, pack, unpack
from citykit.ledger.devpeer.enrolment import enrol
from citykit.state import locked
from tests.unit.ledger.devpeer_network import specification

NOW = datetime.now(UTC)
HOSTS = ("ledger", "ledger.city.svc")
WANTED = dataclasses.replace(specification(), hosts=HOSTS)
LATER = NOW + timedelta(days=200)
PEER = "tls/peer.pem"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return made(WANTED, NOW)


def names_of(pem: bytes) -> set[str]:
    found = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(found.value.get_values_for_type(x509.DNSName))


def test_a_new_state_folder_takes_them_and_the_peer_makes_nothing_of_its_own(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    assert sorted(adopt(tmp_path, pack(files))) == sorted(files)
    kept = {name: (tmp_path / name).read_bytes() for name in files}
    enrol(tmp_path, WANTED, NOW)
    assert {name: (tmp_path / name).read_bytes() for name in files} == kept == files
    assert set(HOSTS) <= names_of(files[PEER])
    for path in tmp_path.rglob("*"):
        if path.relative_to(tmp_path).parts[0] in ("organisations", "tls"):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert adopt(tmp_path, pack(files)) == []


def test_the_file_is_the_same_for_the_same_content(files: dict[str, bytes]) -> None:
    backwards = dict(reversed(files.items()))
    assert pack(files) == pack(backwards)
    assert unpack(pack(files)) == files
    assert made(WANTED, NOW, files) == files


def test_what_has_used_half_its_life_is_issued_again_and_the_authorities_stay(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    renewed = made(WANTED, LATER, files)
    same = {name for name in files if renewed[name] == files[name]}
    assert same == {name for name in files if Path(name).name.startswith("ca.")}
    adopt(tmp_path, pack(files))
    assert adopt(tmp_path, pack(renewed))
    assert {name: (tmp_path / name).read_bytes() for name in files} == renewed
    assert adopt(tmp_path, pack(files)) == [], "an older file puts nothing back"
    enrol(tmp_path, WANTED, NOW + timedelta(days=400))


def test_a_new_host_is_added(files: dict[str, bytes]) -> None:
    renewed = made(dataclasses.replace(WANTED, hosts=(*HOSTS, "ledger.other")), NOW, files)
    assert "ledger.other" in names_of(renewed[PEER])
    assert renewed["tls/ca.pem"] == files["tls/ca.pem"]


def test_a_start_that_was_interrupted_is_repeated(files: dict[str, bytes], tmp_path: Path) -> None:
    adopt(tmp_path, pack(files))
    (tmp_path / PEER).unlink()
    (tmp_path / "organisations" / "CityMSP" / "peer.key").unlink()
    written = adopt(tmp_path, pack(files))
    assert set(written) == {PEER, "tls/peer.key", "organisations/CityMSP/peer.pem", "organisations/CityMSP/peer.key"}
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_a_ledger_of_other_authorities_is_left_alone(files: dict[str, bytes], tmp_path: Path) -> None:
    enrol(tmp_path, WANTED, NOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
    with pytest.raises(FailedPrecondition, match=r"another authority.*the identities this ledger began with"):
        adopt(tmp_path, pack(files))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pem")} == before


def test_a_running_peer_is_not_disturbed(files: dict[str, bytes], tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(EnvironmentFault, match="already runs"):
        adopt(tmp_path, pack(files))


@pytest.mark.parametrize(
    "name",
    ["../tls/ca.pem", "/tls/ca.pem", "tls/../../x.pem", "tls/..pem", "tls/.hidden.pem", "ledger.db", "tls/run.sh",
     "organisations/a/b/c/d/e/f.pem", "profile.json"],
)  # fmt: skip
def test_nothing_is_written_outside_the_two_folders(files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"only files NAME\.pem and NAME\.key"):
        adopt(tmp_path / "state", pack({**files, name: b"x"}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_link_is_no_file(kind: bytes) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("tls/ca.pem")
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(InvalidArgument, match="only files"):
        unpack(packed.getvalue())


def test_what_is_no_file_of_identities_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(InvalidArgument, match="no tar"):
        unpack(b"not a tar")
    with pytest.raises(InvalidArgument, match="no authority"):
        unpack(pack({"tls/peer.pem": files[PEER]}))
    with pytest.raises(InvalidArgument, match="at most 65536 bytes"):
        unpack(pack({**files, "tls/big.pem": bytes(70_000)}))
    with pytest.raises(FailedPrecondition, match=r"peer.pem among .* is no certificate"):
        made(WANTED, NOW, {**files, PEER: b"x"})
