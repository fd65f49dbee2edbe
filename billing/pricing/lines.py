"""One line of output for one line of input, as ``tokenbill rate`` has them: the plain path, and what the core equals.

Decides nothing but the version of the book, by the event's time; knows no time limits or duplicates, and of accounts
only what period rules counted since the first line.
"""

import json

from billing.catalog.model import Catalog
from billing.pricing.explain import explain
from billing.pricing.period_prices import NOTHING_COUNTED, Counters
from billing.pricing.rate import Rated, Rater, rated_as_json, rejection_as_json
from schemas.refusals import Refusal
from schemas.times import format_time_us
from schemas.usage import UsageEvent, parse_usage


class BookRater:
    """Prices the events of a file by the versions of one book, each by the version in force at its time."""

    def __init__(self, catalog: Catalog, name: str) -> None:
        self.name = name
        self.rated = 0
        self.rejected = 0
        self._catalog = catalog
        versions = [book for book in catalog.price_books if book.name == name]
        self._declared = frozenset(meter for book in versions for meter in book.meters)
        self._raters = {book.version: Rater(book) for book in versions}
        self._counters: dict[str, Counters] = {}
        """Of the accounts that were priced by a period rule; the one memory that grows with a stream."""

    def line(self, value: bytes, *, explained: bool = False, only: str | None = None) -> dict[str, object]:
        """The line of output for a line of input; explained with the key ``explain``, where a book is in force and the
        id is ``only`` (None: any)."""
        event = parse_usage(value, declared_meters=self._declared)
        if isinstance(event, Refusal):
            self.rejected += 1
            return rejection_as_json(event)
        counters = self._counters.get(event.account, NOTHING_COUNTED)
        result = self._rate(event, counters)
        if isinstance(result, Refusal):
            self.rejected += 1
        else:
            self.rated += 1
            if result.counted:
                self._counters[event.account] = {**counters, **result.counters}
        line = rated_as_json(event, result)
        if explained and only in (None, event.id) and (rater := self._rater(event)) is not None:
            line["explain"] = explain(event, rater.index, counters)
        return line

    def _rater(self, event: UsageEvent) -> Rater | None:
        """The version in force at an event's time."""
        book = self._catalog.price_book_at(self.name, event.time_us)
        return None if book is None else self._raters[book.version]

    def none_in_force(self, time: str) -> str:
        """The sentence about a time before the first version."""
        first = min(book.effective_from_us for book in self._catalog.price_books if book.name == self.name)
        return f"no version of {self.name} is in force at {time}; the first begins at {format_time_us(first)}"

    def _rate(self, event: UsageEvent, counters: Counters) -> Rated | Refusal:
        rater = self._rater(event)
        if rater is None:
            detail = self.none_in_force(format_time_us(event.time_us))
            return event.refuse("no_price_book", detail)
        return rater.rate(event, counters)


def encode_line(document: dict[str, object]) -> bytes:
    """A line of output."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
