"""Commands over HTTP: each is written down under its idempotency key, sent to Kafka once, and waited for.

    new order ──▶ api_idempotency ──▶ account.commands ──▶ engine ──▶ command_seen, position ──▶ answer
                                                              └─────▶ account.events ──▶ why it was refused

The identity of the command is (``urn:tokenbill:api:KEY_ID``, idempotency key): sent twice, it is applied once.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.store.api.order_rows import ACCEPTED, REJECTED, SOURCE_PREFIX, Order, Ordered, remember_order, sending
from schemas.cloudevents import write_structured
from schemas.commands import COMMANDS, parse_command
from schemas.refusal_codes import COMMAND, Code, codes_of
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC
from streams.send.emitter import DeliveryFailed
from streams.send.sender import Outgoing
from tokenbill.api.context import Context
from tokenbill.api.http.answers import json_answer, quoted
from tokenbill.api.http.auth import Caller
from tokenbill.api.http.bodies import check_fields, wire_names, write_strictly
from tokenbill.api.http.problems import Problem

WAIT_SECONDS = 5
LONGEST_WAIT_SECONDS = 30
KEY_PATTERN = "^[A-Za-z0-9_.:~-]{1,128}$"
CORRECTIONS = frozenset({"balance.adjusted.v1", "usage.voided.v1", "usage.corrected.v1"})
"""Commands that change what was booked: they need the right to correct."""
_JSON_HEADERS = (("content-type", b"application/cloudevents+json"),)
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,4})(?:$|[,;\s])")

_ROWS = codes_of(COMMAND)


class CommandBody(BaseModel):
    """A command that was ordered, and what became of it."""

    key: str = Field(description="the idempotency key; with the caller it names the command")
    source: str = Field(description="source of the command; its id is the key")
    type: str = Field(description="type of the command")
    account: str = Field(description="the account")
    outcome: str = Field(
        description="accepted, rejected, or pending: not decided yet", pattern="^(accepted|rejected|pending)$"
    )
    reason: str | None = Field(description="why it was rejected: the code of the problem")
    detail: str | None = Field(description="field, value and expectation, for a person")


def command_body(ordered: Ordered) -> dict[str, Any]:
    """The document of :class:`CommandBody`."""
    order = ordered.order
    rejected = ordered.outcome == REJECTED
    return {
        "key": order.key,
        "source": order.source,
        "type": order.type,
        "account": order.account,
        "outcome": ordered.outcome or "pending",
        "reason": ordered.reason if rejected else None,
        "detail": ordered.detail if rejected else None,
    }


def wait_seconds(prefer: str | None) -> int:
    """How long the caller is willing to wait (``Prefer: wait=N``, RFC 7240), within our bound."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), LONGEST_WAIT_SECONDS) if found else WAIT_SECONDS


def make_order(shared: Context, caller: Caller, key: str, kind: str, account: str, data: dict[str, Any]) -> Order:
    """The order of a command, checked as the pipeline will check it.

    Raises:
        Problem: ``invalid_request``, ``invalid_command``.
    """
    check_fields(data, wire_names(COMMANDS[kind]), "")
    asked = write_strictly([kind, account, sorted(data.items())])
    record = write_structured(kind, SOURCE_PREFIX + caller.key_id, key, time.time_ns() // 1000, account, data)
    command = parse_command(record)
    if isinstance(command, Refusal):
        raise Problem("invalid_command", f"{command.detail}.")
    sha256 = hashlib.sha256(asked).digest()
    partition = partition_of(account, shared.partitions)
    return Order(caller.key_id, key, sha256, account, kind, record, partition)


async def place(shared: Context, order: Order, seconds: int) -> Response:
    """Send an order if nobody has, wait for its outcome, and answer.

    Raises:
        Problem: ``idempotency_key_reused``, ``kafka_down``, or the reason of the refusal.
    """
    new, ordered = await remember_order(shared.database, order)
    if ordered.order.request_sha256 != order.request_sha256:
        raise Problem(
            "idempotency_key_reused",
            f"The key {order.key!r} stands for another request: {ordered.order.type} on {ordered.order.account!r}.",
        )
    if ordered.outcome is None:
        if ordered.record_offset is None:
            await _send(shared, ordered.order)
        ordered = await shared.outcomes.wait(order.caller, order.key, seconds) or ordered
    return answer(ordered, replayed=not new)


async def _send(shared: Context, order: Order) -> None:
    # Half of the connections at most wait for Kafka: what only reads is served while the broker is away.
    async with shared.sending, sending(shared.database, order.caller, order.key) as turn:
        if turn.record_offset is not None:
            return
        record = Outgoing(COMMAND_TOPIC, order.partition, order.account.encode(), order.record, _JSON_HEADERS)
        # Shielded: a caller who hangs up must not leave behind a record of which nobody knows the offset.
        [sent] = await asyncio.shield(shared.sender.send([record]))
        if isinstance(sent, DeliveryFailed):
            raise Problem("kafka_down", f"{sent}. Send the request again with the same key.")
        await turn.sent(sent)


def answer(ordered: Ordered, *, replayed: bool) -> Response:
    """201, 202, or the refusal as a problem; the same order with the same outcome is answered in the same words."""
    headers = {"idempotent-replayed": "true"} if replayed else {}
    order = ordered.order
    if ordered.outcome == REJECTED:
        raise refusal(ordered, headers)
    if ordered.outcome == ACCEPTED:
        if order.type == "account.opened.v1":
            headers["location"] = f"/v1/accounts/{quoted(order.account)}"
        return json_answer(command_body(ordered), 201, headers)
    headers |= {"location": f"/v1/commands/{order.key}", "retry-after": "1"}
    return json_answer(command_body(ordered), 202, headers)


def refusal(ordered: Ordered, headers: dict[str, str]) -> Problem:
    """The problem that a refusal is answered with: its code is the engine's reason."""
    reason = ordered.reason or "command_rejected"
    row = _ROWS.get(reason, Code(reason, 409, "A rule refused the command", "", COMMAND))
    return Problem(reason, f"{ordered.detail}.", headers, row=row, command=command_body(ordered))
