"""Tests of price sheets: both forms, headers in two languages, versions by date, and errors that point at a cell."""

from pathlib import Path

import pytest

from billing.catalog import load_folder
from billing.catalog.importers.sheet import SheetOptions, import_sheet
from billing.catalog.importers.sheet_cells import BadCell, SheetProblem, column_letters, make_sheet, read_csv
from billing.catalog.importers.values import BookText
from billing.catalog.importers.write import write_books

EXAMPLES = Path(__file__).parents[4] / "examples" / "price-lists"


def books(text: str, **options: str) -> tuple[BookText, ...]:
    """Return the versions in a CSV text."""
    return import_sheet(read_csv("p.csv", text.encode()), SheetOptions("list", **options))


def problems(text: str, **options: str) -> list[str]:
    """Return the errors in a CSV text."""
    with pytest.raises(SheetProblem) as caught:
        books(text, **options)
    return [str(error) for error in caught.value.errors]


def test_one_price_per_row_with_english_headers() -> None:
    (book,) = books(
        "Model,Hardware,Meter,Price,Unit,Effective from,Source\n"
        "m,ascend-*,input,2.50,CNY/million,2026-11-01,list of May\n"
        "m,ascend-*,output,0.003,CNY/1k,2026-11-01,list of May\n"
        "clip,,milliseconds,0.5,CNY/second,2026-11-01,\n"
    )
    assert (book.name, book.version, book.currency, book.effective_from) == (
        "list",
        1,
        "CNY",
        "2026-11-01T00:00:00+08:00",
    )
    first, second = book.rows
    assert first.dimensions == (("model", "m"), ("hardware_tier", "ascend-*"))
    assert (first.per_million, first.comment) == ((("input", "2.5"), ("output", "3")), "list of May")
    assert (second.dimensions, second.per_million) == ((("model", "clip"),), (("milliseconds", "500"),))


def test_one_column_per_meter_with_chinese_headers_and_context_bands() -> None:
    (book,) = books(
        "模型,能源,上下文起（含）,上下文止（不含）,输入（元/百万）,缓存命中(元/百万),输出(元/百万),图片(元/张),生效日期\n"
        "m,solar,0,32001,6,1.2,24,,2026年11月1日\n"
        "m,solar,32001,,10,2,40,,2026/11/1\n"
        "pic,,,,,,,0.2,2026-11-01\n"
    )
    assert [(row.context, row.per_million) for row in book.rows] == [
        ((0, 32001), (("input", "6"), ("cache_read", "1.2"), ("output", "24"))),
        ((32001, None), (("input", "10"), ("cache_read", "2"), ("output", "40"))),
        (None, (("images", "200000"),)),
    ]


def test_each_date_is_a_version_that_keeps_what_is_still_in_force() -> None:
    first, second = books(
        "model,input(CNY/million),output(CNY/million),effective_from\n"
        "a,1,2,2026-01-01\nb,3,4,2026-01-01\na,0.9,,2026-06-01T00:00:00Z\n"
    )
    assert (first.version, second.version, second.effective_from) == (1, 2, "2026-06-01T00:00:00Z")
    assert [row.per_million for row in second.rows] == [
        (("input", "0.9"), ("output", "2")),
        (("input", "3"), ("output", "4")),
    ]


def test_a_sheet_without_dates_begins_when_the_command_says() -> None:
    (book,) = books("model,input(USD/1m)\nm,1\n", effective_from="2026-01-01T00:00:00Z")
    assert (book.currency, book.effective_from) == ("USD", "2026-01-01T00:00:00Z")
    assert problems("model,input(USD/1m)\nm,1\n") == [
        "p.csv, row 2: does not say when it begins; write a date, or give --effective-from"
    ]


@pytest.mark.parametrize(
    ("written", "column"),
    [("2,5", "B"), ("¥2", "B"), ("1e-3", "B"), ("-1", "B"), ("２", "B"), ("01", "B"), ("n/a", "B"), (".5", "B")],
)
def test_a_number_that_needs_a_guess_is_refused_with_its_cell(written: str, column: str) -> None:
    text = f'model,input(CNY/million),effective_from\nok,1,2026-01-01\nm,"{written}",2026-01-01\n'
    assert problems(text) == [
        f"p.csv, row 3, column {column}: is {written!r}; write a number alone, such as 2.5, "
        "without separators or currency signs"
    ]


def test_every_error_is_told_with_row_and_column() -> None:
    assert problems(
        "模型,计量项,单价(元/百万),生效日期,上下文起,上下文止\n"
        ",input,1,2026-01-01,,\n"
        "m,inptu,1,2026-01-01,,\n"
        "m,input,,2026-01-01,,\n"
        "m,input,1,01/02/2026,,\n"
        "m,input,0.0000001,2026-01-01,,\n"
        "m,input,1,2026-02-30,,\n"
        "m,output,1,2026-01-01,5,5\n"
        "m,output,1,2026-01-01,x,\n"
        "m,searches,1,2026-01-01,,,extra\n"
    ) == [
        "p.csv, row 2, column A: has no model; write it in every row (merged cells hold it only in the first), "
        "or * for any",
        "p.csv, row 3, column B: is 'inptu'; write a meter such as input or 输入",
        "p.csv, row 4, column C: is ''; write a number alone, such as 2.5, without separators or currency signs",
        "p.csv, row 5, column D: is '01/02/2026'; write a date such as 2026-11-01 or a time with offset",
        "p.csv, row 6, column C: is '0.0000001', finer than 1e-12 of the currency per unit",
        "p.csv, row 7, column D: is '2026-02-30'; write a date such as 2026-11-01 or a time with offset",
        "p.csv, row 8, column F: is 5, not more than where the band begins",
        "p.csv, row 9, column E: is 'x'; write a number of tokens such as 32001",
        "p.csv, row 10, column G: is 'extra', but the column has no header",
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("model,inputt(CNY/million)", "column B: the header 'inputt(CNY/million)' is not known; did you mean 'input'?"),
        ("model,input", "column B: the header 'input' does not say what the price is for"),
        ("model,input(per million)", "column B: the header 'input(per million)' has no unit that is known"),
        ("model,meter,price", "column C: the unit of the price is said nowhere"),
        ("model,meter,price(CNY/million),unit", "column C: the unit of the price is said in the header and in"),
        ("model,meter", "there are no prices: add columns"),
        ("model,meter,price(CNY/1k),input(CNY/1k)", "column D: prices are in a column of their own and in columns"),
        ("input(CNY/million)", "there is no column 'model'"),
        ("model,model,input(CNY/million)", "column B: the header 'model' means the same as one before"),
    ],
)
def test_headers_that_are_not_understood(header: str, message: str) -> None:
    (problem, *_) = problems(f"{header}\nm,1\n")
    assert message in problem
    assert problem.startswith("p.csv, row 1")


def test_two_currencies_two_prices_and_no_price() -> None:
    options = {"effective_from": "2026-01-01T00:00:00Z"}
    assert problems("model,input(CNY/1k),output(USD/1k)\nm,1,1\n", **options) == [
        "p.csv, row 1: there are prices in CNY and USD; a book has one currency, so split the sheet"
    ]
    assert problems("model,input(CNY/1k)\nm,1\nm,2\n", **options) == [
        "p.csv, row 3: prices input again for what row 2 prices from the same time"
    ]
    assert problems("model,input(CNY/1k)\nm,\n", **options) == ["p.csv, row 1: there is no price below the headers"]
    assert problems("", **options) == ["p.csv, row 1: the sheet is empty; the first row holds the headers"]
    assert problems("model,input(CNY/second)\nm,1\n", **options) == [
        "p.csv, row 2, column B: is a price per second, which input does not count"
    ]


def test_a_chinese_encoding_tabs_and_quotes() -> None:
    options = SheetOptions("list", effective_from="2026-01-01T00:00:00Z")
    sheet = read_csv("p.csv", '模型\t输入(元/百万)\n"a\tb"\t1\n\n'.encode("gb18030"))
    assert import_sheet(sheet, options)[0].rows[0].dimensions == (("model", "a\tb"),)
    for content in (b"\xff\xfe\x00", b'model,"x\n'):
        with pytest.raises(SheetProblem):
            read_csv("p.csv", content)


def test_a_cell_that_is_no_text_is_told_where_it_stands() -> None:
    sheet = make_sheet("sheet 'x'", [(1, ["model", "input(CNY/1k)"]), (2, ["m", BadCell("is TRUE; write text")])])
    with pytest.raises(SheetProblem) as caught:
        import_sheet(sheet, SheetOptions("list", effective_from="2026-01-01T00:00:00Z"))
    assert "sheet 'x', row 2, column B: is TRUE; write text" in str(caught.value)
    assert [column_letters(index) for index in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


@pytest.mark.parametrize("name", ["prices-by-meter", "prices-by-row"])
def test_the_example_sheets_become_books_that_load(name: str, tmp_path: Path) -> None:
    sheet = read_csv(f"{name}.csv", (EXAMPLES / f"{name}.csv").read_bytes())
    (tmp_path / "book.yaml").write_text(write_books(import_sheet(sheet, SheetOptions(name))), encoding="utf-8")
    assert load_folder(tmp_path).books == (name,)


def test_the_list_in_yuan_loads() -> None:
    (book,) = load_folder(EXAMPLES).price_books
    assert (book.label, book.currency) == ("cny-list@1", "CNY")
