"""Rows of the table ``command_held``: what open holds held of an account when commands of a commit were decided.

An account has one row per amount: the number of its holds, the time until which held money may be used, the money held
of its wallet, and the quantity held of each bucket. Contains no rules and no statements.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from billing.accounts.held import Held, HeldAmounts

_HOLDS, _UNTIL, _WALLET, _BUCKET = "holds", "until", "wallet", "bucket"


class HeldRow(NamedTuple):
    """One amount of one account; ``bucket`` is empty for kinds other than a bucket."""

    account: str
    kind: str
    bucket: str
    amount: int


def held_rows(held: Iterable[tuple[str, Held]]) -> Iterator[HeldRow]:
    """Yield the rows of one commit, without the columns of the key."""
    for account, one in held:
        yield HeldRow(account, _HOLDS, "", one.holds)
        if one.until_us:
            yield HeldRow(account, _UNTIL, "", one.until_us)
        if one.amounts.wallet_pico:
            yield HeldRow(account, _WALLET, "", one.amounts.wallet_pico)
        for bucket, micro in sorted(one.amounts.buckets_micro.items()):
            yield HeldRow(account, _BUCKET, bucket, micro)


def read_held_rows(rows: Iterable[HeldRow]) -> dict[str, Held]:
    """Return the content of the rows of one commit, by account."""
    sums: dict[str, dict[str, int]] = {}
    buckets: dict[str, dict[str, int]] = {}
    for account, kind, bucket, amount in rows:
        if kind == _BUCKET:
            buckets.setdefault(account, {})[bucket] = int(amount)
        else:
            sums.setdefault(account, {})[kind] = int(amount)
    return {
        account: Held(HeldAmounts(buckets.get(account, {}), one.get(_WALLET, 0)), one[_HOLDS], one.get(_UNTIL, 0))
        for account, one in sums.items()
    }
