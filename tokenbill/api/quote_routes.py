"""Route that quotes usage: its price, and who would pay it. Changes nothing."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from billing.accounts.account import ACCOUNT_CLOSED, Account
from billing.engine.quoter import Asked
from schemas.fields import check_time_us, show
from schemas.outputs import BurnedBucket, Decimal, RatedMeter
from schemas.refusals import Refusal
from schemas.schema_documents import Schema
from schemas.usage import UsageData
from tokenbill.api.account_routes import existing_account
from tokenbill.api.catalogue_routes import Edition
from tokenbill.api.context import ApiContext, Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, Reader
from tokenbill.api.http.bodies import described, read_json, write_strictly
from tokenbill.api.http.problems import Problem, responses

router = APIRouter(prefix="/v1", tags=["quotes"])

_FIELDS = frozenset({"account", "price_book", "time", "data"})
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\u0000-\\u001f]*$"}


class QuoteBody(BaseModel):
    """The price of one usage event and, if an account is given, what its buckets and wallet would pay."""

    model_config = ConfigDict(extra="allow")

    currency: str = Field(description="currency of all amounts")
    amount: Decimal = Field(description="price, tax included")
    net: Decimal = Field(description="price without tax")
    standard_tokens: Decimal = Field(description="standard tokens of the event")
    price_book: str = Field(description="price book with its version, `NAME@VERSION`")
    lines: list[RatedMeter] = Field(description="one line per meter")
    burned: list[BurnedBucket] | None = Field(default=None, description="quota of buckets, in deduction order")
    charged: Decimal | None = Field(default=None, description="amount that the wallet would pay")
    absorbed: Decimal | None = Field(default=None, description="standard tokens that would be absorbed")
    absorbed_amount: Decimal | None = Field(default=None, description="price of the absorbed usage")
    after: dict[str, Any] | None = Field(default=None, description="account after this usage")
    explain: dict[str, Any] | None = Field(default=None, description="derivation of the price")


def _schema() -> Schema:
    data = UsageData.model_json_schema(by_alias=True) | {"description": "as `data` of a usage event"}
    return {
        "type": "object",
        "properties": {
            "account": _NAME | {"description": "account that would pay; its price book is used"},
            "price_book": _NAME | {"description": "price book to use if no account is given"},
            "time": {"type": "string", "format": "date-time", "description": "time of the usage; default: now"},
            "data": data,
        },
        "required": ["data"],
        "additionalProperties": False,
    }


@router.post(
    "/quotes",
    response_model=QuoteBody,
    openapi_extra=described(_schema()),
    responses=responses(
        *("unknown_account", "other_account", "unknown_price_book", "account_closed", "invalid_event", "invalid_data"),
        *("usage_mismatch", "unknown_meter", "overflow", "no_price_book", "no_price"),
        *("too_large", "unsupported_media_type"),
    ),
)
async def quote(
    request: Request,
    shared: Shared,
    caller: Reader,
    explain: Annotated[bool, Query(description="include the derivation of the price")] = True,
) -> Response:
    """Price usage as the pipeline would at this moment: price, standard tokens, lines, buckets, wallet."""
    body = await read_json(request, _FIELDS)
    data = body.get("data")
    if not isinstance(data, dict):
        raise Problem("invalid_event", f"data is {show(data)}: expected an object as in a usage event.")
    write_strictly(data)
    edition = await shared.catalogue.current()
    account = await _payer(shared, caller, body)
    book = account.price_book if account is not None else _book(edition, body)
    made = await shared.catalogue.quote(edition, Asked(book, _time_us(body), data, account), explain)
    if isinstance(made, Refusal):
        raise Problem(made.code, f"{made.detail}.")
    return json_answer(made)


async def _payer(shared: ApiContext, caller: Caller, body: dict[str, Any]) -> Account | None:
    name = body.get("account")
    if name is None:
        return None
    if not isinstance(name, str):
        raise Problem("invalid_event", f"account is {show(name)}: expected the account that would pay.")
    if "price_book" in body:
        raise Problem(
            "invalid_event", "price_book is given with an account, whose book is bound: leave one of them out."
        )
    found = await existing_account(shared, caller, name)
    if found.status == ACCOUNT_CLOSED:
        raise Problem("account_closed", f"Account {name!r} is closed: its usage would be kept apart, unbilled.")
    return found


def _book(edition: Edition, body: dict[str, Any]) -> str:
    name = body.get("price_book")
    books = edition.catalog.books
    if name is None and len(books) == 1:
        return books[0]
    if name not in books:
        raise Problem("unknown_price_book", f"price_book is {show(name)}: expected one of {', '.join(books)}.")
    return str(name)


def _time_us(body: dict[str, Any]) -> int:
    if "time" not in body:
        return time.time_ns() // 1000
    try:
        return check_time_us(body["time"])
    except PydanticCustomError as error:
        raise Problem("invalid_event", f"time is {show(body['time'])}: {error.message()}.") from None
