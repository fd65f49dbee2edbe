// BLAKE2b (RFC 7693) of short texts, for the hashes of rows: billing.commits.row_hashes is the plain rule, and
// tests/billing/calculator/test_row_hashes_agree.py compares it with hashlib under random input. No Python here.
#pragma once

#include <cstdint>
#include <cstring>

// The words in which every hash begins: fractional parts of square roots of primes.
struct TbBlake2bStart {
    uint64_t words[8] = {0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
                         0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL};
};
static const TbBlake2bStart tb_blake2b_start;

enum { TB_BLAKE2B_BLOCK = 128 };

// One of the twelve rounds: the order in which it takes the words of the message is part of its type, so that every
// index is known when it is compiled. A word is one number, or the numbers of four texts side by side.
template <int m0, int m1, int m2, int m3, int m4, int m5, int m6, int m7, int m8, int m9, int m10, int m11, int m12,
          int m13, int m14, int m15, class Word>
static inline __attribute__((always_inline)) void tb_blake2b_round(Word* v, const Word* m) {
#define TB_ROTATED(value, places) (value) = (value) >> (places) | (value) << (64 - (places))
#define TB_MIX(a, b, c, d, x, y) \
    v[a] += v[b] + m[x];         \
    v[d] ^= v[a];                \
    TB_ROTATED(v[d], 32);        \
    v[c] += v[d];                \
    v[b] ^= v[c];                \
    TB_ROTATED(v[b], 24);        \
    v[a] += v[b] + m[y];         \
    v[d] ^= v[a];                \
    TB_ROTATED(v[d], 16);        \
    v[c] += v[d];                \
    v[b] ^= v[c];                \
    TB_ROTATED(v[b], 63);
    TB_MIX(0, 4, 8, 12, m0, m1)
    TB_MIX(1, 5, 9, 13, m2, m3)
    TB_MIX(2, 6, 10, 14, m4, m5)
    TB_MIX(3, 7, 11, 15, m6, m7)
    TB_MIX(0, 5, 10, 15, m8, m9)
    TB_MIX(1, 6, 11, 12, m10, m11)
    TB_MIX(2, 7, 8, 13, m12, m13)
    TB_MIX(3, 4, 9, 14, m14, m15)
#undef TB_MIX
#undef TB_ROTATED
}

template <class Word>
static inline __attribute__((always_inline)) void tb_blake2b_rounds(Word* v, const Word* m) {
    tb_blake2b_round<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(v, m);
    tb_blake2b_round<14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3>(v, m);
    tb_blake2b_round<11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4>(v, m);
    tb_blake2b_round<7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8>(v, m);
    tb_blake2b_round<9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13>(v, m);
    tb_blake2b_round<2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9>(v, m);
    tb_blake2b_round<12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11>(v, m);
    tb_blake2b_round<13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10>(v, m);
    tb_blake2b_round<6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5>(v, m);
    tb_blake2b_round<10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0>(v, m);
    tb_blake2b_round<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(v, m);
    tb_blake2b_round<14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3>(v, m);
}

// The state of one hash. The processor is little-endian, as everywhere in the core.
struct TbBlake2b {
    uint64_t h[8];

    // `salt` has 2 words and `person` 16 bytes, as those of hashlib.blake2b.
    void begin(uint32_t digest_bytes, const uint64_t* salt, const char* person) {
        memcpy(h, tb_blake2b_start.words, sizeof h);
        h[0] ^= 0x01010000ULL | digest_bytes;
        h[4] ^= salt[0];
        h[5] ^= salt[1];
        uint64_t words[2];
        memcpy(words, person, 16);
        h[6] ^= words[0];
        h[7] ^= words[1];
    }

    void take_block(const char* block, uint64_t bytes_so_far, bool last) {
        uint64_t m[16], v[16];
        memcpy(m, block, TB_BLAKE2B_BLOCK);
        memcpy(v, h, sizeof h);
        memcpy(v + 8, tb_blake2b_start.words, sizeof h);
        v[12] ^= bytes_so_far;  // the upper half of this number stays 0: no text has 2^64 bytes
        if (last) v[14] = ~v[14];
        tb_blake2b_rounds(v, m);
        for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
    }

    void take_all(const char* text, size_t size) {
        char rest[TB_BLAKE2B_BLOCK];
        size_t at = 0;
        for (; size - at > TB_BLAKE2B_BLOCK; at += TB_BLAKE2B_BLOCK) take_block(text + at, at + TB_BLAKE2B_BLOCK, false);
        memset(rest, 0, sizeof rest);
        memcpy(rest, text + at, size - at);
        take_block(rest, size, true);
    }
};

enum { TB_LANES = 4 };

#if defined(__x86_64__) && defined(__GNUC__)
typedef uint64_t TbLanes __attribute__((vector_size(8 * TB_LANES)));

// Takes four texts, each into a state of its own, side by side in the registers of AVX2. Every text takes as many steps
// as the longest; a state whose text has ended stays as it is.
static __attribute__((target("avx2"))) void tb_take_four(
    TbBlake2b* states, const char* const* texts, const size_t* sizes) {
    char rest[TB_LANES][TB_BLAKE2B_BLOCK];
    size_t blocks[TB_LANES], most = 0;
    TbLanes h[8];
    for (int lane = 0; lane < TB_LANES; lane++) {
        blocks[lane] = sizes[lane] ? (sizes[lane] - 1) / TB_BLAKE2B_BLOCK + 1 : 1;
        if (blocks[lane] > most) most = blocks[lane];
        const size_t whole = (blocks[lane] - 1) * TB_BLAKE2B_BLOCK;
        memset(rest[lane], 0, TB_BLAKE2B_BLOCK);
        memcpy(rest[lane], texts[lane] + whole, sizes[lane] - whole);
        for (int i = 0; i < 8; i++) h[i][lane] = states[lane].h[i];
    }
    for (size_t block = 0; block < most; block++) {
        TbLanes m[16], v[16], taken = {0, 0, 0, 0}, counts = {0, 0, 0, 0}, ends = {0, 0, 0, 0};
        uint64_t words[TB_LANES][16];
        for (int lane = 0; lane < TB_LANES; lane++) {
            const bool last = block + 1 >= blocks[lane];
            memcpy(words[lane], last ? rest[lane] : texts[lane] + block * TB_BLAKE2B_BLOCK, TB_BLAKE2B_BLOCK);
            taken[lane] = block < blocks[lane] ? ~0ULL : 0;
            ends[lane] = last ? ~0ULL : 0;
            counts[lane] = last ? sizes[lane] : (block + 1) * TB_BLAKE2B_BLOCK;
        }
        for (int i = 0; i < 16; i++) m[i] = TbLanes{words[0][i], words[1][i], words[2][i], words[3][i]};
        for (int i = 0; i < 8; i++) {
            const uint64_t word = tb_blake2b_start.words[i];
            v[i] = h[i];
            v[i + 8] = TbLanes{word, word, word, word};
        }
        v[12] ^= counts;
        v[14] ^= ends;
        tb_blake2b_rounds(v, m);
        for (int i = 0; i < 8; i++) h[i] ^= (v[i] ^ v[i + 8]) & taken;
    }
    for (int lane = 0; lane < TB_LANES; lane++)
        for (int i = 0; i < 8; i++) states[lane].h[i] = h[i][lane];
}

static inline bool tb_has_lanes() { return __builtin_cpu_supports("avx2"); }
#else
static inline bool tb_has_lanes() { return false; }
static inline void tb_take_four(TbBlake2b*, const char* const*, const size_t*) {}
#endif

// Hashes up to four texts, each from the same begin.
static inline void tb_hash_each(
    TbBlake2b* states, const TbBlake2b* begun, const char* const* texts, const size_t* sizes, int count) {
    for (int i = 0; i < count; i++) states[i] = *begun;
    if (count == TB_LANES && tb_has_lanes()) {
        tb_take_four(states, texts, sizes);
        return;
    }
    for (int i = 0; i < count; i++) states[i].take_all(texts[i], sizes[i]);
}

// A number of 512 bits, least word first. It wraps around.
struct TbSum512 {
    uint64_t words[8];

    void add(const uint64_t* more) {
        unsigned char carry = 0;
        for (int i = 0; i < 8; i++) {
            const unsigned __int128 sum = (unsigned __int128)words[i] + more[i] + carry;
            words[i] = (uint64_t)sum;
            carry = (unsigned char)(sum >> 64);
        }
    }
};

// Adds what up to four hashes of 32 bytes count in the sum of a table: billing.commits.row_hashes.weight.
static inline void tb_add_weights(TbSum512* sum, const TbBlake2b* begun, const char* const* row_hashes, int count) {
    static const size_t sizes[TB_LANES] = {32, 32, 32, 32};
    TbBlake2b states[TB_LANES];
    tb_hash_each(states, begun, row_hashes, sizes, count);
    for (int i = 0; i < count; i++) sum->add(states[i].h);
}

static inline char* tb_put_hex(char* p, const unsigned char* bytes, size_t size) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        p[2 * i] = digits[bytes[i] >> 4];
        p[2 * i + 1] = digits[bytes[i] & 15];
    }
    return p + 2 * size;
}
