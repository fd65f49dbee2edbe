"""Output lines of ``tokenbill rate``, one for each input line, by the plain rules that the compiled core must equal.

Decides only which version of the book applies, by the event's time. Knows no time limits and no duplicates. The only
state of an account is its counters of period rules since the first line.
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
    """Rater of the events of a file by one book, each by the version in force at the event's time."""

    def __init__(self, catalog: Catalog, name: str, *, note_unknown: bool = False) -> None:
        self.name = name
        self.rated = 0
        self.rejected = 0
        self.with_unknown = 0
        """Events with numbers that their dialect does not know, and that were left out."""
        self.unknown: list[str] = []
        """The first sentence about such a number."""
        self._note_unknown = note_unknown
        self._catalog = catalog
        versions = [book for book in catalog.price_books if book.name == name]
        self._declared = frozenset(meter for book in versions for meter in book.meters)
        self._attributes = frozenset(attribute for book in versions for attribute in book.dimensions.values())
        self._raters = {book.version: Rater(book) for book in versions}
        self._counters: dict[str, Counters] = {}
        """Counters of the accounts that a period rule has priced. Nothing else in memory grows with the input."""

    def line(self, value: bytes, *, explained: bool = False, only: str | None = None) -> dict[str, object]:
        """Return the output line of an input line.

        With ``explained`` it has the key ``explain``, if a book is in force and the event's id is ``only`` (None: any
        id).
        """
        event = parse_usage(
            value,
            declared_meters=self._declared,
            declared_attributes=self._attributes,
            note_unknown=self._note_unknown,
        )
        if isinstance(event, Refusal):
            self.rejected += 1
            return rejection_as_json(event)
        if event.unknown:
            self.with_unknown += 1
            self.unknown = self.unknown or [f"id {event.id!r}: {event.unknown[0]}"]
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
        """Return the rater of the version in force at an event's time, or None."""
        book = self._catalog.price_book_at(self.name, event.time_us)
        return None if book is None else self._raters[book.version]

    def none_in_force(self, time: str) -> str:
        """Return the message for a time before the first version."""
        first = min(book.effective_from_us for book in self._catalog.price_books if book.name == self.name)
        return f"no version of {self.name} is in force at {time}; the first begins at {format_time_us(first)}"

    def _rate(self, event: UsageEvent, counters: Counters) -> Rated | Refusal:
        rater = self._rater(event)
        if rater is None:
            detail = self.none_in_force(format_time_us(event.time_us))
            return event.refuse("no_price_book", detail)
        return rater.rate(event, counters)


def encode_line(document: dict[str, object]) -> bytes:
    """Return an output line as bytes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
