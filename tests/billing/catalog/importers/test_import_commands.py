"""``tokenbill catalog import-litellm`` and ``import-sheet`` as a person runs them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from billing.catalog import load_folder
from tokenbill.commands.catalog import catalog
from tokenbill.user_errors import UserError

MAP = {
    "a": {"litellm_provider": "x", "input_cost_per_token": 1e-06, "regional_endpoint_uplift_multiplier": 1.1},
    "b": {"litellm_provider": "x", "input_cost_per_token": 0},
}


def run(*arguments: object) -> Result:
    """Run a sub-command of ``catalog``; what a person is told comes as :class:`UserError`."""
    result = CliRunner().invoke(catalog, [str(argument) for argument in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_litellms_map_becomes_a_book_and_a_list_of_what_is_missing(tmp_path: Path) -> None:
    source, out = tmp_path / "map.json", tmp_path / "deep" / "out"
    source.write_text(json.dumps(MAP), encoding="utf-8")
    shown = run("import-litellm", source, "--out", out, "--effective-from", "2026-11-01T00:00:00+08:00", "--version", 3)
    assert "1 of 2 keys, 1 price fields imported" in shown.output
    (book,) = load_folder(out).price_books
    assert (book.label, book.currency, book.effective_from_us) == ("litellm@3", "USD", 1_793_462_400_000_000)
    assert (out / "litellm-left-out.txt").read_text(encoding="utf-8").splitlines() == [
        "key\tfield\treason\tdetail",
        "a\tregional_endpoint_uplift_multiplier\tdepends on what no usage event tells"
        "\tthe region of the provider's host",
        "b\tinput_cost_per_token\tevery price of the key is 0, which means unknown, not free",
    ]


def test_the_book_begins_in_1970_unless_told(tmp_path: Path) -> None:
    source = tmp_path / "map.json"
    source.write_text(json.dumps(MAP), encoding="utf-8")
    run("import-litellm", source, "--out", tmp_path)
    assert load_folder(tmp_path).price_books[0].effective_from_us == 0


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"b": {"x_cost": 0}}'])
def test_a_map_without_prices_writes_no_book(content: bytes, tmp_path: Path) -> None:
    source = tmp_path / "map.json"
    source.write_bytes(content)
    with pytest.raises(UserError):
        run("import-litellm", source, "--out", tmp_path)
    assert not (tmp_path / "litellm.yaml").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("import-litellm", "absent.json"),
        ("import-litellm", "absent.json", "--effective-from", "2026-11-01"),
        ("import-sheet", "absent.csv"),
        ("import-sheet", "prices.ods"),
        ("import-sheet", "absent.csv", "--currency", "yuan"),
        ("import-sheet", "absent.csv", "--name", "a b"),
        ("import-sheet", "absent.csv", "--timezone", "Mars/Base"),
        ("import-sheet", "absent.csv", "--tax-rate", "6%"),
        ("import-sheet", "absent.csv", "--tax-rate", "6"),
        ("import-sheet", "absent.csv", "--effective-from", "today"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_written(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        run(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sheet_becomes_a_book_or_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "list.csv", tmp_path / "out"
    source.write_text("模型,输入(元/百万),生效日期\nm,1,2026-11-01\n", encoding="utf-8-sig")
    shown = run("import-sheet", source, "--out", out, "--tax-rate", "0.06")
    assert "list@1 from 2026-11-01T00:00:00+08:00: 1 prices in 1 rows, CNY" in shown.output
    assert load_folder(out).price_books[0].tax_rate_micro == 60_000
    source.write_text("模型,输入(元/百万),生效日期\nm,一,2026-11-01\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 2, column B"):
        run("import-sheet", source, "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()
