"""Price sheet as text in cells, with the place of each cell for messages. Does not interpret prices."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BadCell:
    """Cell whose content cannot be read as text without guessing; ``problem`` gives the reason."""

    problem: str


Cell = str | BadCell


@dataclass(frozen=True, slots=True)
class Sheet:
    """One sheet. ``rows`` are (number of the row in the file from 1, its cells); empty rows are left out."""

    name: str
    rows: tuple[tuple[int, tuple[Cell, ...]], ...]


@dataclass(frozen=True, slots=True)
class SheetError:
    """One error in a sheet. ``row`` is counted from 1 and ``column`` from 0; as text the column is a letter."""

    sheet: str
    row: int
    column: int | None
    message: str

    def __str__(self) -> str:
        column = "" if self.column is None else f", column {column_letters(self.column)}"
        return f"{self.sheet}, row {self.row}{column}: {self.message}"


class SheetProblem(ValueError):
    """Raised for a sheet that cannot be imported; ``errors`` holds every error."""

    def __init__(self, errors: Sequence[SheetError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)


def column_letters(index: int) -> str:
    """Return the name of a column: 0 is A, 26 is AA."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def make_sheet(name: str, rows: Iterable[tuple[int, Iterable[Cell]]]) -> Sheet:
    """Return a sheet of cells without the blanks around their text and without empty rows."""
    stripped = ((number, tuple(c.strip() if isinstance(c, str) else c for c in cells)) for number, cells in rows)
    return Sheet(name, tuple((number, cells) for number, cells in stripped if any(cells)))


def read_csv(name: str, content: bytes) -> Sheet:
    """Read comma or tab separated text in UTF-8, or in GB 18030 as Chinese spreadsheet programs save it.

    Raises:
        SheetProblem: the text is in neither encoding, or is not CSV (a quote is not closed).
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("gb18030")
        except UnicodeDecodeError as error:
            problem = SheetError(name, 1, None, "the file is neither UTF-8 nor GB 18030 text; save it as CSV UTF-8")
            raise SheetProblem([problem]) from error
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ",", strict=True)
    rows: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for cells in reader:
            rows.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise SheetProblem([SheetError(name, number, None, f"is not CSV: {error}")]) from error
    return make_sheet(name, rows)
