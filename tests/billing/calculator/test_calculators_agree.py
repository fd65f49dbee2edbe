"""The compiled calculator equals the plain one under random input: outcomes, accounts, and effects to the byte."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_samples import CATALOG, NAMES, T0_US, accounts, as_stored, commanded, lively, records

from benchmarks import workload
from billing.accounts.account import Account
from billing.accounts.extras import Extras
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import UsageBatch, UsageOutcome
from billing.calculator.plain import PlainCalculator
from billing.catalog.model import Catalog
from billing.commits.commit_record import PartitionState
from billing.commits.identities import HashHour, LogPart
from billing.commits.input_batch import PlainRecord
from billing.commits.output_documents import Stamp
from billing.log_time import TimeLimits
from schemas.times import DAY_US

Kept = list[tuple[int, HashHour]]
"""Identities as SQL keeps them: (commit, identities of one hour)."""


def step(
    calculator: PlainCalculator | CompiledCalculator,
    batch: UsageBatch,
    held: list[Account],
    stored: bool,
    kept: Sequence[tuple[int, HashHour]] = (),
) -> tuple[list[str], list[int], bool, UsageOutcome]:
    """Apply one batch as the engine does."""
    decoded = calculator.decode(batch)
    missing, hours = calculator.missing_accounts(decoded), calculator.missing_hours(decoded)
    wanted = [account for account in held if account.account in missing]
    if stored:
        calculator.put_stored(as_stored(wanted))
    else:
        for account in wanted:
            calculator.put_account(account, stored=False)
    for hour_us in hours:
        calculator.put_hour(hour_us, [hour for _, hour in kept if hour.hour_us == hour_us])
    for part in calculator.missing_parts(decoded):
        calculator.put_part(part, payloads(kept, part))
    return missing, hours, calculator.has_unnumbered(decoded), calculator.apply(decoded)


def payloads(kept: Sequence[tuple[int, HashHour]], part: LogPart) -> list[bytes]:
    """Return what SQL keeps of a part."""
    return [
        hour.payload
        for commit_no, hour in kept
        if hour.log_hour_us == part.log_hour_us and part.first_commit <= commit_no <= part.last_commit
    ]


def forget(rng: Random, *calculators: PlainCalculator | CompiledCalculator) -> None:
    """Drop identities of committed parts and hours, as a memory limit does; each calculator drops parts of its own."""
    for calculator in calculators:
        for held in calculator.parts_held():
            for _ in range(rng.choice([0, 0, 1, 2])):
                calculator.shrink_part(held.part)
    for hour_us, _ in calculators[0].hours_held():
        if rng.random() < 0.3:
            for calculator in calculators:
                calculator.drop_hour(hour_us)


def batch_of(rng: Random) -> list[PlainRecord]:
    return [records(rng, offset) for offset in range(rng.randint(1, 25))]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_compiled_and_plain_calculator_agree(seed: int) -> None:
    agree(Random(seed), accounts)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_they_agree_on_plans_of_every_kind(seed: int) -> None:
    agree(Random(seed), lively)


def agree(rng: Random, make_account: Callable[[Random, str], Account]) -> None:
    """Check that both calculators decide the same batches alike, with commands in between."""
    held = [make_account(rng, name) for name in NAMES[:-1]]
    earlier, jumping = TimeLimits(sequence_jump=None), TimeLimits(sequence_jump=1_000)
    limits = rng.choice([[None], [TimeLimits()], [jumping], [earlier], [earlier, jumping], [earlier, earlier, jumping]])
    stored, partitions, take_every = rng.random() < 0.5, rng.choice([1, 1, 3]), rng.choice([1, 2])
    plain, compiled = PlainCalculator(), CompiledCalculator()
    for calculator in (plain, compiled):
        calculator.load(PartitionState(0, partitions))
        calculator.set_catalog(CATALOG)
    log_time_us, kept, commit_no = T0_US, Kept(), 1
    for number in range(rng.randint(1, 5)):
        batch = UsageBatch(
            *(0, partitions, batch_of(rng), log_time_us, limits[min(number, len(limits) - 1)]),
            commit_no=commit_no,
            note_unknown=rng.random() < 0.3,
        )
        expected = step(plain, batch, held, stored, kept)
        assert step(compiled, batch, held, stored, kept) == expected
        log_time_us = expected[-1].log_time_us
        for name in NAMES:
            account = plain.account(name)
            assert compiled.account(name) == account
            if account is not None and rng.random() < 0.3:
                account = commanded(rng, account)
                for calculator in (plain, compiled):
                    calculator.put_account(account, stored=False)
        if number % take_every == 0:
            stamp = Stamp(0, commit_no, log_time_us)
            effects = plain.take_effects(stamp)
            assert compiled.take_effects(stamp) == effects
            kept += [(commit_no, hour) for hour in effects.dedupe.hours]
            commit_no += 1
            forget(rng, plain, compiled)
    stamp = Stamp(0, 99, log_time_us)
    assert compiled.take_effects(stamp) == plain.take_effects(stamp)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_after_a_restart_both_decide_the_same(seed: int) -> None:
    rng = Random(seed)
    held = [accounts(rng, name) for name in NAMES[:-1]]
    before = PlainCalculator()
    before.load(PartitionState(0, 1))
    before.set_catalog(CATALOG)
    limits = rng.choice([TimeLimits(), TimeLimits(sequence_jump=None)])
    step(before, UsageBatch(0, 1, batch_of(rng), T0_US, limits, commit_no=1), held, True)
    effects = before.take_effects(Stamp(0, 1, T0_US))
    held = [account for name in NAMES[:-1] if (account := before.account(name)) is not None]
    state = PartitionState(0, 1, sources=effects.dedupe.sources, recent=effects.dedupe.recent)
    state.unlogged_until_us = 0 if limits.sequence_jump else T0_US + DAY_US
    batch = UsageBatch(0, 1, batch_of(rng), T0_US, TimeLimits(), commit_no=2)
    kept = [(1, hour) for hour in effects.dedupe.hours]
    outcomes = []
    for calculator in (PlainCalculator(), CompiledCalculator()):
        calculator.load(state)
        calculator.set_catalog(CATALOG)
        for account in held:
            calculator.put_account(account, stored=True)
        decoded = calculator.decode(batch)
        for hour_us in calculator.missing_hours(decoded):
            calculator.put_hour(hour_us, [hour for hour in effects.dedupe.hours if hour.hour_us == hour_us])
        for log_hour_us in sorted({hour.log_hour_us for hour in effects.dedupe.hours if hour.log_hour_us is not None}):
            part = LogPart(log_hour_us, 1, 1)
            calculator.put_part(part, payloads(kept, part))
        outcomes.append((calculator.apply(decoded), calculator.take_effects(Stamp(0, 2, T0_US))))
    assert outcomes[0] == outcomes[1]


def with_gift(account: Account) -> Account:
    """Add gift money and a wallet alert; the bucket still pays, so the wallet does not change."""
    account.wallet_pico, account.extras.gift_pico, account.extras.wallet_alert_pico = 10**14, 10**13, 10**13
    return account


def watched(account: Account) -> Account:
    """Return the account without buckets, so that the wallet pays, and with a wallet alert."""
    return replace(account, buckets=[], wallet_pico=10**20, extras=Extras(wallet_alert_pico=10**13))


@pytest.mark.parametrize("change", [lambda account: account, with_gift, watched], ids=["as is", "gift", "watched"])
@pytest.mark.parametrize("kind", [workload.accounts, workload.subscribers], ids=["package", "subscriber"])
@pytest.mark.parametrize("reserved", [False, True], ids=["", "reserved"])
def test_common_accounts_never_leave_the_core(
    kind: Callable[[list[str], Catalog], Iterator[Account]], change: Callable[[Account], Account], reserved: bool
) -> None:
    """The parity tests would also pass if the plain calculator decided every event; this test excludes that."""
    plainly = 0

    class Counting(CompiledCalculator):
        def _decide_plainly(self, decoded: Any, row: int, outcome: UsageOutcome, part: Any = None) -> None:
            nonlocal plainly
            plainly += 1
            super()._decide_plainly(decoded, row, outcome, part)

    names = workload.account_names(10)
    values = workload.events(300, names, 0, 1)
    if reserved:
        named = enumerate(values)
        values = [value.replace(b'"reservation":null', b'"reservation":"rsv-%d"' % number) for number, value in named]
    events = [PlainRecord(offset, T0_US, None, value) for offset, value in enumerate(values)]
    held = [change(account) for account in kind(names, workload.catalog())]
    outcomes = []
    for calculator in (PlainCalculator(), Counting()):
        calculator.load(PartitionState(0, 1))
        calculator.set_catalog(workload.catalog())
        *_, outcome = step(calculator, UsageBatch(0, 1, events, T0_US, None), held, True)
        outcomes.append((outcome, calculator.take_effects(Stamp(0, 1, T0_US))))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].rated == 300
    assert len(outcomes[0][0].reservations) == (300 if reserved else 0)
    assert plainly == 0
