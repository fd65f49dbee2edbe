"""A catalogue prepared to price reservations."""

from billing.accounts.account import Account
from billing.catalog.model import Catalog, Plan, PlanKey, PriceBook
from billing.catalog.source import INT64_MAX
from billing.pricing.match import combination_of
from billing.pricing.rate import Rated, Raters
from schemas.refusals import Refusal
from schemas.usage import UsageEvent


class Tariff:
    """A catalogue made ready to price reservations: each book's rows and each plan are looked up once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._plans = catalog.plans_by_key()
        self._rater = Raters()

    def plan(self, key: PlanKey) -> Plan:
        """A plan version."""
        return self._plans[key]

    def rate(self, account: Account, event: UsageEvent) -> tuple[PriceBook, Rated] | Refusal:
        """Price an event by the account's book, in the tiers of its counters; ``no_price_book``, ``no_price``,
        ``overflow``."""
        book = self.catalog.price_book_at(account.price_book, event.time_us)
        if book is None:
            return Refusal("no_price_book", f"no version of price book {account.price_book!r} is in force")
        rated = self._rater(book).rate(event, account.extras.counters)
        return rated if isinstance(rated, Refusal) else (book, rated)

    def fixed_cost(self, account: Account, event: UsageEvent) -> tuple[int, int] | None:
        """Pico and micro standard tokens of an event, where its combination alone decides them; else None."""
        book = self.catalog.price_book_at(account.price_book, event.time_us)
        prices = None if book is None else self._rater(book).fixed(combination_of(event))
        if prices is None:
            return None
        amount_pico = standard_micro = 0
        for meter, count in event.counts:
            unit = prices.get(meter)
            if unit is None:
                return None
            amount_pico += count * unit[0]
            standard_micro += count * unit[1]
        return (amount_pico, standard_micro) if max(amount_pico, standard_micro) <= INT64_MAX else None
