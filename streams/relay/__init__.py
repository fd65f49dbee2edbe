"""The relay: publishes the outbox in Kafka transactions."""
