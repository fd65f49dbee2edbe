"""Deliberate faults of usage events, by the reason with which each must be rejected.

The reasons are those of the contract (docs/reference/usage-events.md, "Rejections").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

EventBody = dict[str, Any]
Fault = Callable[[EventBody], bytes]


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _with_usage(body: EventBody, usage: Mapping[str, int]) -> bytes:
    return _text(body | {"data": body["data"] | {"usage": usage}})


def _cut_off(body: EventBody) -> bytes:
    whole = _text(body)
    return whole[: len(whole) - 20]


def _without_model(body: EventBody) -> bytes:
    return _text(body | {"data": {name: value for name, value in body["data"].items() if name != "model"}})


def _negative(body: EventBody) -> bytes:
    return _with_usage(body, {"input": 100, "output": -1})


def _unheard_of_meter(body: EventBody) -> bytes:
    return _with_usage(body, {"input": 100, "vibrations": 3})


def _unpriced_model(body: EventBody) -> bytes:
    return _text(body | {"data": body["data"] | {"model": "model-nobody-priced"}})


def _too_many(body: EventBody) -> bytes:
    return _with_usage(body, {"input": 2**63})


def _as_it_is(body: EventBody) -> bytes:
    return _text(body)


FAULTS: dict[str, Fault] = {
    "invalid_json": _cut_off,
    "invalid_event": _without_model,
    "usage_mismatch": _negative,
    "unknown_meter": _unheard_of_meter,
    "no_price": _unpriced_model,
    "unknown_account": _as_it_is,
    "time_in_future": _as_it_is,
    "overflow": _too_many,
}
"""Functions that spoil a good event, by reason. An unknown account and a future time are set by the sender."""

UNREADABLE = frozenset({"invalid_json"})
"""Reasons whose events have no readable number: such an event does not use up a sequence number."""
