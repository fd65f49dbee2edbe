// Checked sums of 64 and 128 bits, checked products, the two exact divisions of a rated event, and numbers, texts and
// times as text. Plain C++ because Cython has no 128-bit integers: it takes tb_i128 for a long long, so a value of this
// type crosses into Python only through its halves (cython_ext/wide.pxd).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

typedef __int128 tb_i128;
typedef unsigned __int128 tb_u128;

static const int64_t tb_million = 1000000;                       // schemas.units.MILLION
enum { tb_pico_digits = 12, tb_micro_digits = 6 };               // schemas.units.PICO_DIGITS and MICRO_DIGITS
static const uint64_t tb_pico = 1000000000000, tb_micro = 1000000;  // 10 to the power of those

static inline tb_i128 tb_join(int64_t high, uint64_t low) { return (tb_i128)(((tb_u128)(uint64_t)high << 64) | low); }
static inline int64_t tb_high(tb_i128 value) { return (int64_t)(value >> 64); }
static inline uint64_t tb_low(tb_i128 value) { return (uint64_t)value; }
static inline tb_i128 tb_widen(int64_t value) { return value; }

// True if the exact sum, or difference, fits 128 bits. Check first and add in place afterwards: a 128-bit number that
// is kept in between is written in halves and read whole, and the processor waits for that.
static inline bool tb_sum_fits(tb_i128 a, int64_t b) {
    tb_i128 exact;
    return !__builtin_add_overflow(a, (tb_i128)b, &exact);
}
static inline bool tb_difference_fits(tb_i128 a, int64_t b) {
    tb_i128 exact;
    return !__builtin_sub_overflow(a, (tb_i128)b, &exact);
}

// Each of these returns true where the exact result does not fit 64 bits, and then leaves its target as it was.
static inline bool tb_add_64(int64_t* sum, int64_t value) {
    int64_t exact;
    if (__builtin_add_overflow(*sum, value, &exact)) return true;
    *sum = exact;
    return false;
}
static inline bool tb_multiply_64(int64_t a, int64_t b, int64_t* product) {
    int64_t exact;
    if (__builtin_mul_overflow(a, b, &exact)) return true;
    *product = exact;
    return false;
}

// Net of tax, half even: amount x 1e6 / divisor, for 0 <= amount < 2^63 and 1e6 <= divisor <= 2e6. It is at most the
// amount, so it fits; billing.tax.net_of_tax is the plain rule.
static inline int64_t tb_net(int64_t amount, int64_t divisor) {
    const uint64_t d = (uint64_t)divisor, whole = (uint64_t)amount / d, rest = (uint64_t)amount % d;
    const uint64_t scaled = rest * tb_million;            // rest < 2e6: below 2e12
    uint64_t quotient = whole * tb_million + scaled / d;  // at most amount
    const uint64_t twice = 2 * (scaled % d);              // below 4e6
    if (twice > d || (twice == d && (quotient & 1))) quotient++;
    return (int64_t)quotient;
}

// Revenue of a burn, half even: liability x burned / remaining, for 0 <= liability < 2^63 and 0 <= burned < 2^63 and
// burned < remaining < 2^127. It is at most the liability, so it fits; billing.packages.liability.earned_pico is the
// plain rule.
static inline int64_t tb_earned(int64_t liability, int64_t burned, tb_i128 remaining) {
    const tb_u128 product = (tb_u128)(uint64_t)liability * (uint64_t)burned, d = (tb_u128)remaining;  // below 2^126
    tb_u128 quotient = product / d;
    const tb_u128 twice = 2 * (product - quotient * d);  // a remainder is below d < 2^127: twice it is below 2^128
    if (twice > d || (twice == d && (quotient & 1))) quotient++;
    return (int64_t)quotient;
}

// Loads memory ahead. Any address is allowed. The empty volatile statement keeps the call: GCC takes a function that
// only prefetches for one without effect, and drops it.
static inline void tb_prefetch(const void* at) {
    __builtin_prefetch(at);
    __asm__ volatile("");
}

// Copies a text; short ones in line, in blocks that overlap.
static inline char* tb_put_bytes(char* p, const char* text, size_t size) {
    if (__builtin_constant_p(size) || size > 64) {
        memcpy(p, text, size);
    } else if (size >= 16) {
        for (size_t i = 0; i + 16 < size; i += 16) memcpy(p + i, text + i, 16);
        memcpy(p + size - 16, text + size - 16, 16);
    } else if (size >= 8) {
        memcpy(p, text, 8);
        memcpy(p + size - 8, text + size - 8, 8);
    } else if (size >= 4) {
        memcpy(p, text, 4);
        memcpy(p + size - 4, text + size - 4, 4);
    } else {
        for (size_t i = 0; i < size; i++) p[i] = text[i];
    }
    return p + size;
}

// True if one of eight bytes is a control character, a backslash, or (with quotes) a quotation mark.
static inline bool tb_special_8(uint64_t x, bool quotes) {
    const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
    const uint64_t backslash = x ^ (ones * '\\'), quote = x ^ (ones * '"');
    uint64_t found = ((x - ones * 0x20) & ~x) | ((backslash - ones) & ~backslash);
    if (quotes) found |= (quote - ones) & ~quote;
    return found & tops;
}

// Copies a text of 4 to 15 bytes without special characters; else returns false and leaves p undefined.
static inline bool tb_put_short(char* p, const char* text, size_t size, bool quotes) {
    uint64_t head = 0, tail = 0;
    if (size >= 8) {
        memcpy(&head, text, 8);
        memcpy(&tail, text + size - 8, 8);
        if (tb_special_8(head, quotes) || tb_special_8(tail, quotes)) return false;
        memcpy(p, &head, 8);
        memcpy(p + size - 8, &tail, 8);
        return true;
    }
    uint32_t first, last;
    memcpy(&first, text, 4);
    memcpy(&last, text + size - 4, 4);
    if (tb_special_8((uint64_t)last << 32 | first, quotes)) return false;
    memcpy(p, &first, 4);
    memcpy(p + size - 4, &last, 4);
    return true;
}

static const char tb_pairs[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

// Writes exactly `places` digits, with leading zeros.
static inline char* tb_put_padded(char* p, uint64_t value, int places) {
    char* const end = p + places;
    char* at = end;
    for (; places >= 2; places -= 2) {
        at -= 2;
        memcpy(at, tb_pairs + 2 * (value % 100), 2);
        value /= 100;
    }
    if (places) *--at = (char)('0' + value % 10);
    return end;
}

// Returns the eight digits of a value below 1e8, the first in the lowest byte, as numbers from 0 to 9.
static inline uint64_t tb_eight(uint64_t value) {
    const uint64_t fours = value / 10000 | (value % 10000) << 32;
    const uint64_t tops = ((fours * 10486) >> 20) & 0x0000007f0000007fULL;
    const uint64_t twos = tops + ((fours - 100 * tops) << 16);
    const uint64_t tens = ((twos * 103) >> 10) & 0x000f000f000f000fULL;
    return tens + ((twos - 10 * tens) << 8);
}

static const uint64_t tb_zeros = 0x3030303030303030ULL;

// Writes a number; up to seven bytes behind its end are overwritten.
static inline char* tb_put_u64(char* p, uint64_t value) {
    if (value >= 100000000) {
        p = tb_put_u64(p, value / 100000000);
        const uint64_t digits = tb_eight(value % 100000000) + tb_zeros;
        memcpy(p, &digits, 8);
        return p + 8;
    }
    const uint64_t raw = tb_eight(value);
    const int skipped = __builtin_ctzll(raw | 1ULL << 56) / 8;
    const uint64_t digits = (raw + tb_zeros) >> (8 * skipped);
    memcpy(p, &digits, 8);
    return p + 8 - skipped;
}

static inline char* tb_put_u128(char* p, tb_u128 value) {
    const uint64_t chunk = 1000000000000000000ULL;  // 1e18
    if ((value >> 64) == 0) return tb_put_u64(p, (uint64_t)value);
    const tb_u128 rest = value / chunk;
    p = tb_put_u128(p, rest);
    return tb_put_padded(p, (uint64_t)(value - rest * chunk), 18);
}

static inline char* tb_put_i128(char* p, tb_i128 value) {
    if (value >= 0) return tb_put_u128(p, (tb_u128)value);
    *p++ = '-';
    return tb_put_u128(p, -(tb_u128)value);
}

// Writes a fraction of 6 or 12 digits with its point and without trailing zeros; nothing where it is 0. Up to 16 bytes
// are overwritten.
static inline char* tb_put_fraction(char* p, uint64_t fraction, int places) {
    if (fraction == 0) return p;
    *p++ = '.';
    const uint64_t head = tb_eight(places == tb_micro_digits ? fraction * 100 : fraction / 10000);
    const uint64_t tail = places == tb_micro_digits ? 0 : tb_eight(fraction % 10000 * 10000);
    uint64_t digits = head + tb_zeros;
    memcpy(p, &digits, 8);
    if (tail == 0) return p + 8 - __builtin_clzll(head) / 8;
    digits = tail + tb_zeros;
    memcpy(p + 8, &digits, 8);
    return p + 16 - __builtin_clzll(tail) / 8;
}

// schemas.units.format_scaled: unit is 10^places. The magnitude of the least number fits the unsigned type.
static inline char* tb_put_scaled_64(char* p, int64_t value, uint64_t unit, int places) {
    uint64_t magnitude = (uint64_t)value;
    if (value < 0) {
        *p++ = '-';
        magnitude = 0 - magnitude;
    }
    p = tb_put_u64(p, magnitude / unit);
    return tb_put_fraction(p, magnitude % unit, places);
}
static inline char* tb_put_pico_64(char* p, int64_t value) {
    return tb_put_scaled_64(p, value, tb_pico, tb_pico_digits);
}
static inline char* tb_put_micro_64(char* p, int64_t value) {
    return tb_put_scaled_64(p, value, tb_micro, tb_micro_digits);
}

static inline char* tb_put_scaled(char* p, tb_i128 value, uint64_t unit, int places) {
    if (value >= INT64_MIN && value <= INT64_MAX) return tb_put_scaled_64(p, (int64_t)value, unit, places);
    tb_u128 magnitude = (tb_u128)value;
    if (value < 0) {
        *p++ = '-';
        magnitude = 0 - magnitude;
    }
    const tb_u128 whole = magnitude / unit;
    p = tb_put_u128(p, whole);
    return tb_put_fraction(p, (uint64_t)(magnitude - whole * unit), places);
}
static inline char* tb_put_pico(char* p, tb_i128 value) { return tb_put_scaled(p, value, tb_pico, tb_pico_digits); }
static inline char* tb_put_micro(char* p, tb_i128 value) { return tb_put_scaled(p, value, tb_micro, tb_micro_digits); }

// Writes a text inside a JSON string as json.dumps(ensure_ascii=False) does; at most 6 bytes for each byte.
static inline char* tb_put_json(char* p, const char* text, size_t size) {
    static const char hex[] = "0123456789abcdef";
    size_t i = 0;
#if defined(__SSE2__)
    // sixteen characters at a time while none needs an escape
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    for (; i + 16 <= size; i += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i*)(text + i));
        const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes);
        const __m128i found =
            _mm_or_si128(low, _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));
        if (_mm_movemask_epi8(found)) break;
        _mm_storeu_si128((__m128i*)p, bytes);
        p += 16;
    }
#endif
    if (size - i >= 4 && size - i < 16 && tb_put_short(p, text + i, size - i, true)) return p + (size - i);
    for (; i < size; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            *p++ = (char)c;
            continue;
        }
        *p++ = '\\';
        switch (c) {
            case '"': *p++ = '"'; break;
            case '\\': *p++ = '\\'; break;
            case '\n': *p++ = 'n'; break;
            case '\r': *p++ = 'r'; break;
            case '\t': *p++ = 't'; break;
            case '\f': *p++ = 'f'; break;
            case '\b': *p++ = 'b'; break;
            default:
                memcpy(p, "u00", 3);
                p[3] = hex[c >> 4];
                p[4] = hex[c & 15];
                p += 5;
        }
    }
    return p;
}

// Writes a column of PostgreSQL COPY text (billing.commits.copy_text.copy_field); at most 2 bytes for each byte.
static inline char* tb_put_copy(char* p, const char* text, size_t size) {
    if (size >= 4 && size < 16 && tb_put_short(p, text, size, false)) return p + size;
    for (size_t i = 0; i < size; i++) {
        const char c = text[i];
        if (c != '\\' && (c < '\b' || c > '\r')) {
            *p++ = c;
            continue;
        }
        *p++ = '\\';
        *p++ = c == '\\' ? '\\' : "btnvfr"[c - '\b'];
    }
    return p;
}

// schemas.times.format_time_us for 0 <= value < 253402300800000000 (years 1970 to 9999).
static inline char* tb_put_time(char* p, int64_t value_us) {
    const uint64_t value = (uint64_t)value_us, seconds = value / 1000000u, micros = value % 1000000u;
    const uint64_t days = seconds / 86400u, second = seconds % 86400u;
    const uint64_t shifted = days + 719468u, era = shifted / 146097u, day_of_era = shifted % 146097u;
    const uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const uint64_t month_from_march = (5 * day_of_year + 2) / 153;
    const uint64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    p = tb_put_padded(p, year_of_era + era * 400 + (month <= 2), 4);
    *p++ = '-';
    p = tb_put_padded(p, month, 2);
    *p++ = '-';
    p = tb_put_padded(p, day_of_year - (153 * month_from_march + 2) / 5 + 1, 2);
    *p++ = 'T';
    p = tb_put_padded(p, second / 3600, 2);
    *p++ = ':';
    p = tb_put_padded(p, second / 60 % 60, 2);
    *p++ = ':';
    p = tb_put_padded(p, second % 60, 2);
    if (micros) {
        *p++ = '.';
        p = tb_put_padded(p, micros, 6);
    }
    *p++ = 'Z';
    return p;
}

// Returns the closing quote of a JSON string that begins at p, if it is ASCII without escapes or control characters;
// else NULL.
static inline const char* tb_plain_end(const char* p, const char* end) {
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
    while (end - p >= 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
        // signed comparison: control characters and bytes above 0x7f are both below the space
        const __m128i special = _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash));
        const int found = _mm_movemask_epi8(_mm_or_si128(_mm_cmplt_epi8(bytes, space), special));
        if (found) {
            p += __builtin_ctz((unsigned)found);
            return *p == '"' ? p : nullptr;
        }
        p += 16;
    }
#endif
    for (; p < end; p++) {
        const signed char c = (signed char)*p;
        if (c == '"') return p;
        if (c < ' ' || c == '\\') return nullptr;
    }
    return nullptr;
}

// Text that grows at its end: call room, write there, and call wrote with the end of what was written. Where memory
// runs out the process aborts: nothing was committed, and a loop over rows needs no error path.
struct TbBuffer {
    char* data = nullptr;
    size_t size = 0, capacity = 0;

    TbBuffer() = default;
    TbBuffer(const TbBuffer&) = delete;
    TbBuffer& operator=(const TbBuffer&) = delete;
    ~TbBuffer() { free(data); }

    char* room(size_t most) {
        if (capacity - size < most) {
            capacity = 2 * capacity + most + 4096;
            char* wider = (char*)realloc(data, capacity);
            if (!wider) std::abort();
            data = wider;
        }
        return data + size;
    }
    void swap(TbBuffer& other) {
        std::swap(data, other.data);
        std::swap(size, other.size);
        std::swap(capacity, other.capacity);
    }
    void wrote(const char* end) { size = (size_t)(end - data); }
    void put(const char* text, size_t length) {
        char* p = room(length);
        memcpy(p, text, length);
        size += length;
    }
};

// A text to be sorted by its bytes, and the place it belongs to. The first sixteen bytes decide most comparisons.
struct TbNamed {
    uint64_t first = 0, second = 0;  // big-endian, so that they sort as the bytes do
    const char* text = nullptr;
    uint32_t size = 0;
    int32_t place = 0;

    TbNamed() = default;
    TbNamed(const char* text, size_t size, int32_t place) : text(text), size((uint32_t)size), place(place) {
        unsigned char bytes[16] = {0};
        memcpy(bytes, text, size < 16 ? size : 16);
        memcpy(&first, bytes, 8);
        memcpy(&second, bytes + 8, 8);
        first = __builtin_bswap64(first);
        second = __builtin_bswap64(second);
    }
    bool operator<(const TbNamed& other) const {
        if (first != other.first) return first < other.first;
        if (second != other.second) return second < other.second;
        const int order = memcmp(text, other.text, size < other.size ? size : other.size);
        return order < 0 || (order == 0 && size < other.size);
    }
};
