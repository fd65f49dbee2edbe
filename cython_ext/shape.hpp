// The shape of an event: what stands between its values. Events of one producer differ in their values only, so that
// comparing what stands between and finding where each value ends reads an event, without looking at a key.
//
// A shape is learned from an event that the scanner of cython_ext.decode accepted. An event of the same shape differs
// from it in plain strings and small counts alone, so the scanner would accept it too, with the same keys.
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

enum { tb_attributes = 8, tb_fields = 13, tb_meters = 24, tb_dimensions = 7, tb_max_text = 256, tb_max_marks = 48 };
enum TbMarkKind : uint8_t { tb_attribute, tb_field, tb_count, tb_skipped_text, tb_skipped_number };

struct TbMark {  // a value of an event that may be another one in the next
    const char* at;
    uint32_t size;
    uint8_t kind, slot;
};

struct TbScan {
    TbSpan attributes[tb_attributes];
    TbSpan fields[tb_fields];
    uint32_t attributes_seen, fields_seen, meters_seen;
    int64_t counts[tb_meters];
    int64_t time_us, sequence;
    const char* end;
    int marks_number;  // beyond tb_max_marks: the event has no shape
    TbMark marks[tb_max_marks];
    TbSpan region;  // from the first dimension to the last, where nothing else stands between; else NULL
    uint32_t region_hash;
};

static inline void tb_mark(TbScan* scan, uint8_t kind, int slot, const char* at, const char* end) {
    if (scan->marks_number < tb_max_marks) scan->marks[scan->marks_number] = {at, (uint32_t)(end - at), kind, (uint8_t)slot};
    scan->marks_number++;
}

// Whether the text at p is the literal of this size; the literal may be read up to 16 bytes at a time, p up to end.
static inline bool tb_same(const char* p, const char* end, const char* literal, size_t size) {
    if ((size_t)(end - p) < ((size + 15) & ~(size_t)15)) return (size_t)(end - p) >= size && memcmp(p, literal, size) == 0;
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

struct TbShape {
    struct Step {
        uint32_t literal_at, literal_size;  // before the value
        uint8_t kind, slot;
    };
    struct Region {  // the text from the first dimension to the last, and the number of the combination it means
        uint32_t size;
        int32_t number;
        uint64_t hash;
        char text[496];
    };

    std::vector<Step> steps;
    std::vector<char> literals;  // and 16 bytes more
    uint32_t last_at = 0, last_size = 0;
    uint32_t meters_seen = 0, first_dimension = 0, last_dimension = 0;
    bool has_usage = false, has_region = false, binary = false;
    std::vector<Region> regions;  // 64, by hash

    // Learn from an accepted event; false where it has no shape.
    bool learn(const TbScan& scan, const char* begin, bool from_headers) {
        if (scan.marks_number > tb_max_marks) return false;
        steps.clear();
        literals.clear();
        regions.clear();
        binary = from_headers;
        meters_seen = scan.meters_seen;
        has_usage = scan.fields[tb_fields - 1].at != nullptr;
        const char* from = begin;
        int dimensions = 0, first = -1, last = -1;
        for (int i = 0; i < scan.marks_number; i++) {
            const TbMark& mark = scan.marks[i];
            steps.push_back({(uint32_t)literals.size(), (uint32_t)(mark.at - from), mark.kind, mark.slot});
            literals.insert(literals.end(), from, mark.at);
            from = mark.at + mark.size;
            if (mark.kind == tb_field && mark.slot < tb_dimensions) {
                if (first < 0) first = i;
                last = i;
                dimensions++;
            }
        }
        last_at = (uint32_t)literals.size();
        last_size = (uint32_t)(scan.end - from);
        literals.insert(literals.end(), from, scan.end);
        literals.resize(literals.size() + 16);
        has_region = dimensions > 0 && last - first + 1 == dimensions;
        first_dimension = (uint32_t)first;
        last_dimension = (uint32_t)last;
        if (has_region) regions.resize(64);
        return true;
    }

    // Read an event of this shape; false where it is of another, or a value is not plain.
    bool read(const char* p, TbScan* scan) const {
        const char* const end = scan->end;
        const char* const texts = literals.data();
        for (const Step& step : steps) {
            if (!tb_same(p, end, texts + step.literal_at, step.literal_size)) return false;
            p += step.literal_size;
            if (step.kind == tb_count || step.kind == tb_skipped_number) {
                const char* const first = p;
                uint64_t value = 0;  // 18 digits fit
                for (unsigned digit; (digit = (unsigned char)*p - (unsigned)'0') < 10; p++) {
                    if (p - first == 18) return false;
                    value = 10 * value + digit;
                }
                if (p == first || (*first == '0' && p - first > 1)) return false;
                if (step.kind == tb_count) scan->counts[step.slot] = (int64_t)value;
                continue;
            }
            const char* const stop = tb_plain_end(p, end);
            if (!stop) return false;
            if (step.kind == tb_attribute) {
                scan->attributes[step.slot] = {p, stop - p};
            } else if (step.kind == tb_field) {
                if (stop - p > tb_max_text) return false;
                scan->fields[step.slot] = {p, stop - p};
            }
            p = stop;
        }
        if ((size_t)(end - p) != last_size || !tb_same(p, end, texts + last_at, last_size)) return false;
        scan->meters_seen = meters_seen;
        if (has_usage) scan->fields[tb_fields - 1].at = texts;
        if (has_region) {
            const TbSpan& first = scan->fields[steps[first_dimension].slot];
            const TbSpan& last = scan->fields[steps[last_dimension].slot];
            scan->region = {first.at, last.at + last.size - first.at};
            uint64_t hash = (uint64_t)scan->region.size;
            for (uint32_t i = first_dimension; i <= last_dimension; i++) {
                const TbSpan& span = scan->fields[steps[i].slot];
                uint64_t tail = 0;  // what stands before a value is longer than 8 bytes
                memcpy(&tail, span.at + span.size - 8, 8);
                hash = (hash ^ tail ^ (uint64_t)span.size << 56) * 0x9E3779B97F4A7C15ULL;
                hash ^= hash >> 29;
            }
            scan->region_hash = (uint32_t)(hash >> 32);
        }
        return true;
    }

    // The combination that a region means, or -1; and its hash.
    int32_t combination(const TbScan* scan, uint64_t* hash) const {
        const Region& region = regions[scan->region_hash & 63];
        if (region.size != (uint64_t)scan->region.size || region.size == 0) return -1;
        if (!tb_same(scan->region.at, scan->end, region.text, region.size)) return -1;
        *hash = region.hash;
        return region.number;
    }

    void keep_combination(const TbScan* scan, int32_t number, uint64_t hash) {
        Region& region = regions[scan->region_hash & 63];
        if (scan->region.size > 480) return;  // a comparison reads 16 bytes at a time
        region.size = (uint32_t)scan->region.size;
        region.number = number;
        region.hash = hash;
        memcpy(region.text, scan->region.at, region.size);
    }
};

// The shapes met last, the last one first to be tried.
struct TbShapes {
    enum { most = 4 };
    TbShape shapes[most];
    int order[most] = {0, 1, 2, 3};
    int known = 0;

    // Read an event by one of the shapes, and give it; else NULL.
    TbShape* read(const char* p, TbScan* scan, bool binary) {
        for (int i = 0; i < known; i++) {
            const int at = order[i];
            if (shapes[at].binary != binary || !shapes[at].read(p, scan)) continue;
            if (i) promote(i);
            return &shapes[at];
        }
        return nullptr;
    }

    void learn(const TbScan& scan, const char* begin, bool binary) {
        const int i = known < most ? known : most - 1;
        if (!shapes[order[i]].learn(scan, begin, binary)) {
            forget(i);
            return;
        }
        if (known < most) known++;
        promote(i);
    }

   private:
    void promote(int i) {
        const int at = order[i];
        for (; i > 0; i--) order[i] = order[i - 1];
        order[0] = at;
    }
    void forget(int i) {
        if (i < known) known = i;  // it was the last one
    }
};
