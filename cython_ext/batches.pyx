"""Packs the frames of an outbox row into record batches as Kafka stores them (format 2).

The relay sends them as they are. A batch has no producer, no times and no checksum yet: ``streams.relay.publisher``
writes them when it sends the batch, for only then are they known. All records of a batch have the time of the batch.
"""

import json

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from cython_ext.frames cimport FRAME_HEAD, NULL_PART
from cython_ext.wide cimport TbBuffer, tb_put_bytes, tb_put_u64

cdef extern from "string.h" nogil:
    void* memmem(const void* text, size_t size, const void* wanted, size_t wanted_size) noexcept

cdef enum:
    BATCH_HEAD = 61         # bytes of a batch before its records (billing.commits.outbox_frames.BATCH_HEAD)
    LENGTH_COUNTS_FROM = 12 # billing.commits.outbox_frames.LENGTH_COUNTS_FROM
    FORMAT = 2
    MAX_VARINT = 10     # bytes of 64 bits, seven at a time
    MAX_SEQUENCE = 20   # digits of 64 bits; tb_put_u64 writes up to seven bytes more

cdef struct Frame:          # one frame, read where it lies
    const char* key
    const char* headers
    const char* value
    const char* end
    size_t key_size
    size_t headers_size
    size_t value_size
    bint has_key            # False: the key is null
    bint has_value


# Varints and big-endian numbers are written into room that was asked for before: this cannot fail.


cdef inline char* _put_varint(char* p, int64_t value) noexcept nogil:
    """Write a zigzag varint; at most MAX_VARINT bytes."""
    cdef uint64_t rest = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    while rest >= 0x80:
        p[0] = <char>(<uint8_t>rest | 0x80)
        p += 1
        rest >>= 7
    p[0] = <char>rest
    return p + 1


cdef inline int _varint_size(int64_t value) noexcept nogil:
    """Return the bytes of a zigzag varint."""
    cdef uint64_t rest = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    cdef int size = 1
    while rest >= 0x80:
        rest >>= 7
        size += 1
    return size


cdef inline void _put_big_endian(char* p, uint64_t value, int size) noexcept nogil:
    """Write the lowest ``size`` bytes of a number, the highest of them first."""
    cdef int i
    for i in range(size):
        p[i] = <char>(value >> (8 * (size - 1 - i)))


cdef bytes _varint(int64_t value):
    """Return a zigzag varint."""
    cdef char room[MAX_VARINT]
    cdef char* end = _put_varint(room, value)
    return room[: end - room]


cdef bytes _record_headers(bytes text):
    """Return a record's headers from the JSON of a frame's, an empty text for none."""
    cdef list written = []
    if not text:
        return b"\0"
    pairs = json.loads(text)
    written.append(_varint(len(pairs)))
    for name, content in pairs:
        encoded = name.encode()
        written += (_varint(len(encoded)), encoded)
        written += (_varint(-1),) if content is None else (_varint(len(content)), content.encode("latin-1"))
    return b"".join(written)


cdef bytes _batch_head(int codec, int32_t count, size_t body_size):
    """Return the head of a batch of ``count`` records; its epoch is -1, which the broker replaces."""
    cdef char head[BATCH_HEAD]
    memset(head, 0, BATCH_HEAD)
    _put_big_endian(head + 8, BATCH_HEAD - LENGTH_COUNTS_FROM + body_size, 4)
    _put_big_endian(head + 12, <uint64_t>-1, 4)
    head[16] = FORMAT
    _put_big_endian(head + 21, codec, 2)
    _put_big_endian(head + 23, count - 1, 4)        # last offset delta
    _put_big_endian(head + 57, count, 4)
    return head[:BATCH_HEAD]


cdef int _read_frame(const char* at, const char* end, Frame* frame) except -1:
    """Read the frame that begins at ``at``.

    Raises:
        ValueError: it is not whole.
    """
    cdef uint32_t lengths[4]
    if end - at < FRAME_HEAD:
        raise ValueError("outbox frames cut off")
    memcpy(lengths, at, FRAME_HEAD)
    frame.has_key = lengths[1] != NULL_PART
    frame.has_value = lengths[3] != NULL_PART
    frame.key_size = lengths[1] if frame.has_key else 0
    frame.headers_size = lengths[2]
    frame.value_size = lengths[3] if frame.has_value else 0
    if <size_t>(end - at) < FRAME_HEAD + frame.key_size + frame.headers_size + frame.value_size:
        raise ValueError("outbox frames cut off inside a record")
    frame.key = at + FRAME_HEAD
    frame.headers = frame.key + frame.key_size
    frame.value = frame.headers + frame.headers_size
    frame.end = frame.value + frame.value_size
    return 0


cdef int _put_record(
    TbBuffer* body, Frame* frame, bytes headers, int32_t place, bytes mark, int64_t sequence
) except -1:
    """Append a frame as the record at ``place`` of its batch, the sequence written where ``mark`` first stands in its
    value.

    ``headers`` are its headers as _record_headers writes them. The record's attributes and its difference to the
    batch's time are a zero each.
    """
    cdef const char* marked = <const char*>memmem(frame.value, frame.value_size, <const char*>mark, len(mark))
    cdef char digits[MAX_SEQUENCE + 7]
    cdef size_t mark_size = len(mark) if marked != NULL else 0
    cdef size_t digits_size = tb_put_u64(digits, sequence) - digits if marked != NULL else 0
    cdef size_t before = marked - frame.value if marked != NULL else frame.value_size
    cdef size_t value_size = frame.value_size - mark_size + digits_size
    cdef int64_t key_length = <int64_t>frame.key_size if frame.has_key else -1
    cdef int64_t value_length = <int64_t>value_size if frame.has_value else -1
    cdef size_t record_size = (
        2 + _varint_size(place)
        + _varint_size(key_length) + frame.key_size
        + _varint_size(value_length) + value_size + len(headers)
    )
    cdef char* p = body.room(record_size + MAX_VARINT)  # its size is written before it
    p = _put_varint(p, record_size)
    p[0] = p[1] = 0
    p = _put_varint(p + 2, place)
    p = _put_varint(p, key_length)
    p = tb_put_bytes(p, frame.key, frame.key_size)
    p = _put_varint(p, value_length)
    p = tb_put_bytes(p, frame.value, before)
    memcpy(p, digits, digits_size)
    p += digits_size
    p = tb_put_bytes(p, frame.value + before + mark_size, frame.value_size - before - mark_size)
    body.wrote(tb_put_bytes(p, headers, len(headers)))
    return 0


def pack_batches(
    const unsigned char[::1] frames not None, bytes common not None, int64_t first_sequence, bytes mark not None, int codec,
    compress, size_t batch_bytes
):
    """Return record batches of the frames, in order, each sequence written where ``mark`` first stands in a value.

    A frame without headers gets ``common``, which is a frame's part of that name. A batch ends with the record that
    reaches ``batch_bytes`` uncompressed. ``compress`` compresses its records by
    ``codec``, a number of Kafka's. Target partitions of frames are ignored.

    Raises:
        ValueError: a frame is not whole.
    """
    cdef TbBuffer body
    cdef Frame frame
    cdef const char* at = <const char*>&frames[0] if frames.shape[0] else NULL
    cdef const char* end = at + frames.shape[0]
    cdef int32_t count = 0
    cdef int64_t sequence = first_sequence
    cdef list batches = []
    cdef bytes shared = _record_headers(common), text = b"", headers = shared
    while at < end:
        _read_frame(at, end, &frame)
        if frame.headers_size == 0:
            text = b""
            headers = shared
        elif frame.headers_size != <size_t>len(text) or memcmp(frame.headers, <const char*>text, len(text)) != 0:
            text = frame.headers[: frame.headers_size]
            headers = _record_headers(text)  # most records have those of the one before
        _put_record(&body, &frame, headers, count, mark, sequence)
        at = frame.end
        count += 1
        sequence += 1
        if body.size >= batch_bytes or at == end:
            records = compress(body.data[:body.size])
            batches.append(_batch_head(codec, count, len(records)))
            batches.append(records)
            body.size = 0
            count = 0
    return b"".join(batches)
