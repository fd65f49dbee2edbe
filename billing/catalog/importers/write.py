"""Writer of price books as YAML text that :mod:`billing.catalog.load` reads back to the same values. Writes no file."""

import json
from collections.abc import Iterable, Iterator, Sequence

from billing.catalog.importers.values import BookText, RowText

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


def write_books(books: Sequence[BookText]) -> str:
    """Return versions of a book as the YAML documents of one file."""
    return "---\n".join("\n".join(_book(book)) + "\n" for book in books)


def quoted(text: str) -> str:
    """Return a text in double quotes. JSON's escapes are valid in YAML."""
    return json.dumps(text, ensure_ascii=False)


def _book(book: BookText) -> Iterator[str]:
    yield from (f"# {comment}" for comment in book.comments)
    yield "kind: price_book"
    yield f"name: {quoted(book.name)}"
    yield f"version: {book.version}"
    yield f"currency: {book.currency}"
    if book.tax_rate:
        yield f"tax_rate: {quoted(book.tax_rate)}"
    yield f"effective_from: {quoted(book.effective_from)}"
    if book.meters:
        yield f"meters: [{', '.join(book.meters)}]"
    if book.time_bands:
        yield "time_bands:"
        for name, band in book.time_bands.items():
            hours = ", ".join(quoted(hours) for hours in band.hours)
            yield f"  {name}: {{timezone: {quoted(band.timezone)}, days: [{', '.join(band.days)}], hours: [{hours}]}}"
    yield "rows:"
    for row in book.rows:
        yield from _row(row)


def _row(row: RowText) -> Iterator[str]:
    if row.comment:
        yield f"  # {row.comment}"
    fields = [f"{name}: {_text(value)}" for name, value in row.dimensions]
    if row.context is not None:
        low, high = row.context
        fields.append(f"context: [{low}, {'null' if high is None else high}]")
    fields.append(f"per_million: {_by_meter(row.per_million)}")
    if row.standard_tokens:
        fields.append(f"standard_tokens: {_by_meter(row.standard_tokens)}")
    yield f"  - {{{', '.join(fields)}}}"


def _by_meter(values: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{meter}: {quoted(value)}" for meter, value in values) + "}"


def _text(value: str) -> str:
    """Return the value of a dimension, without quotes only if it can be nothing but a word."""
    word = bool(value) and value[0].isalpha() and _PLAIN.issuperset(value)
    return value if word and value not in ("null", "true", "false", "yes", "no", "on", "off") else quoted(value)
