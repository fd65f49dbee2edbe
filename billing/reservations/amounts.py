"""Amounts of a hold: quota of buckets and money of the wallet, reserved for future usage. Plain rules.

A hold uses the same rule as burning (:mod:`billing.burning.burn`): the greatest usage is burned from a copy of the
account without the amounts already held, and the amounts that this burn takes are held. So order, scope and overage of
a reservation equal those of the usage that follows. Never: SQL, Kafka, the clock (times are parameters).
"""

from dataclasses import dataclass, replace

from billing.accounts.account import ACCOUNT_CLOSED, ACCOUNT_SUSPENDED, Account
from billing.accounts.copies import copied_account
from billing.accounts.deduction_order import sort_buckets
from billing.accounts.held import NOTHING, HeldAmounts, credit_pico
from billing.burning.burn import burn
from billing.burning.windows import record_burn
from billing.catalog.model import PriceBook
from billing.decide.fees_ahead import fees_ahead_pico
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings
from billing.pricing.rate import Rated
from billing.reservations.covering import covering_bucket
from billing.reservations.tariff import Tariff
from schemas.refusals import Refusal
from schemas.units import format_micro, format_pico
from schemas.usage import UsageEvent


@dataclass(frozen=True, slots=True)
class Granted:
    """A granted reservation: its counts, their greatest price and standard tokens, and the amounts held for them."""

    counts: tuple[tuple[str, int], ...]
    amount_pico: int
    standard_micro: int
    held: HeldAmounts


def decide_hold(
    account: Account,
    held: HeldAmounts,
    event: UsageEvent,
    tariff: Tariff,
    accept_partial: bool = False,
    until_us: int = 0,
) -> Granted | Refusal:
    """Decide the hold for usage of at most ``event.counts`` at ``event.time_us``; ``held`` is held already.

    Money that renewals take up to ``until_us``, when the usage may still be burned, is not held.

    With ``accept_partial``, counts of generated tokens (all counts if there are none) are lowered to the greatest part
    that can be paid for, if there is one. Changes nothing.

    Returns:
        The grant, or a refusal with ``account_closed``, ``account_suspended`` (a bill is past due), ``no_price_book``,
        ``no_price``, ``overflow``, ``package_exhausted`` (the overage rule is block) or ``insufficient_balance`` (the
        wallet would fall below its limit, now or by a renewal during the hold).
    """
    if account.status == ACCOUNT_CLOSED:
        return Refusal("account_closed", f"account {account.account!r} is closed")
    if account.status == ACCOUNT_SUSPENDED:
        return Refusal("account_suspended", f"account {account.account!r} has a bill past due")
    decided = _covered(account, held, event, tariff) or decide_by_burning(account, held, event, tariff, until_us)
    if isinstance(decided, Refusal) and accept_partial and decided.code in _LACKING:
        return _largest_part(account, held, event, tariff, until_us) or decided
    return decided


_LACKING = ("package_exhausted", "insufficient_balance")


def hold_for_used(account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff) -> HeldAmounts:
    """Return the amounts to hold for usage that has happened, until its commit burns it; at most what is available.

    Never refuses: without a price nothing is held.
    """
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
    """Return True if more is held of some bucket than remains in it.

    This happens because usage burns in deduction order, regardless of which hold counted on a bucket.
    """
    if not held.buckets_micro:
        return False
    remaining = {bucket.grant_id: bucket.remaining_micro for bucket in account.buckets}
    return any(micro > remaining.get(grant_id, 0) for grant_id, micro in held.buckets_micro.items())


def _covered(account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff) -> Granted | None:
    """Return the result of :func:`decide_by_burning` if one bucket pays for everything at a fixed price, else None."""
    cost = tariff.fixed_cost(account, event)
    if cost is None or not cost[1]:
        return None
    bucket = covering_bucket(account, held.buckets_micro, event, cost[1], tariff.plan)
    return None if bucket is None else Granted(event.counts, *cost, HeldAmounts({bucket.grant_id: cost[1]}))


def fees_during(account: Account, tariff: Tariff, until_us: int) -> int:
    """Return the money of the wallet that renewals will take up to a time, in pico."""
    return fees_ahead_pico(account, until_us, tariff.plan, tariff.catalog)


def decide_by_burning(
    account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff, until_us: int = 0
) -> Granted | Refusal:
    """Decide the hold for all counts, by burning them from a copy of an account that is neither closed nor suspended.

    :func:`decide_hold` lists the refusals.
    """
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
    if needed.wallet_pico and credit is not None:
        fees_pico = fees_during(account, tariff, until_us)
        left_pico = trial.wallet_pico + credit - fees_pico
        if left_pico < 0:
            return Refusal(
                "insufficient_balance",
                f"the wallet would have to hold {format_pico(needed.wallet_pico)} {account.currency}, "
                f"{format_pico(max(0, left_pico + needed.wallet_pico))} is free"
                + (f" beside the {format_pico(fees_pico)} that renewals take meanwhile" if fees_pico else ""),
            )
    return Granted(event.counts, priced[1].amount_pico, priced[1].standard_micro, needed)


def _burned(
    account: Account, held: HeldAmounts, event: UsageEvent, priced: tuple[PriceBook, Rated], tariff: Tariff
) -> tuple[Account, HeldAmounts, int]:
    """Burn an event from a copy of the account without the held amounts.

    Returns:
        The copy afterwards, the amounts taken, and the absorbed micro of standard tokens, which no bucket or wallet
        would pay.
    """
    book, rated = priced
    trial = copied_account(account)
    roll_forward(trial, event.time_us, tariff.plan, Postings(), tariff.catalog)
    sort_buckets(trial, tariff.plan)
    trial.wallet_pico -= held.wallet_pico
    for bucket in trial.buckets:
        held_micro = held.buckets_micro.get(bucket.grant_id, 0)
        bucket.remaining_micro = max(0, bucket.remaining_micro - held_micro)
        plan = tariff.plan(bucket.plan_key)
        if held_micro and any(window.unit == bucket.unit for window in plan.windows):
            # Usage that is held for will burn about now: windows leave nothing of it to others.
            of_unit = {bucket.unit: held_micro}
            record_burn(trial, plan, event.time_us, of_unit, event.time_us, tariff.plan)
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


def _largest_part(
    account: Account, held: HeldAmounts, event: UsageEvent, tariff: Tariff, until_us: int
) -> Granted | None:
    """Return the grant for the greatest part of the usage that can be granted, or None if there is none.

    Found by bisection, on the assumption that if a part is refused, every greater part is refused.
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
        decided = decide_by_burning(account, held, tried, tariff, until_us)
        if isinstance(decided, Granted):
            best, granted = decided, part
        else:
            refused = part
    return best
