// The shapes of events: the text between their values. Events of one producer have few shapes. An event is read by
// comparing that text and finding where each value ends; its keys are not parsed.
//
// A shape is learned from an event that the scanner of cython_ext.decode accepted. An event of the same shape differs
// from it only in plain strings and small counts, so the scanner would accept it too, with the same keys. Shapes form a
// tree: those that begin alike share their beginning, and where several texts may follow a value, each is tried.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include <Python.h>

#include "wide.hpp"

struct TbSpan {
    const char* at;  // NULL: absent or null
    Py_ssize_t size;
};

enum {
    tb_attributes = 8,   // of the envelope
    tb_fields = 15,      // of the data, the usage last: schemas.usage.UsageData
    tb_dimensions = 7,   // of a combination, the first fields: schemas.usage.DIMENSIONS
    tb_max_tags = 8,     // attributes that books declare as dimensions: billing.catalog.read_book.MAX_DIMENSIONS
    tb_meters = 24,      // schemas.meters.METERS
    tb_max_text = 256,   // bytes of UTF-8: schemas.fields.MAX_TEXT_BYTES
    tb_max_digits = 18,  // of a count or sequence: they fit 63 bits
    tb_max_marks = 64,   // of a shape
    tb_most_leaves = 128,  // of a dialect's table
    tb_most_real = 32,     // characters of a number that is skipped
    tb_no_dialect = -1,
};
enum TbMarkKind : uint8_t {
    tb_attribute,
    tb_field,
    tb_count,
    tb_skipped_text,
    tb_skipped_number,
    tb_leaf,
    tb_skipped_real,
    tb_tag,       // a declared attribute that is text
    tb_tag_word,  // a declared attribute that is a small integer, true or false
    tb_shape_end,
};

struct TbMark {  // a value that may differ in the next event of the same shape
    const char* at;
    uint32_t size;
    uint8_t kind, slot;
};

struct TbScan {
    TbSpan attributes[tb_attributes];
    TbSpan fields[tb_fields];
    uint32_t attributes_seen, fields_seen, meters_seen;
    int64_t counts[tb_meters];
    int dialect;  // number in TbDialects, or tb_no_dialect
    uint64_t leaves_seen[tb_most_leaves / 64];  // rows of the dialect's table
    int64_t leaves[tb_most_leaves];             // of the usage object, by row; those that are seen
    int64_t time_us, sequence;
    const char* end;
    int marks_number;  // more than tb_max_marks: the event has no shape
    TbMark marks[tb_max_marks];
    const TbSpan* tag_names;  // of the declared attributes, sorted
    int tag_number;           // of them; -1: too many to be read here
    TbSpan tags[tb_max_tags];
    uint32_t tags_seen;
    TbSpan region;  // from the first dimension to the last, where no other value lies between; else NULL
    uint32_t region_hash;
    uint8_t region_first;  // the first dimension in it
};

static inline void tb_mark(TbScan* scan, uint8_t kind, int slot, const char* at, const char* end) {
    if (scan->marks_number < tb_max_marks)
        scan->marks[scan->marks_number] = {at, (uint32_t)(end - at), kind, (uint8_t)slot};
    scan->marks_number++;
}

// True if the text at p is the literal of this size. The literal is read 16 bytes at a time, beyond its end too; p is
// read up to end.
static inline bool tb_same(const char* p, const char* end, const char* literal, size_t size) {
    if ((size_t)(end - p) < ((size + 15) & ~(size_t)15))
        return (size_t)(end - p) >= size && memcmp(p, literal, size) == 0;
#if defined(__SSE2__)
    for (size_t i = 0; i < size; i += 16) {
        const unsigned equal = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(
            _mm_loadu_si128((const __m128i*)(p + i)), _mm_loadu_si128((const __m128i*)(literal + i))));
        const unsigned wanted = size - i >= 16 ? 0xffffu : (1u << (size - i)) - 1;
        if ((equal & wanted) != wanted) return false;
    }
    return true;
#else
    return memcmp(p, literal, size) == 0;
#endif
}

// Returns the end of a JSON number at p that has at most tb_most_real characters, or NULL.
static inline const char* tb_real_end(const char* p, const char* end) {
    const char* const first = p;
    if (p < end && *p == '-') p++;
    const char* const digits = p;
    while (p < end && (unsigned)(*p - '0') < 10) p++;
    if (p == digits || (*digits == '0' && p - digits > 1)) return nullptr;
    if (p < end && *p == '.') {
        const char* const fraction = ++p;
        while (p < end && (unsigned)(*p - '0') < 10) p++;
        if (p == fraction) return nullptr;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        if (++p < end && (*p == '+' || *p == '-')) p++;
        const char* const exponent = p;
        while (p < end && (unsigned)(*p - '0') < 10) p++;
        if (p == exponent) return nullptr;
    }
    return p < end && p - first <= tb_most_real ? p : nullptr;
}

// Reads at most tb_max_digits digits at p as a count; returns their end, or NULL where there is no count.
static inline const char* tb_digits(const char* p, const char* end, int64_t* count) {
    uint64_t value = 0;
    const char* const first = p;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (end - p >= 8) {  // most counts have fewer than eight digits: no branch for each
        uint64_t eight;
        memcpy(&eight, p, 8);
        const uint64_t digits = eight ^ 0x3030303030303030ULL;
        const uint64_t others = (digits | (digits + 0x7676767676767676ULL)) & 0x8080808080808080ULL;
        const int number = others ? __builtin_ctzll(others) / 8 : 8;
        if (number == 0) return nullptr;
        if (number < 8) {
            if (number > 1 && *p == '0') return nullptr;
            value = digits << (64 - 8 * number);
            value = value * 10 + (value >> 8);
            *count = (int64_t)((((value & 0x000000FF000000FFULL) * 0x000F424000000064ULL) +
                                (((value >> 16) & 0x000000FF000000FFULL) * 0x0000271000000001ULL)) >> 32);
            return p + number;
        }
    }
#endif
    for (unsigned digit; p < end && (digit = (unsigned char)*p - (unsigned)'0') < 10; p++) {
        if (p - first == tb_max_digits) return nullptr;
        value = 10 * value + digit;
    }
    if (p == first || (*first == '0' && p - first > 1)) return nullptr;
    *count = (int64_t)value;
    return p;
}

// Returns the end of true, false or a small integer at p, or NULL.
static inline const char* tb_word_end(const char* p, const char* end) {
    int64_t ignored;
    if (end - p >= 4 && memcmp(p, "true", 4) == 0) return p + 4;
    if (end - p >= 5 && memcmp(p, "false", 5) == 0) return p + 5;
    return tb_digits(p, end, &ignored);
}

struct TbShape {
    uint32_t meters_seen;
    int dialect;
    uint64_t leaves_seen[tb_most_leaves / 64];
    bool has_usage;
    uint8_t dimensions;  // 0: another value lies between them
    uint8_t slots[tb_dimensions];
};

// The shapes learned so far. All are forgotten when there are too many.
struct TbShapes {
    enum { most_nodes = 4096, most_literals = 1 << 20, most_beside = 24, regions_kept = 512 };

    // Reads an event by one of the shapes and returns that; else returns NULL and leaves the scan undefined.
    const TbShape* read(const char* p, TbScan* scan, bool binary) const {
        const char* const end = scan->end;
        const char* const texts = literals.data();
        int32_t at = roots[binary];
        while (at >= 0) {
            const Node& node = nodes[at];
            at = node.beside;
            if (!tb_same(p, end, texts + node.literal_at, node.literal_size)) continue;
            const char* const value = p + node.literal_size;
            if (node.kind == tb_shape_end) {
                if (value == end) return finish(shapes[node.next], scan);
                continue;
            }
            const char* stop;
            if (node.kind == tb_count || node.kind == tb_leaf || node.kind == tb_skipped_number) {
                int64_t count;
                stop = tb_digits(value, end, &count);
                if (!stop) continue;
                if (node.kind == tb_count) scan->counts[node.slot] = count;
                if (node.kind == tb_leaf) scan->leaves[node.slot] = count;
            } else if (node.kind == tb_skipped_real) {
                stop = tb_real_end(value, end);
                if (!stop) continue;
            } else if (node.kind == tb_tag_word) {
                stop = tb_word_end(value, end);
                if (!stop) continue;
                scan->tags[node.slot] = {value, stop - value};
                scan->tags_seen |= 1u << node.slot;
            } else {
                stop = tb_plain_end(value, end);
                if (!stop) continue;
                if (node.kind == tb_attribute) {
                    scan->attributes[node.slot] = {value, stop - value};
                } else if (node.kind == tb_field) {
                    if (stop - value > tb_max_text) continue;
                    scan->fields[node.slot] = {value, stop - value};
                } else if (node.kind == tb_tag) {
                    if (stop - value > tb_max_text) continue;
                    scan->tags[node.slot] = {value, stop - value};
                    scan->tags_seen |= 1u << node.slot;
                }
            }
            p = stop;
            at = node.next;
        }
        return nullptr;
    }

    // Learns the shape of an accepted event. It allocates.
    void learn(const TbScan& scan, const char* begin, bool binary) {
        if (scan.marks_number > tb_max_marks) return;
        if (nodes.size() + tb_max_marks + 1 > most_nodes) forget();
        if (literals.size() + (scan.end - begin) > most_literals) forget();
        const char* from = begin;
        int32_t before = -1, at = -1;
        int dimensions = 0, first = -1, last = -1;
        TbShape shape = {scan.meters_seen, scan.dialect, {scan.leaves_seen[0], scan.leaves_seen[1]},
                         scan.fields[tb_fields - 1].at != nullptr, 0, {0}};
        for (int i = 0; i <= scan.marks_number; i++) {
            const bool ends = i == scan.marks_number;
            const TbMark mark = ends ? TbMark{scan.end, 0, tb_shape_end, 0} : scan.marks[i];
            at = place(before, before < 0 ? roots[binary] : nodes[before].next, from, mark, binary);
            if (at < 0) {
                forget();
                return;
            }
            before = at;
            from = mark.at + mark.size;
            if (mark.kind == tb_field && mark.slot < tb_dimensions) {
                if (first < 0) first = i;
                last = i;
                shape.slots[dimensions++] = mark.slot;
            }
        }
        if (dimensions > 0 && last - first + 1 == dimensions) shape.dimensions = (uint8_t)dimensions;
        if (nodes[at].next >= 0) return;
        nodes[at].next = (int32_t)shapes.size();
        shapes.push_back(shape);
    }

    // Returns the combination of the scan's region and fills its hash, or returns -1.
    int32_t combination(const TbScan* scan, uint64_t* hash) const {
        const Region& region = regions[scan->region_hash % regions_kept];
        if (region.size != (uint64_t)scan->region.size || region.first != scan->region_first) return -1;
        if (!tb_same(scan->region.at, scan->end, region.text, region.size)) return -1;
        *hash = region.hash;
        return region.number;
    }

    // Keeps the combination of the scan's region.
    void keep_combination(const TbScan* scan, int32_t number, uint64_t hash) {
        Region& region = regions[scan->region_hash % regions_kept];
        if (scan->region.size > most_region) return;
        region.size = (uint16_t)scan->region.size;
        region.first = scan->region_first;
        region.number = number;
        region.hash = hash;
        memcpy(region.text, scan->region.at, region.size);
    }

    // Forgets all shapes: their slots mean other attributes now.
    void clear() { forget(); }

   private:
    struct Node {
        uint32_t literal_at, literal_size;  // before the value
        uint8_t kind, slot;
        int32_t beside;  // another node at the same place, or -1
        int32_t next;    // the first node after the value; at the end of an event the number of the shape
    };
    enum { most_region = 224 };
    struct Region {  // the text from the first dimension to the last, and the number of its combination
        uint64_t hash = 0;
        int32_t number = 0;
        uint16_t size = 0;
        uint8_t first = 0;
        char text[most_region + 16];  // a comparison reads 16 bytes at a time
    };

    std::vector<Node> nodes;
    std::vector<char> literals = std::vector<char>(16);  // and 16 bytes more, which a comparison may read
    std::vector<TbShape> shapes;
    std::vector<Region> regions = std::vector<Region>(regions_kept);
    int32_t roots[2] = {-1, -1};

    void forget() {
        nodes.clear();
        literals.assign(16, 0);
        shapes.clear();
        roots[0] = roots[1] = -1;
    }

    // Returns the node of a mark among those from `at` on, put there if it is new; -1 where there are too many.
    int32_t place(int32_t before, int32_t at, const char* from, const TbMark& mark, bool binary) {
        const uint32_t size = (uint32_t)(mark.at - from);
        int32_t last = -1;
        int beside = 0;
        for (; at >= 0; last = at, at = nodes[at].beside, beside++) {
            const Node& node = nodes[at];
            if (node.kind == mark.kind && node.slot == mark.slot && node.literal_size == size &&
                memcmp(literals.data() + node.literal_at, from, size) == 0)
                return at;
        }
        if (beside == most_beside) return -1;
        const int32_t fresh = (int32_t)nodes.size();
        nodes.push_back({(uint32_t)(literals.size() - 16), size, mark.kind, mark.slot, -1, -1});
        literals.insert(literals.end() - 16, from, mark.at);
        if (last >= 0) {
            nodes[last].beside = fresh;
        } else if (before >= 0) {
            nodes[before].next = fresh;
        } else {
            roots[binary] = fresh;
        }
        return fresh;
    }

    // Fills what the shape tells of the event, and the hash of its region.
    const TbShape* finish(const TbShape& shape, TbScan* scan) const {
        scan->meters_seen = shape.meters_seen;
        scan->dialect = shape.dialect;
        if (shape.dialect != tb_no_dialect) memcpy(scan->leaves_seen, shape.leaves_seen, sizeof(shape.leaves_seen));
        if (shape.has_usage) scan->fields[tb_fields - 1].at = scan->end;
        if (shape.dimensions == 0) return &shape;
        const TbSpan& first = scan->fields[shape.slots[0]];
        const TbSpan& last = scan->fields[shape.slots[shape.dimensions - 1]];
        scan->region = {first.at, last.at + last.size - first.at};
        scan->region_first = shape.slots[0];
        uint64_t hash = (uint64_t)scan->region.size;
        for (int i = 0; i < shape.dimensions; i++) {
            const TbSpan& span = scan->fields[shape.slots[i]];
            uint64_t tail = 0;  // the text before a value is longer than 8 bytes: this reads within the event
            memcpy(&tail, span.at + span.size - 8, 8);
            hash = (hash ^ tail ^ (uint64_t)span.size << 56) * 0x9E3779B97F4A7C15ULL;
            hash ^= hash >> 29;
        }
        scan->region_hash = (uint32_t)(hash >> 32);
        return &shape;
    }
};
