"""JSON text of all outputs: compact, UTF-8, keys in the given order."""

import json

_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Encoder made once; ``json.dumps`` with these options makes one for each call."""


def dump_json(value: object) -> bytes:
    """Return a value as compact UTF-8 JSON; keys keep their order."""
    return _write(value).encode()
