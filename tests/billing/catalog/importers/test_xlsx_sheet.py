"""Tests of price sheets in XLSX: exact numbers, dates, and errors that name sheet, row and column."""

import io
import zipfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from billing.catalog import load_folder
from billing.catalog.importers.sheet import SheetOptions, import_sheet
from billing.catalog.importers.sheet_cells import SheetProblem
from billing.catalog.importers.sheet_xlsx import read_xlsx
from billing.catalog.importers.values import plain
from tokenbill.commands.catalog import catalog

OPTIONS = SheetOptions("list", effective_from="2026-01-01T00:00:00Z")


def workbook(*sheets: list[list[Any]]) -> bytes:
    """Return a workbook whose sheets ``one`` and ``two`` have these cells."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in zip(("one", "two"), sheets, strict=False):
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def problems(content: bytes, sheet: str = "") -> list[str]:
    """Return the errors in a workbook."""
    with pytest.raises(SheetProblem) as caught:
        import_sheet(read_xlsx("p.xlsx", content, sheet), OPTIONS)
    return [str(error) for error in caught.value.errors]


def test_numbers_texts_and_dates() -> None:
    rows = [
        ["模型", "输入(元/百万)", "输出(元/百万)", "生效日期"],
        ["m", 0.1, 3, date(2026, 11, 1)],
        ["n", "0.018", 1e-05, datetime(2026, 11, 1)],
    ]
    (book,) = import_sheet(read_xlsx("p.xlsx", workbook(rows)), OPTIONS)
    assert book.effective_from == "2026-11-01T00:00:00+08:00"
    assert [row.per_million for row in book.rows] == [
        (("input", "0.1"), ("output", "3")),
        (("input", "0.018"), ("output", "0.00001")),
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "is TRUE; write a number or text"),
        ("=1+1", "is a formula without a stored value; open and save the file in a spreadsheet program"),
        ("#REF!", "is the error #REF!; correct the formula"),
        (datetime(2026, 1, 1, 8), "is 2026-01-01 08:00:00; write the date alone, or a time with offset as text"),
    ],
)
def test_what_needs_a_guess_is_refused_with_sheet_row_and_column(value: Any, message: str) -> None:
    content = workbook([["model", "input(CNY/million)"], ["m", value]])
    assert problems(content)[0] == f"p.xlsx, sheet 'one', row 2, column B: {message}"


def test_the_trace_of_a_formula_in_binary_is_refused() -> None:
    """Excel stores the 17 digits of 0.1+0.2. openpyxl does not write them, so the test puts them into the file."""
    source = zipfile.ZipFile(io.BytesIO(workbook([["model", "input(CNY/million)"], ["m", 0.3]])))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b"<v>0.3</v>", b"<v>0.30000000000000004</v>"))
    assert problems(content.getvalue()) == [
        "p.xlsx, sheet 'one', row 2, column B: is 0.30000000000000004, more than the 15 digits that a "
        "spreadsheet keeps; round the cell"
    ]


def test_merged_cells_hold_the_model_only_once() -> None:
    content = workbook([["model", "meter", "price(CNY/1k)"], ["m", "input", 1], [None, "output", 2]])
    assert problems(content)[0].startswith("p.xlsx, sheet 'one', row 3, column A: has no model")


def test_the_sheet_is_named_where_there_are_two() -> None:
    rows = [["model", "input(CNY/1k)"], ["m", 1]]
    content = workbook(rows, rows)
    assert problems(content) == [
        "p.xlsx, row 1: it is not clear which sheet is meant; name one of 'one', 'two' with --sheet"
    ]
    assert problems(content, "three") == [
        "p.xlsx, row 1: there is no sheet 'three'; name one of 'one', 'two' with --sheet"
    ]
    assert import_sheet(read_xlsx("p.xlsx", content, "two"), OPTIONS)[0].rows[0].per_million == (("input", "1000"),)
    assert read_xlsx("p.xlsx", workbook(rows, [])).name == "p.xlsx, sheet 'one'"


@pytest.mark.parametrize("content", [b"", b"model,input\n", b"PK\x03\x04"])
def test_what_is_no_workbook_is_refused(content: bytes) -> None:
    with pytest.raises(SheetProblem):
        read_xlsx("p.xlsx", content)


@given(st.decimals(min_value=0, max_value=10**6, places=6, allow_nan=False, allow_infinity=False))
def test_a_decimal_of_fifteen_digits_survives_a_spreadsheet(price: Decimal) -> None:
    rows = [["model", "input(CNY/million)"], ["m", float(price)]]
    (book,) = import_sheet(read_xlsx("p.xlsx", workbook(rows)), OPTIONS)
    assert book.rows[0].per_million == (("input", plain(price)),)


def test_the_command_takes_a_workbook(tmp_path: Path) -> None:
    (tmp_path / "list.xlsx").write_bytes(
        workbook([["model", "input(CNY/1k)", "effective_from"], ["m", 1, date(2026, 1, 1)]])
    )
    arguments = ["import-sheet", str(tmp_path / "list.xlsx"), "--out", str(tmp_path / "out"), "--sheet", "one"]
    assert CliRunner().invoke(catalog, arguments, standalone_mode=False).exception is None
    assert load_folder(tmp_path / "out").books == ("list",)
