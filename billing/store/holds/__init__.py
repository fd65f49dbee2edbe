"""SQL of holds, on dedicated connections."""
