from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport Account, AccountStore, Bucket
from cython_ext.decode cimport Decoder, EventColumns
from cython_ext.dedupe cimport Memory
from cython_ext.prices cimport PriceTables, TbPrices, TbRated
from cython_ext.wide cimport TbBuffer, i128


cdef enum:
    BY_WALLET, BY_BUCKET, BY_NOBODY, WRITTEN    # who paid; WRITTEN: the plain rule wrote the line


cdef struct Paid:           # a rated row that waits to be rendered
    TbRated rated           # WRITTEN: where the line begins in Usage.written as amount, its size as net
    int32_t row
    int32_t batch           # in Usage.batches
    uint32_t grant_at       # BY_BUCKET: the grant id in AccountStore.grants, which outlives the bucket
    uint16_t grant_size
    uint8_t payer


cdef struct Sums:           # of one hour, version and combination
    int64_t hour_us
    int32_t version
    int32_t combination
    int64_t events
    i128 tokens
    i128 standard_micro
    i128 amount_pico
    i128 net_pico
    i128 burned_micro
    i128 charged_pico
    i128 absorbed_micro
    i128 absorbed_pico
    i128 revenue_pico


cdef struct Earned:         # journal lines of one currency and one plan label (net is 0) or price book version
    int16_t currency
    int16_t plan            # a plan's label; -1: a version
    int32_t version
    i128 amount_pico
    i128 net_pico


cdef class Usage:
    cdef readonly Decoder decoder
    cdef readonly Memory memory
    cdef readonly AccountStore accounts
    cdef readonly PriceTables prices
    cdef TbPrices* tables                       # those of prices
    cdef readonly int wanted_combination
    cdef readonly int wanted_rule
    cdef readonly int64_t log_time_us
    cdef readonly int64_t rated
    cdef readonly int64_t duplicate
    cdef vector[Py_ssize_t] marked              # rows marked 2 that the batch rated so far
    cdef vector[int32_t] partition_hash         # by number of the account
    cdef vector[vector[uint8_t]] scope_of       # by rule and combination; 0 not known, 1 no, 2 yes
    cdef vector[Sums] sums
    cdef vector[int32_t] sums_slots
    cdef vector[Earned] earned
    cdef list batches                           # columns that rows of paid point into
    cdef int32_t batch                          # the one that is being decided
    cdef vector[Paid] paid                      # in decision order
    cdef TbBuffer written                       # lines of the plain rule
    cdef TbBuffer frames                        # kept for its room
    cdef int _decide(self, EventColumns columns, Py_ssize_t row, bint limited, int64_t future_us, int64_t past_us) noexcept nogil
    cdef Sums* _sums(self, int64_t hour_us, int32_t version, int32_t combination) noexcept nogil
    cdef Earned* _earned(self, int16_t currency, int16_t plan, int32_t version) noexcept nogil
    cdef char* _put_line(self, char* p, EventColumns columns, Paid* paid) noexcept nogil
    cdef size_t _most(self, EventColumns columns, Paid* paid) noexcept nogil
    cdef void _fetch(self, EventColumns columns, Paid* paid, Paid* later, int32_t batch) noexcept nogil
