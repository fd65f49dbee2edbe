from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t
from libcpp.unordered_map cimport unordered_map
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from cython_ext.decode cimport BUILT_IN_METERS, Span


# Everything here searches tables that are filled beforehand, or writes into room that was asked for: it allocates
# nothing and cannot fail, so it is noexcept. TbPrices.rate returns what an event needs where a product or sum does not
# fit.
cdef extern from "prices.hpp" nogil:
    enum:                       # their values are in prices.hpp
        DONE "tb_priced"
        DUPLICATE_DONE "tb_duplicate"
        NEEDS_SCOPE "tb_needs_scope"
        NEEDS_PLAIN "tb_needs_plain"
        ALL_DONE "tb_all_done"
        tb_refused
        tb_plain_price, tb_unknown_price, tb_no_row_price

    cdef struct TbPiece:
        uint32_t at
        uint32_t size

    cdef cppclass TbVersion:
        int16_t book
        int16_t currency
        int64_t tax_divisor
        int64_t latest_us
        TbPiece head
        TbPiece label
        vector[int64_t] edges
        vector[int64_t] output_edges
        vector[int32_t] price_of
        unordered_map[int64_t, int32_t] bands_of
        int64_t last_slot

    cdef cppclass TbUnitPrice:
        int64_t price_pico
        int64_t coefficient_micro
        TbPiece piece

    cdef cppclass TbPrice:
        uint32_t priced
        TbUnitPrice of[BUILT_IN_METERS]
        TbPiece missing
        TbPiece missing_middle
        TbPiece missing_tail

    cdef struct TbNoRow:
        TbPiece head
        TbPiece between
        TbPiece tail

    cdef struct TbRated:
        int64_t amount_pico
        int64_t net_pico
        int64_t standard_micro
        int64_t tokens
        int32_t version
        int32_t price

    cdef struct TbWanted:
        int32_t version
        int32_t combination
        int32_t segment
        int32_t bands
        int64_t slot

    cdef cppclass TbPrices:
        vector[TbVersion] versions
        vector[vector[pair[int64_t, int32_t]]] in_force
        vector[TbPrice] prices
        unordered_map[uint64_t, int32_t] momentary
        vector[char] pieces
        TbPiece meter_heads[BUILT_IN_METERS]
        TbPiece meter_names[BUILT_IN_METERS]
        uint32_t context_meters
        uint32_t output_meters
        vector[TbNoRow] no_row
        TbPiece outside
        TbPiece outside_tail
        TbWanted wanted
        int32_t version_at(int16_t book, int64_t time_us) noexcept
        uint64_t situation(int32_t version, int32_t combination, int32_t segment, int32_t bands) noexcept
        int rate(
            int32_t version, int32_t combination, int64_t time_us, const int16_t* meters, const int64_t* counts,
            uint32_t number, bint one_request, TbRated* rated
        ) noexcept
        int refuse_outside(int64_t time_us) noexcept
        size_t most_of_refusal() noexcept
        char* put_refusal(char* p, const Span& source, const Span& id) noexcept
        size_t most_of_line(const TbRated& rated, uint32_t number) noexcept
        char* put_plain_line "put_line<true>"(
            char* p, const Span& source, const Span& id, const Span& account, const TbRated& rated,
            const int16_t* meters, const int64_t* counts, uint32_t number
        ) noexcept
        char* put_line "put_line<false>"(
            char* p, const Span& source, const Span& id, const Span& account, const TbRated& rated,
            const int16_t* meters, const int64_t* counts, uint32_t number
        ) noexcept


cdef class PriceTables:
    cdef TbPrices tables
    cdef TbVersion* _version(self, int32_t version, int32_t combination, int32_t price) except NULL
    cdef TbPiece _piece(self, bytes text) except *
