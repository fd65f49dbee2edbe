"""Old wire versions become new ones here, as plain bodies, before any object exists.

A type on the wire ends in its version, ``token.usage.v1``. An upcaster takes the ``data`` of one version and returns
the ``data`` of the next; it is tiny, pure, and never edited once an event of its version was accepted anywhere.
"""

import re
from collections.abc import Callable, MutableMapping
from typing import Any

Body = dict[str, Any]
Upcaster = Callable[[Body], Body]

UPCASTERS: MutableMapping[tuple[str, int], Upcaster] = {}
"""``(name without version, version)`` to the function that makes the next version. Version 1 is the only one yet."""

_VERSIONED = re.compile(r"(.+)\.v(0|[1-9][0-9]{0,8})", re.DOTALL | re.ASCII)


def current_type(event_type: str) -> str:
    """Name the type that an event of this type has after upcasting; a type without version is left as it is."""
    match = _VERSIONED.fullmatch(event_type)
    if match is None:
        return event_type
    name, version = match.group(1), int(match.group(2))
    while (name, version) in UPCASTERS:
        version += 1
    return f"{name}.v{version}"


def upcast(event_type: str, body: Body) -> tuple[str, Body]:
    """Lift ``data`` of any known version to the current one; returns the current type and its body."""
    match = _VERSIONED.fullmatch(event_type)
    if match is None:
        return event_type, body
    name, version = match.group(1), int(match.group(2))
    while (step := UPCASTERS.get((name, version))) is not None:
        body = step(body)
        version += 1
    return f"{name}.v{version}", body
