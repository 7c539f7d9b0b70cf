"""How the programs of Kubernetes are built, pinned and started, without building or starting one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from citykit.errors import EnvironmentFault
from infra.kubernetes import components, install, kwok, strimzi, tools
from infra.kubernetes.components import Place, Ports
from infra.kubernetes.containerd import configuration, network
from infra.kubernetes.install import API_TIER, BINARIES, NODE_TIER, find_go, key, needed_go, required_version
from infra.kubernetes.kubelet import corefile, dns_objects
from infra.kubernetes.pki import MASTERS, Pki, create, write_kubeconfig
from infra.kubernetes.ports import HeldPorts

PORTS = Ports(1, 2, 3, 4, 6443, 20000)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the modules to change."""
    shutil.copytree(install.MODULES, tmp_path / "modules")
    monkeypatch.setattr(install, "MODULES", tmp_path / "modules")
    return tmp_path / "modules"


def fake_go(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, build: str = "exit 1") -> None:
    """A `go` that says a version, and does this when it builds."""
    path = folder / "go"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = version ] && {{ echo "go version go{version} linux/amd64"; exit; }}\n{build}\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_every_module_is_pinned_and_of_the_versions_that_are_told() -> None:
    wanted = {"etcd": "go.etcd.io/etcd/server/v3", "kwok": kwok.MODULE, "coredns": "github.com/coredns/coredns"}
    found = {folder: required_version(folder, module) for folder, module in wanted.items()}
    assert found == {"etcd": "v3.6.14", "kwok": "v0.8.0", "coredns": "v1.14.7"}
    assert required_version("kubernetes", "k8s.io/kubernetes") == f"v{install.KUBERNETES_VERSION}"
    assert {one.module for one in BINARIES.values()} == {path.parent.name for path in install.MODULES.glob("*/go.sum")}


def test_kubernetes_libraries_are_all_of_its_own_release() -> None:
    text = (install.MODULES / "kubernetes" / "go.mod").read_text()
    replaced = re.findall(r"^\t(k8s.io/[a-z-]+) => (\S+) v0\.34\.10$", text, re.MULTILINE)
    assert len(replaced) == 31
    assert all(name == target for name, target in replaced)


def test_the_key_changes_with_what_a_program_is_made_of(modules: Path) -> None:
    etcd, apiserver = BINARIES["etcd"], BINARIES["kube-apiserver"]
    before = key(etcd, "go1"), key(apiserver, "go1")
    assert key(etcd, "go2") != before[0]
    assert key(apiserver, "go1") != key(BINARIES["kwok"], "go1")
    with (modules / "etcd" / "go.sum").open("a") as file:
        file.write("\n")
    assert key(etcd, "go1") != before[0]
    assert key(apiserver, "go1") == before[1]  # a tier waits for no other's module


def test_an_old_go_and_no_go_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path, monkeypatch, "1.19.8")
    major, minor = needed_go()
    with pytest.raises(EnvironmentFault, match=rf"Go {major}\.{minor} or newer, and .* is 'go version go1\.19\.8"):
        find_go()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(EnvironmentFault, match="there is no `go` on the PATH"):
        find_go()


def test_a_build_is_kept_and_one_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "bin"
    room.mkdir()
    # the word after -o is where the program goes
    fake_go(room, monkeypatch, "9.9", 'while [ "$1" != -o ]; do shift; done; echo program > "$2"')
    said: list[str] = []
    took = install.install(tmp_path, [BINARIES["etcd"]], said.append)
    assert list(took) == ["etcd"]
    assert install.program(tmp_path, "etcd").read_text() == "program\n"
    assert said[0].startswith("building etcd")
    assert install.install(tmp_path, [BINARIES["etcd"]]) == {}
    fake_go(room, monkeypatch, "9.9", "echo 'no such module' >&2; exit 1")
    with pytest.raises(EnvironmentFault, match="no such module"):
        install.install(tmp_path, [BINARIES["kwok"]])
    with pytest.raises(EnvironmentFault, match="kwok is not built"):
        install.program(tmp_path, "kwok")


def test_the_tiers_share_no_program() -> None:
    assert len(BINARIES) == len(API_TIER) + len(NODE_TIER)


def test_tools_are_pinned_and_another_program_is_not_kept(tmp_path: Path) -> None:
    assert re.search(r"==[\d.]+ \\\n +--hash=sha256:[0-9a-f]{64}\n$", tools.LOCK.read_text())
    with pytest.raises(EnvironmentFault, match="helm is not installed"):
        tools.tool(tmp_path, "helm")
    with pytest.raises(EnvironmentFault, match="nothing of it was kept"):
        tools._keep(tmp_path / "helm", b"another", tools.PROGRAMS["helm"])
    tools._keep(tmp_path / "helm", b"right", hashlib.sha256(b"right").hexdigest())
    assert (tmp_path / "helm").stat().st_mode & 0o111


def test_strimzi_s_generator_is_pinned_jar_by_jar() -> None:
    folder = install.MODULES / "strimzi"
    names = [line.split()[1] for line in (folder / "jars.sha256").read_text().splitlines()]
    assert {f"crd-generator-{strimzi.VERSION}.jar", f"api-{strimzi.VERSION}.jar"} <= set(names)
    assert (folder / "pom.xml").read_text().count(f"<version>{strimzi.VERSION}</version>") == 2


def test_a_user_s_certificate_says_who_it_is_and_of_which_groups(tmp_path: Path) -> None:
    pki = create(tmp_path)
    pki.issue("ada", groups=["auditors", MASTERS])
    pki.issue("server", hosts=["localhost", "127.0.0.1"])
    ada, server = (x509.load_pem_x509_certificate(pki.certificate(name).read_bytes()) for name in ("ada", "server"))
    named = {
        oid: [one.value for one in ada.subject.get_attributes_for_oid(oid)]
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    }
    assert named == {NameOID.COMMON_NAME: ["ada"], NameOID.ORGANIZATION_NAME: ["auditors", MASTERS]}
    authority = x509.load_pem_x509_certificate(pki.authority.read_bytes())
    ada.verify_directly_issued_by(authority)
    assert isinstance(authority.public_key(), ec.EllipticCurvePublicKey)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert pki.key("ada").stat().st_mode & 0o077 == 0


def test_a_kubeconfig_has_everything_inside(tmp_path: Path) -> None:
    pki = create(tmp_path)
    pki.issue("ada")
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", pki, "ada", "city")
    document = json.loads(path.read_text())
    assert document["contexts"][0]["context"] == {"cluster": "city", "user": "ada", "namespace": "city"}
    assert not [word for word in json.dumps(document).split('"') if word.startswith(str(tmp_path))]
    assert path.stat().st_mode & 0o077 == 0


def test_on_loopback_nobody_else_reaches_the_api_server_and_a_node_s_pods_do() -> None:
    pki = Pki(Path("/pki"))
    alone = components.api_server(pki, PORTS, Place())
    assert {"--bind-address=127.0.0.1", "--endpoint-reconciler-type=none"} <= set(alone)
    reached = components.api_server(pki, PORTS, Place(address="10.250.0.2"))
    assert "--advertise-address=10.250.0.2" in reached
    assert "--endpoint-reconciler-type=none" not in reached
    routing = "--enable-aggregator-routing=true"
    assert (routing in alone, routing in reached) == (True, False), (
        "a node leads the addresses of Services on by itself"
    )
    assert (PORTS.server, PORTS.inner_server) == ("https://127.0.0.1:20000", "https://127.0.0.1:6443")


def test_an_autoscaler_looks_every_other_second() -> None:
    flags = components.controllers(Pki(Path("/pki")), PORTS, Path("/kubeconfig"))
    assert "--horizontal-pod-autoscaler-sync-period=2s" in flags
    assert "--horizontal-pod-autoscaler-downscale-stabilization=4s" in flags


def test_a_held_port_is_nobody_else_s_and_its_program_may_listen_again_and_again() -> None:
    held = HeldPorts()
    port = held.take()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)) as program:  # sets SO_REUSEADDR, as Go does
            assert program.getsockname()[1] == port
    held.release()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_pretended_node_has_room_and_says_which_zone_it_is_in() -> None:
    found = kwok.node("n", "zone-1")
    assert found["metadata"]["labels"]["topology.kubernetes.io/zone"] == "zone-1"
    assert not kwok.is_ready(found)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert kwok.is_ready(ready)


def test_the_node_s_files_hold_what_its_kernel_needs(tmp_path: Path) -> None:
    assert "restrict_oom_score_adj = true" in configuration(tmp_path)
    plugins = network()["plugins"]
    assert isinstance(plugins, list)
    assert [one["type"] for one in plugins] == ["bridge", "portmap"]
    served = corefile("10.250.0.2", tmp_path / "dns.kubeconfig")
    assert "bind 10.250.0.2" in served
    assert served.count("{") == served.count("}")
    role, *_ = dns_objects("10.250.0.2")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"list", "watch"}
