# What wide.hpp offers. Cython takes i128 for a long long: never let one become a Python object by itself (from_wide),
# never mix it with another type in one expression (tb_widen).

from libc.stdint cimport int64_t, uint64_t


cdef extern from "wide.hpp" nogil:
    ctypedef long long i128 "tb_i128"
    i128 tb_join(int64_t high, uint64_t low) noexcept
    int64_t tb_high(i128 value) noexcept
    uint64_t tb_low(i128 value) noexcept
    i128 tb_widen(int64_t value) noexcept
    bint tb_add(i128* sum, i128 value) noexcept
    bint tb_subtract(i128* from_, i128 value) noexcept
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
    char* tb_put_time(char* p, int64_t value_us) noexcept
    const char* tb_plain_end(const char* p, const char* end) noexcept


cdef inline object from_wide(i128 value):
    """A 128-bit integer as a Python one."""
    return (<object>tb_high(value) << 64) | <object>tb_low(value)


cdef inline int to_wide(object value, i128* result) except -1:
    """A Python integer as 128 bits; OverflowError where it does not fit (numeric(38,0) does)."""
    result[0] = tb_join(<int64_t>(value >> 64), <uint64_t>(value & 0xFFFFFFFFFFFFFFFF))
    return 0


cdef extern from "wide.hpp" nogil:
    cdef cppclass TbBuffer:
        char* data
        size_t size
        char* room(size_t most) noexcept
        void wrote(const char* end) noexcept
        void put(const char* text, size_t length) noexcept

    void tb_prefetch "__builtin_prefetch"(const void* at) noexcept
