"""Writes record batches as Kafka keeps them (format 2): frames of an outbox row become what the relay sends, unchanged.

A batch has no producer, no times and no checksum yet: ``streams.relay.publisher`` writes them when it is sent, for only then
are they known. All of its records have the time of the batch.
"""

import json

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cython_ext.wide cimport TbBuffer, tb_put_bytes, tb_put_u64

cdef extern from "string.h" nogil:
    void* memmem(const void* text, size_t size, const void* wanted, size_t wanted_size)

cdef enum:
    HEAD = 61           # bytes of a batch before its records
    FRAME_HEAD = 16     # billing.commits.outbox_frames: target partition, lengths of key, headers and value
    FORMAT = 2

cdef uint32_t NULL_PART = 0xFFFFFFFF


cdef inline char* _put_number(char* p, int64_t value) noexcept nogil:
    """A varint, zigzag; at most ten bytes."""
    cdef uint64_t rest = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    while rest >= 0x80:
        p[0] = <char>(<uint8_t>rest | 0x80)
        p += 1
        rest >>= 7
    p[0] = <char>rest
    return p + 1


cdef inline int _number_size(int64_t value) noexcept nogil:
    cdef uint64_t rest = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    cdef int size = 1
    while rest >= 0x80:
        rest >>= 7
        size += 1
    return size


cdef inline void _put_big(char* p, uint64_t value, int size) noexcept nogil:
    """The lowest ``size`` bytes of a number, the greatest first."""
    cdef int i
    for i in range(size):
        p[i] = <char>(value >> (8 * (size - 1 - i)))


cdef bytes _headers(bytes text):
    """A record's headers from the JSON of a frame's."""
    cdef list written = []
    pairs = json.loads(text)
    written.append(_varint(len(pairs)))
    for name, content in pairs:
        encoded = name.encode()
        written += (_varint(len(encoded)), encoded)
        written += (_varint(-1),) if content is None else (_varint(len(content)), content.encode("latin-1"))
    return b"".join(written)


cdef bytes _varint(int64_t value):
    cdef char room[10]
    cdef char* end = _put_number(room, value)
    return room[: end - room]


cdef bytes _head(int codec, int32_t count, size_t body_size):
    cdef char head[HEAD]
    memset(head, 0, HEAD)
    _put_big(head + 8, HEAD - 12 + body_size, 4)    # the length counts from behind itself
    _put_big(head + 12, <uint64_t>-1, 4)            # leader epoch: the broker's
    head[16] = FORMAT
    _put_big(head + 21, codec, 2)
    _put_big(head + 23, count - 1, 4)               # last offset delta
    _put_big(head + 57, count, 4)
    return head[:HEAD]


def pack_batches(
    bytes frames not None, int64_t first_sequence, bytes mark not None, int codec, compress, size_t batch_bytes
):
    """Record batches of the frames, in order, each sequence written where ``mark`` stands first in a value.

    A batch ends with the record that reaches ``batch_bytes`` uncompressed; ``compress`` makes its records what ``codec``
    (Kafka's number) says. Target partitions of frames are not looked at.

    Raises:
        ValueError: a frame is not whole.
    """
    cdef TbBuffer body
    cdef const char* at = frames
    cdef const char* end = at + len(frames)
    cdef const char* mark_text = mark
    cdef size_t mark_size = len(mark), key_size, headers_size, value_size, before, record_size
    cdef uint32_t lengths[4]
    cdef int32_t count = 0
    cdef int64_t sequence = first_sequence
    cdef char digits[20]
    cdef size_t digits_size
    cdef const char* value
    cdef const char* marked
    cdef const char* own_headers
    cdef bytes headers
    cdef char* p
    cdef list batches = []
    while at < end:
        if end - at < FRAME_HEAD:
            raise ValueError("outbox frames cut off")
        memcpy(lengths, at, FRAME_HEAD)
        key_size = 0 if lengths[1] == NULL_PART else lengths[1]
        headers_size = lengths[2]
        value_size = 0 if lengths[3] == NULL_PART else lengths[3]
        if <size_t>(end - at) < FRAME_HEAD + key_size + headers_size + value_size:
            raise ValueError("outbox frames cut off inside a record")
        headers = _headers(at[FRAME_HEAD + key_size : FRAME_HEAD + key_size + headers_size]) if headers_size else b"\0"
        own_headers = headers
        value = at + FRAME_HEAD + key_size + headers_size
        marked = <const char*>memmem(value, value_size, mark_text, mark_size)
        digits_size = 0
        before = value_size
        if marked != NULL:
            before = marked - value
            digits_size = tb_put_u64(digits, sequence) - digits
            value_size += digits_size - mark_size
        # attributes and the difference to the batch's time are a zero each
        record_size = (
            2 + _number_size(count)
            + _number_size(-1 if lengths[1] == NULL_PART else <int64_t>key_size) + key_size
            + _number_size(-1 if lengths[3] == NULL_PART else <int64_t>value_size) + value_size + len(headers)
        )
        p = body.room(record_size + 16)
        p = _put_number(p, record_size)
        p[0] = p[1] = 0
        p = _put_number(p + 2, count)
        p = _put_number(p, -1 if lengths[1] == NULL_PART else <int64_t>key_size)
        p = tb_put_bytes(p, at + FRAME_HEAD, key_size)
        p = _put_number(p, -1 if lengths[3] == NULL_PART else <int64_t>value_size)
        p = tb_put_bytes(p, value, before)
        if marked != NULL:
            p = tb_put_bytes(p, digits, digits_size)
            p = tb_put_bytes(p, marked + mark_size, value_size - before - digits_size)
            value_size += mark_size - digits_size   # as it stands in the frame
        p = tb_put_bytes(p, own_headers, len(headers))
        body.wrote(p)
        at = value + value_size
        count += 1
        sequence += 1
        if body.size >= batch_bytes or at == end:
            records = compress(body.data[:body.size])
            batches.append(_head(codec, count, len(records)))
            batches.append(records)
            body.size = 0
            count = 0
    return b"".join(batches)
