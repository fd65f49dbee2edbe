"""JSON text as every output has it: compact, UTF-8, keys in the given order."""

import json

_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Made once: ``json.dumps`` makes an encoder for each call."""


def dump_json(value: object) -> bytes:
    """Compact UTF-8 JSON; keys keep their order."""
    return _write(value).encode()
