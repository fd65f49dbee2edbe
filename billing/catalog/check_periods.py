"""Checks that the period rules of a price book fit its rows, and count the same in each version of the book."""

from collections.abc import Iterator

from billing.catalog.findings import WARNING, CatalogFinding
from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.period_rules import COMMITMENT, SETTLE_AT_END, STANDARD_TOKENS, PeriodRule


def check_periods(book: PriceBook) -> Iterator[CatalogFinding]:
    """Find rows that name unknown or too many rules, tiers with meters that a row does not price, and unused rules."""
    used: dict[str, list[PriceRow]] = {name: [] for name in book.periods}
    for row in book.rows:
        yield from _row(book, row)
        for name in row.periods:
            if name in used:
                used[name].append(row)
    for name, rows in used.items():
        rule = book.periods[name]
        if not rows:
            yield CatalogFinding(
                book.file, rule.line, f"periods.{name}", "is named by no row; name it there, or remove it"
            )
        else:
            yield from _rule(book, rule, rows)


def _row(book: PriceBook, row: PriceRow) -> Iterator[CatalogFinding]:
    where = f"rows[{row.index}].periods"
    rules = [book.periods[name] for name in row.periods if name in book.periods]
    for name in row.periods:
        if name not in book.periods:
            known = ", ".join(book.periods) or "periods, which has none"
            yield CatalogFinding(book.file, row.line, where, f"is {name!r}; write one of {known}")
    for what, found in (
        ("rules that count usage", [rule.name for rule in rules if rule.kind != COMMITMENT]),
        ("commitments", [rule.name for rule in rules if rule.kind == COMMITMENT]),
    ):
        if len(found) > 1:
            yield CatalogFinding(book.file, row.line, where, f"has two {what}, {' and '.join(found)}; keep one of them")
    settled = next((rule.name for rule in rules if rule.settle == SETTLE_AT_END), None)
    commitment = next((rule.name for rule in rules if rule.kind == COMMITMENT), None)
    if settled is not None and commitment is not None:
        yield CatalogFinding(
            book.file,
            row.line,
            where,
            f"has {settled}, settled {SETTLE_AT_END}, and the commitment {commitment}, which is drawn by what usage "
            "cost when it happened; keep one of them",
        )


def _rule(book: PriceBook, rule: PeriodRule, rows: list[PriceRow]) -> Iterator[CatalogFinding]:
    """Find tiers and counts that do not fit the rows: meters without a price, standard tokens without coefficients."""
    for number, tier in enumerate(rule.tiers):
        for row in rows:
            missing = [meter for meter in tier.price_pico if not _priced(meter, row)]
            if missing:
                yield CatalogFinding(
                    book.file,
                    tier.line,
                    f"periods.{rule.name}.tiers[{number}].per_million",
                    f"has {', '.join(missing)}, which rows[{row.index}] in line {row.line} does not price; "
                    "price it there too, or take it out",
                )
                break
    if rule.count == (STANDARD_TOKENS,):
        useless = [row for row in rows if not any(row.coefficient_micro.values())]
        if useless:
            yield CatalogFinding(
                book.file,
                rule.line,
                f"periods.{rule.name}.count",
                f"is {STANDARD_TOKENS}, but rows[{useless[0].index}] in line {useless[0].line} uses none; "
                "state coefficients there, or count meters",
                WARNING,
            )
    else:
        never = [meter for meter in rule.count if not any(_priced(meter, row) for row in rows)]
        if never:
            yield CatalogFinding(
                book.file,
                rule.line,
                f"periods.{rule.name}.count",
                f"has {', '.join(never)}, which no row that names the rule prices; correct or remove it",
                WARNING,
            )


def _priced(meter: str, row: PriceRow) -> bool:
    return meter in row.price_pico or (meter == "reasoning" and "output" in row.price_pico)


def check_going_on(before: PriceBook, book: PriceBook) -> Iterator[CatalogFinding]:
    """Find rules that count differently in a new version of the book, although their counters continue by name."""
    for name, rule in book.periods.items():
        old = before.periods.get(name)
        if old is not None and old.counts_the_same != rule.counts_the_same:
            yield CatalogFinding(
                book.file,
                rule.line,
                f"periods.{name}",
                f"has another kind, every, timezone, count or settle than in {before.label} ({before.file}:{old.line})"
                ", and counters go on under this name; give the rule another name",
            )
