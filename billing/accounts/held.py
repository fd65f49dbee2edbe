"""Amounts that open holds hold of an account, and limits of what may be held after a command. Plain rules.

A hold is operational state (:mod:`billing.reservations`). What it holds is an input of the decision of a command: the
commit records it, so that a replay decides the same (docs/decisions/holds.md, "Commands leave what is held"). Never:
SQL, Kafka, the clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from billing.accounts.account import ACCOUNT_CLOSED, ACTIVE, PENDING, Account, Bucket
from schemas.units import format_micro, format_pico


@dataclass(frozen=True, slots=True)
class HeldAmounts:
    """Amounts held of one account: micro of each bucket's unit by bucket id, and pico of the wallet."""

    buckets_micro: Mapping[str, int] = field(default_factory=dict)
    wallet_pico: int = 0

    def plus(self, other: "HeldAmounts") -> "HeldAmounts":
        """Return the sum of both."""
        buckets = dict(self.buckets_micro)
        for grant_id, micro in other.buckets_micro.items():
            buckets[grant_id] = buckets.get(grant_id, 0) + micro
        return HeldAmounts(buckets, self.wallet_pico + other.wallet_pico)

    def minus(self, other: "HeldAmounts") -> "HeldAmounts":
        """Return this minus the other; no amount falls below zero."""
        left = {
            grant_id: micro - other.buckets_micro.get(grant_id, 0)
            for grant_id, micro in self.buckets_micro.items()
            if micro > other.buckets_micro.get(grant_id, 0)
        }
        return HeldAmounts(left, max(0, self.wallet_pico - other.wallet_pico))


NOTHING = HeldAmounts()


@dataclass(frozen=True, slots=True)
class Held:
    """The open holds of one account, as the decision of its commands reads them."""

    amounts: HeldAmounts = NOTHING
    holds: int = 0
    """Number of open holds, including those that hold nothing."""
    until_us: int = 0
    """Time until which held money may still be used; 0 if no money is held."""
    stored: HeldAmounts | None = field(default=None, compare=False)
    """The amounts in the rows of the holds, if ``amounts`` differ because usage burned what a hold had counted on."""


NO_HOLDS = Held()


def credit_pico(account: Account) -> int | None:
    """Return how far the wallet may fall below zero, or None if there is no limit (postpaid, no limit stated)."""
    if account.payment == "postpaid" and account.credit_limit_pico == 0:
        return None
    return account.credit_limit_pico


@dataclass(frozen=True, slots=True)
class Holdable:
    """The part of an account that holds may count on: buckets, money of the wallet, and if it is closed.

    ``wallet_pico`` is None if the wallet has no limit; it includes the credit limit.
    """

    buckets: Mapping[str, tuple[int, int, int, bool]]
    """Bucket id → remaining micro, end, expiry, and True if usage may burn it."""
    wallet_pico: int | None
    closed: bool


def holdable(account: Account, fees_pico: int, buckets: Iterable[Bucket]) -> Holdable:
    """Return what holds may count on, of these buckets.

    ``fees_pico`` is what changes by time will take from the wallet meanwhile.
    """
    credit = credit_pico(account)
    refunds = account.extras.refunds
    return Holdable(
        {
            one.grant_id: (
                one.remaining_micro,
                one.valid_until_us,
                one.lapse_at_us,
                one.status in (ACTIVE, PENDING) and one.grant_id not in refunds,
            )
            for one in buckets
        },
        None if credit is None else account.wallet_pico + credit - fees_pico,
        account.status == ACCOUNT_CLOSED,
    )


@dataclass(frozen=True, slots=True)
class HeldLimit:
    """The most that may be held of an account after a command that took from it.

    A bucket that is not named is not limited, unless ``only_these``; a wallet of None is not limited.
    """

    buckets_micro: Mapping[str, int] = field(default_factory=dict)
    wallet_pico: int | None = None
    no_holds: bool = False
    """True if the account may have no open hold, because it was closed."""
    only_these: bool = False

    def __bool__(self) -> bool:
        """Return True if something is limited."""
        return bool(self.buckets_micro) or self.wallet_pico is not None or self.no_holds or self.only_these

    def lower(self, other: "HeldLimit") -> "HeldLimit":
        """Return the limit that keeps both limits."""
        buckets = {
            name: min(limit.buckets_micro[name] for limit in (self, other) if name in limit.buckets_micro)
            for name in {**self.buckets_micro, **other.buckets_micro}
        }
        wallets = [limit.wallet_pico for limit in (self, other) if limit.wallet_pico is not None]
        return HeldLimit(
            buckets,
            min(wallets) if wallets else None,
            self.no_holds or other.no_holds,
            self.only_these or other.only_these,
        )

    def exceeded_by(self, held: HeldAmounts, holds: int) -> str | None:
        """Return a sentence that says what is held beyond the limit; None if nothing is."""
        if self.no_holds and holds:
            return f"the account has {holds} open {'holds' if holds > 1 else 'hold'}"
        for name, micro in sorted(held.buckets_micro.items()):
            left = self.buckets_micro.get(name, 0 if self.only_these else micro)
            if micro > left:
                left = max(0, left)
                return f"{format_micro(micro)} of bucket {name!r} is held, and {format_micro(left)} would be left"
        if self.wallet_pico is not None and held.wallet_pico > max(0, self.wallet_pico):
            left = max(0, self.wallet_pico)
            return f"{format_pico(held.wallet_pico)} of the wallet is held, and {format_pico(left)} would be left"
        return None


NO_LIMIT = HeldLimit()


def exactly(stored: HeldAmounts) -> HeldLimit:
    """Return the limit by which not more may be held than now, of anything."""
    return HeldLimit(stored.buckets_micro, stored.wallet_pico, only_these=True)


def limit_after(before: Holdable, after: Holdable) -> HeldLimit:
    """Return what may be held after a command, of everything that it lowered.

    A bucket is lowered if it has less, ends earlier, or cannot be burned any more. The last two leave nothing of it,
    because usage that follows does not burn it.
    """
    buckets: dict[str, int] = {}
    for name, (micro, until_us, lapse_us, usable) in before.buckets.items():
        micro_after, until_after_us, lapse_after_us, usable_after = after.buckets.get(name, (0, 0, 0, False))
        if until_after_us < until_us or lapse_after_us < lapse_us or (usable and not usable_after):
            buckets[name] = 0
        elif micro_after < micro:
            buckets[name] = micro_after
    wallet_pico = after.wallet_pico
    if wallet_pico is not None and before.wallet_pico is not None and wallet_pico >= before.wallet_pico:
        wallet_pico = None
    return HeldLimit(buckets, wallet_pico, after.closed and not before.closed)
