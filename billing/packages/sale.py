"""Preconditions of a sale: the plan version, space for buckets, sufficient funds."""

from billing.accounts.account import MAX_BUCKETS, TOO_MANY_BUCKETS, Account
from billing.accounts.command_context import CommandContext
from billing.catalog.model import Plan
from schemas.refusals import Refusal
from schemas.times import format_time_us
from schemas.units import format_pico


def too_many_buckets(account: Account) -> Refusal:
    """Return the refusal of a grant that would exceed the account's maximum number of buckets."""
    return Refusal(
        TOO_MANY_BUCKETS,
        f"the account has {len(account.buckets)} buckets, and {MAX_BUCKETS} are the most; use another account",
    )


def insufficient_funds(account: Account, plan: Plan, fee_pico: int | None = None) -> Refusal:
    """Return the refusal of a fee that the wallet cannot pay, by default that of a whole cycle."""
    price_pico = plan.price_pico if fee_pico is None else fee_pico
    return Refusal(
        "insufficient_funds",
        f"plan {plan.label} costs {format_pico(price_pico)}, the wallet holds {format_pico(account.wallet_pico)} "
        f"with a credit limit of {format_pico(account.credit_limit_pico)}",
    )


def plan_for_sale(name: str, version: int | None, account: Account, context: CommandContext) -> Plan | Refusal:
    """Return the plan version that an account may buy, by default the latest.

    The latest version decides whether the plan is on sale at all, because published versions never change.
    """
    plan, latest = context.catalog.plan(name, version), context.catalog.plan(name)
    if plan is None or latest is None:
        wanted = "" if version is None else f" version {version}"
        return Refusal("unknown_plan", f"there is no plan {name!r}{wanted}")
    withdrawn_us = latest.withdrawn_from_us
    if withdrawn_us is not None and withdrawn_us <= context.now_us:
        since = format_time_us(withdrawn_us)
        return Refusal("plan_withdrawn", f"plan {name!r} is not sold since {since}, by its version {latest.version}")
    if plan.currency != account.currency:
        return Refusal(
            "currency_mismatch", f"plan {plan.label} costs {plan.currency}, the account is {account.currency}"
        )
    return plan
