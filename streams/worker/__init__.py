"""The Faust worker: transport, agents, one writer per partition."""
