"""Packed records are the records that aiokafka reads from the same bytes, and decode as they do."""

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from cython_ext.decode import Decoder
from cython_ext.records import PackedRecords
from schemas.usage import parse_usage

BASE, HEAD_BYTES = 700, 61
EVENT = (
    b'{"specversion":"1.0","type":"token.usage.v1","source":"urn:w","id":"c-%d","sequence":"%d",'
    b'"time":"2026-11-22T01:15:03Z","subject":"acct-1","data":{"model":"m","usage":{"input":%d}}}'
)
STRUCTURED = [("content-type", b"application/cloudevents+json")]
BINARY = [
    ("ce_specversion", b"1.0"),
    ("ce_type", b"token.usage.v1"),
    ("ce_source", b"urn:w"),
    ("ce_id", b"c-9"),
    ("ce_time", b"2026-11-22T01:15:03Z"),
    ("ce_subject", b"acct-1"),
]
Given = list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]]

texts = st.none() | st.binary(max_size=300)
headers = st.lists(st.tuples(st.text(max_size=9), texts), max_size=4)
batches = st.lists(st.tuples(texts, texts, headers, st.integers(0, 2**40)), min_size=1, max_size=12)


def built(given_records: Given) -> bytes:
    """One record batch, uncompressed."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, 0, 1 << 30)
    for number, (key, value, own_headers, timestamp) in enumerate(given_records):
        builder.append(number, timestamp=timestamp, key=key, value=value, headers=own_headers)
    return bytes(builder.build())


def packed(given_records: Given, append_ms: int | None = None) -> PackedRecords:
    body = built(given_records)[HEAD_BYTES:]
    return PackedRecords.read(body, len(given_records), BASE, given_records[0][3], append_ms)


@given(batches)
def test_a_batch_reads_as_aiokafka_reads_it(given_records: Given) -> None:
    theirs = list(DefaultRecordBatch(built(given_records)))
    ours = packed(given_records)
    assert [(one.offset - BASE, one.timestamp, one.key, one.value, list(one.headers)) for one in ours] == [
        (one.offset, one.timestamp, one.key, one.value, list(one.headers)) for one in theirs
    ]
    assert len(ours) == len(theirs)
    assert ours.size_bytes == sum(len(one.value or b"") for one in theirs)


@given(batches, batches, st.integers(0, 24), st.integers(0, 24))
def test_joined_and_cut_it_is_still_a_sequence(first: Given, second: Given, start: int, stop: int) -> None:
    everything = PackedRecords.joined([packed(first), packed(second)])
    plain = [*packed(first), *packed(second)]
    part, plain_part = everything[start:stop], plain[start:stop]
    assert [(one.offset, one.value, one.headers) for one in part] == [
        (one.offset, one.value, one.headers) for one in plain_part
    ]
    assert part.size_bytes == sum(len(one.value or b"") for one in plain_part)
    assert everything[-1].value == plain[-1].value
    with pytest.raises(IndexError):
        everything[len(plain)]


@given(batches, st.data())
def test_what_is_cut_off_or_too_long_is_refused(given_records: Given, data: st.DataObject) -> None:
    body = built(given_records)[HEAD_BYTES:]
    count = len(given_records)
    cut = data.draw(st.integers(0, len(body) - 1))
    for wrong, number in ((body[:cut] + b"", count), (body + b"\x00", count), (bytes(bytearray(body)), count + 1)):
        with pytest.raises(ValueError, match="record batch at offset 700"):
            PackedRecords.read(wrong, number, BASE, 0, None)


@given(batches, st.binary(max_size=8), st.integers(0, 1 << 12))
def test_damage_is_refused_or_read_but_never_leaves_the_batch(given_records: Given, damage: bytes, at: int) -> None:
    body = bytearray(built(given_records)[HEAD_BYTES:])
    at %= len(body)
    body[at : at + len(damage)] = damage
    try:
        records = PackedRecords.read(bytes(body), len(given_records), BASE, 0, None)
    except ValueError:
        return
    assert sum(len(one.key or b"") + len(one.value or b"") for one in records) <= len(body)


def test_the_logs_own_time_goes_before_the_producers() -> None:
    records: Given = [(None, b"a", [], 5), (None, b"b", [], 9)]
    assert [one.timestamp for one in packed(records)] == [5, 9]
    assert [one.timestamp for one in packed(records, append_ms=77)] == [77, 77]


def test_events_decode_as_from_record_objects() -> None:
    unread = b'{"specversion":"1.0","id":"\\u0041"}'
    records: Given = [(b"k", EVENT % (n, n, n), [], n) for n in range(1, 40)]
    records += [(None, EVENT % (n, n, n), STRUCTURED, n) for n in range(40, 50)]
    records += [(None, b'{"model":"m","usage":{"output":7}}', BINARY, 51), (None, unread, STRUCTURED, 52)]
    records += [(None, EVENT % (53, 53, 53), [("Content-Type", b"x")], 53), (None, None, [], 54)]
    records += [(None, EVENT % (55, 55, 55), [("x", None)], 55), (None, EVENT % (56, 56, 56), [], 56)]
    ours, theirs = packed(records), list(packed(records))
    one, other = Decoder(), Decoder()
    columns, expected = one.decode(ours), other.decode(theirs)
    assert columns.unread() == expected.unread()
    read = [row for row in range(len(records)) if row not in set(columns.unread())]
    assert len(read) >= 50
    for row in read:
        assert columns.as_tuple(row) == expected.as_tuple(row)
    event = parse_usage(theirs[3].value, theirs[3].headers)
    assert columns.as_tuple(3)[1] == event.id  # type: ignore[union-attr]
