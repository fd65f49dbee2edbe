from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport AccountStore, BufferPool
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
    cdef TbBuffer described             # what lines say of a combination, by its number
    cdef vector[uint64_t] described_to  # where the text of a number ends; that of the next begins there
    cdef TbBuffer frames
    cdef BufferPool pool
    cdef int64_t minute                 # the minute whose text is minute_text; -1: none yet
    cdef char minute_text[32]
    cdef int begin(self, object columns, size_t most) except -1
    cdef int _put_frame(self, bytes key, list pieces, size_t number, size_t begin, size_t end) except -1
