"""Tests of errors and warnings, with their lines, for the optional keys of a plan."""

from pathlib import Path

import pytest
from catalog_samples import BOOK, PLAN, rows

from billing.catalog import lint_folder


def found(folder: Path, *texts: str) -> list[str]:
    (folder / "catalog.yaml").write_text("\n---\n".join(texts), encoding="utf-8")
    return [str(finding).partition("catalog.yaml:")[2] for finding in lint_folder(folder)[1]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('overage: {mode: block, cap: "1"}', "overage.cap: has no meaning for mode block; remove it"),
        ("overage: {mode: auto_pack, consent: required}", "overage.consent: has no meaning for mode auto_pack"),
        ('overage: {mode: pay_as_you_go, cap: "0"}', "overage.cap: is '0'; write a decimal greater than 0"),
        ("overage: {mode: pay_as_you_go, consent: given}", "overage.consent: is 'given'; write one of not_required"),
        (
            'overage: {mode: auto_pack, block: "1", price: "0.001", max_packs: 1}',
            "overage.price: is finer than 0.01; a pack is charged in whole fen",
        ),
        (
            'overage: {mode: auto_pack, block: "1", price: "1", max_packs: 1001}',
            "overage.max_packs: is '1001'; write an integer from 1 to 1000",
        ),
        ('withdrawn_from: "2026-12-01"', "withdrawn_from: is '2026-12-01'; write a time with offset such as"),
        ("members: {}", "members: is empty; write seats, cap or both"),
        ("members: {seats: 2, unit: REQUEST}", "members.unit: has no meaning without cap; add one or remove it"),
        ("proration: {}", "proration: is empty; write fee, quota or both"),
        ("proration: {fee: yes}", "proration.fee: is 'yes'; write one of true, false"),
        (
            'windows: [{kind: from_first_use, every: day, cap: "1"}]',
            "windows[0].hours: is missing; a from_first_use window needs it",
        ),
        (
            'windows: [{kind: from_first_use, hours: 5, every: day, cap: "1"}]',
            "windows[0].every: has no meaning for a from_first_use window; remove it",
        ),
        (
            'windows: [{kind: fixed, every: year, cap: "1"}]',
            "windows[0].every: is 'year'; write one of day, week, month",
        ),
        (
            'windows: [{kind: rolling, hours: 5, cap: "1", alerts: ["80"]}]',
            "windows[0].alerts[0]: is '80'; the greatest possible is 1",
        ),
        ("members: {seats: 0}", "members.seats: is '0'; write an integer from 1"),
        ('members: {seat: "1"}', "members.seat: is not a known key; did you mean 'seats'?"),
        ("cancellation: {refund: all}", "cancellation.refund: is 'all'; write one of none, by_time, by_quota"),
        ("cancellation: {}", "cancellation.refund: is missing; add it"),
        ('overage: {mode: owe, max_owed: "0"}', "overage.max_owed: is '0'; write a decimal greater than 0"),
        ('overage: {mode: block, max_owed: "1"}', "overage.max_owed: has no meaning for mode block; remove it"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    number = PLAN.count("\n") + 1
    texts = found(tmp_path, PLAN + line + "\n")
    assert any(text.startswith(f"{number}: {message}") for text in texts), texts


@pytest.mark.parametrize(
    ("amount", "currency", "message"),
    [
        ("9.905", "CNY", "price.amount: is finer than 0.01; a fee is charged in whole fen"),
        ("9.905", "USD", "price.amount: is finer than 0.01; a fee is charged in whole units of 0.01 USD"),
        ("1000.50", "JPY", "price.amount: is finer than 1; a fee is charged in whole units of 1 JPY"),
        ("9.9055", "KWD", "price.amount: is finer than 0.001; a fee is charged in whole units of 0.001 KWD"),
        ("9.905", "KWD", ""),
        ("1000", "JPY", ""),
    ],
)
def test_a_plan_costs_whole_minor_units_of_its_currency(
    tmp_path: Path, amount: str, currency: str, message: str
) -> None:
    texts = found(tmp_path, PLAN.replace('"9.90", currency: CNY', f'"{amount}", currency: {currency}'))
    finer = [text for text in texts if "finer" in text]
    assert [message in text for text in finer] == ([True] if message else []), texts
    packs = f'overage: {{mode: auto_pack, block: "1", price: "{amount}", max_packs: 1}}\n'
    texts = found(tmp_path, PLAN.replace('"9.90", currency: CNY', f'"9", currency: {currency}') + packs)
    assert any("a pack is charged in whole" in text for text in texts) is bool(message), texts


CYCLE = "cycle: {kind: subscription_month}"


@pytest.mark.parametrize(
    ("cycle", "message"),
    [
        ("{kind: months}", "cycle.months: is missing; add how many months a cycle lasts"),
        ("{kind: years, years: 1, months: 12}", "cycle.months: has no meaning for kind years; remove it or write kind"),
        ("{kind: subscription_month, weeks: 2}", "cycle.weeks: has no meaning for kind subscription_month"),
        ("{kind: months, months: 1201}", "cycle.months: is '1201'; write an integer from 1 to 1200"),
        ("{kind: fortnight}", "cycle.kind: is 'fortnight'; write one of subscription_month, calendar_month, day, days"),
    ],
)
def test_a_cycle_needs_the_length_of_its_kind(tmp_path: Path, cycle: str, message: str) -> None:
    assert CYCLE in PLAN
    texts = found(tmp_path, PLAN.replace(CYCLE, f"cycle: {cycle}"))
    assert any(message in text for text in texts), texts


@pytest.mark.parametrize(
    ("cycle", "every", "rest", "message"),
    [
        ("{kind: once}", "month", "", "buckets[0].every: is 'month', which has no meaning for a cycle without end"),
        ("{kind: years, years: 2}", "day", "", "buckets[0].every: is 'day', which makes more than 400 buckets a cycle"),
        (
            "{kind: years, years: 1}",
            "month",
            "activation: first_use\n",
            "buckets[0].every: is 'month', which has no meaning with activation: first_use",
        ),
        ("{kind: years, years: 1}", "quarter", "", "buckets[0].every: is 'quarter'; write one of day, week, month"),
        (
            "{kind: days, days: 30}",
            "day",
            "proration: {fee: true}\n",
            "proration: has no meaning for cycles of kind days",
        ),
    ],
)
def test_portions_and_proration_fit_the_cycle(tmp_path: Path, cycle: str, every: str, rest: str, message: str) -> None:
    text = PLAN.replace(CYCLE, f"cycle: {cycle}").replace("kind: periodic", f"kind: periodic, every: {every}") + rest
    texts = found(tmp_path, text)
    assert any(message in text for text in texts), texts


def test_a_cap_in_a_unit_that_nothing_needs_is_warned_of(tmp_path: Path) -> None:
    caps = 'windows: [{kind: rolling, hours: 5, cap: "2", unit: SMILES}]\nmembers: {cap: "2", unit: REQUEST}\n'
    texts = found(tmp_path, PLAN + caps)
    assert ["windows[0].cap" in text or "members.cap" in text for text in texts] == [True, True]
    assert any("is in 'SMILES', which no usage needs: it has no effect" in text for text in texts)
    assert any("is in REQUEST, but no bucket is: it has no effect" in text for text in texts)
    assert found(tmp_path, PLAN + 'windows: [{kind: rolling, hours: 5, cap: "2", unit: REQUEST}]\n') == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('carry_over: {max: "1"}', "buckets[0].carry_over.cycles: is missing; add it"),
        ("carry_over: {cycles: 0}", "buckets[0].carry_over.cycles: is '0'; write an integer from 1 to 1000"),
        ('carry_over: {cycles: 1, max: "0"}', "buckets[0].carry_over.max: is '0'; write a decimal greater than 0"),
        ('carry_over: {cycles: 1, max: "1", min: "2"}', "buckets[0].carry_over.max: is less than min"),
        ("carry_over: {cycles: 1, most: 2}", "buckets[0].carry_over.most: is not a known key"),
        ("carry_over_cycles: 1, carry_over: {cycles: 1}", "buckets[0].carry_over_cycles: stands beside carry_over"),
    ],
)
def test_a_mistake_of_a_carry_over_is_named(tmp_path: Path, keys: str, message: str) -> None:
    texts = found(tmp_path, PLAN.replace("kind: periodic", f"kind: periodic, {keys}"))
    assert any(message in text for text in texts), texts


def test_a_debt_that_no_grant_can_pay_is_an_error(tmp_path: Path) -> None:
    owing = PLAN + "overage: {mode: owe}\n"
    assert found(tmp_path, owing) == []
    (text,) = found(tmp_path, owing.replace("STD_TOKEN", "REQUEST"))
    assert "error: overage.mode: is owe, but no bucket is of STD_TOKEN" in text or "overage.mode: is owe" in text
    (text,) = found(tmp_path, owing + "activation: first_use\n")
    assert "overage.mode: is owe, but the plan's grants wait for their first use" in text


def test_a_refund_that_a_cancellation_can_never_give_is_found(tmp_path: Path) -> None:
    by_time = PLAN.replace("kind: subscription_month", "kind: once") + "cancellation: {refund: by_time}\n"
    assert any("cancellation.refund: is by_time, but the cycle has no end" in text for text in found(tmp_path, by_time))
    first = PLAN + "cancellation: {refund: by_quota}\nactivation: first_use\n"
    (text,) = found(tmp_path, first)
    assert "warning: cancellation.refund: has no effect" in text


def test_a_unit_that_nothing_burns_is_warned_of(tmp_path: Path) -> None:
    credits = PLAN.replace("STD_TOKEN", "CREDIT")
    book = BOOK + "rows: [{per_million: {output: '1'}, units: {CREDIT: {output: '2'}}}]\n"
    assert found(tmp_path, credits, book) == []
    (text,) = found(tmp_path, credits, BOOK + rows(""))
    assert "warning: buckets[0].unit: is 'CREDIT', which no row of a price book in CNY has in 'units'" in text


def test_a_cap_of_standard_tokens_without_any_is_warned_of(tmp_path: Path) -> None:
    caps = 'windows: [{kind: rolling, hours: 5, cap: "2", unit: STD_TOKEN}]\nmembers: {cap: "2", unit: STD_TOKEN}\n'
    keys = [text.split(": ")[1:3] for text in found(tmp_path, PLAN.replace("STD_TOKEN", "REQUEST") + caps)]
    assert sorted(keys) == [["warning", "members.cap"], ["warning", "windows[0].cap"]]


@pytest.mark.parametrize("unit", ["STD_TOKEN", "REQUEST", "CNY"])
def test_a_row_gives_no_coefficients_of_units_with_rules_of_their_own(tmp_path: Path, unit: str) -> None:
    (text,) = found(tmp_path, BOOK + f"rows: [{{per_million: {{output: '1'}}, units: {{{unit}: {{output: '2'}}}}}}]\n")
    assert f"rows[0].units.{unit}: is " in text and "remove it here" in text
