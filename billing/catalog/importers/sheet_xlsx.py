"""Reader of a price sheet in an XLSX workbook as text in cells.

A spreadsheet stores numbers in binary. Each is read as the shortest decimal that is the same binary number, and only if
that has at most the 15 digits which a spreadsheet itself keeps and shows. A longer one is the trace of a formula such
as 0.1+0.2, and its intended value would be a guess.
"""

import io
import zipfile
from datetime import date, datetime
from decimal import Decimal
from numbers import Real

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.worksheet.worksheet import Worksheet

from billing.catalog.importers.sheet_cells import BadCell, Cell, Sheet, SheetError, SheetProblem, make_sheet
from billing.catalog.importers.values import plain

DIGITS = 15
MAX_BYTES = 64 * 1024 * 1024
"""Greatest size of an unpacked workbook."""


def read_xlsx(name: str, content: bytes, sheet: str = "") -> Sheet:
    """Read one sheet of a workbook. ``sheet`` names it; it is needed if several sheets have content.

    Raises:
        SheetProblem: not a workbook, too large, or not clear which sheet is meant.
    """
    _check_size(name, content)
    try:
        values = openpyxl.load_workbook(io.BytesIO(content), data_only=True)
        formulas = openpyxl.load_workbook(io.BytesIO(content), data_only=False)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise _problem(name, f"is not an XLSX workbook: {error}") from error
    names = [found.title for found in values.worksheets if sheet == found.title or (not sheet and _holds(found))]
    if len(names) != 1:
        known = ", ".join(repr(found.title) for found in values.worksheets)
        message = f"there is no sheet {sheet!r}" if sheet else "it is not clear which sheet is meant"
        raise _problem(name, f"{message}; name one of {known} with --sheet")
    (title,) = names
    rows = zip(values[title].iter_rows(), formulas[title].iter_rows(), strict=True)
    cells = (
        (number, [_cell(value.value, formula.value, value.data_type) for value, formula in zip(*pair, strict=True)])
        for number, pair in enumerate(rows, 1)
    )
    return make_sheet(f"{name}, sheet {title!r}", cells)


def _check_size(name: str, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise _problem(name, "is not an XLSX workbook") from error
    if size > MAX_BYTES:
        raise _problem(name, f"unpacks to {size} bytes, more than {MAX_BYTES}; keep the prices in a file of their own")


def _problem(name: str, message: str) -> SheetProblem:
    return SheetProblem([SheetError(name, 1, None, message)])


def _holds(sheet: Worksheet) -> bool:
    return any(value is not None for row in sheet.iter_rows(values_only=True) for value in row)


def _cell(value: object, formula: object, kind: str) -> Cell:
    """Return a cell as text, or the reason why it cannot be read."""
    if value is None:
        if formula is None:
            return ""
        return BadCell("is a formula without a stored value; open and save the file in a spreadsheet program")
    if kind == "e":
        return BadCell(f"is the error {value}; correct the formula")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return BadCell(f"is {str(value).upper()}; write a number or text")
    if isinstance(value, datetime):
        if value.time() != datetime.min.time():
            return BadCell(f"is {value}; write the date alone, or a time with offset as text")
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Real):
        return _number(repr(value))
    return BadCell(f"is {value}; write a number, a date or text")


def _number(shortest: str) -> Cell:
    number = Decimal(shortest)
    if not number.is_finite() or len(number.normalize().as_tuple().digits) > DIGITS:
        return BadCell(f"is {shortest}, more than the {DIGITS} digits that a spreadsheet keeps; round the cell")
    return plain(number)
