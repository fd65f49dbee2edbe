"""Explanation of the price of an event: the rows considered, the winner, every factor, every coefficient.

An explanation is computed from the event, the book and, for period rules, the account's counters before the event, so
it can be computed again at any time. It agrees with :func:`billing.pricing.rate.rate`, because the same functions find
the row, the adjustments and the tiers. It is plain JSON values, decimals as strings;
:mod:`billing.pricing.explain_text` puts it into sentences.
"""

from collections.abc import Sequence
from typing import Any

from billing.catalog.model import TEXT_DIMENSIONS, Adjustment, PriceBook, PriceRow
from billing.catalog.patterns import pattern_matches, pattern_rank, row_rank, scope_matches
from billing.catalog.timebands import band_reason
from billing.pricing.adjust import PricingMoment, moment_fits
from billing.pricing.explain_prices import explain_prices
from billing.pricing.match import (
    Combination,
    RowIndex,
    combination_of,
    context_fits,
    dimensions_of,
    in_context,
    output_fits,
    text_fits,
    time_fits,
    values_of,
)
from billing.pricing.period_prices import NOTHING_COUNTED, Clock, Counters
from billing.pricing.rate import moment_of
from billing.pricing.row_prices import RowPrices
from schemas.meters import is_context_meter, is_output_meter
from schemas.times import format_time_us
from schemas.units import PICO_DIGITS, format_micro, format_pico, format_scaled
from schemas.usage import UsageEvent

MAX_LOST = 20
"""Number of losing rows that are listed one by one, best first. Of the others only the number is given."""

_Json = dict[str, Any]


def explain(
    event: UsageEvent, index: RowIndex, counters: Counters = NOTHING_COUNTED, clock: Clock | None = None
) -> _Json:
    """Explain the result of :func:`billing.pricing.rate.rate` for an event and the book of an index.

    Keys of the explanation:

    - ``price_book``: the version, and where it is written
    - ``time``, ``combination``, ``context``, and if the book has output bands ``output_context``: the values of the
      event that decided
    - ``time_bands``: the local time in each band that mattered
    - ``row``: the winner, or None
    - ``lost``: losing rows with the reason (``why``)
    - ``lost_more``, ``other_models``: numbers of further losing rows, and of rows of other models
    - ``adjustments``: as written, with ``applies``, and ``why`` if one does not apply
    - ``prices``: by meter, and by tier if a meter is split: list price, factors that count, price, coefficient and its
      origin
    - ``periods``, if the winner has period rules: their counters before and after
    - ``minimum_charge``, if the winner has one
    """
    book = index.book
    combination, moment = combination_of(event), moment_of(event)
    rows = index.of_model(combination.model)
    fitting = [row for row in rows if _fits(book, row, combination, moment)]
    winner = fitting[0] if fitting else None
    lost = [row for row in rows if row is not winner]
    matching = [a for a in book.adjustments if _adjusts(book, a, combination, moment)]
    told: _Json = {
        "price_book": _book(book),
        "time": format_time_us(event.time_us),
        "combination": dimensions_of(book, combination),
        "context": {
            "tokens": moment.context_tokens,
            "meters": [meter for meter, _ in event.counts if is_context_meter(meter)],
        },
        **_output(event, book, moment),
        "time_bands": _time_bands(book, rows, combination, event.time_us),
        "row": None if winner is None else _row(book, winner),
        "lost": [
            _row(book, row) | {"why": _why_lost(book, row, winner, combination, moment)} for row in lost[:MAX_LOST]
        ],
        "lost_more": max(0, len(lost) - MAX_LOST),
        "other_models": len(book.rows) - len(rows),
        "adjustments": [
            _adjustment(number, adjustment, _why_not(book, adjustment, combination, moment))
            for number, adjustment in enumerate(book.adjustments)
        ],
        "prices": [],
    }
    if winner is not None:
        prices, periods = explain_prices(event, RowPrices(book, winner, matching), counters, clock)
        told["prices"] = prices
        if winner.periods:
            told["periods"] = periods
        if winner.minimum_charge_pico:
            told["minimum_charge"] = format_pico(winner.minimum_charge_pico)
    return told


def _fits(book: PriceBook, row: PriceRow, combination: Combination, moment: PricingMoment) -> bool:
    return (
        text_fits(row, combination, values_of(book, combination))
        and context_fits(row, moment.context_tokens)
        and output_fits(row, moment.output_tokens)
        and time_fits(book, row, moment.time_us)
    )


def _adjusts(book: PriceBook, adjustment: Adjustment, combination: Combination, moment: PricingMoment) -> bool:
    return scope_matches(adjustment.scope, dimensions_of(book, combination)) and moment_fits(book, adjustment, moment)


def _output(event: UsageEvent, book: PriceBook, moment: PricingMoment) -> _Json:
    """Return the output length, if a row or an adjustment of the book asks for it."""
    if not book.has_output_bands:
        return {}
    meters = [meter for meter, _ in event.counts if is_output_meter(meter)]
    return {"output_context": {"tokens": moment.output_tokens, "meters": meters}}


def _book(book: PriceBook) -> _Json:
    told: _Json = {
        "label": book.label,
        "effective_from": format_time_us(book.effective_from_us),
        "currency": book.currency,
        "tax_rate": format_micro(book.tax_rate_micro),
        "stacking": book.stacking,
    }
    if book.standard_token_price_pico_per_million is not None:
        told["standard_token_price"] = format_pico(book.standard_token_price_pico_per_million)
    if book.file:
        told |= {"file": book.file, "line": book.line}
    return told


def _row(book: PriceBook, row: PriceRow) -> _Json:
    """Return a row by the dimensions that it fixes, as written in the book."""
    told: _Json = {"index": row.index}
    if row.line:
        told["line"] = row.line
    told |= {
        name: pattern
        for name, pattern in zip((*TEXT_DIMENSIONS, *book.dimensions), row.patterns, strict=True)
        if pattern_rank(pattern)
    }
    if row.outcome != ("completed",):
        told["outcome"] = list(row.outcome)
    if row.time_band is not None:
        told["time_band"] = row.time_band
    if row.context is not None:
        told["context"] = list(row.context)
    if row.unmetered:
        told["unmetered"] = True
    if row.output_context is not None:
        told["output_context"] = list(row.output_context)
    return told


def _why_lost(
    book: PriceBook, row: PriceRow, winner: PriceRow | None, combination: Combination, moment: PricingMoment
) -> list[str]:
    """Return every mismatch of a row; if there is none, the first criterion in which the winner is better."""
    why = [
        f"{name} {value!r} does not match {pattern!r}"
        for name, pattern, value in zip(
            (*TEXT_DIMENSIONS, *book.dimensions), row.patterns, values_of(book, combination), strict=True
        )
        if not pattern_matches(pattern, value)
    ]
    if combination.outcome not in row.outcome:
        why.append(f"outcome {combination.outcome!r} is not {' or '.join(row.outcome)}")
    if not time_fits(book, row, moment.time_us):
        why.append(f"the time is not in time band {row.time_band!r}")
    if row.context is not None and not context_fits(row, moment.context_tokens):
        why.append(f"a context of {moment.context_tokens} tokens is not in {_context_text(row.context)}")
    if row.output_context is not None and not output_fits(row, moment.output_tokens):
        why.append(f"an output of {moment.output_tokens} tokens is not in {_context_text(row.output_context)}")
    return why if why or winner is None else [_why_lower(book, row, winner)]


def _why_lower(book: PriceBook, row: PriceRow, winner: PriceRow) -> str:
    """Return the criterion that decides between two rows that fit, in the order of the winner rule."""
    mine, its = row_rank(row), row_rank(winner)
    if mine == its:
        return "ranks the same and stands later in the book"
    if mine[0] != its[0]:
        return f"matches, but the model pattern {row.model!r} is less specific than {winner.model!r}"
    if mine[1] != its[1]:
        return f"matches, but fixes {mine[1]} of the other dimensions, the winner {its[1]}"
    names = (*TEXT_DIMENSIONS[1:], "time_band", "context", "output_context", *book.dimensions)
    for place, name in enumerate(names, 2):
        if mine[place] != its[place]:
            return f"matches and fixes as many dimensions, but in {name} the winner is more specific, which comes first"
    return "ranks lower"


def _time_bands(book: PriceBook, rows: Sequence[PriceRow], combination: Combination, time_us: int) -> list[_Json]:
    """Return the bands that a row or an adjustment of the combination names, in the order of the book."""
    asked = {row.time_band for row in rows if text_fits(row, combination, values_of(book, combination))}
    for adjustment in book.adjustments:
        if scope_matches(adjustment.scope, dimensions_of(book, combination)):
            asked.update(adjustment.time_bands)
    told: list[_Json] = []
    for name, band in book.time_bands.items():
        if name in asked:
            reason = band_reason(band, time_us)
            told.append(
                {
                    "name": name,
                    "inside": reason.inside,
                    "timezone": band.timezone,
                    "local_time": reason.local_time,
                    "day": reason.day,
                    "why": reason.why,
                }
            )
    return told


def _adjustment(number: int, adjustment: Adjustment, why_not: list[str]) -> _Json:
    told: _Json = {"index": number}
    if adjustment.line:
        told["line"] = adjustment.line
    told |= {"multiply": format_scaled(adjustment.multiply_pico, PICO_DIGITS), "reason": adjustment.reason}
    if adjustment.meters:
        told["meters"] = list(adjustment.meters)
    told["applies"] = not why_not
    return told | ({"why": why_not} if why_not else {})


def _why_not(book: PriceBook, adjustment: Adjustment, combination: Combination, moment: PricingMoment) -> list[str]:
    dimensions = dimensions_of(book, combination)
    why = [
        f"{name} {dimensions[name]!r} does not match {' or '.join(map(repr, patterns))}"
        for name, patterns in adjustment.scope.items()
        if not any(pattern_matches(pattern, dimensions[name]) for pattern in patterns)
    ]
    if adjustment.context is not None and not in_context(adjustment.context, moment.context_tokens):
        why.append(f"a context of {moment.context_tokens} tokens is not in {_context_text(adjustment.context)}")
    if adjustment.output_context is not None and not in_context(adjustment.output_context, moment.output_tokens):
        why.append(f"an output of {moment.output_tokens} tokens is not in {_context_text(adjustment.output_context)}")
    bands = adjustment.time_bands
    if bands and not any(band_reason(book.time_bands[name], moment.time_us).inside for name in bands):
        why.append(f"the time is not in time band {' or '.join(map(repr, bands))}")
    return why


def _context_text(context: tuple[int, int | None]) -> str:
    low, high = context
    return f"[{low}, {'null' if high is None else high}]"
