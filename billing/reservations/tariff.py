"""A catalogue prepared for pricing reservations."""

from billing.accounts.account import Account
from billing.catalog.model import Catalog, Plan, PlanKey, PriceBook
from billing.catalog.source import MAX_INT64
from billing.decide.bill_usage import UsageRules
from billing.pricing.match import combination_of
from billing.pricing.rate import Rated, Raters
from schemas.refusals import Refusal
from schemas.usage import UsageEvent


class Tariff:
    """A catalogue prepared for pricing reservations: the rows of each book and each plan are looked up once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._plans = catalog.plans_by_key()
        self._rater = Raters(zero_is_known=True)  # a hold for nothing costs nothing
        self.declared_meters = catalog.declared_meters()
        self.declared_attributes = catalog.declared_attributes()
        self.usage_rules = UsageRules(catalog, self.plan, Raters())

    def plan(self, key: PlanKey) -> Plan:
        """Return a plan version."""
        return self._plans[key]

    def rate(self, account: Account, event: UsageEvent) -> tuple[PriceBook, Rated] | Refusal:
        """Price an event by the account's book, with the tiers that its counters have reached.

        Returns:
            The book version and the rated event, or a refusal with ``no_price_book``, ``no_price`` or ``overflow``.
        """
        book = self.catalog.price_book_at(account.price_book, event.time_us)
        if book is None:
            return Refusal("no_price_book", f"no version of price book {account.price_book!r} is in force")
        rated = self._rater(book).rate(event, account.extras.counters)
        return rated if isinstance(rated, Refusal) else (book, rated)

    def fixed_cost(self, account: Account, event: UsageEvent) -> tuple[int, int] | None:
        """Return price (pico) and standard tokens (micro) of an event whose combination alone decides them, else None.

        Also None if an amount exceeds 64 bits, which :meth:`rate` decides.
        """
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
        return (amount_pico, standard_micro) if max(amount_pico, standard_micro) <= MAX_INT64 else None
