"""The bus on Kafka 4, with kafka-python or confluent-kafka. `open_kafka_bus` is all that others need."""

from citykit.bus.kafka.bus import KafkaBus, open_kafka_bus

__all__ = ["KafkaBus", "open_kafka_bus"]
