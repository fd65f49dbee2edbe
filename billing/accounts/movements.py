"""Movements of money and units on an account, as published on ``account.events``, except those of usage.

A movement of money has an amount with its tax, signed as the account sees it: what it gets is positive. A movement of
units concerns one bucket. With the rated usage, the movements of an account add up to its wallet and its buckets
(docs/consuming-our-topics.md). Values only: rules build them where they move something.
"""

from typing import NamedTuple, TypeAlias

from billing.accounts.account import Account, Bucket

Movement: TypeAlias = dict[str, str | int | None]
"""One movement: fields as on the wire, except that scaled integers have the suffix of their unit."""


class Purse(NamedTuple):
    """Wallet and gift money of an account at one moment, in pico."""

    wallet_pico: int
    gift_pico: int


def purse(account: Account) -> Purse:
    """Return the wallet and gift money of an account, to be compared after a change."""
    return Purse(account.wallet_pico, account.extras.gift_pico)


def of_money(
    account: Account, purpose: str, amount_pico: int, before: Purse, *, tax_pico: int = 0, **about: str | None
) -> Movement:
    """Return a movement of money that has happened.

    ``amount_pico`` includes ``tax_pico``. ``before`` is the account's purse before the movement: what the wallet did
    not take part in was collected, or is paid out, elsewhere. ``about`` says what it was for: ``plan``, ``grant_id``,
    ``pay_from``, ``bill_id``, ``price_book``.
    """
    return {
        "purpose": purpose,
        "currency": account.currency,
        "amount_pico": amount_pico,
        "net_pico": amount_pico - tax_pico,
        "tax_pico": tax_pico,
        "wallet_pico": account.wallet_pico - before.wallet_pico,
        "gift_pico": account.extras.gift_pico - before.gift_pico,
        **about,
    }


def of_units(
    account: Account,
    purpose: str,
    bucket: Bucket,
    quantity_micro: int,
    liability_pico: int,
    *,
    granted_micro: int | None = None,
) -> Movement:
    """Return a movement of units into a bucket, or out of it.

    ``quantity_micro`` is the change of what is left in the bucket, ``granted_micro`` of what was granted (by default
    the same), ``liability_pico`` of the contract liability, which is without tax.
    """
    return {
        "purpose": purpose,
        "currency": account.currency,
        "plan": str(bucket.plan_key),
        "grant_id": bucket.grant_id,
        "unit": bucket.unit,
        "quantity_micro": quantity_micro,
        "granted_micro": quantity_micro if granted_micro is None else granted_micro,
        "liability_pico": liability_pico,
    }


def granted(account: Account, bucket: Bucket, purpose: str = "grant", **about: str | None) -> Movement:
    """Return the movement that filled a new bucket."""
    return of_units(account, purpose, bucket, bucket.remaining_micro, bucket.liability_pico) | about


def between(before: Account, after: Account, purpose: str) -> list[Movement]:
    """Return the movements that lead from one state of an account to another, wallet first, then buckets by id.

    Buckets are never removed.
    """
    moved: list[Movement] = []
    change_pico = after.wallet_pico - before.wallet_pico
    if (change_pico, after.extras.gift_pico) != (0, before.extras.gift_pico):
        moved.append(of_money(after, purpose, change_pico, purse(before)))
    known = {bucket.grant_id: bucket for bucket in before.buckets}
    for bucket in sorted(after.buckets, key=lambda one: one.grant_id):
        old = known.get(bucket.grant_id)
        left, amount, liability = (
            (0, 0, 0) if old is None else (old.remaining_micro, old.amount_micro, old.liability_pico)
        )
        changes = bucket.remaining_micro - left, bucket.amount_micro - amount, bucket.liability_pico - liability
        if any(changes):
            quantity_micro, granted_micro, liability_pico = changes
            moved.append(of_units(after, purpose, bucket, quantity_micro, liability_pico, granted_micro=granted_micro))
    return moved
