from libc.stdint cimport int64_t

from cython_ext.decode cimport Decoder, Scan
from cython_ext.prices cimport PriceTables, TbPrices
from cython_ext.wide cimport TbBuffer


cdef class LineRater:
    cdef readonly Decoder decoder
    cdef readonly PriceTables prices
    cdef readonly Py_ssize_t next_at
    cdef readonly int64_t rated
    cdef readonly int64_t rejected
    cdef TbPrices* tables           # those of prices
    cdef TbBuffer written
    cdef int _refuse(self, Scan* scan, int need) except -1 nogil
    cdef int _line(self, char* at, char* end) except -1 nogil
