"""What runs beside a cluster: volumes for claims, the ways in, cgroups, the definitions of others, the command; with fakes instead of a cluster."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from citykit.errors import EnvironmentFault
from infra.kubernetes import __main__ as command
from infra.kubernetes import background, packages, volumes
from infra.kubernetes.asking import path_of, until
from infra.kubernetes.crds import definitions
from infra.kubernetes.forward import Way, _Relay
from infra.kubernetes.namespaces import cgroup_name, entering, make_cgroup, remove_cgroups


class FakeApi:
    """Claims, volumes and what was asked."""

    def __init__(self, claims: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
        self.claims, self.found = claims, found
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []

    def items(self, path: str) -> list[dict[str, Any]]:
        return self.claims if path == "/api/v1/persistentvolumeclaims" else self.found

    def create(self, path: str, document: dict[str, Any]) -> None:
        self.created.append(document)

    def delete(self, path: str) -> None:
        self.deleted.append(path)


def claim(uid: str, storage_class: str = volumes.CLASS, **spec: Any) -> dict[str, Any]:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    return {
        "metadata": {"namespace": "city", "name": "data", "uid": uid},
        "spec": {"storageClassName": storage_class, **asked, **spec},
    }


def test_a_claim_of_our_class_gets_one_folder_and_one_volume(tmp_path: Path) -> None:
    bound = claim("bound", volumeName="local-bound")
    api = FakeApi([claim("new"), bound, claim("other", "fast")], [])
    volumes.look(api, tmp_path)  # type: ignore[arg-type]  # a fake of it
    (made,) = api.created
    assert made["spec"]["claimRef"]["uid"] == "new"
    assert made["spec"]["capacity"] == {"storage": "2Gi"}
    assert (tmp_path / "local-new").stat().st_mode & 0o777 == 0o777
    assert [path.name for path in tmp_path.iterdir()] == ["local-new"]


def test_a_volume_whose_claim_is_gone_goes_with_its_folder_and_others_stay(tmp_path: Path) -> None:
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
    phases = {"gone": "Released", "kept": "Bound"}
    api = FakeApi([], [{"metadata": {"name": name}, "status": {"phase": phase}} for name, phase in phases.items()])
    volumes.look(api, tmp_path)  # type: ignore[arg-type]  # a fake of it
    assert api.deleted == ["/api/v1/persistentvolumes/gone"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_where_objects_live() -> None:
    slice_ = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"namespace": "n", "name": "a"}}
    assert path_of(slice_) == "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/a"
    assert path_of({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}) == "/api/v1/nodes/a"


def test_waiting_takes_errors_of_the_connection_for_not_yet_and_ends() -> None:
    answers = iter([OSError("refused"), False, True])

    def asked() -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return bool(answer)

    until(asked, "never", 5.0)
    with pytest.raises(EnvironmentFault, match="it does not come: not within 0 s"):
        until(lambda: False, "it does not come", 0.0)


def test_definitions_lose_a_chart_s_templates_and_keep_what_the_api_server_wants(tmp_path: Path) -> None:
    notes = {"api-approved.kubernetes.io": "yes", "helm.sh/resource-policy": "keep"}
    metadata = {"name": "things.example", "annotations": notes, "labels": {"app": "{{ template }}"}}
    documents = [{"kind": "CustomResourceDefinition", "metadata": metadata, "spec": {"a": 1}}, {"kind": "Service"}]
    path = tmp_path / "crd.yaml"
    path.write_text(
        yaml.safe_dump_all(documents) + "---\nkind: CustomResourceDefinition\nmetadata: {name: b}\nenum:\n- =\n"
    )
    first, second = definitions([path])
    assert first["metadata"] == {"name": "things.example", "annotations": {"api-approved.kubernetes.io": "yes"}}
    assert second["enum"] == ["="]


def test_a_way_is_read_and_written() -> None:
    way = Way.read("8080=10.96.0.20:80")
    assert (way.listen, way.host, way.port, str(way)) == (8080, "10.96.0.20", 80, "8080=10.96.0.20:80")
    with pytest.raises(ValueError, match="is no way"):
        Way.read("8080")


async def test_a_relay_carries_both_directions_and_ends_each_by_itself() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.read())  # answers only after the other side ended its own
        writer.close()
        await writer.wait_closed()

    relayed = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Relay(Way(0, "127.0.0.1", target))(reader, writer)
        relayed.set()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as inner:
        target = inner.sockets[0].getsockname()[1]
        async with await asyncio.start_server(relay, "127.0.0.1", 0) as outer:
            reader, writer = await asyncio.open_connection(*outer.sockets[0].getsockname())
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"got hello"
            await relayed.wait()
            writer.close()
            await writer.wait_closed()


async def test_a_relay_to_nowhere_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with await asyncio.start_server(_Relay(Way(0, "127.0.0.1", port)), "127.0.0.1", 0) as outer:
        reader, writer = await asyncio.open_connection(*outer.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_a_node_s_cgroup_is_found_again_by_its_folder_and_removed(tmp_path: Path) -> None:
    assert cgroup_name(tmp_path) == cgroup_name(Path(str(tmp_path))) != cgroup_name(tmp_path / "other")
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    make_cgroup("ours", tmp_path)
    assert (tmp_path / "ours").is_dir()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"
    (tmp_path / "ours" / "kubepods" / "pod").mkdir(parents=True)
    (tmp_path / "k8s.io").mkdir()
    (tmp_path / "provable-city-another").mkdir()
    remove_cgroups("ours", tmp_path)
    assert not (tmp_path / "ours").exists()
    assert (tmp_path / "k8s.io").exists()  # another node's containerd uses it
    (tmp_path / "provable-city-another").rmdir()
    remove_cgroups("ours", tmp_path)
    assert not (tmp_path / "k8s.io").exists()
    assert entering(7)[:3] == ["nsenter", "--target", "7"]


def test_why_there_can_be_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "self").mkdir()
    status, filesystems = tmp_path / "self" / "status", tmp_path / "filesystems"
    status.write_text("Name:\tpython\nCapEff:\t00000000a80425fb\n")
    filesystems.write_text("nodev\tproc\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "needs root" in packages.refusal(tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "CAP_SYS_ADMIN" in packages.refusal(tmp_path)
    status.write_text("CapEff:\t000001ffffffffff\n")
    assert "overlayfs" in packages.refusal(tmp_path)
    filesystems.write_text("nodev\toverlay\n")
    monkeypatch.setattr(packages, "missing_packages", lambda: ["runc"])
    assert packages.refusal(tmp_path).endswith("apt-get install --no-install-recommends runc")
    monkeypatch.setattr(packages, "missing_packages", lambda: [])
    assert packages.refusal(tmp_path) == ""


def test_the_command_says_what_to_do_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    assert command.main(["env", *state]) == command.ENVIRONMENT
    assert "no cluster runs" in capsys.readouterr().err
    assert command.main(["up", "--images", str(tmp_path), *state]) == command.ENVIRONMENT
    assert "say --node too" in capsys.readouterr().err
    assert command.main(["down", *state]) == command.DONE
    with pytest.raises(EnvironmentFault, match="make image"):
        command.archives(tmp_path)


def test_a_file_of_another_process_is_no_running_cluster(tmp_path: Path) -> None:
    assert background.read(tmp_path) is None
    for content in ("{", json.dumps({"pid": 1}), json.dumps({"pid": 1, "unknown": 1})):
        (tmp_path / "cluster.json").write_text(content)
        assert background.read(tmp_path) is None
