"""Tests that the examples in docs/price-books.md load as they are, and that the page has every key of a price book."""

import re
from pathlib import Path

from billing.catalog import lint_folder
from billing.catalog.read_book import _ADJUSTMENT_OPTIONAL, _ROW_OPTIONAL, BOOK_OPTIONAL, BOOK_REQUIRED
from billing.catalog.read_periods import BLOCK_KEYS, COMMON, OF_KIND, TIER_KEYS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "price-books.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_are_a_book_without_findings(tmp_path: Path) -> None:
    book, lengths, declared, bands, adjustments, periods = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    book = book.replace("deepseek-v3.2", '"*"')  # any model, because an adjustment names another one
    holidays = (ROOT / "examples" / "catalog" / "holidays-cn.yaml").read_text(encoding="utf-8")
    (tmp_path / "catalog.yaml").write_text(book + bands + adjustments + "---\n" + holidays, encoding="utf-8")
    catalog, findings = lint_folder(tmp_path)
    assert findings == ()
    assert [len(entry.adjustments) for entry in catalog.price_books] == [4]
    for rows in (lengths, declared):
        (tmp_path / "catalog.yaml").write_text(book[: book.index("rows:")] + rows, encoding="utf-8")
        assert lint_folder(tmp_path)[1] == ()
    (tmp_path / "catalog.yaml").write_text(book[: book.index("rows:")] + periods, encoding="utf-8")
    catalog, findings = lint_folder(tmp_path)
    assert findings == ()
    assert [sorted(entry.periods) for entry in catalog.price_books] == [
        ["by_volume", "deal", "monthly", "searches_by_1000"]
    ]


def test_the_page_has_every_key() -> None:
    for key in (
        *BOOK_REQUIRED,
        *BOOK_OPTIONAL,
        *_ROW_OPTIONAL,
        *_ADJUSTMENT_OPTIONAL,
        "per_million",
        "multiply",
        "reason",
    ):
        assert f"`{key}`" in PAGE, key
    for key in (*COMMON, *(key for keys in OF_KIND.values() for key in keys), *TIER_KEYS, *BLOCK_KEYS):
        assert f"`{key}`" in PAGE, key
