# The head of an outbox frame (billing.commits.outbox_frames): target partition, and the lengths of key, headers and
# value. accounts and usage write frames, batches reads them.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy


cdef enum:
    FRAME_HEAD = 16             # bytes: four numbers of 32 bits, little-endian
    NULL_PART = 0xFFFFFFFF      # the length of a key or value that is null; the target partition -1, the commit's own


cdef inline int put_frame_head(char* at, size_t key_size, size_t value_size) except -1:
    """Write the head of a frame without headers that goes to the commit's own partition.

    Raises:
        OverflowError: the key or the value is as long as a length can say, or longer.
    """
    cdef uint32_t lengths[4]
    if key_size >= NULL_PART or value_size >= NULL_PART:
        raise OverflowError(f"an output record with a key of {key_size} and a value of {value_size} bytes")
    lengths[0] = NULL_PART
    lengths[1] = <uint32_t>key_size
    lengths[2] = 0
    lengths[3] = <uint32_t>value_size
    memcpy(at, lengths, FRAME_HEAD)
    return 0
