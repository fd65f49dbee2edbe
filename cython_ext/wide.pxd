# The functions of wide.hpp. Cython takes i128 for a long long: make a Python object of one only with from_wide, and
# widen other numbers with tb_widen before an expression mixes them with it.
#
# All are noexcept: they compute with numbers, or write into room that was asked for before, and allocate nothing. Where
# a result of 64 bits may not fit, they return True. TbBuffer aborts the process where memory runs out.

from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport int64_t, uint64_t


cdef enum:
    MAX_INT64 = 0x7FFFFFFFFFFFFFFF

cdef enum:                      # bounds of what is written
    JSON_GROWTH = 6             # bytes of JSON for a byte of a text, as tb_put_json writes it
    COPY_GROWTH = 2             # bytes of COPY text for a byte of a text, as tb_put_copy writes it
    MAX_NUMBER = 45         # bytes of a number of 128 bits and the tab before it


cdef extern from "wide.hpp" nogil:
    int64_t tb_million          # schemas.units.MILLION
    ctypedef long long i128 "tb_i128"
    i128 tb_join(int64_t high, uint64_t low) noexcept
    int64_t tb_high(i128 value) noexcept
    uint64_t tb_low(i128 value) noexcept
    i128 tb_widen(int64_t value) noexcept
    bint tb_sum_fits(i128 a, int64_t b) noexcept
    bint tb_difference_fits(i128 a, int64_t b) noexcept
    bint tb_multiply_64(int64_t a, int64_t b, int64_t* product) noexcept
    bint tb_add_64(int64_t* sum, int64_t value) noexcept
    int64_t tb_net(int64_t amount, int64_t divisor) noexcept
    int64_t tb_earned(int64_t liability, int64_t burned, i128 remaining) noexcept
    char* tb_put_bytes(char* p, const char* text, size_t size) noexcept
    char* tb_put_u64(char* p, uint64_t value) noexcept
    char* tb_put_i128(char* p, i128 value) noexcept
    char* tb_put_pico_64(char* p, int64_t value) noexcept
    char* tb_put_micro_64(char* p, int64_t value) noexcept
    char* tb_put_pico(char* p, i128 value) noexcept
    char* tb_put_micro(char* p, i128 value) noexcept
    char* tb_put_json(char* p, const char* text, size_t size) noexcept
    char* tb_put_copy(char* p, const char* text, size_t size) noexcept
    char* tb_put_padded(char* p, uint64_t value, int places) noexcept
    char* tb_put_time(char* p, int64_t value_us) noexcept
    const char* tb_plain_end(const char* p, const char* end) noexcept


cdef inline object from_wide(i128 value):
    """Return a 128-bit integer as a Python one."""
    if tb_high(value) == 0 and tb_low(value) <= MAX_INT64:
        return <object>(<int64_t>tb_low(value))
    return (<object>tb_high(value) << 64) | <object>tb_low(value)


cdef inline int to_wide(object value, i128* result) except -1:
    """Store a Python integer as 128 bits.

    Raises:
        OverflowError: it does not fit. A number of SQL's numeric(38,0) does.
    """
    cdef int overflow = 0
    cdef long long small = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        result[0] = tb_join(<int64_t>(value >> 64), <uint64_t>(value & 0xFFFFFFFFFFFFFFFF))
    else:
        result[0] = tb_widen(small)
    return 0


cdef extern from "wide.hpp" nogil:
    cdef cppclass TbBuffer:
        char* data
        size_t size
        char* room(size_t most) noexcept
        void swap(TbBuffer& other) noexcept
        void wrote(const char* end) noexcept
        void put(const char* text, size_t length) noexcept

    void tb_prefetch(const void* at) noexcept
