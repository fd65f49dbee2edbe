"""Identities of unnumbered sources: what leaves memory is read again from SQL, so the limit changes no decision."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from billing_samples import Line, MakeCalculator, catalog, encode, opened, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kept_identities import KeptIdentities

from billing.accounts.account import Account
from billing.calculator.compiled import CompiledCalculator
from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.identities import HASHED_BYTES, LogPart
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import IDENTITY_MEMORY_BYTES, OPEN_PART_SHARE, PartitionEngine
from billing.engine.simulation import NothingStored
from billing.log_time import TimeLimits
from schemas.times import HOUR_US, MINUTE_US, parse_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

LOG_US = parse_time_us("2026-11-10T00:00:00Z")


@dataclass
class Partition(KeptIdentities, NothingStored):
    """One partition without SQL: each step is a commit, and a restart loses all memory but what commits stored."""

    make: MakeCalculator = CompiledCalculator
    limits: TimeLimits = field(default_factory=TimeLimits)
    memory_bytes: int = IDENTITY_MEMORY_BYTES
    log_us: int = LOG_US
    state: PartitionState = field(default_factory=lambda: PartitionState(0, 1))
    accounts: dict[str, Account] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()
        self.commit([opened()], COMMAND_TOPIC)

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        return [self.accounts[name] for name in ids if name in self.accounts]

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {}

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return set()

    def restart(self) -> None:
        self.calculator = self.make()
        self.engine = PartitionEngine(
            self.state,
            0,
            catalog(),
            self,
            self.calculator,
            self.limits,
            self.memory_bytes,  # type: ignore[arg-type]
        )

    def commit(self, lines: Sequence[Line], topic: str = USAGE_TOPIC) -> CommitRecord:
        start = self.state.positions.get(topic, 0)
        values = encode(lines)
        records = [PlainRecord(start + n, self.log_us // 1000, None, value) for n, value in enumerate(values)]
        record = self.engine.decide([InputBatch(topic, start, start + len(records), records)])
        self.keep(record)
        self.engine.committed()
        changed = {source.source for source in record.dedupe.sources}
        self.state.sources = [one for one in self.state.sources if one.source not in changed] + record.dedupe.sources
        account = self.calculator.account("a")
        assert account is not None
        self.accounts["a"] = account
        return record

    def use(self, *lines: Line) -> tuple[int, int, int]:
        """Return the counts of rated, duplicate and conflicting events of one commit."""
        record = self.commit(lines)
        return record.counts.rated, record.counts.duplicate, len(record.conflicts)


def at(log_us: int) -> str:
    """Return a log time as a time of China that a line of usage takes."""
    hours, minutes = divmod((log_us - LOG_US) // MINUTE_US, 60)
    return f"{10 + (8 + hours) // 24:02d} {(8 + hours) % 24:02d}:{minutes:02d}"


def run(make_calculator: MakeCalculator, memory_bytes: int) -> tuple[list[tuple[int, int, int]], int]:
    """Return the counts of each commit and the number of hours loaded; every event is sent in three commits."""
    partition = Partition(make=make_calculator, memory_bytes=memory_bytes)
    events = [use(1, at=f"{day:02d} {hour:02d}:30", id=f"u{day}-{hour}") for day in (5, 6) for hour in range(6)]
    return [partition.use(*lines) for lines in (events, events[::-1], events)], partition.hours_loaded


def test_forgotten_hours_are_asked_for_again_and_nothing_is_rated_twice(calculator: MakeCalculator) -> None:
    remembered, asked = run(calculator, IDENTITY_MEMORY_BYTES)
    assert remembered == [(12, 0, 0), (0, 12, 0), (0, 12, 0)]
    assert asked == 12
    forgotten, asked_again = run(calculator, 0)
    assert forgotten == remembered
    assert asked_again == 36


def test_what_no_event_can_repeat_any_more_leaves_memory(calculator: MakeCalculator) -> None:
    partition = Partition(make=calculator, limits=TimeLimits(past_us=30 * HOUR_US))
    for hour in (0, 1, 25, 26, 27):
        partition.log_us = LOG_US + hour * HOUR_US
        late = partition.log_us - 29 * HOUR_US
        assert partition.use(use(1, at=at(partition.log_us), id=f"u{hour}"), use(1, at=at(late), id=f"l{hour}"))[0] == 2
    assert [held.part.log_hour_us for held in partition.calculator.parts_held()] == [
        LOG_US + hour * HOUR_US for hour in (25, 26, 27)
    ]
    assert [hour_us for hour_us, _ in partition.calculator.hours_held()] == [
        LOG_US + (hour - 29) * HOUR_US for hour in (26, 27)
    ]


@pytest.mark.parametrize("memory_bytes", [IDENTITY_MEMORY_BYTES, 0], ids=["remembered", "dropped"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
@pytest.mark.parametrize("hours", [0, 1, 2, 23, 24])
def test_a_resend_with_another_time_is_not_billed_twice(
    hours: int, restarted: bool, memory_bytes: int, calculator: MakeCalculator
) -> None:
    """Each sends the same source and id with its own time, in other clock hours; they are kept as conflicts."""
    partition = Partition(make=calculator, memory_bytes=memory_bytes)
    times = [LOG_US, LOG_US - 30 * HOUR_US]
    assert partition.use(use(5, at=at(times[0]), id="on time"), use(5, at=at(times[1]), id="late")) == (2, 0, 0)
    partition.log_us += hours * HOUR_US
    partition.use(use(1, at=at(partition.log_us), id="between"))
    if restarted:
        partition.restart()
    for moved in (-70, -1, 0):
        again = at(partition.log_us + moved * MINUTE_US)
        resends = [use(5, at=again, id="on time"), use(5, at=again, id="late")]
        assert partition.use(*resends)[:2] == (0, 2)
    assert partition.use(use(5, at=at(times[0]), id="on time"), use(5, at=at(times[1]), id="late")) == (0, 2, 0)


def test_a_filter_says_no_for_all_but_a_few_new_identities() -> None:
    """So new usage reads nothing from SQL, though no identity is in memory."""
    partition = Partition(memory_bytes=1 << 20)
    events = [use(1, at=at(LOG_US), id=f"u{number}") for number in range(4_000)]
    for start in range(0, len(events), 500):
        partition.use(*events[start : start + 500])
    held = partition.calculator.parts_held()
    for one in held:
        partition.calculator.shrink_part(one.part)
    filters = [one.filter_bytes for one in partition.calculator.parts_held()]
    assert sum(one.identities_bytes for one in partition.calculator.parts_held()) == 0
    assert 4 * 4_000 <= sum(filters) <= 6 * 4_000
    assert partition.use(*[use(1, at=at(LOG_US), id=f"v{number}") for number in range(4_000)]) == (4_000, 0, 0)
    assert partition.parts_loaded == 0
    assert partition.use(events[7], events[3_999]) == (0, 2, 0)
    assert partition.parts_loaded > 0


def test_the_memory_of_a_busy_day_stays_within_the_limit() -> None:
    limit_bytes = 200_000
    partition = Partition(memory_bytes=limit_bytes)
    for hour in range(30):
        partition.log_us = LOG_US + hour * HOUR_US
        for part in range(4):
            lines = [use(1, at=at(partition.log_us), id=f"u{hour}-{part}-{number}") for number in range(400)]
            assert partition.use(*lines) == (400, 0, 0)
            held = partition.calculator.parts_held()
            assert sum(one.identities_bytes + one.filter_bytes for one in held) <= limit_bytes * (
                1 + 1 / OPEN_PART_SHARE
            )
    assert partition.hours_loaded == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 5, 24, 25]),  # hours by which the log moves
        st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, -1, -24, -26, -50])), max_size=4),  # (id, hours)
        st.booleans(),  # restart
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, seed=st.integers(0, 99))
def test_neither_limits_nor_restarts_nor_commits_change_a_decision(
    calculator: MakeCalculator, steps: list[tuple[int, list[tuple[int, int]], bool]], seed: int
) -> None:
    rng = Random(seed)
    roomy, tight = Partition(make=calculator), Partition(make=calculator, memory_bytes=rng.choice([0, 500, 5_000]))
    totals: list[tuple[int, ...]] = [(0, 0, 0)] * 2
    for hours, sent, restart in steps:
        for partition in (roomy, tight):
            partition.log_us += hours * HOUR_US
        lines = [use(1, at=at(roomy.log_us + moved * HOUR_US), id=f"u{number}") for number, moved in sent]
        if restart:
            tight.restart()
        counted = [roomy.use(*lines)]
        totals[0] = tuple(map(sum, zip(totals[0], *counted, strict=True)))
        counted = [tight.use(line) for line in lines]
        totals[1] = tuple(map(sum, zip(totals[1], *counted, strict=True)))
        assert totals[0] == totals[1]


def test_parts_are_the_commits_of_one_hour_of_log_time() -> None:
    partition = Partition()
    partition.use(use(1, at=at(LOG_US), id="a"))
    partition.use(use(1, at=at(LOG_US), id="b"), use(1, at=at(LOG_US - 26 * HOUR_US), id="c"))
    [held] = partition.calculator.parts_held()
    assert held.part == LogPart(LOG_US, 2, 3)
    assert len(b"".join(partition.load_part(0, held.part))) == 3 * HASHED_BYTES
