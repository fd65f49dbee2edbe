"""Payloads of outbox rows: packing and unpacking are inverse, and a truncated payload raises."""

import random

import pytest
import zstandard
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import example, given
from hypothesis import strategies as st

from billing.calculator.core_records import pack_batches
from billing.commits.outbox_frames import (
    MAX_BATCH_RECORDS,
    SEQUENCE_MARK,
    Frame,
    compress,
    encode_frame,
    pack_frames,
    split_batches,
    unpack_batches,
    unpack_frames,
)
from schemas.record_sizes import BATCH_BYTES

CONTENT = st.none() | st.binary(max_size=20)
FRAMES = st.builds(
    Frame,
    CONTENT,
    CONTENT,
    st.lists(st.tuples(st.text(max_size=8), CONTENT), max_size=3).map(tuple),
    st.integers(-1, 2**31 - 1),
)


@given(st.lists(FRAMES, max_size=6))
def test_frames_come_out_as_they_went_in(frames: list[Frame]) -> None:
    assert list(unpack_frames(pack_frames(frames))) == frames
    assert compress(b"".join(map(encode_frame, frames))) == pack_frames(frames)


@given(FRAMES, st.data())
def test_a_payload_that_was_cut_off_is_an_error(frame: Frame, data: st.DataObject) -> None:
    whole = zstandard.ZstdDecompressor().decompress(pack_frames([frame]))
    part = whole[: data.draw(st.integers(1, len(whole) - 1))]
    with pytest.raises(ValueError):
        list(unpack_frames(compress(part)))


MARKED = st.tuples(st.binary(max_size=200), st.binary(max_size=9)).map(
    lambda parts: parts[0] + SEQUENCE_MARK + parts[1]
)
OWN_FRAMES = st.builds(
    Frame,
    CONTENT,
    CONTENT | MARKED,
    st.lists(st.tuples(st.text(max_size=8), CONTENT), max_size=3).map(tuple),
    st.just(-1),
)


def numbered(frames: list[Frame], first: int) -> list[Frame]:
    """Return the frames as a consumer must read them, computed by a simple rule."""
    return [
        frame._replace(value=frame.value and frame.value.replace(SEQUENCE_MARK, str(first + place).encode(), 1))
        for place, frame in enumerate(frames)
    ]


@given(st.lists(OWN_FRAMES, min_size=1, max_size=70), st.integers(1, 2**62))
@example([Frame(b"k", b"x" * (BATCH_BYTES // 2))] * 5, 99)
def test_packed_batches_read_as_the_frames_with_their_sequences(frames: list[Frame], first: int) -> None:
    payload = pack_batches(b"".join(map(encode_frame, frames)), first)
    wanted = numbered(frames, first)
    assert list(unpack_batches(payload)) == wanted
    read = []
    for batch, count in split_batches(payload):
        theirs = DefaultRecordBatch(batch)
        assert (theirs.base_offset, theirs.next_offset, theirs.is_control_batch) == (0, count, False)
        records = list(theirs)
        assert [record.offset for record in records] == list(range(count))
        read += [Frame(record.key, record.value, tuple(record.headers)) for record in records]
    assert read == wanted


def test_a_batch_ends_when_it_is_large_enough() -> None:
    frames = [Frame(None, b"x" * (BATCH_BYTES // 2))] * 5
    payload = pack_batches(b"".join(map(encode_frame, frames)), 1)
    assert [count for _, count in split_batches(payload)] == [2, 2, 1]


def test_what_does_not_compress_makes_smaller_batches() -> None:
    chance = random.Random(1)
    sizes = [400_000, 400_000, 400_000, 10, 1_200_000, 10]
    frames = [Frame(None, chance.randbytes(size)) for size in sizes]
    payload = pack_batches(b"".join(map(encode_frame, frames)), 1)
    assert list(unpack_batches(payload)) == frames
    packed = [(len(batch), count) for batch, count in split_batches(payload)]
    assert all(size <= MAX_BATCH_RECORDS for size, count in packed if count > 1)
    assert [count for size, count in packed if size > MAX_BATCH_RECORDS] == [1]


@given(st.lists(OWN_FRAMES, min_size=1, max_size=5), st.data())
def test_packed_or_to_be_packed_what_was_cut_off_is_an_error(frames: list[Frame], data: st.DataObject) -> None:
    whole = b"".join(map(encode_frame, frames))
    last = len(encode_frame(frames[-1]))
    with pytest.raises(ValueError):
        pack_batches(whole[: len(whole) - data.draw(st.integers(1, last - 1))], 1)
    payload = pack_batches(whole, 1)
    with pytest.raises(ValueError):
        list(split_batches(payload[: data.draw(st.integers(1, len(payload) - 1))]))
