"""Accounts that the core reads from their rows are those that it reads from plain values."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_samples import CATALOG, accounts, as_stored

from billing.accounts.account import Account
from billing.accounts.deduction_order import sort_buckets
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.commits.commit_record import PartitionState
from billing.commits.output_documents import Stamp
from billing.commits.stored_accounts import StoredAccounts

STAMP = Stamp(0, 1, 0)


def calculator_with(held: StoredAccounts | list[Account]) -> CompiledCalculator:
    calculator = CompiledCalculator()
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(CATALOG)
    calculator.put_stored(held)
    return calculator


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.integers(0, 12))
def test_rows_and_plain_values_make_the_same_accounts(seed: int, number: int) -> None:
    rng = Random(seed)
    held = [accounts(rng, f"a{place}") for place in range(number)]
    stored = as_stored(held)
    from_rows, from_values = calculator_with(stored), calculator_with(held)
    assert len(stored) == number
    for account in held:
        found = from_rows.account(account.account)
        assert found == from_values.account(account.account)
        sort_buckets(account, {(plan.name, plan.version): plan for plan in CATALOG.plans}.__getitem__)
        assert found == account
    # What is changed afterwards differs from the same rows, and is written as the same bytes.
    for account in held:
        changed = replace(account, wallet_pico=account.wallet_pico + 1)
        for calculator in (from_rows, from_values):
            calculator.put_account(changed, stored=False)
    assert from_rows.take_effects(STAMP).changes == from_values.take_effects(STAMP).changes


def one_account() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    rng = Random(5)
    account = accounts(rng, "a")
    while not account.buckets:
        account = accounts(rng, "a")
    stored = as_stored([replace(account, buckets=account.buckets[:1])])
    return stored.account_rows[0], stored.bucket_rows[0]


@pytest.mark.parametrize(
    "number", ["0", "-1", "9" * 18, "1" + "0" * 18, "9" * 38, "-" + "9" * 38, str(2**63), str(-(2**63)), str(2**64)]
)
def test_numbers_of_every_length_are_read(number: str) -> None:
    row, bucket = one_account()
    row = (*row[:5], number, *row[6:])
    held = calculator_with(StoredAccounts([row], [bucket]))
    [plain] = StoredAccounts([row], [bucket])
    assert held.account("a") == plain
    assert plain.wallet_pico == int(number)


def test_rows_that_do_not_belong_together_are_refused() -> None:
    row, bucket = one_account()
    with pytest.raises(ValueError, match="the bucket row 0 of 1 is out of order"):
        calculator_with(StoredAccounts([row], [("b", *bucket[1:])]))
    with pytest.raises(ValueError, match="invalid literal"):
        calculator_with(StoredAccounts([(*row[:5], "1.5", *row[6:])], [bucket]))
    with pytest.raises(OverflowError):
        calculator_with(StoredAccounts([(*row[:5], str(2**127), *row[6:])], [bucket]))
    with pytest.raises(ValueError, match="begins outside of 1970 to 9999"):
        calculator_with(StoredAccounts([row], [(*bucket[:9], -1, *bucket[10:])]))


def test_a_plain_calculator_reads_the_same_rows() -> None:
    rng = Random(7)
    held = [accounts(rng, f"a{place}") for place in range(5)]
    calculator = PlainCalculator()
    calculator.set_catalog(CATALOG)
    calculator.put_stored(as_stored(held))
    compiled = calculator_with(as_stored(held))
    for account in held:
        assert calculator.account(account.account) == compiled.account(account.account)
