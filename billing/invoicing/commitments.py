"""The counters of an account's period rules: what usage leaves in them, and commitments, which begin and are settled.

What an event does to a counter is :mod:`billing.pricing.period_prices`. Never: SQL, the clock (``now_us`` is the
log's time).
"""

from billing import ledger
from billing.accounts.account import CLOSED, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.extras import Counter
from billing.accounts.wallet import take_out
from billing.catalog.model import Catalog, PriceBook
from billing.catalog.period_calendar import period_of
from billing.catalog.period_rules import COMMITMENT, PeriodRule
from billing.ledger import Postings
from billing.pricing.period_prices import Counters, new_counter, without_past
from billing.tax import net_of_tax


def count_usage(account: Account, counters: Counters, oldest_us: int | None) -> None:
    """Keep the counters that an event changed; drop those of periods that ended by ``oldest_us`` (None: none)."""
    kept = {**account.extras.counters, **counters}
    _keep(account, kept if oldest_us is None else without_past(kept, oldest_us))


def _keep(account: Account, counters: dict[str, Counter]) -> None:
    """Replace the counters of an account; their order tells nothing, so it is that of the keys."""
    account.extras.counters = dict(sorted(counters.items()))


def begin_commitments(account: Account, now_us: int, catalog: Catalog) -> None:
    """Begin the commitments of an account's price book with the period that holds ``now_us``."""
    book = catalog.price_book_at(account.price_book, now_us)
    rules = [] if book is None else [rule for rule in book.periods.values() if rule.kind == COMMITMENT]
    periods = [(rule, period_of(rule, now_us)) for rule in rules]
    begun = {rule.counter(period.first_day): new_counter(rule, period) for rule, period in periods}
    _keep(account, begun | account.extras.counters)


def settle_commitments(account: Account, now_us: int, postings: Postings, catalog: Catalog) -> list[AccountEvent]:
    """Charge what is missing to the commitments of periods whose grace is over, and begin the periods after them.

    What counts is the version of the book in force at the end of the period: its amount, its tax rate, and whether
    it has the commitment at all.
    """
    counters = account.extras.counters
    events: list[AccountEvent] = []
    while True:
        due = [(counter.due_us, key) for key, counter in counters.items() if 0 < counter.due_us <= now_us]
        if not due:
            break
        _, key = min(due)
        counter = counters.pop(key)
        name, _, first_day = key.partition("@")
        book = catalog.price_book_at(account.price_book, counter.until_us - 1)
        rule = None if book is None else book.periods.get(name)
        if book is None or rule is None or rule.kind != COMMITMENT:
            continue
        events.append(_settle(account, book, rule, first_day, counter, postings))
        following = period_of(rule, counter.until_us)
        if account.status != CLOSED and following.until_us > counter.until_us:
            counters.setdefault(rule.counter(following.first_day), new_counter(rule, following))
    _keep(account, counters)
    return events


def _settle(
    account: Account, book: PriceBook, rule: PeriodRule, first_day: str, counter: Counter, postings: Postings
) -> AccountEvent:
    """Charge what is missing to one commitment: the wallet pays it, tax included; it is revenue of its own kind."""
    missing_pico = max(0, rule.amount_pico - counter.used)
    if missing_pico:
        net_pico = net_of_tax(missing_pico, book.tax_rate_micro)
        take_out(account, missing_pico)
        postings.post(
            account.currency,
            (ledger.CUSTOMER_DEPOSITS, "", missing_pico),
            (ledger.REVENUE_COMMITMENT, book.label, -net_pico),
            (ledger.OUTPUT_VAT, book.label, net_pico - missing_pico),
        )
    return AccountEvent(
        account.account,
        "commitment.ended.v1",
        {
            "price_book": book.label,
            "commitment": rule.name,
            "first_day": first_day,
            "period_end_us": counter.until_us,
            "committed_pico": rule.amount_pico,
            "drawn_pico": counter.used,
            "charged_pico": missing_pico,
        },
    )
