"""Reader of a folder of catalogue files into a :class:`Catalog`, with every error at its line.

Each entry is read on its own. :mod:`billing.catalog.check` finds entries that contradict each other and features that
this version does not support.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from billing.catalog import read_book, read_plan
from billing.catalog.findings import CatalogFinding
from billing.catalog.model import Agreement, Catalog, Holidays, Plan, PriceBook, TimeBand
from billing.catalog.nodes import Node, Pairs, Scalar, no_collections
from billing.catalog.read_common import read_dates, read_name
from billing.catalog.source import Fields, Source, catalog_files

_HOLIDAY_REQUIRED, _HOLIDAY_OPTIONAL = ("kind", "name", "off", "work"), ("version",)
_AGREEMENT_REQUIRED = ("kind", "name", "version", "effective_from", "role", "match", "shares")
DOCUMENT_KINDS = ("price_book", "plan", "holidays", "agreement")


@dataclass(slots=True)
class _Read:
    """Entries read so far."""

    price_books: list[PriceBook] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    holidays: list[Holidays] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)


def read_folder(folder: Path | str) -> tuple[Catalog, list[CatalogFinding]]:
    """Read every ``*.yaml`` and ``*.yml`` file below a folder: return the entries without error, and all findings."""
    root = Path(folder)
    if not root.is_dir():
        return Catalog(), [CatalogFinding(str(folder), 1, "folder", "is not a folder; name a folder of YAML files")]
    files = catalog_files(root)
    if not files:
        return Catalog(), [CatalogFinding(str(folder), 1, "folder", "has no *.yaml file; add price books and plans")]
    read = _Read()
    findings: list[CatalogFinding] = []
    with no_collections():
        for path in files:
            source = Source(str(path))
            for document in source.documents(path.read_bytes()):
                _read_entry(source, document, read)
            findings += source.findings
    return assemble(read.price_books, read.plans, read.holidays, read.agreements), findings


def _read_entry(source: Source, node: Node, read: _Read) -> None:
    """Read one document, and keep its entry if it has no findings."""
    before = len(source.findings)
    kind = _kind_of(node)
    entry: PriceBook | Plan | Holidays | Agreement
    if kind == "price_book":
        entry = read_book.read_price_book(Fields(source, node, "", read_book.BOOK_REQUIRED, read_book.BOOK_OPTIONAL))
    elif kind == "plan":
        entry = read_plan.read_plan(Fields(source, node, "", read_plan.PLAN_REQUIRED, read_plan.PLAN_OPTIONAL))
    elif kind == "holidays":
        entry = _read_holidays(Fields(source, node, "", _HOLIDAY_REQUIRED, _HOLIDAY_OPTIONAL))
    elif kind == "agreement":
        entry = _read_agreement(Fields(source, node, "", _AGREEMENT_REQUIRED))
    else:
        source.report(node, "kind", f"is {kind!r}; every document needs a kind, one of {', '.join(DOCUMENT_KINDS)}")
        return
    if len(source.findings) > before:
        return
    match entry:
        case PriceBook():
            read.price_books.append(entry)
        case Plan():
            read.plans.append(entry)
        case Holidays():
            read.holidays.append(entry)
        case Agreement():
            read.agreements.append(entry)


def _kind_of(node: Node) -> str | None:
    if isinstance(node, Pairs):
        for key, value in node.pairs():
            if isinstance(key, Scalar) and key.value == "kind" and isinstance(value, Scalar):
                return value.value
    return None


def _read_holidays(fields: Fields) -> Holidays:
    off, work = read_dates(fields, "off"), read_dates(fields, "work")
    if set(off) & set(work) and not fields.failed:
        fields.fail("work", "has a date that is in 'off' too; a day is one or the other")
    return Holidays(
        name=read_name(fields),
        version=fields.integer("version", 1, 1),
        off=off,
        work=work,
        file=fields.source.file,
        line=fields.node.line,
    )


def _read_agreement(fields: Fields) -> Agreement:
    return Agreement(read_name(fields), fields.integer("version", 1), file=fields.source.file, line=fields.node.line)


def assemble(
    price_books: Sequence[PriceBook],
    plans: Sequence[Plan],
    holidays: Sequence[Holidays],
    agreements: Sequence[Agreement] = (),
) -> Catalog:
    """Sort entries into a catalogue, and give each time band the days of the holiday table that it excepts."""

    def order(entry: PriceBook | Plan | Holidays | Agreement) -> tuple[str, int]:
        return (entry.name, entry.version)

    tables: dict[str, Holidays] = {}
    for table in sorted(holidays, key=order):
        tables[table.name] = table  # the latest version wins
    return Catalog(
        price_books=tuple(sorted((_with_holidays(book, tables) for book in price_books), key=order)),
        plans=tuple(sorted(plans, key=order)),
        holidays=tuple(sorted(holidays, key=order)),
        agreements=tuple(sorted(agreements, key=order)),
    )


def _with_holidays(book: PriceBook, tables: dict[str, Holidays]) -> PriceBook:
    def resolve(band: TimeBand) -> TimeBand:
        table = tables.get(band.excepts) if band.excepts else None
        return band if table is None else replace(band, off=frozenset(table.off), work=frozenset(table.work))

    if not any(band.excepts for band in book.time_bands.values()):
        return book
    return replace(book, time_bands={name: resolve(band) for name, band in book.time_bands.items()})
