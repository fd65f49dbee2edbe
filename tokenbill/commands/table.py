"""Output of report rows as table, CSV or JSON; rows are streamed, and a table buffers only its first rows."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import TextIO

TableRow = Mapping[str, str | int | None]

FORMATS = ("table", "csv", "json")
MEASURED_ROWS = 1_000
"""Number of rows used to determine column widths; a longer value in a later row misaligns only that row."""


def write_rows(rows: Iterable[TableRow], columns: Sequence[str], written_as: str, out: TextIO) -> None:
    """Write rows in one of :data:`FORMATS`."""
    if written_as == "json":
        _write_json(rows, out)
    elif written_as == "csv":
        _write_csv(rows, columns, out)
    else:
        _write_table(rows, columns, out)


def _write_json(rows: Iterable[TableRow], out: TextIO) -> None:
    separator = "[\n"
    for row in rows:
        out.write(separator + json.dumps(row, ensure_ascii=False))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_csv(rows: Iterable[TableRow], columns: Sequence[str], out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row[name] is None else row[name] for name in columns])


def _write_table(rows: Iterable[TableRow], columns: Sequence[str], out: TextIO) -> None:
    source = iter(rows)
    measured = list(islice(source, MEASURED_ROWS))
    widths = [max(len(name), *(len(_cell(row[name])) for row in measured), 0) for name in columns]
    numeric = [all(_is_number(row[name]) for row in measured) for name in columns]
    out.write(_line(columns, widths, numeric))
    out.write(_line(["-" * width for width in widths], widths, numeric))
    for row in chain(measured, source):
        out.write(_line([_cell(row[name]) for name in columns], widths, numeric))


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(padded).rstrip() + "\n"


def _cell(value: str | int | None) -> str:
    return "" if value is None else str(value)


def _is_number(value: str | int | None) -> bool:
    return value is None or isinstance(value, int) or value.lstrip("-").replace(".", "", 1).isdigit()
