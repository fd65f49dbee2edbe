"""SQL of holds, on a connection of its own."""
