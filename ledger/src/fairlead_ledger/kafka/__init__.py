"""The same bodies from Kafka: read at least once, kept once."""
