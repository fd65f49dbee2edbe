"""Kafka and Faust: transport, agents, partition writers, relay, emitters. No billing rules."""
