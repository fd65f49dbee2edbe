from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport AccountStore
from cython_ext.decode cimport Decoder
from cython_ext.prices cimport PriceTables, TbPrices, TbRated
from cython_ext.wide cimport TbBuffer


cdef enum:                      # Paid.payer
    BY_WALLET, BY_BUCKET
    BY_NOBODY                   # the usage is absorbed: recorded, not charged
    WRITTEN                     # the plain calculator decided the event and wrote its line


cdef struct Paid:               # a rated event that waits to be rendered
    TbRated rated               # WRITTEN: amount_pico is where the line begins in RatedLines.written, net_pico its size
    int32_t row
    int32_t batch               # index in RatedLines.batches
    uint32_t grant_at           # BY_BUCKET: the grant id in AccountStore.grants, which outlives the bucket
    uint16_t grant_size
    uint8_t payer


cdef class RatedLines:
    cdef Decoder decoder
    cdef AccountStore accounts
    cdef PriceTables prices
    cdef TbPrices* tables               # those of prices
    cdef list batches                   # columns that rows of paid point into
    cdef int32_t batch                  # index of the one that is being decided
    cdef vector[Paid] paid              # in decision order
    cdef TbBuffer written               # lines of the plain calculator
    cdef TbBuffer frames                # kept so that its memory is used again
    cdef int begin(self, object columns, size_t most) except -1
    cdef int _put_frame(self, bytes key, list pieces, size_t number, size_t begin, size_t end) except -1
