"""Generated code: complete, deterministic, checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import gen

PROTO = """syntax = "proto3";
package city.parking.v1;
import "google/rpc/error_details.proto";
message Bay { google.rpc.ErrorInfo reason = 1; }
message GetBayRequest {}
service ParkingService { rpc GetBay(GetBayRequest) returns (Bay); }
"""


def protos(folder: Path, text: str = PROTO) -> Path:
    path = folder / "protos" / "city" / "parking" / "v1" / "parking_service.proto"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return folder / "protos"


def generate(folder: Path, tree: Path) -> dict[str, bytes]:
    folder.mkdir()
    return gen.generate(tree, folder)


def test_messages_stubs_and_types_the_same_each_time(tmp_path: Path) -> None:
    tree = protos(tmp_path)
    first, second = generate(tmp_path / "a", tree), generate(tmp_path / "b", tree)
    assert first == second
    stem = "city/parking/v1/parking_service_pb2"
    assert {f"{stem}.py", f"{stem}.pyi", f"{stem}_grpc.py", f"{stem}_grpc.pyi", "city/py.typed"} <= first.keys()
    assert b"aio" in first[f"{stem}_grpc.pyi"]


def test_no_protos_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "protos").mkdir()
    assert set(generate(tmp_path / "a", tmp_path / "protos")) == {"city/__init__.py", "city/py.typed"}


def test_a_wrong_proto_is_named(tmp_path: Path) -> None:
    tree = protos(tmp_path, PROTO.replace("returns (Bay)", "returns (Boat)"))
    with pytest.raises(ValueError, match=r"parking_service\.proto:6:.*Boat"):
        generate(tmp_path / "a", tree)


def test_writing_removes_what_is_stale_and_keeps_what_is_right(tmp_path: Path) -> None:
    folder = tmp_path / "gen"
    made = {"city/a_pb2.py": b"a", "city/b_pb2.py": b"b"}
    gen.write({"city/a_pb2.py": b"a", "city/old_pb2.py": b""}, folder)
    assert gen.differences(made, gen.tree(folder)) == [
        "missing: gen/city/b_pb2.py",
        "no longer generated: gen/city/old_pb2.py",
    ]
    gen.write(made, folder)
    assert gen.tree(folder) == made
    (folder / "city" / "a_pb2.py").write_bytes(b"edited")
    assert gen.differences(made, gen.tree(folder)) == ["out of date: gen/city/a_pb2.py"]


def test_checking_names_what_to_do_and_edits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gen, "PROTOS", protos(tmp_path))
    monkeypatch.setattr(gen, "GEN", tmp_path / "gen")
    assert gen.main(["--check"]) == 1
    assert capsys.readouterr().out.endswith("run `make gen` and commit what it changes\n")
    assert not (tmp_path / "gen").exists()
    assert gen.main([]) == 0
    assert gen.main(["--check"]) == 0
