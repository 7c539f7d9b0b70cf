"""Starts Kafka in a pod: KAFKA_* variables become server.properties, a new data folder is formatted, then Java takes this process over.

The variables and mounts are those of the official image `apache/kafka`: `KAFKA_NODE_ID` is `node.id`; of underscores one is a dot, two are an
underscore, three a hyphen. `CLUSTER_ID` names the cluster. Standard library only: it runs on the image's Python with nothing else beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBS = Path("/opt/kafka/libs")
DATA = "/var/lib/kafka/data"
SECRETS = Path("/etc/kafka/secrets")
CONFIG = Path("/opt/kafka/config")
JAVA_HOME = "/usr/lib/jvm/java-17-openjdk-amd64"
DEFAULT_CLUSTER = "5L6g3nShT-eMCtK--X86sw"
"""What the official image takes where CLUSTER_ID is absent; fit for trials with one cluster."""
FAILED = 78  # EX_CONFIG of sysexits.h
# Options of Java and of the official image's own scripts, which are no settings of the broker.
NOT_SETTINGS = frozenset(
    {
        *(
            "KAFKA_VERSION",
            "KAFKA_HEAP_OPTS",
            "KAFKA_JVM_PERFORMANCE_OPTS",
            "KAFKA_GC_LOG_OPTS",
            "KAFKA_OPTS",
            "KAFKA_JMX_OPTS",
        ),
        *(
            "KAFKA_LOG4J_OPTS",
            "KAFKA_LOG4J_ROOT_LOGLEVEL",
            "KAFKA_LOG4J_LOGGERS",
            "KAFKA_TOOLS_LOG4J_LOGLEVEL",
            "KAFKA_JMX_PORT",
        ),
    }
)
# Stores named by file in the secrets folder, with the files of their passwords, as the official image has them.
STORES = {
    "KAFKA_SSL_KEYSTORE_FILENAME": "ssl.keystore.location",
    "KAFKA_SSL_TRUSTSTORE_FILENAME": "ssl.truststore.location",
}
PASSWORDS = {
    "KAFKA_SSL_KEYSTORE_CREDENTIALS": "ssl.keystore.password",
    "KAFKA_SSL_KEY_CREDENTIALS": "ssl.key.password",
    "KAFKA_SSL_TRUSTSTORE_CREDENTIALS": "ssl.truststore.password",
}
REQUIRED = {
    "node.id": "KAFKA_NODE_ID",
    "process.roles": "KAFKA_PROCESS_ROLES",
    "listeners": "KAFKA_LISTENERS",
    "controller.listener.names": "KAFKA_CONTROLLER_LISTENER_NAMES",
}
QUORUM = ("controller.quorum.voters", "controller.quorum.bootstrap.servers")


class Refused(Exception):
    """The variables or the folders are at fault; the message says which."""


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Does not return where Java starts; else 78, with a line that says what is wrong."""
    try:
        settings = properties(environment)
        folder = writable((CONFIG, Path(tempfile.gettempdir())))
        file = folder / "server.properties"
        write(file, text(settings))
        (folder / "log4j2.properties").write_text(logging(environment), encoding="utf-8")
        if not formatted(settings["log.dirs"]):
            prepare(settings, file, environment)
    except Refused as refused:
        print(f"kafka: {refused}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"kafka: {error.strerror}: {error.filename}; give it a volume that this user may write", file=sys.stderr)
        return FAILED
    argv = [*java(environment), f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}", *options(environment)]
    os.execv(argv[0], [*argv, "-cp", classes(), "kafka.Kafka", str(file)])  # noqa: S606 - the point of this program


def properties(environment: Mapping[str, str]) -> dict[str, str]:
    """The broker's settings.

    Raises:
        Refused: a variable is missing or a file that one names.
    """
    named = {*NOT_SETTINGS, *STORES, *PASSWORDS}
    found = {
        setting(name): value
        for name, value in sorted(environment.items())
        if name.startswith("KAFKA_") and name not in named
    }
    found |= {key: str(_secret(environment[name])) for name, key in STORES.items() if name in environment}
    found |= {key: _word(_secret(environment[name])) for name, key in PASSWORDS.items() if name in environment}
    found.setdefault("log.dirs", DATA)
    _require(found)
    return found


def setting(variable: str) -> str:
    """The name of the setting that a variable gives."""
    text = variable.removeprefix("KAFKA_").lower()
    return text.replace("___", "\0").replace("__", "\1").replace("_", ".").replace("\0", "-").replace("\1", "_")


def text(settings: Mapping[str, str]) -> str:
    """The settings as Java reads properties: backslashes and line ends are escaped."""
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
    return "".join(f"{name}={value.translate(escapes)}\n" for name, value in sorted(settings.items()))


def formatting(settings: Mapping[str, str], cluster: str) -> list[str]:
    """Arguments that format a new folder.

    Raises:
        Refused: the first controllers cannot be known.
    """
    argv = ["format", "--cluster-id", cluster, "--ignore-formatted"]
    if QUORUM[0] in settings or "controller" not in settings["process.roles"]:
        return argv
    if "," in settings[QUORUM[1]]:
        raise Refused(
            "with several controllers KAFKA_CONTROLLER_QUORUM_VOTERS must name them (1@kafka-0.kafka:9094,2@...):"
            " a new folder cannot know the others by KAFKA_CONTROLLER_QUORUM_BOOTSTRAP_SERVERS"
        )
    return [*argv, "--standalone"]


def formatted(folders: str) -> bool:
    """Whether the first of the data folders belongs to a cluster already."""
    return (Path(_first(folders)) / "meta.properties").exists()


def prepare(settings: Mapping[str, str], file: Path, environment: Mapping[str, str]) -> None:
    """Formats the data folder.

    Raises:
        Refused: Kafka's own tool does.
    """
    Path(_first(settings["log.dirs"])).mkdir(parents=True, exist_ok=True)
    argv = formatting(settings, environment.get("CLUSTER_ID", DEFAULT_CLUSTER))
    tool = [*java(environment), "-XX:TieredStopAtLevel=1", "-cp", classes(), "kafka.tools.StorageTool", *argv]
    done = subprocess.run([*tool, "--config", str(file)], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise Refused(f"the data folder {settings['log.dirs']} cannot be formatted: {done.stderr.strip()[-600:]}")


def options(environment: Mapping[str, str]) -> list[str]:
    """Java's options, the heap's with the official image's default."""
    flags = environment.get("KAFKA_HEAP_OPTS", "-Xms1G -Xmx1G").split()
    for name in ("KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_LOG4J_OPTS", "KAFKA_JMX_OPTS", "KAFKA_OPTS"):
        flags += environment.get(name, "").split()
    return flags


def java(environment: Mapping[str, str]) -> list[str]:
    return [f"{environment.get('JAVA_HOME', JAVA_HOME)}/bin/java"]


def classes(libs: Path = LIBS) -> str:
    """The class path, in one order always."""
    return ":".join(str(path) for path in sorted(libs.glob("*.jar")))


def logging(environment: Mapping[str, str]) -> str:
    """Everything to standard output, at the level that KAFKA_LOG4J_ROOT_LOGLEVEL names."""
    level = environment.get("KAFKA_LOG4J_ROOT_LOGLEVEL", "INFO").lower()
    return (
        "status = error\nappender.out.type = Console\nappender.out.name = out\nappender.out.layout.type = PatternLayout\n"
        f"appender.out.layout.pattern = [%d] %p %m (%c)%n\nrootLogger.level = {level}\nrootLogger.appenderRef.out.ref = out\n"
    )


def writable(folders: Sequence[Path]) -> Path:
    """The first folder that can be written.

    Raises:
        Refused: none can.
    """
    for folder in folders:
        if os.access(folder, os.W_OK):
            return folder
    raise Refused(f"no place for server.properties: mount an emptyDir at {' or '.join(str(one) for one in folders)}")


def write(file: Path, content: str) -> None:
    """Only its owner may read it: passwords are among the settings."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as target:
        target.write(content)


def _first(folders: str) -> str:
    return folders.partition(",")[0]


def _require(settings: Mapping[str, str]) -> None:
    for name, variable in REQUIRED.items():
        if not settings.get(name):
            raise Refused(f"{variable} is missing; set it to the broker's {name}")
    if not any(name in settings for name in QUORUM):
        raise Refused(
            "KAFKA_CONTROLLER_QUORUM_VOTERS or KAFKA_CONTROLLER_QUORUM_BOOTSTRAP_SERVERS is missing; set one of them"
        )


def _secret(name: str) -> Path:
    path = SECRETS / name
    if not path.is_file():
        raise Refused(f"{path} is missing; mount the secret that has it at {SECRETS}")
    return path


def _word(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    sys.exit(main())
