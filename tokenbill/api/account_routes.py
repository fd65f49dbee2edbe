"""Accounts and their balances, as the last commit left them. Reads only: what changes an account is a command."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from pydantic_core import PydanticCustomError

from billing.accounts.account import Account
from billing.commits.output_documents import account_object, balance_object
from billing.store.api.account_reads import list_accounts, read_account, read_reserved
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN, check_name
from schemas.outputs import Decimal, PackageBalance
from schemas.units import format_pico
from tokenbill.api.context import Context, Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.pages import Cursor, Limit, page, read_cursor
from tokenbill.api.http.problems import Problem, responses
from tokenbill.api.past_routes import balance_at

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])

AccountId = Annotated[
    str, Path(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="the account")
]
Reader = Annotated[Caller, Depends(needs("read"))]


class AccountBody(BaseModel):
    """An account without its buckets."""

    account: str = Field(description="the account")
    status: str = Field(description="open or closed")
    currency: str = Field(description="currency of the amounts")
    price_book: str = Field(description="the price book it is bound to")
    payment: str = Field(description="prepaid or postpaid")
    credit_limit: Decimal = Field(description="how far the wallet may fall below zero, currency")
    wallet: Decimal = Field(description="the wallet, may be negative")
    absorbed: Decimal = Field(description="standard tokens that nobody paid")
    absorbed_amount: Decimal = Field(description="their price, currency")


class AccountPage(BaseModel):
    """A page of accounts by id."""

    items: list[AccountBody] = Field(description="the accounts")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this was the last")


def account_body(account: Account) -> dict[str, Any]:
    """The document of :class:`AccountBody`."""
    money = account_object(account)
    del money["buckets"]
    return {
        "account": account.account,
        "status": account.status,
        "currency": money.pop("currency"),
        "price_book": account.price_book,
        "payment": account.payment,
        "credit_limit": format_pico(account.credit_limit_pico),
        **money,
    }


def _can_exist(account: str) -> bool:
    """Whether an account can have this id; the database need not be asked for one that cannot."""
    try:
        check_name(account)
    except PydanticCustomError:
        return False
    return True


async def existing_account(shared: Context, caller: Caller, account: str) -> Account:
    """An account that the caller may see.

    Raises:
        Problem: ``other_account``, ``unknown_account``.
    """
    caller.check_account(account)
    found = await read_account(shared.database, account) if _can_exist(account) else None
    if found is None:
        raise Problem("unknown_account", f"Account {account!r} was never opened.")
    return found


@router.get("", response_model=AccountPage, responses=responses("invalid_cursor"))
async def accounts(shared: Shared, caller: Reader, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """The accounts by id, in pages. A key for one account sees that one."""
    after = read_cursor(cursor)
    if caller.account is not None:
        mine = await read_account(shared.database, caller.account) if caller.account > after else None
        return json_answer({"items": [account_body(mine)] if mine else [], "next_cursor": None})
    found, more = page(await list_accounts(shared.database, after, limit + 1), limit, lambda one: one.account)
    return json_answer({"items": [account_body(one) for one in found], "next_cursor": more})


@router.get("/{account}", response_model=AccountBody, responses=responses("unknown_account", "other_account"))
async def account(shared: Shared, caller: Reader, account: AccountId) -> Any:
    """One account."""
    return json_answer(account_body(await existing_account(shared, caller, account)))


@router.get(
    "/{account}/balance",
    response_model=PackageBalance,
    responses=responses(
        *("unknown_account", "other_account", "invalid_time", "history_not_kept", "history_too_long", "kafka_down")
    ),
)
async def balance(
    shared: Shared,
    caller: Reader,
    account: AccountId,
    at: Annotated[str | None, Query(json_schema_extra={"format": "date-time"}, description="a past log time")] = None,
) -> Any:
    """Wallet and buckets of an account, as the last commit left them, and what is reserved now.

    With `at` as they were at that time: the log's records up to then are decided again. What was reserved then is not
    kept.
    """
    found = await existing_account(shared, caller, account)
    if at is not None:
        return json_answer(await balance_at(shared, account, at))
    return json_answer(balance_object(found, await read_reserved(shared.database, account)))
