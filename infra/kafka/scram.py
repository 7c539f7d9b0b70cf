"""Passwords of SASL users (SCRAM-SHA-512), set by an administrator. Called by the tests; a cluster's operator does the same."""

from __future__ import annotations

import secrets

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library does not say what it exports
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from infra.kafka.broker import BrokerTls, admin_settings

_ITERATIONS = 8_192
_WAIT_S = 30.0


def set_password(port: int, tls: BrokerTls, user: str, password: str) -> None:
    """Raises KafkaException where the brokers refuse."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    change = UserScramCredentialUpsertion(user, info, password.encode(), secrets.token_bytes(32))
    admin = AdminClient(admin_settings(port, tls))
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(timeout=_WAIT_S)
