"""Commands over HTTP: each order is stored under its idempotency key, sent to Kafka, and its outcome awaited.

    new order ──▶ api_idempotency ──▶ account.commands ──▶ engine ──▶ command_seen, position ──▶ answer
                                                              └─────▶ account.events ──▶ reason of a refusal

The identity of the command is (``urn:tokenbill:api:KEY_ID``, idempotency key): sent twice, it is applied once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.commits.commit_record import ACCEPTED
from billing.store.api.order_rows import REJECTED, SOURCE_PREFIX, Order, OrderState, remember_order, sending
from schemas.cloudevents import write_structured
from schemas.commands import COMMANDS, parse_command
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC
from streams.send.sender import own_record
from streams.stream_errors import DeliveryFailed
from tokenbill.api.context import ApiContext
from tokenbill.api.http.answers import json_answer, quoted
from tokenbill.api.http.auth import Caller
from tokenbill.api.http.bodies import check_fields, wire_names, write_strictly
from tokenbill.api.http.problems import Problem, command_row

CORRECTIONS = frozenset({"balance.adjusted.v1", "usage.voided.v1", "usage.corrected.v1"})
"""Commands that change booked amounts or usage. They need the right ``correct``."""


class CommandBody(BaseModel):
    """An ordered command and its outcome."""

    key: str = Field(description="idempotency key; with the caller it identifies the command")
    source: str = Field(description="source of the command; its id is the key")
    type: str = Field(description="type of the command")
    account: str = Field(description="account id")
    outcome: str = Field(
        description="`accepted`, `rejected`, or `pending`: not decided yet", pattern="^(accepted|rejected|pending)$"
    )
    reason: str | None = Field(description="reason of a rejection, equal to the problem code")
    detail: str | None = Field(description="explanation: field, value and what was expected")


def command_body(ordered: OrderState) -> dict[str, Any]:
    """Return the document of :class:`CommandBody`."""
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


def make_order(shared: ApiContext, caller: Caller, key: str, kind: str, account: str, data: dict[str, Any]) -> Order:
    """Return the order of a command, validated as the pipeline will validate it.

    Raises:
        Problem: ``invalid_request``, ``invalid_command``, ``invalid_data``.
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


async def place(shared: ApiContext, order: Order, seconds: int) -> Response:
    """Send an order that was not sent before, wait for its outcome, and answer.

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


async def _send(shared: ApiContext, order: Order) -> None:
    # At most half of the connections wait for Kafka, so that reads are still served while the broker is away.
    async with shared.sending, sending(shared.database, order.caller, order.key) as turn:
        if turn.record_offset is not None:
            return
        keys = await shared.record_keys.now()
        record = own_record(keys, COMMAND_TOPIC, order.partition, order.account, order.record)
        # Shielded: if this request is cancelled, the send still runs to its end and is not cut off midway.
        [sent] = await asyncio.shield(shared.sender.send([record]))
        if isinstance(sent, DeliveryFailed):
            raise Problem("kafka_down", f"{sent}. Send the request again with the same key.")
        await turn.sent(sent)


def answer(ordered: OrderState, *, replayed: bool) -> Response:
    """Answer with 201 (accepted) or 202 (pending), or raise the refusal as a problem.

    The same order with the same outcome always gets the same body.
    """
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


def refusal(ordered: OrderState, headers: dict[str, str]) -> Problem:
    """Return the problem that answers a refused order. Its code is the engine's reason."""
    reason = ordered.reason or "command_rejected"
    row = command_row(reason)
    return Problem(reason, f"{ordered.detail}.", headers, row=row, command=command_body(ordered))
