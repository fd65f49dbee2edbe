"""Identities of unnumbered sources: dropped hours are loaded again from SQL, so the limit changes no decision."""

from collections.abc import Sequence

from billing_samples import MakeCalculator, catalog, encode, opened, use

from billing.accounts.account import Account
from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.identities import HashHour
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import PartitionEngine
from billing.engine.simulation import NothingStored
from billing.log_time import TimeLimits
from schemas.times import HOUR_US, parse_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

LOG_US = parse_time_us("2026-11-10T00:00:00Z")


class KeptHours(NothingStored):
    """A loader that keeps the identities of every commit, as SQL does, and counts the hours it loads."""

    def __init__(self) -> None:
        self.parts: list[HashHour] = []
        self.asked = 0

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        return []

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {}

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return set()

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        self.asked += len(hours)
        return [part for part in self.parts if part.hour_us in hours]


def run(make_calculator: MakeCalculator, identity_memory_bytes: int) -> tuple[list[tuple[int, int]], int]:
    """Return (rated, duplicate) of each commit and the number of hours loaded; every event is sent in three commits."""
    kept = KeptHours()
    engine = PartitionEngine(
        PartitionState(0, 1), 0, catalog(), kept, make_calculator(), TimeLimits(), identity_memory_bytes
    )
    events = [use(1, at=f"{day:02d} {hour:02d}:30", id=f"u{day}-{hour}") for day in (5, 6) for hour in range(6)]
    steps = [(COMMAND_TOPIC, [opened()]), (USAGE_TOPIC, events), (USAGE_TOPIC, events[::-1]), (USAGE_TOPIC, events)]
    counts: list[tuple[int, int]] = []
    positions: dict[str, int] = {}
    for topic, lines in steps:
        start = positions.get(topic, 0)
        values = encode(lines)
        records = [PlainRecord(start + n, LOG_US // 1000, None, value) for n, value in enumerate(values)]
        positions[topic] = start + len(records)
        record: CommitRecord = engine.decide([InputBatch(topic, start, positions[topic], records)])
        kept.parts += record.dedupe.hours
        engine.committed()
        counts.append((record.counts.rated, record.counts.duplicate))
    return counts, kept.asked


def test_forgotten_hours_are_asked_for_again_and_nothing_is_rated_twice(calculator: MakeCalculator) -> None:
    remembered, asked = run(calculator, 512 << 20)
    assert remembered == [(0, 0), (12, 0), (0, 12), (0, 12)]
    assert asked == 12
    forgotten, asked_again = run(calculator, 0)
    assert forgotten == remembered
    assert asked_again == 36


def test_hours_that_no_event_can_name_any_more_leave_memory(calculator: MakeCalculator) -> None:
    made = calculator()
    engine = PartitionEngine(PartitionState(0, 1), 0, catalog(), KeptHours(), made, TimeLimits(past_us=2 * HOUR_US))
    values = encode([opened()])
    engine.decide([InputBatch(COMMAND_TOPIC, 0, 1, [PlainRecord(0, LOG_US // 1000, None, values[0])])])
    engine.committed()
    for offset, hour in enumerate(range(5)):
        log_us = LOG_US + hour * HOUR_US
        value = encode([use(1, at=f"10 {8 + hour:02d}:00", id=f"u{hour}")])[0]
        engine.decide([InputBatch(USAGE_TOPIC, offset, offset + 1, [PlainRecord(offset, log_us // 1000, None, value)])])
        engine.committed()
    assert [hour_us for hour_us, _ in made.hours_held()] == [LOG_US + hour * HOUR_US for hour in (2, 3, 4)]
