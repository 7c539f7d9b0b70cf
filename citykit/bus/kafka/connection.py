"""Settings of the connection in the words of each client. Secrets come from files and go nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault, SettingsError
from citykit.settings import KafkaSettings

CLIENTS = ("kafka-python", "confluent-kafka")
SECURITY = ("SSL", "SASL_SSL", "PLAINTEXT")
MECHANISM = "SCRAM-SHA-512"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
RECONNECT_MS = 500
"""Brokers come back within seconds; waiting longer between two tries only makes the gap longer."""


def check_settings(settings: KafkaSettings) -> None:
    """Raises SettingsError for a word that is not one of those allowed, or for files that are needed and not named."""
    _one_of("CITY_KAFKA_CLIENT", settings.client, CLIENTS)
    _one_of("CITY_KAFKA_SECURITY", settings.security, SECURITY)
    if settings.security == "PLAINTEXT" and any(host not in _LOOPBACK for host, _ in servers(settings)):
        raise SettingsError(
            "CITY_KAFKA_SECURITY=PLAINTEXT is for tests on this machine only; set SSL or SASL_SSL",
            field="CITY_KAFKA_SECURITY",
        )
    if settings.security != "PLAINTEXT" and not settings.certificates:
        raise SettingsError(
            f"CITY_KAFKA_CERTIFICATES must name a folder with ca.crt, because security is {settings.security}",
            field="CITY_KAFKA_CERTIFICATES",
        )
    if settings.security == "SASL_SSL" and not (settings.user and settings.password_file):
        raise SettingsError(
            "security SASL_SSL needs CITY_KAFKA_USER and CITY_KAFKA_PASSWORD_FILE", field="CITY_KAFKA_USER"
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}", field=name)


def certificate_files(settings: KafkaSettings) -> dict[str, Path]:
    """The files of the folder that this kind of security reads, by role: ca, and crt and key for mutual TLS."""
    folder = Path(settings.certificates)
    names = {"ca": "ca.crt"}
    if settings.security == "SSL":
        names |= {"crt": "tls.crt", "key": "tls.key"}
    return {role: folder / name for role, name in names.items()}


def password(settings: KafkaSettings) -> str:
    """The password of the user.

    Raises:
        EnvironmentFault: the file cannot be read or is empty.
    """
    try:
        text = Path(settings.password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise EnvironmentFault(
            f"the password file {settings.password_file} cannot be read ({error.strerror}); check"
            " CITY_KAFKA_PASSWORD_FILE"
        ) from error
    if not text:
        raise EnvironmentFault(f"the password file {settings.password_file} is empty")
    return text


def servers(settings: KafkaSettings) -> list[tuple[str, int]]:
    """Host and port of each bootstrap server.

    Raises:
        SettingsError: one is not host:port.
    """
    found = []
    for item in settings.bootstrap.split(","):
        host, _, port = item.strip().rpartition(":")
        if not host or not port.isdigit():
            raise SettingsError(
                f"CITY_KAFKA_BOOTSTRAP holds {item!r}; each must be host:port", field="CITY_KAFKA_BOOTSTRAP"
            )
        found.append((host.strip("[]"), int(port)))
    return found


def python_settings(settings: KafkaSettings) -> dict[str, Any]:
    """For kafka-python."""
    found: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "security_protocol": settings.security,
        "request_timeout_ms": int(settings.request_s * 1000),
        "bootstrap_timeout_ms": int(settings.start_s * 1000),
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": RECONNECT_MS,
    }
    if settings.security != "PLAINTEXT":
        found |= {f"ssl_{_PYTHON[role]}": str(path) for role, path in certificate_files(settings).items()}
    if settings.security == "SASL_SSL":
        found |= {
            "sasl_mechanism": MECHANISM,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": password(settings),
        }
    return found


def confluent_settings(settings: KafkaSettings) -> dict[str, Any]:
    """For confluent-kafka."""
    found: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "security.protocol": settings.security,
        "socket.timeout.ms": int(settings.request_s * 1000),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": RECONNECT_MS,
        "allow.auto.create.topics": False,
        "log_level": 0,
    }
    if settings.security != "PLAINTEXT":
        found |= {f"ssl.{_CONFLUENT[role]}.location": str(path) for role, path in certificate_files(settings).items()}
    if settings.security == "SASL_SSL":
        found |= {
            "sasl.mechanism": MECHANISM,
            "sasl.username": settings.user,
            "sasl.password": password(settings),
        }
    return found


_PYTHON = {"ca": "cafile", "crt": "certfile", "key": "keyfile"}
_CONFLUENT = {"ca": "ca", "crt": "certificate", "key": "key"}
