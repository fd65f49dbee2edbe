"""Relay: publishes the outbox in Kafka transactions."""
