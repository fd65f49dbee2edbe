from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.tables cimport TextTable


cdef enum:
    READ = 0       # the row's columns are filled
    UNREAD = 1     # for the plain decoder
    REFUSED = 2    # the plain decoder rejected it; the row's columns mean nothing


cdef struct Span:
    const char* at      # NULL: absent or null
    Py_ssize_t size


cdef enum:
    ATTRIBUTES = 8
    FIELDS = 13
    BUILT_IN_METERS = 24


cdef struct Scan:
    Span attributes[ATTRIBUTES]
    Span fields[FIELDS]
    uint32_t attributes_seen
    uint32_t fields_seen
    uint32_t meters_seen
    int64_t counts[BUILT_IN_METERS]
    int64_t time_us
    int64_t sequence
    const char* end


cdef struct HeaderSpans:
    Span attributes[ATTRIBUTES]


cdef class EventColumns:
    cdef readonly Py_ssize_t rows
    cdef vector[uint8_t] status
    cdef vector[int32_t] source
    cdef vector[const char*] id_at
    cdef vector[int32_t] id_size
    cdef vector[uint32_t] id_hash
    cdef vector[int64_t] sequence
    cdef vector[int64_t] time_us
    cdef vector[int32_t] account
    cdef vector[int32_t] combination
    cdef vector[uint32_t] content_hash
    cdef vector[uint32_t] count_first
    cdef vector[uint8_t] count_number
    cdef vector[int64_t] offset       # of the record; the row where it was given as bytes
    cdef vector[int64_t] logged_ms    # its timestamp; 0 where it was given as bytes
    cdef vector[int16_t] meter
    cdef vector[int64_t] count
    cdef object keep


cdef class Decoder:
    cdef readonly TextTable sources
    cdef readonly TextTable accounts
    cdef readonly TextTable combinations
    cdef readonly TextTable meters
    cpdef EventColumns decode(self, object records)
    cpdef void set_event(self, EventColumns columns, Py_ssize_t row, object event) except *
    cdef bint _scan(self, Scan* scan, Span value, HeaderSpans* envelope) noexcept nogil
    cdef int _store(self, EventColumns columns, Py_ssize_t row, Scan* scan) except -1 nogil
    cdef uint32_t _content_hash(self, EventColumns columns, Py_ssize_t row) noexcept nogil
