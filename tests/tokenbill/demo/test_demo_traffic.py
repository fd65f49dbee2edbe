"""The demo's traffic and arithmetic: its counts match the events sent, and its expected totals match the rules."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path

import pytest

from billing.catalog import load_folder
from billing.pricing import Rated, Rater
from schemas.commands import Command, parse_command
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.usage import UsageEvent, parse_usage
from tokenbill.demo import traffic
from tokenbill.demo.emitting import EmitterTask, SentCounts, emit
from tokenbill.demo.expected import PriceList, priced_kinds, total
from tokenbill.demo.faults import FAULTS
from tokenbill.demo.patience import patiently
from tokenbill.demo.trace import built_in_sizes, read_trace
from tokenbill.user_errors import UserError

CATALOG = load_folder(Path(__file__).resolve().parents[3] / "examples" / "catalog")
BOOK = "retail-cn"
NOW_US = 1_795_329_600_000_000
EVENTS, BAD = 20_000, 16


class Recorder:
    """A stand-in for the emitter that keeps the records it would send, for four partitions."""

    partitions = 4

    def __init__(self) -> None:
        self.sent = 0
        self.next_sequences = [1] * self.partitions
        self.records: list[tuple[int, bytes, bytes]] = []

    def partition_of(self, account: str) -> int:
        return partition_of(account, self.partitions)

    def send(self, account: str, time: str, data: bytes) -> tuple[int, bytes]:
        partition = self.partition_of(account)
        sequence = self.next_sequences[partition]
        self.next_sequences[partition] += 1
        body = {
            "specversion": "1.0",
            "type": "token.usage.v1",
            "source": f"urn:demo:run:node-0#p{partition}",
            "id": f"n-{sequence}",
            "sequence": str(sequence),
            "time": time,
            "subject": account,
            "data": json.loads(data),
        }
        value = json.dumps(body).encode()
        self.send_raw(partition, account.encode(), value)
        return partition, value

    def send_raw(self, partition: int, key: bytes, value: bytes) -> None:
        self.sent += 1
        self.records.append((partition, key, value))


@pytest.fixture(scope="module")
def emitted() -> tuple[Recorder, SentCounts]:
    recorder = Recorder()
    kinds = priced_kinds(PriceList(CATALOG, BOOK), NOW_US)
    order = EmitterTask("nowhere", "run", 0, EVENTS, BAD, 500, kinds, None)
    sent = emit(order, recorder)  # type: ignore[arg-type]
    return recorder, sent


def test_the_totals_are_what_was_sent(emitted: tuple[Recorder, SentCounts]) -> None:
    recorder, sent = emitted
    assert sent.sent == len(recorder.records) == EVENTS
    assert sent.rated + sent.duplicate + sum(sent.rejected.values()) == EVENTS
    assert sum(events for _, _, events in sent.usage) == sent.rated
    assert sent.rejected == dict.fromkeys(FAULTS, BAD // len(FAULTS))
    assert 0.005 < sent.duplicate / EVENTS < 0.015
    assert 0.005 < sent.astray / EVENTS < 0.015


def test_a_duplicate_is_the_same_bytes_and_a_stray_event_is_numbered_where_it_belongs(
    emitted: tuple[Recorder, SentCounts],
) -> None:
    recorder, sent = emitted
    times = Counter(value for _, _, value in recorder.records)
    assert sum(count - 1 for count in times.values()) == sent.duplicate
    numbers: dict[str, list[int]] = {}
    strays = 0
    for partition, _, value in recorder.records:
        event = parse_usage(value)
        if isinstance(event, UsageEvent):
            owner = partition_of(event.account, 4)
            assert event.source.endswith(f"#p{owner}")
            strays += partition != owner
        if event.sequence is not None and event.source is not None:
            numbers.setdefault(event.source, []).append(event.sequence)
    assert strays == sent.astray
    for seen in numbers.values():
        assert sorted(set(seen)) == list(range(1, max(seen) + 1))


def test_every_fault_is_refused_for_its_reason(emitted: tuple[Recorder, SentCounts]) -> None:
    recorder, sent = emitted
    known = frozenset(traffic.account_name("run", number) for number in range(500))
    rater = Rater(traffic.choose_book(CATALOG))
    reasons: Counter[str] = Counter()
    latest_us = max(
        event.time_us for _, _, value in recorder.records[:1000] if isinstance(event := parse_usage(value), UsageEvent)
    )
    for _, _, value in recorder.records:
        event = parse_usage(value)
        if isinstance(event, Refusal):
            reasons[event.code] += 1
        elif event.account not in known:
            reasons["unknown_account"] += 1
        elif event.time_us > latest_us + 3_600_000_000:
            reasons["time_in_future"] += 1
        elif isinstance(rated := rater.rate(event), Refusal):
            reasons[rated.code] += 1
    assert dict(reasons) == sent.rejected


def test_expected_amounts_are_the_sum_of_each_event_rated_alone(emitted: tuple[Recorder, SentCounts]) -> None:
    recorder, sent = emitted
    kinds = priced_kinds(PriceList(CATALOG, BOOK), NOW_US)
    shapes = traffic.make_shapes(built_in_sizes(), [traffic.TRAFFIC_KINDS[place] for place in kinds])
    expected = total(PriceList(CATALOG, BOOK), shapes, sent.usage)
    rater = Rater(traffic.choose_book(CATALOG))
    amount_pico = standard_micro = tokens = events = 0
    seen: set[bytes] = set()
    soon_us = 60_000_000 + max(minute for minute, _, _ in sent.usage) * 60_000_000
    for _, key, value in recorder.records:
        event = parse_usage(value)
        if value in seen or not isinstance(event, UsageEvent) or event.time_us > soon_us or b"nobody" in key:
            continue
        seen.add(value)
        rated = rater.rate(event)
        if isinstance(rated, Rated):
            events += 1
            amount_pico += rated.amount_pico
            standard_micro += rated.standard_micro
            tokens += sum(count for _, count in event.counts)
    assert (expected.events, expected.tokens) == (events, tokens)
    assert (expected.amount_pico, expected.standard_micro) == (amount_pico, standard_micro)


def test_commands_are_valid_and_the_same_on_every_call() -> None:
    book = traffic.choose_book(CATALOG)
    plans = traffic.choose_plans(CATALOG, book.currency)
    first, second = (list(traffic.commands("run", 95, book, plans, NOW_US)) for _ in range(2))
    assert first == second
    assert len(first) == traffic.count_commands(95) == 200
    assert all(isinstance(parse_command(json.dumps(command).encode()), Command) for command in first)


def test_built_in_sizes_are_distributed_like_the_trace() -> None:
    sizes = built_in_sizes()
    assert sizes == built_in_sizes()
    # The trace has medians of 1,020 and 129 tokens, and means of 1,155 and 211.
    assert 600 < statistics.median(context for context, _ in sizes) < 1_100
    assert 100 < statistics.median(generated for _, generated in sizes) < 180
    assert 1_000 < statistics.mean(context for context, _ in sizes) < 1_300
    assert 180 < statistics.mean(generated for _, generated in sizes) < 240


def test_a_trace_that_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,10,20\n2023-11-16,ten,20\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"trace\.csv:3.*ten"):
        read_trace(path)
    path.write_text("when,what\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"trace\.csv:1"):
        read_trace(path)


def test_patience_ends_with_the_reason() -> None:
    said: list[str] = []

    def fail() -> None:
        raise OSError("connection refused")

    with pytest.raises(UserError, match=r"the database did not answer for .*connection refused"):
        patiently("the database", fail, (OSError,), said.append, patience_seconds=0.1)
