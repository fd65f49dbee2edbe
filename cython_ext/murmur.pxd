# MurmurHash3 x64 128 with seed 0, as schemas.hashing.murmur3_x64_128 specifies it, and Kafka's murmur2
# (schemas.routing). Unsigned 64- and 32-bit arithmetic wraps on purpose; no money or quantity is computed here.
# Functions are noexcept: they only compute. Little-endian machines only (x86-64, arm64).

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t _rotate(uint64_t value, int bits) noexcept nogil:
    """Rotate to the left."""
    return (value << bits) | (value >> (64 - bits))


cdef inline uint64_t _first(uint64_t word) noexcept nogil:
    """Mix a word of the first half."""
    return _rotate(word * 0x87C37B91114253D5ULL, 31) * 0x4CF5AD432745937FULL


cdef inline uint64_t _second(uint64_t word) noexcept nogil:
    """Mix a word of the second half."""
    return _rotate(word * 0x4CF5AD432745937FULL, 33) * 0x87C37B91114253D5ULL


cdef inline uint64_t _finish(uint64_t value) noexcept nogil:
    """Mix the bits of a half at the end."""
    value ^= value >> 33
    value *= 0xFF51AFD7ED558CCDULL
    value ^= value >> 33
    value *= 0xC4CEB9FE1A85EC53ULL
    return value ^ (value >> 33)


cdef inline uint64_t _eight(const char* at) noexcept nogil:
    """Return 8 bytes as a little-endian number."""
    cdef uint64_t value = 0
    memcpy(&value, at, 8)
    return value


cdef inline uint64_t _few(const char* at, size_t size) noexcept nogil:
    """Return 1 to 8 bytes as a little-endian number, by loads that overlap: nothing is copied through memory."""
    cdef uint32_t first = 0, last = 0
    if size == 8:
        return _eight(at)
    if size >= 4:
        memcpy(&first, at, 4)
        memcpy(&last, at + size - 4, 4)
        return first | <uint64_t>last << (8 * (size - 4))
    return (
        <uint64_t><uint8_t>at[0]
        | <uint64_t><uint8_t>at[size >> 1] << (8 * (size >> 1))
        | <uint64_t><uint8_t>at[size - 1] << (8 * (size - 1))
    )


cdef inline void murmur3(const char* data, size_t length, uint64_t* out1, uint64_t* out2) noexcept nogil:
    """Compute h1 and h2 of the bytes."""
    cdef uint64_t h1 = 0, h2 = 0
    cdef uint64_t k[2]
    cdef size_t at = 0
    while at + 16 <= length:
        k[0] = _eight(data + at)
        k[1] = _eight(data + at + 8)
        h1 = (_rotate(h1 ^ _first(k[0]), 27) + h2) * 5 + 0x52DCE729
        h2 = (_rotate(h2 ^ _second(k[1]), 31) + h1) * 5 + 0x38495AB5
        at += 16
    if at < length:
        k[0] = _few(data + at, min(length - at, 8))
        k[1] = _few(data + at + 8, length - at - 8) if length - at > 8 else 0
        h1 ^= _first(k[0])
        h2 ^= _second(k[1])
    h1 ^= length
    h2 ^= length
    h1 += h2
    h2 += h1
    h1 = _finish(h1)
    h2 = _finish(h2)
    h1 += h2
    out1[0] = h1
    out2[0] = h2 + h1


cdef inline uint64_t murmur3_64(const char* data, size_t length) noexcept nogil:
    """Return h1 of the bytes."""
    cdef uint64_t h1 = 0, h2 = 0
    murmur3(data, length, &h1, &h2)
    return h1


cdef inline int32_t kafka_murmur2(const char* data, size_t length) noexcept nogil:
    """Return Kafka's murmur2 (seed 0x9747b28c) of a record key, made positive: partition = this % partitions."""
    cdef uint32_t h = 0x9747b28cU ^ <uint32_t>length
    cdef uint32_t k
    cdef size_t at = 0
    while at + 4 <= length:
        memcpy(&k, data + at, 4)
        k *= 0x5bd1e995U
        k ^= k >> 24
        h = h * 0x5bd1e995U ^ (k * 0x5bd1e995U)
        at += 4
    k = 0
    if at < length:
        memcpy(&k, data + at, length - at)
        h = (h ^ k) * 0x5bd1e995U
    h ^= h >> 13
    h *= 0x5bd1e995U
    h ^= h >> 15
    return <int32_t>(h & 0x7fffffffU)
