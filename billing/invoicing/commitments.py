"""Counters of an account's period rules, and the start and settlement of spend commitments.

The effect of an event on a counter is :mod:`billing.pricing.period_prices`. No SQL, no clock: ``now_us`` is log time.
"""

from billing import ledger
from billing.accounts.account import ACCOUNT_CLOSED, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.extras import Counter
from billing.accounts.movements import Movement, of_money, purse
from billing.accounts.wallet import withdraw
from billing.catalog.model import Catalog, PriceBook
from billing.catalog.period_calendar import period_of
from billing.catalog.period_rules import COMMITMENT, PeriodRule
from billing.ledger import Postings
from billing.pricing.period_prices import Counters, new_counter, without_past
from billing.tax import net_of_tax


def count_usage(account: Account, counters: Counters, oldest_us: int | None) -> None:
    """Store the counters that an event changed, and drop those of periods that ended by ``oldest_us``.

    With ``oldest_us`` None nothing is dropped. Commitments are kept until they are settled.
    """
    kept = {**account.extras.counters, **counters}
    _keep(account, kept if oldest_us is None else without_past(kept, oldest_us))


def _keep(account: Account, counters: dict[str, Counter]) -> None:
    """Replace the counters of an account, sorted by key so that equal counters give equal documents."""
    account.extras.counters = dict(sorted(counters.items()))


def begin_commitments(account: Account, now_us: int, catalog: Catalog) -> None:
    """Begin the commitments of an account's price book with the period that contains ``now_us``."""
    book = catalog.price_book_at(account.price_book, now_us)
    rules = [] if book is None else [rule for rule in book.periods.values() if rule.kind == COMMITMENT]
    periods = [(rule, period_of(rule, now_us)) for rule in rules]
    begun = {rule.counter(period.first_day): new_counter(rule, period) for rule, period in periods}
    _keep(account, begun | account.extras.counters)


def settle_commitments(account: Account, now_us: int, postings: Postings, catalog: Catalog) -> list[AccountEvent]:
    """Charge the shortfall of commitments whose period and grace are over, and begin the next periods.

    The price book version in force at the end of the period determines the committed amount and the tax rate. If it
    has no such commitment, nothing is charged and the commitment ends.
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
        if account.status != ACCOUNT_CLOSED and following.until_us > counter.until_us:
            counters.setdefault(rule.counter(following.first_day), new_counter(rule, following))
    _keep(account, counters)
    return events


def _settle(
    account: Account, book: PriceBook, rule: PeriodRule, first_day: str, counter: Counter, postings: Postings
) -> AccountEvent:
    """Charge the shortfall of one commitment to the wallet, tax included, and post it as ``revenue_commitment``."""
    missing_pico = max(0, rule.amount_pico - counter.used)
    moved: tuple[Movement, ...] = ()
    if missing_pico:
        before = purse(account)
        net_pico = net_of_tax(missing_pico, book.tax_rate_micro)
        withdraw(account, missing_pico)
        postings.post(
            account.currency,
            (ledger.CUSTOMER_DEPOSITS, "", missing_pico),
            (ledger.REVENUE_COMMITMENT, book.label, -net_pico),
            (ledger.OUTPUT_VAT, book.label, net_pico - missing_pico),
        )
        tax_pico = net_pico - missing_pico
        moved = (of_money(account, "commitment", -missing_pico, before, tax_pico=tax_pico, price_book=book.label),)
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
        moved,
    )
