"""Tests that a catalogue file is read literally: every error is found at its line, and nothing is guessed."""

from pathlib import Path

import pytest
from catalog_samples import BOOK, PLAN, lines, load, rows, write

from billing.catalog import CatalogError, load_folder

BROKEN = """\
kind: price_book
name: "retail cn"
version: one
currency: yuan
tax_rate: "0.0600001"
effective_from: "2026-01-01T00:00:00"
efective_from: "2026-01-01T00:00:00Z"
time_bands:
  peak: {timezone: Asia/Wuxi, days: [mon, mon, day], hours: ["9:00-12:00", "12:00-12:00"], excpt: x}
rows:
  - model: "a*b"
    model: c
    context: [10, 10]
    outcome: done
    per_million: {input: "-1", output: "1e3", cache_read: "0.0000001", tokens: "1"}
    standard_tokens: {input: "0.0000001"}
  - context: [1]
    per_million: {}
  - not a row
  - {model: [x], per_million: {input: [1]}, hardware_tier: " x"}
adjustments:
  - {energy_source: ["solar", "solar"], multiply: "-0.5"}
  - {time_band: [peak, peak], context: [9, 1], meters: [inptu], multiply: "0.5", reason: night}
stacking: best
"""


def test_every_error_of_a_file_is_reported_at_its_line(tmp_path: Path) -> None:
    found = lines(tmp_path, BROKEN)
    golden = Path(__file__).with_name("golden") / "broken_price_book.txt"
    assert "\n".join(found) + "\n" == golden.read_text(encoding="utf-8")


def test_every_error_of_a_plan_is_reported_at_its_line(tmp_path: Path) -> None:
    found = lines(
        tmp_path,
        """\
kind: plan
name: p
version: 0
title: {}
price: {amount: "9.905", currency: CNY}
cycle: {kind: month, days: 3}
buckets:
  - {unit: STD_TOKEN, amount: "0", kind: periodic, scope: {chanel: edge}}
  - {unit: STD_TOKEN, amount: "1", kind: weekly, fee_share: "1.5"}
overage: {mode: auto_pack, block: "5"}
windows: [{kind: rolling, every: week, cap: "1"}]
grace_hours: -1
alerts: ["0", "80"]
""",
    )
    golden = Path(__file__).with_name("golden") / "broken_plan.txt"
    assert "\n".join(found) + "\n" == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2\n", "2: file: is not YAML"),
        ("kind: price_book\n\tname: x\n", "2: file: is not YAML"),
        ("a: &x [*x]\n", "1: file: is not YAML: *x contains itself"),
        ("a: *y\n", "1: file: is not YAML"),
        ("- 1\n", "1: kind: is None"),
        ("kind: tariff\n", "1: kind: is 'tariff'"),
        ("a: \x07\n", "1: file: is not YAML"),
    ],
)
def test_a_file_that_is_no_catalogue_names_the_line(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = lines(tmp_path, text)
    assert found.startswith(f"catalog.yaml:{expected}")


def test_text_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_bytes(b"kind: plan\nname: \xff\n")
    with pytest.raises(CatalogError, match=r"a\.yml:2: file: is not UTF-8"):
        load_folder(tmp_path)


def test_a_folder_without_files_or_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"has no \*\.yaml file"):
        load_folder(tmp_path)
    with pytest.raises(CatalogError, match="is not a folder"):
        load_folder(tmp_path / "missing")


def test_files_are_read_recursively_and_errors_of_all_are_collected(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.yml").write_text("kind: x\n", encoding="utf-8")
    (tmp_path / "sub" / "a.yaml").write_text("kind: y\n", encoding="utf-8")
    (tmp_path / "ignored.txt").write_text("kind: z\n", encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load_folder(tmp_path)
    assert [(Path(f.file).name, f.line, f.key) for f in caught.value.findings] == [
        ("b.yml", 1, "kind"),
        ("a.yaml", 1, "kind"),
    ]


def test_scalars_need_no_quotes_and_stay_exact(tmp_path: Path) -> None:
    book = BOOK.replace('"', "") + "tax_rate: 0.10\nrows: [{model: no, per_million: {input: 0.1}}]\n"
    (read,) = load(tmp_path, book).price_books
    assert (read.tax_rate_micro, read.rows[0].model, read.rows[0].price_pico) == (100_000, "no", {"input": 100_000})


@pytest.mark.parametrize(("currency", "tax_rate_micro"), [("CNY", 60_000), ("USD", 0)])
def test_the_default_tax_rate_depends_on_the_currency(tmp_path: Path, currency: str, tax_rate_micro: int) -> None:
    (book,) = load(tmp_path, BOOK.replace("CNY", currency) + rows("")).price_books
    assert book.tax_rate_micro == tax_rate_micro


@pytest.mark.parametrize("key", ["name", "version", "currency", "effective_from"])
def test_a_missing_key_of_a_book_is_an_error(tmp_path: Path, key: str) -> None:
    text = "".join(f"{line}\n" for line in (BOOK + rows("")).splitlines() if not line.startswith(f"{key}:"))
    assert [f"catalog.yaml:1: {key}: is missing; add it"] == lines(tmp_path, text)


def test_a_name_is_no_longer_than_a_command_can_say(tmp_path: Path) -> None:
    for name, found in (("元" * 85, []), ("元" * 86, ["258 bytes long; commands can name at most 256"])):
        text = BOOK.replace("name: retail", f"name: {name}") + rows("")
        assert [line.partition(": name: is ")[2] for line in lines(tmp_path, text)] == found


def test_a_price_may_be_as_fine_as_a_pico_per_unit_and_no_finer(tmp_path: Path) -> None:
    fine = BOOK + 'rows: [{per_million: {input: "0.000001"}, standard_tokens: {input: "0.000001"}}]\n'
    row = load(tmp_path, fine).price_books[0].rows[0]
    assert (row.price_pico, row.coefficient_micro) == ({"input": 1}, {"input": 1})
    (found,) = lines(tmp_path, fine.replace('per_million: {input: "0.000001"', 'per_million: {input: "0.0000001"'))
    assert "rows[0].per_million.input: is '0.0000001', finer than 1e-6 per million (1e-12 per unit)" in found


def test_the_default_coefficient_is_price_over_standard_price_half_even(tmp_path: Path) -> None:
    book = (
        BOOK
        + 'standard_token_price: "4"\n'
        + (
            'rows: [{per_million: {input: "2", output: "0.00001", cache_read: "0.000006", images: "0.000002",'
            ' pages: "0"}, standard_tokens: {pages: "7"}}]\n'
        )
    )
    # 0.5; 2.5e-6 -> 2e-6; 1.5e-6 -> 2e-6; 0.5e-6 -> 0; the explicit one wins
    assert load(tmp_path, book).price_books[0].rows[0].coefficient_micro == {
        "input": 500_000,
        "output": 2,
        "cache_read": 2,
        "images": 0,
        "pages": 7_000_000,
    }


def test_a_book_declares_meters_of_its_own(tmp_path: Path) -> None:
    declared = BOOK + 'meters: [watts]\nrows: [{per_million: {watts: "1"}}]\n'
    assert load(tmp_path, declared).price_books[0].meters == ("watts",)
    (found,) = lines(tmp_path, declared.replace("meters: [watts]\n", ""))
    assert "rows[0].per_million.watts: is not a meter; declare it" in found
    (found,) = lines(tmp_path, declared.replace("[watts]", "[watts, input]"))
    assert "meters[1]: is 'input', which exists already" in found


def test_a_plan_has_the_defaults_of_the_contract(tmp_path: Path) -> None:
    (plan,) = load(tmp_path, PLAN).plans
    (bucket,) = plan.buckets
    assert (plan.cycle.timezone, plan.windows, plan.alerts_micro) == ("Asia/Shanghai", (), ())
    assert (plan.overage.mode, plan.grace_hours, plan.breakage) == ("block", 24, "at_expiry")
    assert (bucket.priority, bucket.carry_over_cycles, bucket.scope) == (100, 0, {})
    assert (plan.price_pico, bucket.amount_micro, bucket.fee_share_micro) == (9_900_000_000_000, 10**13, 10**6)


def test_the_version_in_force_is_the_one_that_began_last(tmp_path: Path) -> None:
    second = BOOK.replace("version: 1", "version: 2").replace("2026-01", "2026-03")
    catalog = load(tmp_path, BOOK + rows(""), second + rows(""))
    first_us, second_us = (book.effective_from_us for book in catalog.price_books)
    found = [catalog.price_book_at("retail", t) for t in (first_us - 1, first_us, second_us - 1, second_us)]
    assert [book.version if book else None for book in found] == [None, 1, 1, 2]
    assert catalog.price_book_at("other", second_us) is None
    assert catalog.books == ("retail",)


def test_a_plan_without_version_is_the_latest(tmp_path: Path) -> None:
    catalog = load(tmp_path, PLAN, PLAN.replace("version: 1", "version: 10"), PLAN.replace("version: 1", "version: 2"))
    assert [plan.version if (plan := catalog.plan("token-9.9", v)) else None for v in (None, 2, 3)] == [10, 2, None]


def test_aliases_are_followed(tmp_path: Path) -> None:
    book = BOOK + 'rows:\n  - {model: a, per_million: &p {input: "1"}}\n  - {model: b, per_million: *p}\n'
    assert [row.price_pico for row in load(tmp_path, book).price_books[0].rows] == [{"input": 10**6}] * 2


def test_an_error_holds_all_findings_in_order(tmp_path: Path) -> None:
    write(tmp_path, BROKEN)
    with pytest.raises(CatalogError) as caught:
        load_folder(tmp_path)
    assert list(caught.value.findings) == sorted(caught.value.findings)
    assert len(caught.value.findings) > 20
