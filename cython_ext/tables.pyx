"""A table that gives each distinct text a small number, so that columns hold integers. It keeps every text.

``find`` and the hashes are ``noexcept``: they read and compute, and allocate nothing.
"""

from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp
from libcpp.vector cimport vector

from cython_ext.murmur cimport kafka_murmur2, murmur3, murmur3_64

cdef enum:
    MAX_TEXTS = 0x7FFFFFFE     # 2^31-2: numbers have 32 bits


def murmur3_x64_128(bytes data not None):
    """Return h1 and h2 of :func:`schemas.hashing.murmur3_x64_128`."""
    cdef uint64_t h1 = 0, h2 = 0
    murmur3(data, len(data), &h1, &h2)
    return h1, h2


def murmur2(bytes data not None):
    """Return Kafka's hash of a key without its sign bit, as :mod:`schemas.routing` does."""
    return kafka_murmur2(data, len(data))


cdef class TextTable:
    """Distinct byte strings numbered from 0 in the order of their first appearance."""

    def __cinit__(self):
        self.starts.push_back(0)
        self.slots.resize(64)
        self.mask = 63

    def __len__(self):
        return self.hashes.size()

    def __getitem__(self, Py_ssize_t index):
        if index < 0 or index >= <Py_ssize_t>self.hashes.size():
            raise IndexError(f"no text has the number {index}")
        return self.text_at(<int32_t>index)

    def number(self, bytes text not None):
        """Return the number of a text; a new one gets the next."""
        return self.intern(text, len(text))

    def known(self, bytes text not None):
        """Return the number of a text, or -1."""
        return self.find(text, len(text))

    cdef bytes text_at(self, int32_t index):
        """Return the text of a number."""
        return self.arena.data()[self.starts[index] : self.starts[index + 1]]

    cdef int _grow(self) except -1 nogil:
        """Double the hash table."""
        cdef vector[uint64_t] wider
        cdef uint64_t mask = 2 * self.mask + 1, slot, at
        cdef size_t index
        wider.resize(mask + 1)
        for index in range(self.hashes.size()):
            at = self.hashes[index] & mask
            while wider[at] != 0:
                at = (at + 1) & mask
            wider[at] = (self.hashes[index] & 0xFFFFFFFF00000000ULL) | (index + 1)
        self.slots.swap(wider)
        self.mask = mask
        return 0

    cdef int32_t find(self, const char* text, size_t size) noexcept nogil:
        """Return the number of a text, or -1."""
        cdef uint64_t hash64 = murmur3_64(text, size), at = hash64 & self.mask, slot
        cdef size_t index
        while True:
            slot = self.slots[at]
            if slot == 0:
                return -1
            if (slot ^ hash64) >> 32 == 0:
                index = (slot & 0xFFFFFFFFULL) - 1
                if self.starts[index + 1] - self.starts[index] == size and (
                    memcmp(self.arena.data() + self.starts[index], text, size) == 0
                ):
                    return <int32_t>index
            at = (at + 1) & self.mask

    cdef int32_t intern(self, const char* text, size_t size) except -2 nogil:
        """Return the number of a text; a new one gets the next."""
        return self.intern_hashed(text, size, murmur3_64(text, size))

    cdef int32_t intern_hashed(self, const char* text, size_t size, uint64_t hash64) except -2 nogil:
        """Return the number of a text, by its murmur3 h1; a new one gets the next."""
        cdef uint64_t at = hash64 & self.mask, slot
        cdef size_t index
        while True:
            slot = self.slots[at]
            if slot == 0:
                break
            if (slot ^ hash64) >> 32 == 0:
                index = (slot & 0xFFFFFFFFULL) - 1
                if self.starts[index + 1] - self.starts[index] == size and (
                    memcmp(self.arena.data() + self.starts[index], text, size) == 0
                ):
                    return <int32_t>index
            at = (at + 1) & self.mask
        index = self.hashes.size()
        if index >= MAX_TEXTS:
            with gil:
                raise OverflowError("a text table holds at most 2^31-2 texts")
        self.arena.insert(self.arena.end(), text, text + size)
        self.starts.push_back(self.arena.size())
        self.hashes.push_back(hash64)
        if 2 * (index + 1) > self.mask:
            self._grow()
        else:
            self.slots[at] = (hash64 & 0xFFFFFFFF00000000ULL) | (index + 1)
        return <int32_t>index
