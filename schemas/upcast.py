"""Conversion of old wire versions to the current one, on plain JSON bodies, before any model is built.

A type on the wire ends in its version, ``token.usage.v1``. An upcaster takes the ``data`` of one version and returns
the ``data`` of the next. It is small and pure, and is never edited once an event of its version was accepted anywhere.
"""

import re
from collections.abc import Callable, MutableMapping
from typing import Any

EventData = dict[str, Any]
Upcaster = Callable[[EventData], EventData]

UPCASTERS: MutableMapping[tuple[str, int], Upcaster] = {}
"""(name without version, version) to the upcaster to the next version; empty while every type has version 1 only."""

_VERSIONED = re.compile(r"(.+)\.v(0|[1-9][0-9]{0,8})", re.DOTALL | re.ASCII)


def current_type(event_type: str) -> str:
    """Return the type after upcasting; a type without version is returned unchanged."""
    match = _VERSIONED.fullmatch(event_type)
    if match is None:
        return event_type
    name, version = match.group(1), int(match.group(2))
    while (name, version) in UPCASTERS:
        version += 1
    return f"{name}.v{version}"


def upcast(event_type: str, body: EventData) -> tuple[str, EventData]:
    """Upcast ``data`` of any known version; return the current type and its body."""
    match = _VERSIONED.fullmatch(event_type)
    if match is None:
        return event_type, body
    name, version = match.group(1), int(match.group(2))
    while (step := UPCASTERS.get((name, version))) is not None:
        body = step(body)
        version += 1
    return f"{name}.v{version}", body
