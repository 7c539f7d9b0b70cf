"""Kafka 4.3 (KRaft) on loopback, from Maven: `install`, then `programs`. Called by `make up` and by the tests."""

from infra.kafka.broker import BrokerTls, addresses, programs
from infra.kafka.install import install

__all__ = ["BrokerTls", "addresses", "install", "programs"]
