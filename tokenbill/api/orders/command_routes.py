"""Routes that order commands: accounts, top-ups, purchases, subscriptions, and any command by its type."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response

from billing.store.api.order_rows import read_order
from schemas.commands import COMMANDS, CommandData, OpenAccount, PurchasePackage, StartSubscription, TopUpWallet
from schemas.fields import show
from schemas.refusal_codes import Use, codes_of
from schemas.schema_documents import Schema
from tokenbill.api.account_routes import AccountId
from tokenbill.api.context import Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, needs, require
from tokenbill.api.http.bodies import described, read_json, strict_schema, wire_names
from tokenbill.api.http.prefer import wait_seconds
from tokenbill.api.http.problems import KEY_PATTERN, Problem, responses
from tokenbill.api.orders.orders import (
    CORRECTIONS,
    CommandBody,
    command_body,
    make_order,
    place,
)

router = APIRouter(prefix="/v1", tags=["commands"])

Orderer = Annotated[Caller, Depends(needs("order"))]
IdempotencyKey = Annotated[
    str,
    Header(alias="Idempotency-Key", pattern=KEY_PATTERN, description="identifies the request, which is executed once"),
]
Prefer = Annotated[
    str | None, Header(max_length=200, description="`wait=N`: seconds to wait for the outcome, 0 to 30, default 5")
]


class Ordering:
    """Parameters that all order routes share: the caller, the idempotency key and the time to wait for the outcome."""

    def __init__(self, shared: Shared, caller: Orderer, key: IdempotencyKey, prefer: Prefer = None) -> None:
        self._shared, self._caller, self._key, self._prefer = shared, caller, key, prefer

    async def place(self, model: type[CommandData], account: str, data: dict[str, Any]) -> Response:
        """Order one command and answer with its outcome."""
        self._caller.check_account(account)
        if model.TYPE in CORRECTIONS:
            require(self._caller, "correct")
        order = make_order(self._shared, self._caller, self._key, model.TYPE, account, data)
        return await place(self._shared, order, wait_seconds(self._prefer))


OrderedByRequest = Annotated[Ordering, Depends()]
_ANSWERS: dict[str, Any] = {
    "status_code": 201,
    "response_model": CommandBody,
    "response_description": "Accepted: the command was carried out",
}
_PENDING: dict[int | str, dict[str, Any]] = {
    202: {"model": CommandBody, "description": "Not decided yet: poll the address in `Location`"}
}
_CODES = (
    "idempotency_key_required",
    "invalid_command",
    "invalid_data",
    "other_account",
    "too_large",
    "unsupported_media_type",
    "idempotency_key_reused",
)


def _responses(*refusals: str) -> dict[int | str, dict[str, Any]]:
    return {**_PENDING, **responses(*_CODES, "kafka_down", *refusals)}


def _body_of(model: type[CommandData], **more: Schema) -> Schema:
    schema = strict_schema(model)
    schema["properties"] = {**more, **schema["properties"]}
    schema["required"] = [*more, *schema.get("required", [])]
    return described(schema)


_NAME_SCHEMA: Schema = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\u0000-\\u001f]*$"}


@router.post(
    "/accounts",
    openapi_extra=_body_of(OpenAccount, account=_NAME_SCHEMA | {"description": "the id of the new account"}),
    responses=_responses("account_exists", "ambiguous_price_book", "currency_mismatch"),
    **_ANSWERS,
)
async def open_account(request: Request, order: OrderedByRequest) -> Response:
    """Open an account. Its price book is bound at opening and never changes."""
    body = await read_json(request, wire_names(OpenAccount) | {"account"})
    account = body.pop("account", None)
    if not isinstance(account, str):
        raise Problem("invalid_command", f"account is {show(account)}: expected the id of the new account.")
    return await order.place(OpenAccount, account, body)


@router.post(
    "/accounts/{account}/top-ups",
    openapi_extra=_body_of(TopUpWallet),
    responses=_responses("unknown_account", "account_closed", "duplicate_payment_ref", "overflow"),
    **_ANSWERS,
)
async def top_up(request: Request, account: AccountId, order: OrderedByRequest) -> Response:
    """Add money to the wallet."""
    body = await read_json(request, wire_names(TopUpWallet))
    return await order.place(TopUpWallet, account, body)


@router.post(
    "/accounts/{account}/purchases",
    openapi_extra=_body_of(PurchasePackage),
    responses=_responses(
        *("unknown_account", "account_closed", "unknown_plan", "currency_mismatch", "duplicate_grant_id"),
        *("plan_withdrawn", "invalid_starts_at", "insufficient_funds", "held"),
    ),
    **_ANSWERS,
)
async def purchase(request: Request, account: AccountId, order: OrderedByRequest) -> Response:
    """Buy one cycle of a plan."""
    body = await read_json(request, wire_names(PurchasePackage))
    return await order.place(PurchasePackage, account, body)


@router.post(
    "/accounts/{account}/subscriptions",
    openapi_extra=_body_of(StartSubscription),
    responses=_responses(
        *("unknown_account", "account_closed", "unknown_plan", "currency_mismatch", "insufficient_funds"),
        *("plan_withdrawn", "invalid_starts_at", "held"),
    ),
    **_ANSWERS,
)
async def subscribe(request: Request, account: AccountId, order: OrderedByRequest) -> Response:
    """Subscribe to a plan. Each cycle grants its buckets anew until the subscription is cancelled."""
    body = await read_json(request, wire_names(StartSubscription))
    return await order.place(StartSubscription, account, body)


def _any_command() -> Schema:
    kinds = [
        {
            "type": "object",
            "title": model.__name__,
            "description": model.__doc__,
            "properties": {"type": {"const": kind}, "data": strict_schema(model)},
            "required": ["type", "data"],
            "additionalProperties": False,
        }
        for kind, model in COMMANDS.items()
    ]
    return described({"oneOf": kinds})


@router.post(
    "/accounts/{account}/commands",
    openapi_extra=_any_command(),
    responses=_responses(*codes_of(Use.COMMAND)),
    **_ANSWERS,
)
async def command(request: Request, account: AccountId, order: OrderedByRequest) -> Response:
    """Order any command of `account.commands` by its type. Adjustments, voids and corrections need the role `admin`."""
    body = await read_json(request, frozenset({"type", "data"}))
    kind, data = body.get("type"), body.get("data")
    model = COMMANDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise Problem("invalid_request", f"type is {show(kind)}: expected one of {', '.join(COMMANDS)}.")
    if not isinstance(data, dict):
        raise Problem("invalid_request", f"data is {show(data)}: expected an object.")
    given = {name: value for name, value in data.items() if value is not None}
    return await order.place(model, account, given)


@router.get(
    "/commands/{key}",
    response_model=CommandBody,
    responses=responses("unknown_command"),
)
async def ordered(
    shared: Shared,
    caller: Orderer,
    key: Annotated[str, Path(pattern=KEY_PATTERN, description="idempotency key of the order")],
) -> Response:
    """Return a command that this caller ordered, and its outcome."""
    found = await read_order(shared.database, caller.key_id, key)
    if found is None:
        raise Problem("unknown_command", f"This caller ordered nothing under {key!r}.")
    return json_answer(command_body(found))
