"""Routes that read accounts and their balances as of the last commit. Accounts are changed by commands only."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from pydantic_core import PydanticCustomError

from billing.accounts.account import Account
from billing.burning.window_status import window_statuses
from billing.commits.output_documents import account_object, balance_object, window_object
from billing.store.api.account_reads import list_accounts, read_account, read_account_as_of, read_reserved
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN, check_name
from schemas.outputs import Decimal, PackageBalance
from schemas.routing import partition_of
from schemas.units import format_pico
from tokenbill.api.context import ApiContext, Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, Reader
from tokenbill.api.http.pages import Cursor, Limit, page, read_cursor
from tokenbill.api.http.problems import Problem, responses
from tokenbill.api.past_routes import balance_at

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])

AccountId = Annotated[
    str, Path(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="account id")
]


class AccountBody(BaseModel):
    """An account without its buckets."""

    account: str = Field(description="account id")
    status: str = Field(description="`open`, `suspended` (a bill is past due) or `closed`")
    currency: str = Field(description="currency of the amounts")
    price_book: str = Field(description="price book that the account is bound to")
    payment: str = Field(description="`prepaid` or `postpaid`")
    credit_limit: Decimal = Field(description="amount by which the wallet may fall below zero")
    wallet: Decimal = Field(description="wallet balance, may be negative")
    absorbed: Decimal = Field(description="absorbed usage in standard tokens: recorded, not charged")
    absorbed_amount: Decimal = Field(description="price of the absorbed usage")


class WindowBody(BaseModel):
    """One window of a plan, at the time of the answer: what was burned in it, what it leaves, and when it ends."""

    plan: str = Field(description="the plan")
    plan_version: int = Field(description="its version")
    kind: str = Field(description="`rolling`, `from_first_use` or `fixed`")
    hours: int | None = Field(default=None, description="its length, if it is not fixed")
    every: str | None = Field(default=None, description="`day`, `week` or `month`, if it is fixed")
    unit: str = Field(description="the unit that it counts")
    cap: Decimal = Field(description="the most that may be burned in it")
    used: Decimal = Field(description="the quantity burned in it")
    left: Decimal = Field(description="the quantity that may still be burned in it")
    begins: str | None = Field(description="its start; null if it rolls, or begins with the next use")
    ends: str | None = Field(
        description="its end; of a rolling window, when its oldest burn leaves it; null if nothing was burned"
    )


class BalanceBody(PackageBalance):
    """The state of an account, and the commit that it is as of: what the topics say of it later has a higher number."""

    windows: list[WindowBody] = Field(default=[], description="windows of the plans in force; not of a past time")

    partition: int = Field(description="partition of the account")
    commit: int | None = Field(description="number of the commit; null for a past time that lies within a commit")


class AccountPage(BaseModel):
    """A page of accounts, sorted by id."""

    items: list[AccountBody] = Field(description="accounts of this page")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


def account_body(account: Account) -> dict[str, Any]:
    """Return the document of :class:`AccountBody`."""
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
    """True if an account can have this id. The database is not asked about other ids."""
    try:
        check_name(account)
    except PydanticCustomError:
        return False
    return True


async def existing_account(shared: ApiContext, caller: Caller, account: str) -> Account:
    """Return an account that the caller may see.

    Raises:
        Problem: ``other_account``, ``unknown_account``.
    """
    caller.check_account(account)
    found = await read_account(shared.database, account) if _can_exist(account) else None
    if found is None:
        raise unknown_account(account)
    return found


def unknown_account(account: str) -> Problem:
    """Return the problem of an account that was never opened."""
    return Problem("unknown_account", f"Account {account!r} was never opened.")


@router.get("", response_model=AccountPage, responses=responses("invalid_cursor"))
async def accounts(shared: Shared, caller: Reader, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """List accounts by id, in pages. A key that is bound to one account sees that account only."""
    after = read_cursor(cursor)
    if caller.account is not None:
        mine = await read_account(shared.database, caller.account) if caller.account > after else None
        return json_answer({"items": [account_body(mine)] if mine else [], "next_cursor": None})
    found, more = page(await list_accounts(shared.database, after, limit + 1), limit, lambda one: one.account)
    return json_answer({"items": [account_body(one) for one in found], "next_cursor": more})


@router.get("/{account}", response_model=AccountBody, responses=responses("unknown_account", "other_account"))
async def account(shared: Shared, caller: Reader, account: AccountId) -> Any:
    """Return one account."""
    return json_answer(account_body(await existing_account(shared, caller, account)))


@router.get(
    "/{account}/balance",
    response_model=BalanceBody,
    responses=responses(
        *("unknown_account", "other_account", "invalid_time", "history_not_kept", "history_too_long", "kafka_down")
    ),
)
async def balance(
    shared: Shared,
    caller: Reader,
    account: AccountId,
    at: Annotated[str | None, Query(json_schema_extra={"format": "date-time"}, description="past log time")] = None,
) -> Any:
    """Return the whole state of an account as of a commit, with the amounts that are reserved now.

    `partition` and `commit` are those of the topics: later events of the account have a higher commit. The header
    `ETag` has both.

    With `at`, return the balances as of that log time: the records of the log up to it are decided again. Past
    reservations are not kept, so `reserved` is 0 then.
    """
    if at is not None:
        await existing_account(shared, caller, account)
        return json_answer(await balance_at(shared, account, at))
    caller.check_account(account)
    partition = partition_of(account, shared.partitions)
    found = await read_account_as_of(shared.database, account, partition) if _can_exist(account) else None
    if found is None:
        raise unknown_account(account)
    state, commit_no = found
    body = balance_object(state, await read_reserved(shared.database, account))
    plan_of = (await shared.catalogue.current()).usage_rules.plan_of
    windows = [window_object(one) for one in window_statuses(state, time.time_ns() // 1000, plan_of)]
    body |= {"windows": windows} if windows else {}
    return json_answer(
        body | {"partition": partition, "commit": commit_no}, headers={"ETag": f'W/"{partition}-{commit_no}"'}
    )
