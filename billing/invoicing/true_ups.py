"""Volume price of a whole period, applied at its end: the difference to what was charged, posted as a true-up.

Usage is charged at once, in the tier in which the counter stands. For a rule with ``settle: at_end`` the account also
remembers what the wallet paid, and what it would have paid in each tier. A grace after the end of the period, all of it
gets the tier that the period reached: the wallet pays what is missing, or is given back what is too much. Usage that
comes later still is settled a grace after it came. What buckets paid or nobody paid keeps its price. No SQL, no clock:
``now_us`` is log time.
"""

from fractions import Fraction
from typing import NamedTuple

from billing import ledger
from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.extras import NOT_DUE_US, TrueUp, TrueUpPart
from billing.accounts.movements import of_money, purse
from billing.accounts.wallet import deposit, withdraw
from billing.catalog.model import Catalog, PriceBook
from billing.catalog.period_rules import SETTLE_AT_END, PeriodRule
from billing.ledger import Postings
from billing.pricing.period_prices import COMMITMENT_GRACE_US, Counted, tier_at
from billing.pricing.rate import Rated
from billing.tax import net_of_tax
from schemas.units import divide_half_even


class Charge(NamedTuple):
    """Payment of the wallet for an event: the amount, its part that was gift money, and the share of the event."""

    charged_pico: int
    gift_pico: int
    share: Fraction


def note_charge(account: Account, rated: Rated, charge: Charge, now_us: int, oldest_us: int | None) -> bool:
    """Remember what the wallet paid for an event, and what it would have paid for it in each tier.

    Settled periods that ended by ``oldest_us`` are dropped; with None nothing is dropped. Return True if there is
    something to remember: the event was priced by a rule that is settled at the end of its period.
    """
    counted = next((one for one in rated.counted if one.rule.settle == SETTLE_AT_END), None)
    if counted is None or counted.after is None:
        return False
    kept = {
        key: one
        for key, one in account.extras.true_ups.items()
        if one.due_us or oldest_us is None or one.until_us > oldest_us
    }
    true_up = kept.setdefault(counted.key, TrueUp(0, counted.period.until_us, NOT_DUE_US))
    true_up.used = counted.after.used
    true_up.due_us = true_up.due_us or max(true_up.until_us, now_us) + COMMITMENT_GRACE_US
    _add(true_up, rated, charge, counted)
    account.extras.true_ups = dict(sorted(kept.items()))
    return True


def _add(true_up: TrueUp, rated: Rated, charge: Charge, counted: Counted) -> None:
    part = true_up.parts.setdefault(rated.price_book, TrueUpPart(0, 0, [0] * len(counted.rule.tiers)))
    part.charged_pico += charge.charged_pico
    part.gift_pico += charge.gift_pico
    share = charge.share
    for tier, amount_pico in enumerate(rated.tiers_pico):
        part.at_tiers_pico[tier] += divide_half_even(amount_pico * share.numerator, share.denominator)
    true_up.parts = dict(sorted(true_up.parts.items()))


def settle_true_ups(account: Account, now_us: int, postings: Postings, catalog: Catalog) -> list[AccountEvent]:
    """Post the differences of the periods whose grace is over by ``now_us``.

    The tier is that of the whole period's count in the tiers of each price book version, for the usage priced by that
    version. Its tax rate applies.
    """
    events: list[AccountEvent] = []
    due = sorted((one.due_us, key) for key, one in account.extras.true_ups.items() if 0 < one.due_us <= now_us)
    for _, key in due:
        true_up = account.extras.true_ups[key]
        true_up.due_us = NOT_DUE_US
        name, _, first_day = key.partition("@")
        for label, part in true_up.parts.items():
            book_name, _, version = label.rpartition("@")
            book = catalog.price_book(book_name, int(version))
            rule = None if book is None else book.periods.get(name)
            if book is not None and rule is not None:
                events += _settle(account, book, rule, first_day, true_up, part, postings)
    return events


def _settle(
    account: Account,
    book: PriceBook,
    rule: PeriodRule,
    first_day: str,
    true_up: TrueUp,
    part: TrueUpPart,
    postings: Postings,
) -> list[AccountEvent]:
    """Charge or give back the difference of one period under one version of its book, tax included."""
    tier = tier_at(rule, true_up.used)
    charged_pico = part.charged_pico
    missing_pico = part.at_tiers_pico[tier] - charged_pico
    if not missing_pico:
        return []
    before = purse(account)
    if missing_pico > 0:
        part.gift_pico += withdraw(account, missing_pico)
    else:
        gift_pico = -missing_pico * part.gift_pico // charged_pico
        deposit(account, -missing_pico - gift_pico, gift=False)
        deposit(account, gift_pico, gift=True)
        part.gift_pico -= gift_pico
    part.charged_pico += missing_pico
    net_pico = net_of_tax(missing_pico, book.tax_rate_micro)
    postings.post(
        account.currency,
        (ledger.CUSTOMER_DEPOSITS, "", missing_pico),
        (ledger.REVENUE_TRUE_UP, book.label, -net_pico),
        (ledger.OUTPUT_VAT, book.label, net_pico - missing_pico),
    )
    moved = of_money(account, "true_up", -missing_pico, before, tax_pico=net_pico - missing_pico, price_book=book.label)
    data: dict[str, str | int | None] = {
        "price_book": book.label,
        "rule": rule.name,
        "first_day": first_day,
        "period_end_us": true_up.until_us,
        "counted_micro": true_up.used,
        "tier": tier,
        "charged_before_pico": charged_pico,
        "charged_pico": missing_pico,
    }
    return [AccountEvent(account.account, "true_up.posted.v1", data, (moved,))]
