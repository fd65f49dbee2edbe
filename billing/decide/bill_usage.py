"""Billing of one usage event: price, time-driven changes, payment, notifications.

This module defines the order of these steps for all plain Python callers, including replay
(:mod:`billing.corrections.replay`), and the columns of an event in the rollup. Identity and time limits are checked
before (:mod:`billing.calculator.plain`). No SQL, no clock.
"""

from dataclasses import dataclass, fields

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import wallet_alert
from billing.accounts.deduction_order import PlanOf
from billing.burning.burn import burn
from billing.burning.deduct import Burned
from billing.catalog.model import Catalog, PriceBook
from billing.commits.commit_record import RollupRow
from billing.decide.roll_forward import next_due_us, roll_forward
from billing.invoicing.commitments import count_usage
from billing.invoicing.true_ups import Charge, note_charge
from billing.ledger import Postings
from billing.log_time import DecidedAt
from billing.pricing.period_prices import Clock, Counters
from billing.pricing.rate import Rated, Raters
from schemas.meters import TOKEN_METERS
from schemas.refusals import Refusal
from schemas.times import HOUR_US
from schemas.usage import UsageEvent

_TOKENS = frozenset(TOKEN_METERS)
ROLLUP_KEY = tuple(column.name for column in fields(RollupRow))[:10]
ROLLUP_SUMS = tuple(column.name for column in fields(RollupRow))[10:]


@dataclass(frozen=True, slots=True)
class UsageRules:
    """Rules for deciding usage: the catalogue, its plans, and the raters of its price books."""

    catalog: Catalog
    plan_of: PlanOf
    rater: Raters


@dataclass(frozen=True, slots=True)
class Billed:
    """A usage event that was priced and paid."""

    event: UsageEvent
    rated: Rated
    burned: Burned
    events: list[AccountEvent]
    """Events for the account's owner, in order."""
    book: PriceBook

    @property
    def rollup_key(self) -> tuple[object, ...]:
        """The first ten columns of a rollup row: hour of the event's own time, price book, currency, combination."""
        hour_us = self.event.time_us - self.event.time_us % HOUR_US
        dimensions = (getattr(self.event, name) for name in ROLLUP_KEY[3:])
        return (hour_us, self.rated.price_book, self.rated.currency, *dimensions)

    @property
    def rollup_sums(self) -> tuple[int, ...]:
        """The amounts that the event adds to the other columns of the rollup row."""
        return (
            1,
            sum(count for meter, count in self.event.counts if meter in _TOKENS),
            self.rated.standard_micro,
            self.rated.amount_pico,
            self.rated.net_pico,
            self.burned.burned_micro,
            self.burned.charged_pico,
            self.burned.absorbed_micro,
            self.burned.absorbed_pico,
            self.burned.revenue_pico,
        )


def price_usage(
    price_book: str, event: UsageEvent, at: DecidedAt, rules: UsageRules, counters: Counters
) -> tuple[PriceBook, Rated] | Refusal:
    """Price an event by the book of its account, with the account's counters; return the book's version too."""
    book = rules.catalog.price_book_at(price_book, event.time_us)
    if book is None:
        return event.refuse("no_price_book", f"time: no version of price book {price_book!r} is in force then")
    rated = rules.rater(book).rate(event, counters, Clock(at.now_us, at.oldest_us))
    return (book, rated) if isinstance(rated, Rated) else rated


def bill_usage(
    account: Account, event: UsageEvent, at: DecidedAt, rules: UsageRules, postings: Postings
) -> Billed | Refusal:
    """Price an event and pay for it from its account; if the event is refused, change nothing."""
    priced = price_usage(account.price_book, event, at, rules, account.extras.counters)
    if isinstance(priced, Refusal):
        return priced
    book, rated = priced
    if at.simulated:
        account.clock_us = at.now_us
    plan_of = rules.plan_of
    of_time = Postings()
    events = roll_forward(account, at.now_us, plan_of, of_time, rules.catalog, event.time_us, at.rules)
    postings.merge(of_time, account.account)
    if rated.counted:
        count_usage(account, rated.counters, at.oldest_us)
        account.next_due_us = next_due_us(account, plan_of)
    burned = burn(account, event, rated, book.tax_rate_micro, plan_of, at.now_us, postings)
    charge = Charge(burned.charged_pico, burned.charged_gift_pico, burned.charged_share)
    noted = note_charge(account, rated, charge, at.now_us, at.oldest_us)
    if rated.outside is not None:
        rated = rated.for_share(burned.unpaid_share, book.tax_rate_micro)
        count_usage(account, rated.counters, at.oldest_us)
    if burned.begun or noted:
        account.next_due_us = next_due_us(account, plan_of)
    return Billed(event, rated, burned, events + burned.events + wallet_alert(account), book)
