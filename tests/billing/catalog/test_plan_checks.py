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
    caps = 'windows: [{kind: rolling, hours: 5, cap: "2"}]\nmembers: {cap: "2"}\n'
    keys = [text.split(": ")[1:3] for text in found(tmp_path, PLAN.replace("STD_TOKEN", "REQUEST") + caps)]
    assert sorted(keys) == [["warning", "members.cap"], ["warning", "windows[0].cap"]]


@pytest.mark.parametrize("unit", ["STD_TOKEN", "REQUEST", "CNY"])
def test_a_row_gives_no_coefficients_of_units_with_rules_of_their_own(tmp_path: Path, unit: str) -> None:
    (text,) = found(tmp_path, BOOK + f"rows: [{{per_million: {{output: '1'}}, units: {{{unit}: {{output: '2'}}}}}}]\n")
    assert f"rows[0].units.{unit}: is " in text and "remove it here" in text
