"""Faust worker: transport, agents, and one writer per partition."""
