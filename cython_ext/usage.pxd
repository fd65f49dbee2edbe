from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport Account, AccountStore, Bucket
from cython_ext.decode cimport Decoder
from cython_ext.dedupe cimport Memory
from cython_ext.lines cimport Paid, RatedLines
from cython_ext.prices cimport PriceTables, TbPrices
from cython_ext.sums cimport CommitSums, Earned, Sums


cdef struct Limits:             # which event times are accepted against the log's time
    int64_t future_us
    int64_t past_us
    bint limited                # False in a simulation, which has no log


cdef struct Decision:           # one event while it is decided; nothing of it is stored before every check has passed
    Account* account
    Bucket* bucket              # that pays the whole event, or NULL
    Sums* sums                  # of the rollup row to add to
    Earned* earned              # journal sums to add to, or NULL
    int64_t time_us             # of the event
    int64_t now_us              # at which it is decided
    int32_t version             # of the price book
    int32_t combination
    int64_t revenue_pico        # without tax
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
    cdef vector[int32_t] part                   # places of the buckets that decide the row that needs them
    cdef vector[Py_ssize_t] marked              # rows marked 2 that the batch rated so far
    cdef vector[int32_t] partition_hash         # by number of the account
    cdef vector[vector[uint8_t]] scope_of       # by rule and combination: SCOPE_UNKNOWN, OUT_OF_SCOPE, IN_SCOPE
    cdef readonly CommitSums sums
    cdef readonly RatedLines lines
