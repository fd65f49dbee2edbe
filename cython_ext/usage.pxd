from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp.unordered_map cimport unordered_map
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from cython_ext.accounts cimport Account, AccountStore, Bucket
from cython_ext.decode cimport Decoder, EventColumns
from cython_ext.dedupe cimport Memory
from cython_ext.tables cimport TextTable
from cython_ext.wide cimport TbBuffer, i128


cdef enum:
    PRICED_METERS = 24      # the built-in meters; an event that counts another goes the plain way


cdef struct Version:        # one version of a price book
    int16_t book            # numbers in AccountStore.words
    int16_t currency
    int64_t tax_divisor     # a million and the tax rate in millionths
    int64_t latest_us       # greatest event time rated since the last commit; -1: none
    uint32_t head_at        # in Usage.pieces: from after the account to the amount
    uint32_t head_size
    uint32_t label_at       # from after the standard tokens to the first line
    uint32_t label_size


cdef struct Price:          # a combination in a version
    uint32_t priced         # bit i: meter i has a price
    int64_t price_pico[PRICED_METERS]
    int64_t coefficient_micro[PRICED_METERS]
    uint32_t piece_at[PRICED_METERS]        # in Usage.pieces: from after the quantity to the amount
    uint32_t piece_size[PRICED_METERS]


cdef enum:
    BY_WALLET, BY_BUCKET, BY_NOBODY, WRITTEN    # who paid; WRITTEN: the plain rule wrote the line


cdef struct Paid:           # a rated row that waits to be rendered
    int64_t amount_pico     # WRITTEN: where the line begins in Usage.written
    int64_t net_pico        # WRITTEN: its size
    int64_t standard_micro
    int32_t row
    int32_t batch           # in Usage.batches
    int32_t version
    int32_t price
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
    cdef readonly int wanted_version
    cdef readonly int wanted_combination
    cdef readonly int wanted_rule
    cdef readonly int wanted_segment
    cdef readonly int64_t wanted_slot
    cdef readonly int64_t log_time_us
    cdef readonly int64_t rated
    cdef readonly int64_t duplicate
    cdef vector[int32_t] partition_hash         # by number of the account
    cdef vector[Version] versions
    cdef vector[vector[pair[int64_t, int32_t]]] in_force    # by word of the book: (effective from, version), sorted
    cdef vector[vector[int32_t]] price_of       # by version and combination: a price, or one of the codes below
    cdef vector[vector[int64_t]] context_edges  # by version: contexts at which a price may change, rising
    cdef unordered_map[uint64_t, int32_t] price_at      # by version, combination, context segment and time slot
    cdef vector[Price] prices
    cdef vector[vector[uint8_t]] scope_of       # by rule and combination; 0 not known, 1 no, 2 yes
    cdef vector[char] pieces
    cdef vector[Sums] sums
    cdef vector[int32_t] sums_slots
    cdef vector[Earned] earned
    cdef list batches                           # columns that rows of paid point into
    cdef int32_t batch                          # the one that is being decided
    cdef vector[Paid] paid                      # in decision order
    cdef TbBuffer written                       # lines of the plain rule
    cdef TbBuffer frames                        # kept for its room
    cdef int _decide(self, EventColumns columns, Py_ssize_t row, bint limited, int64_t future_us, int64_t past_us) noexcept nogil
    cdef int32_t _price_at(self, EventColumns columns, Py_ssize_t row, int version, int32_t combination) noexcept nogil
    cdef int _version(self, int16_t book, int64_t time_us) noexcept nogil
    cdef Sums* _sums(self, int64_t hour_us, int32_t version, int32_t combination) noexcept nogil
    cdef Earned* _earned(self, int16_t currency, int16_t plan, int32_t version) noexcept nogil
    cdef char* _put_line(self, char* p, EventColumns columns, Paid* paid) noexcept nogil
    cdef size_t _most(self, EventColumns columns, Paid* paid) noexcept nogil
    cdef void _fetch(self, EventColumns columns, Paid* paid, int32_t batch) noexcept nogil
    cdef (uint32_t, uint32_t) _piece(self, bytes text) except *
