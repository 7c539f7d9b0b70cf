"""Certificates replaced while the process runs: of members, and of TLS to the peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from citykit.errors import SettingsError
from citykit.ledger.channel import ChannelLedger
from citykit.ledger.channel.members import watched_members, watched_tls
from citykit.ledger.channel.renewal import Renewed
from citykit.ledger.fabric import EcdsaSigner, Identity, connect
from citykit.settings import FabricSettings
from tests.unit.ledger.fake_gateway import FakeGateway, certificate, creator_of, served


class Watch:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def key_of(number: int) -> Any:
    return ec.derive_private_key(number, ec.SECP256R1())


def pem_of(key: Any) -> bytes:
    how = serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))


def put(folder: Path, name: str, number: int, *, key: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.pem").write_bytes(certificate(key_of(number), f"{name} {number}"))
    if key:
        (folder / f"{name}.key").write_bytes(pem_of(key_of(number)))


def test_a_value_is_read_again_when_a_file_was_replaced(tmp_path: Path) -> None:
    path, watch = tmp_path / "a", Watch()
    path.write_text("1")
    found = Renewed([path], path.read_text, watch)
    path.write_text("22")
    assert found.value() == "1"
    watch.at = 2
    assert found.value() == "22"
    path.unlink()
    watch.at = 4
    with pytest.raises(FileNotFoundError):
        found.value()


def test_a_pair_that_is_half_replaced_is_used_when_it_is_whole(tmp_path: Path) -> None:
    put(tmp_path / "m", "notary", 3)
    members = watched_members(FabricSettings(members=str(tmp_path / "m")))
    members._now = watch = Watch()
    members._looked = 0.0
    before = members.value()
    put(tmp_path / "m", "notary", 4, key=False)
    watch.at = 2
    assert members.value() is before
    put(tmp_path / "m", "notary", 4)
    watch.at = 4
    after = members.value()
    assert after["notary"][0].certificate != before["notary"][0].certificate
    assert members.value() is after


def test_tls_of_a_pair_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "tls", 3)
    settings = FabricSettings(
        tls_ca=str(tmp_path / "tls.pem"), tls_cert=str(tmp_path / "tls.pem"), tls_key=str(tmp_path / "tls.key")
    )
    assert watched_tls(settings).value() is not None
    assert watched_tls(FabricSettings()).value() is None
    put(tmp_path, "tls", 4, key=False)
    with pytest.raises(
        SettingsError, match="CITY_FABRIC_TLS_CERT and CITY_FABRIC_TLS_KEY: the private key is not that"
    ):
        watched_tls(settings)


async def test_calls_go_on_with_the_renewed_certificate() -> None:
    fake = FakeGateway()
    fake.result = b'{"result":1}'
    server, address = await served(fake)
    members = {"tester": (Identity("TestMSP", certificate(key_of(3))), EcdsaSigner(key_of(3)))}
    held = [members]
    ledger = ChannelLedger(connect(address), FabricSettings(msp="TestMSP"), lambda: held[0], lambda: 1.0, 0)
    await ledger.evaluate("assets", "read", {})
    renewed = Identity("TestMSP", certificate(key_of(4)))
    held[0] = {"tester": (renewed, EcdsaSigner(key_of(4)))}
    await ledger.evaluate("assets", "read", {})
    creators = [creator_of(request.proposed_transaction)[0] for request in fake.asked["Evaluate"]]
    assert creators == [members["tester"][0].serialized, renewed.serialized]
    await ledger.close()
    await server.stop(None)
