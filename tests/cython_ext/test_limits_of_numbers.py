"""No number of the core wraps: at every limit it decides as the plain calculator and Python's integers do, or raises.

Products and sums of one event have 64 bits; beyond them the event is rejected. Balances, journal sums and rollup sums
have 128 bits; an event that does not fit is decided by the plain calculator, and a balance that does not fit raises.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing.accounts.account import ACTIVE, NO_END_US, USED_UP, Account, Bucket
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import Effects, UsageBatch, UsageOutcome
from billing.calculator.plain import PlainCalculator
from billing.catalog.model import Catalog, Cycle, Overage, Plan, PlanBucket, PriceBook, PriceRow
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import PlainRecord
from billing.commits.output_documents import Stamp
from billing.decide.bill_usage import ROLLUP_SUMS
from billing.ledger import CONTRACT_LIABILITY, CUSTOMER_DEPOSITS, OUTPUT_VAT, REVENUE_USAGE
from billing.log_time import TimeLimits
from billing.pricing.rate import MAX_OF_EVENT
from schemas.times import HOUR_US, parse_time_us
from schemas.units import divide_half_even
from schemas.usage import parse_usage

AT_US = parse_time_us("2026-11-22T00:30:00Z")
MILLION = 10**6
MOST_64, MOST_128, LEAST_128 = 2**63 - 1, 2**127 - 1, -(2**127)
EDGES = (0, 2**63, 2**64, 2**126, 2**127, -(2**63), -(2**64), -(2**127))
near = st.sampled_from(EDGES).flatmap(lambda edge: st.integers(edge - 3, edge + 3))
wide = st.integers(LEAST_128, MOST_128) | near.filter(lambda number: LEAST_128 <= number <= MOST_128)
positive_64 = st.integers(1, MOST_64) | st.sampled_from([1, 2, 3, 2**31, 2**32, 2**62, MOST_64 - 1, MOST_64])


def catalog(
    prices: dict[str, int], coefficients: dict[str, int] | None = None, tax_micro: int = 0, mode: str = "block"
) -> Catalog:
    """One book, whose only row has these prices (pico) and coefficients (micro), and one plan of standard tokens."""
    row = PriceRow(0, "*", "*", "*", "*", "*", "*", ("completed",), None, None, prices, coefficients or {}, {})
    rule = PlanBucket("STD_TOKEN", 1, "total", 100, 0, {}, MILLION)
    plan = Plan("p", 1, {}, 0, "CNY", 0, Cycle("once", "UTC"), (rule,), overage=Overage(mode))
    return Catalog(price_books=(PriceBook("b", 1, "CNY", tax_micro, 0, None, {}, (row,)),), plans=(plan,))


def account(buckets: Sequence[Bucket] = (), **columns: int) -> Account:
    return Account("a", "CNY", "b", "prepaid", 0, buckets=list(buckets), **columns)


def bucket(remaining_micro: int, liability_pico: int = 0, status: str = ACTIVE) -> Bucket:
    amount_micro = MOST_128 if remaining_micro > 2**100 else 2**100
    return Bucket(
        "g/1", "p", 1, 1, "STD_TOKEN", amount_micro, remaining_micro, liability_pico, 0, NO_END_US, NO_END_US, 0, status
    )


def event(number: int, counts: dict[str, int], timestamp_ms: int = AT_US // 1000) -> PlainRecord:
    body = {
        "specversion": "1.0", "type": "token.usage.v1", "source": "s", "id": f"e{number}", "sequence": str(number),
        "time": "2026-11-22T00:30:00Z", "subject": "a", "data": {"model": "m", "usage": counts},
    }  # fmt: skip
    return PlainRecord(number - 1, timestamp_ms, None, json.dumps(body).encode())


class Counting(CompiledCalculator):
    """The compiled calculator; ``plainly`` counts the events that it leaves to the plain one."""

    plainly = 0

    def _decide_plainly(self, decoded: Any, row: int, outcome: UsageOutcome, part: Any = None) -> None:
        self.plainly += 1
        super()._decide_plainly(decoded, row, outcome, part)

    def begin_sums(self, values: Sequence[int]) -> None:
        """The rollup row of the events here, as if earlier ones had made it this large."""
        self._usage.sums.put(AT_US - AT_US % HOUR_US, 0, 0, tuple(values))

    def begin_earned(self, plan: str | None, amount_pico: int, net_pico: int) -> None:
        """The journal sums of the plan, or of the only book version."""
        self._usage.sums.put_earned("CNY", plan, -1 if plan else 0, amount_pico, net_pico)


def prepared(calculator: Any, rules: Catalog, held: Account) -> Any:
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(rules)
    calculator.put_account(held, stored=True)
    return calculator


def apply(calculator: Any, records: Sequence[PlainRecord], limits: TimeLimits | None = None) -> UsageOutcome:
    outcome: UsageOutcome = calculator.apply(calculator.decode(UsageBatch(0, 1, records, 0, limits)))
    return outcome


@dataclass
class Agreed:
    outcome: UsageOutcome
    effects: Effects
    account: Account
    plainly: int


def agree(rules: Catalog, held: Account, records: Sequence[PlainRecord], limits: TimeLimits | None = None) -> Agreed:
    """Decide with both calculators and check that they agree."""
    plain, compiled = prepared(PlainCalculator(), rules, held), prepared(Counting(), rules, held)
    outcome = apply(plain, records, limits)
    assert apply(compiled, records, limits) == outcome
    after = plain.account("a")
    assert compiled.account("a") == after
    effects = plain.take_effects(Stamp(0, 1, AT_US))
    assert compiled.take_effects(Stamp(0, 1, AT_US)) == effects
    return Agreed(outcome, effects, after, compiled.plainly)


# One event: 64 bits.


@pytest.mark.parametrize(
    ("counts", "prices", "fits"),
    [
        ({"input": MOST_64}, {"input": 1}, True),
        ({"input": 1}, {"input": MOST_64}, True),
        ({"input": 7}, {"input": MOST_64 // 7}, True),
        ({"input": 2**62}, {"input": 2}, False),
        ({"input": MOST_64}, {"input": MOST_64}, False),
        ({"input": 2**62, "output": 2**62 - 1}, {"input": 1, "output": 1}, True),
        ({"input": 2**62, "output": 2**62}, {"input": 1, "output": 1}, False),
        ({"input": MOST_64 - 1, "output": 1}, {"input": 1, "output": 1}, True),
        ({"input": MOST_64, "output": 1}, {"input": 1, "output": 1}, False),
        ({"input": MOST_64, "output": MOST_64, "cache_read": 2}, {"input": 1, "output": 1, "cache_read": 1}, False),
    ],
)
@pytest.mark.parametrize("priced", ["money", "standard tokens"])
def test_an_event_that_just_fits_64_bits_is_rated_by_the_core_and_the_next_by_the_plain_calculator(
    counts: dict[str, int], prices: dict[str, int], fits: bool, priced: str
) -> None:
    exact = sum(count * prices[meter] for meter, count in counts.items())
    assert (exact <= MOST_64) is fits
    nothing = dict.fromkeys(prices, 0)
    rules = catalog(prices, nothing) if priced == "money" else catalog(nothing, prices)
    agreed = agree(rules, account(), [event(1, counts)])
    held = exact <= MAX_OF_EVENT
    assert [refused.code for _, refused in agreed.outcome.rejected] == ([] if held else ["overflow"])
    if held:
        (row,) = agreed.effects.rollups
        assert (row.amount_pico if priced == "money" else row.standard_micro) == exact
        assert agreed.plainly == (not fits)
    else:
        assert agreed.effects.rollups == []
        assert agreed.effects.rated_records == 0
        assert agreed.account == replace(account(), clock_us=agreed.account.clock_us)  # a simulation's clock moves


def test_more_tokens_than_64_bits_are_counted_exactly() -> None:
    counts = {"input": MOST_64, "cache_read": MOST_64, "output": 1}
    agreed = agree(catalog(dict.fromkeys(counts, 0)), account(), [event(1, counts)])
    assert agreed.effects.rollups[0].tokens == 2**64 - 1
    assert agreed.plainly == 1


@settings(max_examples=150, deadline=None)
@given(
    counts=st.dictionaries(st.sampled_from(["input", "output", "images"]), positive_64, min_size=1),
    price=st.integers(0, MOST_64) | st.sampled_from([0, 1, 2, 2**31, 2**32]),
    coefficient=st.integers(0, MOST_64) | st.sampled_from([0, 1, 2, 2**31, 2**32]),
    tax_micro=st.integers(0, MILLION),
)
@example(counts={"input": MOST_64}, price=1, coefficient=1, tax_micro=MILLION)
@example(counts={"input": MOST_64}, price=1, coefficient=0, tax_micro=1)
def test_an_event_costs_what_python_computes(
    counts: dict[str, int], price: int, coefficient: int, tax_micro: int
) -> None:
    rules = catalog(dict.fromkeys(counts, price), dict.fromkeys(counts, coefficient), tax_micro)
    agreed = agree(rules, account(), [event(1, counts)])
    amount, standard = sum(counts.values()) * price, sum(counts.values()) * coefficient
    if max(amount, standard) > MAX_OF_EVENT:
        assert [refused.code for _, refused in agreed.outcome.rejected] == ["overflow"]
        return
    (row,) = agreed.effects.rollups
    tokens = sum(count for meter, count in counts.items() if meter != "images")
    net = divide_half_even(amount * MILLION, MILLION + tax_micro)
    assert (row.tokens, row.standard_micro, row.amount_pico, row.net_pico) == (tokens, standard, amount, net)
    assert agreed.account.wallet_pico == -amount
    assert agreed.plainly == (max(tokens, amount, standard) > MOST_64)


def ties(tax_micro: int) -> list[int]:
    """Amounts whose net is halfway between two pico, the least and the greatest; only some tax rates have any."""
    divisor = MILLION + tax_micro
    first = next(amount for amount in range(1, divisor) if 2 * (amount * MILLION % divisor) == divisor)
    step = divisor // gcd(MILLION, divisor)
    last = first + (MOST_64 - first) // step * step
    return [first, first + step, last - step, last]


@pytest.mark.parametrize("tax_micro", [64, 192, 60_096, 999_872])
def test_a_net_amount_halfway_between_two_pico_is_the_even_one(tax_micro: int) -> None:
    found = []
    for amount in ties(tax_micro):
        assert 2 * (amount * MILLION % (MILLION + tax_micro)) == MILLION + tax_micro
        agreed = agree(catalog({"input": amount}, tax_micro=tax_micro), account(), [event(1, {"input": 1})])
        found.append(agreed.effects.rollups[0].net_pico)
        assert agreed.plainly == 0
    assert found == [divide_half_even(amount * MILLION, MILLION + tax_micro) for amount in ties(tax_micro)]
    assert {net % 2 for net in found} == {0}


# Balances: 128 bits.


@pytest.mark.parametrize("wallet", [MOST_128, LEAST_128, 0, 2**63, -(2**63)])
def test_a_balance_of_128_bits_is_held(wallet: int) -> None:
    held = account([bucket(MOST_128, MOST_128)], wallet_pico=wallet, absorbed_micro=wallet, absorbed_pico=wallet)
    held.credit_limit_pico = wallet
    calculator = prepared(CompiledCalculator(), catalog({}), held)
    assert calculator.account("a") == held


@pytest.mark.parametrize("column", ["credit_limit_pico", "wallet_pico", "absorbed_micro", "absorbed_pico"])
@pytest.mark.parametrize("value", [MOST_128 + 1, LEAST_128 - 1, 2**128, -(2**128), 10**50])
def test_an_account_beyond_128_bits_is_not_taken(column: str, value: int) -> None:
    calculator = prepared(CompiledCalculator(), catalog({}), account())
    with pytest.raises(OverflowError):
        calculator.put_account(replace(account(), **{column: value}), stored=False)
    assert calculator.account("a") == account()


@pytest.mark.parametrize("column", ["amount_micro", "remaining_micro", "liability_pico"])
@pytest.mark.parametrize("value", [MOST_128 + 1, LEAST_128 - 1])
def test_a_bucket_beyond_128_bits_is_not_taken(column: str, value: int) -> None:
    calculator = prepared(CompiledCalculator(), catalog({}), account())
    with pytest.raises(OverflowError):
        calculator.put_account(account([replace(bucket(1), **{column: value})]), stored=False)
    assert calculator.account("a") == account()


@pytest.mark.parametrize("amount", [1, 2**62, MOST_64])
@pytest.mark.parametrize("above", [0, 1, 2**63])
def test_a_wallet_falls_to_the_least_number_of_128_bits(amount: int, above: int) -> None:
    agreed = agree(
        catalog({"input": amount}), account(wallet_pico=LEAST_128 + amount + above), [event(1, {"input": 1})]
    )
    assert agreed.account.wallet_pico == LEAST_128 + above
    assert agreed.plainly == 0


@pytest.mark.parametrize(("amount", "beyond"), [(1, 1), (2**62, 1), (MOST_64, 1), (MOST_64, MOST_64)])
def test_a_wallet_that_would_fall_below_it_stops_the_worker(amount: int, beyond: int) -> None:
    rules, held = catalog({"input": amount}), account(wallet_pico=LEAST_128 + amount - beyond)
    plain, compiled = prepared(PlainCalculator(), rules, held), prepared(Counting(), rules, held)
    apply(plain, [event(1, {"input": 1})])
    assert plain.account("a").wallet_pico == LEAST_128 - beyond  # which SQL refuses to store
    with pytest.raises(OverflowError):
        apply(compiled, [event(1, {"input": 1})])
    assert compiled.account("a") == held
    assert compiled.plainly == 1


@pytest.mark.parametrize("column", ["absorbed_micro", "absorbed_pico"])
@pytest.mark.parametrize("value", [1, 2**62, MOST_64])
@pytest.mark.parametrize("beyond", [-1, 0, 1, MOST_64])
def test_absorbed_usage_is_summed_up_to_128_bits(column: str, value: int, beyond: int) -> None:
    """A bucket of a blocked plan that is used up pays nothing: the event is absorbed."""
    beyond = min(beyond, value)
    micro, pico = (value, 1) if column == "absorbed_micro" else (1, value)
    rules = catalog({"input": pico}, {"input": micro})
    held = account([bucket(0, status=USED_UP)], **{column: MOST_128 - value + beyond})
    if beyond <= 0:
        agreed = agree(rules, held, [event(1, {"input": 1})])
        assert getattr(agreed.account, column) == MOST_128 + beyond
        assert agreed.plainly == 0
        return
    plain, compiled = prepared(PlainCalculator(), rules, held), prepared(Counting(), rules, held)
    apply(plain, [event(1, {"input": 1})])
    assert getattr(plain.account("a"), column) == MOST_128 + beyond
    with pytest.raises(OverflowError):
        apply(compiled, [event(1, {"input": 1})])
    assert compiled.account("a") == held


@pytest.mark.parametrize("wallet", [LEAST_128, -(2**63), -1, MOST_128])
@pytest.mark.parametrize("column", ["absorbed_micro", "absorbed_pico"])
def test_negative_balances_are_summed_as_python_does(wallet: int, column: str) -> None:
    held = account([bucket(0, status=USED_UP)], **{column: LEAST_128, "wallet_pico": wallet})
    agreed = agree(catalog({"input": 3}, {"input": 5}), held, [event(1, {"input": 7})])
    assert getattr(agreed.account, column) == LEAST_128 + (35 if column == "absorbed_micro" else 21)
    assert agreed.account.wallet_pico == wallet
    assert agreed.plainly == 0


@pytest.mark.parametrize("burned", [1, 2**62, MOST_64])
@pytest.mark.parametrize("left", [0, 1, 2**63])
@pytest.mark.parametrize("liability", [0, 1, MOST_64 - 1, MOST_64, 2**63, MOST_128])
def test_a_burn_keeps_and_earns_what_python_computes(burned: int, left: int, liability: int) -> None:
    remaining = burned + left
    agreed = agree(
        catalog({"input": 1}, {"input": burned}), account([bucket(remaining, liability)]), [event(1, {"input": 1})]
    )
    (after,) = agreed.account.buckets
    revenue = divide_half_even(liability * burned, remaining)
    assert (after.remaining_micro, after.liability_pico) == (left, liability - revenue)
    assert agreed.effects.rollups[0].revenue_pico == revenue
    assert agreed.plainly == (left == 0 or liability > MOST_64)


@settings(max_examples=150, deadline=None)
@given(
    remaining=st.integers(1, MOST_128) | st.sampled_from([2, 2**63 - 1, 2**63, 2**64, 2**126, MOST_128]),
    liability=st.integers(0, MOST_64) | st.sampled_from([0, 1, MOST_64]),
    burned=positive_64,
)
@example(remaining=MOST_128, liability=MOST_64, burned=MOST_64)
@example(remaining=2**63, liability=MOST_64, burned=MOST_64)
@example(remaining=2, liability=1, burned=1)
@example(remaining=2, liability=3, burned=1)
def test_revenue_of_a_burn_is_rounded_as_python_does(remaining: int, liability: int, burned: int) -> None:
    held = account([bucket(remaining, liability)])
    agreed = agree(catalog({"input": 0}, {"input": burned}, mode="pay_as_you_go"), held, [event(1, {"input": 1})])
    taken = min(burned, remaining)
    revenue = liability if taken == remaining else divide_half_even(liability * taken, remaining)
    assert agreed.effects.rollups[0].revenue_pico == revenue
    assert agreed.account.buckets[0].remaining_micro == remaining - taken
    assert agreed.plainly == (burned >= remaining)


@settings(max_examples=150, deadline=None)
@given(wallet=wide, absorbed=st.tuples(wide, wide), price=positive_64, blocked=st.booleans(), events=st.integers(1, 3))
def test_balances_near_the_limits_are_those_of_python_or_stop_the_worker(
    wallet: int, absorbed: tuple[int, int], price: int, blocked: bool, events: int
) -> None:
    buckets = [bucket(0, status=USED_UP)] if blocked else []
    held = account(buckets, wallet_pico=wallet, absorbed_micro=absorbed[0], absorbed_pico=absorbed[1])
    rules, records = catalog({"input": price}, {"input": 1}), [event(n, {"input": 1}) for n in range(1, events + 1)]
    expected = replace(held)
    if blocked:
        expected.absorbed_micro += events
        expected.absorbed_pico += events * price
    else:
        expected.wallet_pico -= events * price
    after = (expected.wallet_pico, expected.absorbed_micro, expected.absorbed_pico)
    compiled = prepared(Counting(), rules, held)
    if not all(LEAST_128 <= balance <= MOST_128 for balance in after):
        with pytest.raises(OverflowError):
            apply(compiled, records)
        return
    found = agree(rules, held, records).account
    assert (found.wallet_pico, found.absorbed_micro, found.absorbed_pico) == after


# Sums of a commit: 128 bits, and Python's integers beyond.

PAYERS = {
    "wallet": account(),
    "bucket": account([bucket(2**100, 2**60)]),
    "nobody": account([bucket(0, status=USED_UP)]),
}
RULES = catalog({"input": 1_060_003}, {"input": MILLION}, 60_000)
RECORDS = [event(1, {"input": 2**40 + 1})]


def summed(payer: str, begin: Sequence[int], records: Sequence[PlainRecord] = RECORDS) -> tuple[tuple[int, ...], int]:
    """The sums of the rollup row after the events, begun at these; and how many events were decided plainly."""
    compiled = prepared(Counting(), RULES, PAYERS[payer])
    decoded = compiled.decode(UsageBatch(0, 1, records, 0, None))
    compiled.begin_sums(begin)
    compiled.apply(decoded)
    (row,) = compiled.take_effects(Stamp(0, 1, AT_US)).rollups
    return tuple(getattr(row, name) for name in ROLLUP_SUMS), compiled.plainly


def added(payer: str, records: Sequence[PlainRecord] = RECORDS) -> tuple[int, ...]:
    """Return the amount that the events add to each sum, by the plain calculator."""
    plain = prepared(PlainCalculator(), RULES, PAYERS[payer])
    apply(plain, records)
    (row,) = plain.take_effects(Stamp(0, 1, AT_US)).rollups
    return tuple(getattr(row, name) for name in ROLLUP_SUMS)


def test_each_sum_of_a_rollup_row_is_added_to_by_some_payer() -> None:
    assert all(any(added(payer)[place] for payer in PAYERS) for place in range(len(ROLLUP_SUMS)))


@pytest.mark.parametrize("payer", PAYERS)
@pytest.mark.parametrize("place", range(len(ROLLUP_SUMS)), ids=ROLLUP_SUMS)
@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_a_rollup_sum_that_does_not_fit_is_summed_in_pythons_integers(payer: str, place: int, beyond: int) -> None:
    value = added(payer)[place]
    most = MOST_64 if ROLLUP_SUMS[place] == "events" else MOST_128
    begin = [1] * len(ROLLUP_SUMS)
    begin[place] = most - value + min(beyond, value)  # it fits by itself
    found, plainly = summed(payer, begin)
    assert found == tuple(old + new for old, new in zip(begin, added(payer), strict=True))
    assert plainly == (begin[place] + value > most)


@pytest.mark.parametrize("payer", PAYERS)
def test_negative_sums_are_added_to_as_python_does(payer: str) -> None:
    begin = (1, *[LEAST_128] * 9)
    found, plainly = summed(payer, begin)
    assert found == tuple(old + new for old, new in zip(begin, added(payer), strict=True))
    assert plainly == 0


@settings(max_examples=100, deadline=None)
@given(
    payer=st.sampled_from(sorted(PAYERS)),
    events=st.integers(1, 4),
    begun=st.integers(MOST_64 - 5, MOST_64) | st.integers(1, 2**40),
    begin=st.tuples(*[st.integers(MOST_128 - 2**63, MOST_128) | wide] * 9),
)
def test_rollup_sums_near_the_limits_are_those_of_python(
    payer: str, events: int, begun: int, begin: tuple[int, ...]
) -> None:
    records = [event(number, {"input": 2**40 + number}) for number in range(1, events + 1)]
    found, _ = summed(payer, (begun, *begin), records)
    assert found == tuple(old + new for old, new in zip((begun, *begin), added(payer, records), strict=True))


def journal(calculator: Any) -> dict[tuple[str, str], int]:
    postings = calculator.take_effects(Stamp(0, 1, AT_US)).postings
    return {(posting.account_code, posting.detail): posting.amount_pico for posting in postings}


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
@pytest.mark.parametrize("net", [False, True])
def test_journal_sums_of_a_book_that_do_not_fit_are_summed_in_pythons_integers(beyond: int, net: bool) -> None:
    plain, compiled = prepared(PlainCalculator(), RULES, account()), prepared(Counting(), RULES, account())
    apply(plain, RECORDS)
    expected = journal(plain)
    amount, net_amount = expected[CUSTOMER_DEPOSITS, ""], -expected[REVENUE_USAGE, "b@1"]
    begin = (5, MOST_128 - net_amount + beyond) if net else (MOST_128 - amount + beyond, 5)
    compiled.begin_earned(None, *begin)
    apply(compiled, RECORDS)
    assert journal(compiled) == {
        (CUSTOMER_DEPOSITS, ""): amount + begin[0],
        (REVENUE_USAGE, "b@1"): -net_amount - begin[1],
        (OUTPUT_VAT, "b@1"): net_amount + begin[1] - amount - begin[0],
    }
    assert compiled.plainly == (beyond > 0)


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_journal_sums_of_a_plan_that_do_not_fit_are_summed_in_pythons_integers(beyond: int) -> None:
    held = PAYERS["bucket"]
    plain, compiled = prepared(PlainCalculator(), RULES, held), prepared(Counting(), RULES, held)
    apply(plain, RECORDS)
    revenue = journal(plain)[CONTRACT_LIABILITY, "p@1"]
    assert revenue > 2
    begin = MOST_128 - revenue + beyond
    compiled.begin_earned("p@1", begin, 0)
    apply(compiled, RECORDS)
    assert journal(compiled) == {
        (CONTRACT_LIABILITY, "p@1"): begin + revenue,
        (REVENUE_USAGE, "p@1"): -begin - revenue,
    }
    assert compiled.plainly == (beyond > 0)


def test_a_negative_journal_sum_is_added_to_as_python_does() -> None:
    compiled = prepared(Counting(), RULES, account())
    compiled.begin_earned(None, LEAST_128, LEAST_128)
    apply(compiled, RECORDS)
    amount = (2**40 + 1) * 1_060_003
    assert journal(compiled)[CUSTOMER_DEPOSITS, ""] == LEAST_128 + amount
    assert compiled.plainly == 0


@pytest.mark.parametrize("value", [MOST_128 + 1, LEAST_128 - 1])
def test_sums_beyond_128_bits_are_not_begun(value: int) -> None:
    compiled = prepared(Counting(), RULES, account())
    compiled.decode(UsageBatch(0, 1, RECORDS, 0, None))
    with pytest.raises(OverflowError):
        compiled.begin_sums((1, *[value] * 9))
    with pytest.raises(OverflowError):
        compiled.begin_sums((MOST_64 + 1, *[0] * 9))
    with pytest.raises(OverflowError):
        compiled.begin_earned(None, 0, value)


# Times.


@pytest.mark.parametrize("limit", [0, 1, 2**62, MOST_64])
@pytest.mark.parametrize("late_ms", [-(2**63), -1, 0, AT_US // 1000 - 1, AT_US // 1000, 2**43, MOST_64 // 1000])
def test_time_limits_of_any_size_are_compared_exactly(limit: int, late_ms: int) -> None:
    limits = TimeLimits(future_us=limit, past_us=limit)
    agree(catalog({"input": 1}), account(), [event(1, {"input": 1}, late_ms)], limits)


@pytest.mark.parametrize("timestamp_ms", [MOST_64 // 1000 + 1, 2**62, MOST_64])
def test_a_timestamp_that_has_no_microseconds_in_64_bits_stops_the_worker(timestamp_ms: int) -> None:
    compiled = prepared(Counting(), catalog({"input": 1}), account())
    with pytest.raises(OverflowError, match="offset 0"):
        apply(compiled, [event(1, {"input": 1}, timestamp_ms)], TimeLimits())
    assert compiled.account("a") == account()


def test_a_log_time_before_1970_is_no_log_time() -> None:
    compiled = prepared(Counting(), catalog({"input": 1}), account())
    with pytest.raises(ValueError, match="-1"):
        compiled.apply(compiled.decode(UsageBatch(0, 1, [], -1, None)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"counts": (("input", -1),)}, ValueError),
        ({"counts": (("input", 2**63),)}, OverflowError),
        ({"sequence": -1}, ValueError),
        ({"time_us": -1}, ValueError),
        ({"time_us": 253_402_300_800_000_000}, ValueError),
        ({"id": "x" * 257}, OverflowError),
        ({"source": "词" * 86}, OverflowError),
        ({"counts": tuple((f"m{n}", 1) for n in range(256))}, OverflowError),
    ],
)
def test_an_event_out_of_bounds_is_not_put_into_columns(change: dict[str, Any], error: type[Exception]) -> None:
    compiled = CompiledCalculator()
    columns = compiled._decoder.decode([b"{}"])
    read = parse_usage(event(1, {"input": 1}).value, ())
    with pytest.raises(error):
        compiled._decoder.set_event(columns, 0, replace(read, **change))
    assert columns.unread() == [0]
