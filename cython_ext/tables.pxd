from libc.stdint cimport int32_t, uint32_t, uint64_t
from libcpp.vector cimport vector


cdef class TextTable:
    cdef vector[char] arena           # all texts, one after the other
    cdef vector[uint64_t] starts      # text i is arena[starts[i]:starts[i + 1]]
    cdef vector[uint64_t] hashes      # murmur3 h1 of text i
    cdef vector[uint64_t] slots       # a hash table: the upper half of the hash, and index + 1; 0: empty
    cdef uint64_t mask                # the number of slots, a power of two, less 1
    cdef int _grow(self) except -1 nogil
    cdef int32_t intern(self, const char* text, size_t size) except -2 nogil
    cdef int32_t intern_hashed(self, const char* text, size_t size, uint64_t hash64) except -2 nogil
    cdef int32_t find(self, const char* text, size_t size) noexcept nogil
    cdef bytes text_at(self, int32_t index)
