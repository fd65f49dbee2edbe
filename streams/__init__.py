"""Kafka and Faust code: transport, agents, partition writers, relay, producers and readers. Holds no billing rules."""
