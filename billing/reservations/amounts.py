"""What a reservation holds: quota of buckets and money of the wallet, for usage that has not happened yet. Plain rules.

A hold asks the same rule that burns (:mod:`billing.burning.burn`): the greatest usage is burned from a copy of the
account of
which everything that is already held was taken away, and what that burn takes is what is held. So order, scope and
overage of a reservation are those of the usage that follows. Never: SQL, Kafka, the clock (``now_us`` is given).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter

from billing.accounts.account import CLOSED, SUSPENDED, Account, Bucket
from billing.accounts.deduction_order import sort_buckets
from billing.accounts.extras import copied
from billing.burning.burn import burn
from billing.catalog.model import PriceBook
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings
from billing.pricing.rate import Rated
from billing.reservations.covering import covering_bucket
from billing.reservations.tariff import Tariff
from schemas.refusals import Refusal
from schemas.units import format_micro, format_pico
from schemas.usage import UsageEvent


@dataclass(frozen=True, slots=True)
class HeldAmounts:
    """What is held of one account: micro of each bucket's unit by grant id, and pico of the wallet."""

    buckets_micro: Mapping[str, int] = field(default_factory=dict)
    wallet_pico: int = 0

    def plus(self, other: "HeldAmounts") -> "HeldAmounts":
        """Both together."""
        buckets = dict(self.buckets_micro)
        for grant_id, micro in other.buckets_micro.items():
            buckets[grant_id] = buckets.get(grant_id, 0) + micro
        return HeldAmounts(buckets, self.wallet_pico + other.wallet_pico)

    def minus(self, other: "HeldAmounts") -> "HeldAmounts":
        """What is left of this without the other, nothing below zero."""
        left = {
            grant_id: micro - other.buckets_micro.get(grant_id, 0)
            for grant_id, micro in self.buckets_micro.items()
            if micro > other.buckets_micro.get(grant_id, 0)
        }
        return HeldAmounts(left, max(0, self.wallet_pico - other.wallet_pico))


NOTHING = HeldAmounts()


@dataclass(frozen=True, slots=True)
class Granted:
    """A reservation that is granted: for which counts, what they cost at most, and what is held for them."""

    counts: tuple[tuple[str, int], ...]
    amount_pico: int
    standard_micro: int
    held: HeldAmounts


def credit_pico(account: Account) -> int | None:
    """How far the wallet may fall below zero; None: without limit (a postpaid account that states no limit)."""
    if account.payment == "postpaid" and account.credit_limit_pico == 0:
        return None
    return account.credit_limit_pico


def decide_hold(
    account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff, accept_partial: bool = False
) -> Granted | Refusal:
    """What is held for usage of at most ``event.counts`` at ``event.time_us``, where ``held`` is held already.

    With ``accept_partial`` the generated counts (all, where none is generated) are lowered to what can be paid for, if
    that is anything at all. Changes nothing.

    Refused with ``account_closed``, ``account_suspended`` (a bill is past due), ``no_price_book``, ``no_price``,
    ``overflow``, ``package_exhausted`` (the overage rule is to block) or ``insufficient_balance`` (the wallet would
    have to pay more than it may).
    """
    if account.status == CLOSED:
        return Refusal("account_closed", f"account {account.account!r} is closed")
    if account.status == SUSPENDED:
        return Refusal("account_suspended", f"account {account.account!r} has a bill past due")
    decided = _covered(account, held, event, tariff) or decide_by_burning(account, held, event, tariff)
    if isinstance(decided, Refusal) and accept_partial and decided.code in _LACKING:
        return _largest_part(account, held, event, tariff) or decided
    return decided


_LACKING = ("package_exhausted", "insufficient_balance")


def hold_for_used(account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff) -> HeldAmounts:
    """What is held for usage that happened until its commit burns it: as much of it as there is. Never refuses."""
    priced = tariff.rate(account, event)
    if isinstance(priced, Refusal):
        return NOTHING
    trial, needed, _ = _burned(account, held, event, priced, tariff)
    credit = credit_pico(account)
    if credit is None:
        return needed
    free_pico = max(0, trial.wallet_pico + needed.wallet_pico + credit)
    return replace(needed, wallet_pico=min(needed.wallet_pico, free_pico))


def overcommitted(account: Account, held: HeldAmounts) -> bool:
    """Whether more is held of some bucket than it has: usage burns in deduction order, whoever held what."""
    if not held.buckets_micro:
        return False
    remaining = {bucket.grant_id: bucket.remaining_micro for bucket in account.buckets}
    return any(micro > remaining.get(grant_id, 0) for grant_id, micro in held.buckets_micro.items())


def _covered(account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff) -> Granted | None:
    """What :func:`decide_by_burning` says where one bucket pays for everything at a price that never changes."""
    cost = tariff.fixed_cost(account, event)
    if cost is None or not cost[1]:
        return None
    bucket = covering_bucket(account, held.buckets_micro, event, cost[1], tariff.plan)
    return None if bucket is None else Granted(event.counts, *cost, HeldAmounts({bucket.grant_id: cost[1]}))


def decide_by_burning(account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff) -> Granted | Refusal:
    """:func:`decide_hold` of an account in order, for all of the counts: the rule itself."""
    priced = tariff.rate(account, event)
    if isinstance(priced, Refusal):
        return priced
    trial, needed, absorbed_micro = _burned(account, held, event, priced, tariff)
    if absorbed_micro:
        return Refusal(
            "package_exhausted",
            f"the packages lack {format_micro(absorbed_micro)} standard tokens, and their overage rule is to block",
        )
    credit = credit_pico(account)
    if needed.wallet_pico and credit is not None and trial.wallet_pico + credit < 0:
        free_pico = max(0, trial.wallet_pico + needed.wallet_pico + credit)
        return Refusal(
            "insufficient_balance",
            f"the wallet would have to hold {format_pico(needed.wallet_pico)} {account.currency}, "
            f"{format_pico(free_pico)} is free",
        )
    return Granted(event.counts, priced[1].amount_pico, priced[1].standard_micro, needed)


def _burned(
    account: Account, held: HeldAmounts, event: UsageEvent, priced: tuple[PriceBook, Rated], tariff: Tariff
) -> tuple[Account, HeldAmounts, int]:
    """Burn the event from what is free: the account after it, what was taken, and what nobody would pay."""
    book, rated = priced
    trial = _copied(account)
    roll_forward(trial, event.time_us, tariff.plan, Postings(), tariff.catalog)
    sort_buckets(trial, tariff.plan)
    trial.wallet_pico -= held.wallet_pico
    for bucket in trial.buckets:
        bucket.remaining_micro = max(0, bucket.remaining_micro - held.buckets_micro.get(bucket.grant_id, 0))
    before_pico = trial.wallet_pico
    burned = burn(
        trial,
        event,
        rated,
        book.tax_rate_micro,
        tariff.plan,
        event.time_us,
        Postings(),
    )
    taken: dict[str, int] = {}
    for deduction in burned.deductions:
        taken[deduction.grant_id] = taken.get(deduction.grant_id, 0) + deduction.taken_micro
    return trial, HeldAmounts(taken, before_pico - trial.wallet_pico), burned.absorbed_micro


def _copied(account: Account) -> Account:
    """A copy that shares nothing that changes. Neither ``deepcopy`` nor ``replace``: they took a third of a
    reservation's time."""
    copy = Account(*_account_values(account))
    copy.buckets = [Bucket(*_bucket_values(bucket)) for bucket in account.buckets]
    copy.extras = copied(account.extras)
    return copy


_account_values = attrgetter(*(field.name for field in fields(Account)))
_bucket_values = attrgetter(*(field.name for field in fields(Bucket)))


def _largest_part(account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff) -> Granted | None:
    """The greatest part of the usage that can be granted; None where that is nothing.

    Found by halving: a part that is too dear is taken to mean that every greater part is.
    """
    generated = [meter for meter, _ in event.counts if meter == "reasoning" or meter.endswith("output")]
    lowered = generated or [meter for meter, _ in event.counts]
    whole = max((count for meter, count in event.counts if meter in lowered), default=0)
    best: Granted | None = None
    granted, refused = 0, whole
    while refused - granted > 1:
        part = (granted + refused) // 2
        counts = ((meter, count * part // whole if meter in lowered else count) for meter, count in event.counts)
        tried = replace(event, counts=tuple((meter, count) for meter, count in counts if count))
        decided = decide_by_burning(account, held, tried, tariff)
        if isinstance(decided, Granted):
            best, granted = decided, part
        else:
            refused = part
    return best
