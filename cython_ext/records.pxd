from libc.stdint cimport int32_t, int64_t
from libcpp.vector cimport vector


cdef struct PackedRow:
    int64_t offset
    int64_t timestamp_ms
    const char* key
    const char* value           # a NUL follows it; NULL where there is none
    const char* headers         # the first one
    int32_t key_size            # -1: no key
    int32_t value_size
    int32_t header_count
    int32_t headers_size


cdef class PackedRecords:
    cdef vector[PackedRow] rows
    cdef list keep              # the bytes that rows point into
    cdef readonly Py_ssize_t size_bytes
    cdef readonly Py_ssize_t held_bytes
    cdef tuple headers_of(self, Py_ssize_t row)
