"""The frames of an outbox row: what goes in comes out, and what is cut off is noticed."""

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from billing.outbox import Frame, compress, encode_frame, pack_frames, unpack_frames

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
