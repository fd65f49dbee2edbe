"""Steps of a log: every offset is a record, skipped, or missing; and no batch takes more memory than its limit."""

import random
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_batches import CODECS, TRANSACTIONAL, batch, gzip_of, large_record, marker, record, values

from schemas.record_sizes import LARGEST_INPUT
from schemas.refusals import Refusal
from schemas.topics import RECORD_SIZE_HEADER
from schemas.usage import parse_usage
from streams.read.inflate import GZIP, LZ4, SNAPPY, ZSTD, inflate, pieces
from streams.read.record_batches import BatchSteps, LogStep

SMALL = 1000
"""Largest record in the tests that need no large ones."""


def steps_of(data: bytes, start: int = 0, largest: int = LARGEST_INPUT, aborted: object = ()) -> list[LogStep]:
    reading = BatchSteps(data, start, largest_record=largest, aborted=aborted)  # type: ignore[arg-type]
    found: list[LogStep] = []
    while not reading.done:
        found += reading.take(None, 1 << 40)
    assert reading.next_offset == max([start, *(step.end for step in found)])
    return found


def shown(steps: list[LogStep]) -> list[tuple[int, int, list[bytes | None], int]]:
    return [
        (step.start, step.end, [one.value for one in step.records], step.skipped)
        for step in steps
        if step.start < step.end
    ]


def test_markers_and_aborted_records_are_steps_without_records() -> None:
    data = b"".join(
        (
            values(10, b"plain"),
            values(11, b"a", b"b", attributes=TRANSACTIONAL, producer=7),
            values(13, b"c", attributes=TRANSACTIONAL, producer=8),
            marker(14, 7, committed=False),
            values(15, b"d", attributes=TRANSACTIONAL, producer=7),
            marker(16, 8, committed=True),
            marker(17, 7, committed=True),
        )
    )
    assert shown(steps_of(data, 10, aborted=[(7, 11)])) == [
        (10, 11, [b"plain"], 0),
        (11, 13, [], 2),
        (13, 14, [b"c"], 0),
        (14, 15, [], 1),
        (15, 16, [b"d"], 0),
        (16, 17, [], 1),
        (17, 18, [], 1),
    ]


def test_of_several_transactions_of_one_producer_only_the_aborted_one_is_skipped() -> None:
    """A reader that stops at the first marker of the producer takes the second transaction for committed."""
    data = b"".join(
        part
        for at, committed in ((1, True), (3, False), (5, True))
        for part in (
            values(at, b"%d" % at, attributes=TRANSACTIONAL, producer=1),
            marker(at + 1, 1, committed=committed),
        )
    )
    read = [value for _, _, values_, _ in shown(steps_of(data, 1, aborted=[(1, 3)])) for value in values_]
    assert read == [b"1", b"5"]


def test_the_marker_of_an_aborted_transaction_without_records_ends_no_other() -> None:
    data = b"".join(
        (
            marker(10, 7, committed=False),
            values(11, b"a", attributes=TRANSACTIONAL, producer=8),
            marker(12, 7, committed=False),
            values(13, b"b", attributes=TRANSACTIONAL, producer=8),
            marker(14, 8, committed=False),
            values(15, b"c", attributes=TRANSACTIONAL, producer=8),
        )
    )
    read = [value for _, _, values_, _ in shown(steps_of(data, 10, aborted=[(8, 11)])) for value in values_]
    assert read == [b"c"]


def test_a_fetch_that_begins_inside_a_batch_gives_the_rest() -> None:
    data = values(10, b"a", b"b", b"c") + values(13, b"d", b"e", attributes=TRANSACTIONAL, producer=7)
    assert shown(steps_of(data, 12, aborted=[(7, 13)])) == [(12, 13, [b"c"], 0), (13, 15, [], 2)]
    assert shown(steps_of(data, 14, aborted=[(7, 13)])) == [(14, 15, [], 1)]


def test_offsets_lost_to_compaction_are_neither_records_nor_skipped() -> None:
    (step,) = steps_of(batch(10, [record(0, b"a"), record(3, b"b")], 2, last_delta=4), 10)
    assert (step.start, step.end, len(step.records), step.skipped) == (10, 15, 2, 0)


@pytest.mark.parametrize(
    ("damage", "why"),
    [(lambda data: data[:-1] + b"\xff", "checksum"), (lambda data: data[:16] + b"\x01" + data[17:], "format is 1")],
)
def test_a_batch_that_cannot_be_read_is_a_step_with_a_problem_and_the_next_is_read(damage, why: str) -> None:  # type: ignore[no-untyped-def]
    data = values(3, b"good") + damage(values(4, b"a", b"b")) + values(6, b"after")
    reading = BatchSteps(data, 3, largest_record=SMALL)
    assert shown(reading.take(None, 1 << 40)) == [(3, 4, [b"good"], 0)]
    (bad,) = reading.take(None, 1 << 40)
    assert bad.problem is not None and why in bad.problem
    assert (bad.start, bad.end, len(bad.records)) == (4, 6, 0)
    assert shown(reading.take(None, 1 << 40)) == [(6, 7, [b"after"], 0)]


def test_the_last_batch_of_a_fetch_may_be_cut_off() -> None:
    data = values(0, b"a") + values(1, b"b")[:-1]
    assert shown(steps_of(data)) == [(0, 1, [b"a"], 0)]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_record_beyond_the_bound_is_replaced_and_the_rest_is_read(codec: int) -> None:
    parts = [
        *(record(number, b"v%d" % number) for number in range(2)),
        *large_record(2, SMALL * 4, b"acct-1"),
        record(3, b"v3"),
        *large_record(4, SMALL * 9, b"K" * 5000),
        record(5, b"v5", None, [("h", None), ("i", b"j")]),
    ]
    steps = steps_of(batch(20, parts, 6, codec), 20, SMALL)
    found = [one for step in steps for one in step.records]
    assert [one.offset for one in found] == list(range(20, 26))
    assert [one.value for one in found] == [b"v0", b"v1", None, b"v3", None, b"v5"]
    assert [one.key for one in found] == [b"k", b"k", b"acct-1", b"k", None, None]
    name, size = found[2].headers[0]
    assert name == RECORD_SIZE_HEADER
    assert SMALL * 4 < int(size) < SMALL * 4 + 40
    assert steps[0].start == 20
    assert all(step.end - step.start == len(step.records) for step in steps)
    refused = parse_usage(found[2].value, found[2].headers)
    assert isinstance(refused, Refusal)
    assert refused.code == "invalid_event"
    assert f"the record has {int(size)} bytes" in refused.detail


sizes = st.lists(st.integers(0, 700), min_size=1, max_size=40)


@given(sizes, st.sampled_from(list(CODECS.values())), st.integers(100, 900), st.integers(0, 40))
def test_read_piece_by_piece_a_batch_is_the_same(of: list[int], codec: int, largest: int, start: int) -> None:
    """The path of large batches gives what the path of ordinary ones gives, wherever the fetch begins."""
    parts = [record(number, b"%d" % number * size) for number, size in enumerate(of)]
    data = batch(0, parts, len(of), codec)
    whole = {one.offset: one for step in steps_of(data, min(start, len(of) - 1)) for one in step.records}
    streamed = {one.offset: one for step in steps_of(data, min(start, len(of) - 1), largest) for one in step.records}
    assert whole.keys() == streamed.keys()
    for offset, one in streamed.items():
        if len(parts[offset]) - 2 > largest:
            assert (one.value, one.headers[0][0]) == (None, RECORD_SIZE_HEADER)
        elif len(parts[offset]) <= largest:
            assert (one.value, one.key, one.timestamp) == (whole[offset].value, whole[offset].key, 5)


@given(sizes, st.sampled_from([GZIP, SNAPPY, LZ4, ZSTD]), st.binary(min_size=1, max_size=6), st.integers(0, 1 << 16))
def test_damaged_compression_is_a_problem_and_nothing_else(of: list[int], codec: int, noise: bytes, at: int) -> None:
    parts = [record(number, b"%d" % number * size) for number, size in enumerate(of)]
    good = batch(0, parts, len(of), codec)[61:]
    at %= len(good)
    for largest in (100, LARGEST_INPUT):
        for step in steps_of(
            batch(0, [], len(of), codec, packed=good[:at] + noise + good[at + len(noise) :]), 0, largest
        ):
            assert step.problem is None or "cannot be read" in step.problem


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_what_is_within_the_limit_is_decompressed_at_once(codec: int) -> None:
    from packed_batches import PACKERS

    data = random.Random(1).randbytes(3 << 20) + bytes(3 << 20)
    packed = PACKERS[codec]([data])
    assert inflate(codec, packed, LARGEST_INPUT) == data
    assert b"".join(pieces(codec, packed)) == data
    assert max(len(piece) for piece in pieces(codec, packed)) <= 1 << 20
    assert inflate(codec, packed, 1 << 20) is None


def test_a_gzip_file_of_several_members_is_one_text() -> None:
    packed = gzip_of(b"a" * 3_000_000, b"", b"b" * 10)
    assert inflate(GZIP, packed, LARGEST_INPUT) == b"a" * 3_000_000 + b"b" * 10
    assert b"".join(pieces(GZIP, packed)) == b"a" * 3_000_000 + b"b" * 10


def test_a_codec_that_kafka_does_not_have_is_a_problem() -> None:
    (step,) = steps_of(batch(0, [], 1, packed=b"x", attributes=5))
    assert step.problem is not None and "codec 5" in step.problem


@pytest.mark.parametrize(("name", "millions"), [("gzip", 900), ("snappy", 60), ("lz4", 900), ("zstd", 900)])
def test_a_few_kilobytes_that_hold_gigabytes_take_neither_memory_nor_long_steps(name: str, millions: int) -> None:
    """Three records of 900 MB each; snappy cannot hold more in the largest batch than three of 60 MB."""
    parts = (
        part
        for number in range(5)
        for part in (
            large_record(number, millions * 1_000_000) if number in (0, 2, 3) else [record(number, b"v%d" % number)]
        )
    )
    data = batch(0, parts, 5, CODECS[name])
    assert len(data) < LARGEST_INPUT
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reading = BatchSteps(data, 0, largest_record=LARGEST_INPUT)
    found: list[LogStep] = []
    longest = 0.0
    while not reading.done:
        begun = time.process_time()
        found += reading.take(10_000, 32 << 20)
        longest = max(longest, time.process_time() - begun)
    records = [one for step in found for one in step.records]
    assert [one.value for one in records] == [None, b"v1", None, None, b"v4"]
    assert [one.offset for one in records] == list(range(5))
    assert all(int(records[at].headers[0][1]) > millions * 1_000_000 for at in (0, 2, 3))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 120_000, "kilobytes"
    assert longest < 3, "the consumer's heartbeat waits as long"
