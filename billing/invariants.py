"""The failure that stops a worker. Every layer raises this one, so that nobody has to know who found it."""


class BrokenInvariant(RuntimeError):
    """Something that must never be false is false: the worker stops, and a person looks (STYLE rule 6)."""
