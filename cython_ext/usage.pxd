from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport Account, AccountStore, Bucket
from cython_ext.decode cimport Decoder
from cython_ext.dedupe cimport Memory
from cython_ext.prices cimport PriceTables, TbPrices, TbRated
from cython_ext.wide cimport TbBuffer, i128


cdef enum:                      # Paid.payer
    BY_WALLET, BY_BUCKET
    BY_NOBODY                   # the usage is absorbed: recorded, not charged
    WRITTEN                     # the plain calculator decided the event and wrote its line


cdef struct Paid:               # a rated event that waits to be rendered
    TbRated rated               # WRITTEN: amount_pico is where the line begins in Usage.written, net_pico its size
    int32_t row
    int32_t batch               # index in Usage.batches
    uint32_t grant_at           # BY_BUCKET: the grant id in AccountStore.grants, which outlives the bucket
    uint16_t grant_size
    uint8_t payer


cdef struct Sums:               # of one hour, price book version and combination: the sums of a rollup row, in its order
    int64_t hour_us
    int32_t version
    int32_t combination
    int64_t events              # 0: nothing was summed yet; such a row is not given out
    i128 tokens
    i128 standard_micro
    i128 amount_pico
    i128 net_pico
    i128 burned_micro
    i128 charged_pico
    i128 absorbed_micro
    i128 absorbed_pico
    i128 revenue_pico


cdef struct Earned:             # journal sums of one currency and one plan label (net is 0) or price book version
    int16_t currency
    int16_t plan                # a plan's label; -1: of a price book version
    int32_t version             # -1: of a plan
    i128 amount_pico
    i128 net_pico


cdef struct Limits:             # which event times are accepted against the log's time
    int64_t future_us
    int64_t past_us
    bint limited                # False in a simulation, which has no log


cdef struct Decision:           # one event while it is decided; nothing of it is stored before every check has passed
    Account* account
    Bucket* bucket              # that pays, or NULL
    Sums* sums_at
    Earned* earned_at           # NULL where nothing is earned
    int64_t time_us             # of the event
    int64_t now_us              # at which it is decided
    int32_t version             # of the price book
    int32_t combination
    int64_t burned_micro        # standard tokens taken from the bucket
    int64_t charged_pico        # taken from the wallet, tax included
    int64_t absorbed_micro
    int64_t absorbed_pico
    int64_t revenue_pico        # without tax
    i128 remaining_micro        # of the bucket afterwards
    i128 wallet_pico            # of the account afterwards, as the next two
    i128 total_absorbed_micro
    i128 total_absorbed_pico
    Sums sums                   # afterwards, as the next one
    Earned earned
    Paid paid


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
    cdef vector[vector[uint8_t]] scope_of       # by rule and combination: SCOPE_UNKNOWN, OUT_OF_SCOPE, IN_SCOPE
    cdef vector[Sums] sums
    cdef vector[int32_t] sums_slots             # a hash table of indexes into sums; -1: empty
    cdef vector[Earned] earned
    cdef list batches                           # columns that rows of paid point into
    cdef int32_t batch                          # index of the one that is being decided
    cdef vector[Paid] paid                      # in decision order
    cdef TbBuffer written                       # lines of the plain calculator
    cdef TbBuffer frames                        # kept so that its memory is used again
    cdef int _put_rated_frame(self, bytes key, list pieces, size_t number, size_t begin, size_t end) except -1
