"""The brokers as native programs: settings, format, start. Each is broker and controller (KRaft) in one."""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from citykit.errors import EnvironmentFault
from infra.kafka.install import jars, java
from infra.native import Program, free_port, listens

MESSAGE_BYTES = 1_300_000
"""What a broker takes at most: a message of the bus (1,100,000) and what the dead letter adds."""
_READY_S = 90.0
_STOP_S = 30.0
_ASK_S = 2.0
_HEAP = "384m"
_ADMINS = "User:kafka;User:admin"


@dataclass(frozen=True)
class BrokerTls:
    """Files of the brokers' side, PEM. Clients show a certificate whose common name is the service's (mutual TLS) or come with SCRAM.

    Attributes:
        ca_file: who signs clients and brokers.
        certificate_file: the brokers' certificate (common name `kafka`, for 127.0.0.1 and localhost, server and client use).
        key_file: its key, PKCS 8, not encrypted.
        admin_certificate_file: of `admin`, with which readiness is asked for.
        admin_key_file: its key.
    """

    ca_file: Path
    certificate_file: Path
    key_file: Path
    admin_certificate_file: Path
    admin_key_file: Path


@dataclass(frozen=True)
class Node:
    """One broker's place.

    Attributes:
        port: of clients (plaintext in throw-away tests, else mutual TLS).
        scram_port: of clients that come with a password over TLS; 0 without TLS.
        directory_id: of its log folder, which the first controllers know each other by.
    """

    number: int
    port: int
    scram_port: int
    controller_port: int
    directory_id: str
    state: Path

    @property
    def settings_file(self) -> Path:
        return self.state / "server.properties"


def programs(
    cache: Path,
    state: Path,
    brokers: int = 1,
    *,
    tls: BrokerTls | None = None,
    ports: Sequence[int] = (),
    fast_start: bool = True,
) -> list[Program]:
    """One program per broker; folders under `state` are made and formatted where they are new. Start all, then wait for all.

    Args:
        brokers: 1 or 3.
        tls: None is plaintext without any rights, for throw-away tests on loopback only.
        ports: of clients, one a broker (with TLS two: mutual TLS, then SCRAM); empty: free ones, kept in `state`.
        fast_start: compiles less and so starts sooner; not for measuring.

    Raises:
        EnvironmentFault: Java is absent or formatting failed.
    """
    nodes = [_node(state / f"kafka-{number}", number, ports, tls is not None) for number in range(1, brokers + 1)]
    cluster = _kept(state / "cluster.id", _new_id)
    for node in nodes:
        node.settings_file.write_text(_text(_settings(node, nodes, tls)), encoding="ascii")
        (node.state / "log4j2.properties").write_text(_LOG4J, encoding="ascii")
        if not (node.state / "data" / "meta.properties").exists():
            _format(cache, node, nodes, cluster)
    return [_program(cache, node, len(nodes), tls, fast_start) for node in nodes]


def addresses(state: Path, brokers: int = 1, *, scram: bool = False) -> str:
    """The bootstrap servers of the brokers kept in `state`, comma-separated."""
    name = "scram.port" if scram else "client.port"
    numbers = range(1, brokers + 1)
    return ",".join(f"127.0.0.1:{(state / f'kafka-{n}' / name).read_text(encoding='ascii')}" for n in numbers)


def _node(state: Path, number: int, ports: Sequence[int], secured: bool) -> Node:
    state.mkdir(parents=True, exist_ok=True)
    given = list(ports[(number - 1) * (1 + secured) :])

    def port(name: str) -> int:
        return int(_kept(state / f"{name}.port", lambda: str(given.pop(0) if given else free_port())))

    client, scram = port("client"), port("scram") if secured else 0
    return Node(number, client, scram, port("controller"), _kept(state / "directory.id", _new_id), state)


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What was chosen at the first start holds for later ones."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="ascii")
    return path.read_text(encoding="ascii")


def _new_id() -> str:
    """16 random bytes in URL-safe base64 without padding; one that begins with `-` would be read as an option."""
    while (made := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")).startswith("-"):
        continue
    return made


def _settings(node: Node, nodes: Sequence[Node], tls: BrokerTls | None) -> dict[str, str]:
    copies = len(nodes)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{item.controller_port}" for item in nodes),
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(node.state / "data"),
        **_listeners(node, tls),
        **(_rights(tls) if tls else {}),
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES),
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(min(2, copies)),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(min(2, copies)),
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "2000",
        # After a crash the broker's old session must end before it is let in again.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


def _listeners(node: Node, tls: BrokerTls | None) -> dict[str, str]:
    if tls is None:
        names = {"CLIENT": ("PLAINTEXT", node.port), "CONTROLLER": ("PLAINTEXT", node.controller_port)}
    else:
        names = {
            "CLIENT": ("SSL", node.port),
            "SCRAM": ("SASL_SSL", node.scram_port),
            "CONTROLLER": ("SSL", node.controller_port),
        }
    bound = {name: f"{name}://127.0.0.1:{port}" for name, (_, port) in names.items()}
    return {
        "listeners": ",".join(bound.values()),
        "advertised.listeners": ",".join(bound.values()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, (protocol, _) in names.items()),
        "inter.broker.listener.name": "CLIENT",
    }


def _rights(tls: BrokerTls) -> dict[str, str]:
    """Whoever is not named in an access rule may do nothing; the common name of a certificate is the name."""
    return {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": _ADMINS,
        "allow.everyone.if.no.acl.found": "false",
        "ssl.client.auth": "required",
        "listener.name.scram.ssl.client.auth": "none",
        "ssl.principal.mapping.rules": "RULE:^(?:.*,)?CN=([^,]+).*$/$1/,DEFAULT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(_keystore(tls)),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tls.ca_file),
        "ssl.enabled.protocols": "TLSv1.3,TLSv1.2",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }


def _keystore(tls: BrokerTls) -> Path:
    """Key and certificate in one file, as Kafka wants them."""
    path = tls.key_file.with_name(tls.key_file.name + "+chain.pem")
    path.touch(mode=0o600)
    path.write_bytes(tls.key_file.read_bytes() + tls.certificate_file.read_bytes())
    return path


def _text(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _format(cache: Path, node: Node, nodes: Sequence[Node], cluster: str) -> None:
    first = ",".join(f"{n.number}@127.0.0.1:{n.controller_port}:{n.directory_id}" for n in nodes)
    tool = ("kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(node.settings_file))
    argv = [java(), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", _classes(cache), *tool]
    done = subprocess.run(  # noqa: S603 - our own arguments
        [*argv, "--initial-controllers", first], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise EnvironmentFault(f"the broker's folder {node.state} could not be formatted: {done.stderr.strip()[-500:]}")


def _classes(cache: Path) -> str:
    """The class path, in one order always, because the archive of classes holds for one class path."""
    return ":".join(str(path) for path in sorted(jars(cache).glob("*.jar")))


def archive_file(cache: Path) -> Path:
    """Where the archive of classes lies, if it was made."""
    return jars(cache).parent / "classes.jsa"


def _program(cache: Path, node: Node, brokers: int, tls: BrokerTls | None, fast_start: bool) -> Program:
    flags = ["-XX:TieredStopAtLevel=1"] if fast_start else []
    archive = archive_file(cache)
    if fast_start and archive.exists():
        flags += [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"]
    log = f"-Dlog4j2.configurationFile={node.state / 'log4j2.properties'}"
    argv = [java(), f"-Xms{_HEAP}", f"-Xmx{_HEAP}", "-XX:+UseSerialGC", *flags, log, "-cp", _classes(cache)]
    return Program(
        f"kafka-{node.number}",
        [*argv, "kafka.Kafka", str(node.settings_file)],
        partial(sees, node.port, brokers, tls),
        cwd=node.state,
        ready_s=_READY_S,
        stop_s=_STOP_S,
    )


def sees(port: int, brokers: int, tls: BrokerTls | None) -> bool:
    """Whether the broker at this port serves and sees so many brokers: an open port says neither."""
    if not listens(port):
        return False
    try:
        found = AdminClient(admin_settings(port, tls)).list_topics(timeout=_ASK_S)
    except KafkaException:
        return False
    return len(found.brokers) >= brokers


def admin_settings(port: int, tls: BrokerTls | None) -> dict[str, str | int | float | bool]:
    """Settings of an admin client of librdkafka for this port."""
    plain: dict[str, str | int | float | bool] = {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0}
    if tls is None:
        return plain
    return plain | {
        "security.protocol": "SSL",
        "ssl.ca.location": str(tls.ca_file),
        "ssl.certificate.location": str(tls.admin_certificate_file),
        "ssl.key.location": str(tls.admin_key_file),
    }


_LOG4J = """status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""
