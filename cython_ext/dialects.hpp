// Usage objects of providers: the tables of schemas.dialects as trees of names, the walk that finds the leaves of an
// object, and the split into disjoint meters. The split equals schemas.dialects.meter_split for usage that is not
// refused. Everything else is left to the plain decoder: a number without a row that is not 0, a text where a count is
// expected, an object where none is, a sum that does not hold. Nothing here allocates but the building of the tables.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "shape.hpp"

enum TbRole : uint8_t {  // schemas.dialects.dialect_table.Role, in its order
    tb_role_input, tb_role_uncached, tb_role_text_input, tb_role_audio_input, tb_role_image_input, tb_role_video_input,
    tb_role_cached, tb_role_cached_text, tb_role_cached_audio, tb_role_cached_image, tb_role_cached_video,
    tb_role_written, tb_role_written_5m, tb_role_written_1h, tb_role_output, tb_role_reasoning, tb_role_text_output,
    tb_role_audio_output, tb_role_image_output, tb_role_video_output, tb_role_predicted, tb_role_total,
    tb_roles,  // those that are split; after them a meter, or not billed
    tb_role_meter = tb_roles, tb_role_not_billed,
};

enum {
    tb_most_groups = 4,                 // of a dialect
    tb_most_places = 256,               // of the tree of a dialect
    tb_slots = 112,                     // counts by group and role, then by meter
    tb_most_unknown = 8,                // names of an object that the table does not have
    tb_most_depth = 16,                 // of a usage object
};
static_assert(tb_slots == tb_most_groups * tb_roles + tb_meters && tb_slots <= 128, "two words of bits hold the slots");
static const int64_t tb_most_leaf = 9007199254740992;  // of a count after its multiplication: sums of 512 fit 64 bits

// The places of the meters in schemas.meters.METERS that the split fills.
enum {
    tb_meter_input = 0, tb_meter_cache_read = 1, tb_meter_cache_write = 2, tb_meter_cache_write_1h = 3,
    tb_meter_output = 4, tb_meter_reasoning = 5, tb_meter_audio_input = 6, tb_meter_audio_cache_read = 7,
    tb_meter_audio_output = 8, tb_meter_image_input = 9, tb_meter_image_cache_read = 10, tb_meter_image_output = 11,
    tb_meter_video_input = 12, tb_meter_video_output = 13, tb_meter_requests = 15,
};

struct TbPlace {  // a name in a usage object; its inner places follow it, up to `end`
    std::string name;         // the value that selects an item, where the place is an item of a list
    int16_t row = -1;         // a leaf: the number of its row
    int16_t end = 0;
    bool is_list = false;     // its inner places are kinds of items
    bool needed = false;      // one of the names of which one must be there
    std::string key;          // of a list and its items: the field that tells items apart; empty where all are alike
};

struct TbLeafRow {
    uint8_t slot = 0;         // of tb_slots
    bool skipped = false;     // known and not billed
    bool declarable = false;  // it becomes a meter that a price book declares
    bool declared = false;    // one does, or must: a count that is not 0 is left to the plain decoder
    bool adds = false;        // added to the others of its slot that add
    int64_t times = 1;
};

struct TbDialect {
    std::string name;
    std::vector<TbPlace> places;                // the object itself first
    std::vector<TbLeafRow> rows;                // at most tb_most_leaves
    std::vector<std::vector<uint8_t>> totals;   // the slots that add up to the grand total, in each of the ways
    int groups = 1;
    bool cached_inside = true, written_inside = true, reasoning_inside = true;
    bool text_may_leave_out_cache = false, total_is_input = false, rest_is_reasoning = false;
};

struct TbDialects {
    std::vector<TbDialect> dialects;

    // Returns the number of a dialect, or -1.
    int number(const char* at, Py_ssize_t size) const {
        for (size_t i = 0; i < dialects.size(); i++)
            if (same(dialects[i].name, at, size)) return (int)i;
        return -1;
    }

    // Reads the usage object at p by the table of scan->dialect and fills the leaves; returns its end, or NULL.
    const char* walk(TbScan* scan, const char* p) const {
        const TbDialect& dialect = dialects[scan->dialect];
        Walk state = {scan, &dialect, {0}, false};
        scan->leaves_seen[0] = scan->leaves_seen[1] = 0;
        if (*p != '{') return nullptr;
        const char* const inner = skip(p + 1);
        if (*inner == '}') return inner + 1;
        p = object(state, 0, p, 0);
        return state.has_needed ? p : nullptr;
    }

    // Turns the leaves into the counts of meters, added to those that the scan has beside them; false where the plain
    // decoder decides.
    bool split(TbScan* scan) const {
        const TbDialect& dialect = dialects[scan->dialect];
        int64_t count[tb_slots];
        uint64_t given[2] = {0, 0};
        memset(count, 0, sizeof(count));
        bool adds = false;
        for (int word = 0; word < 2; word++) {
            for (uint64_t seen = scan->leaves_seen[word]; seen; seen &= seen - 1) {
                const int leaf = 64 * word + __builtin_ctzll(seen);
                const TbLeafRow& row = dialect.rows[leaf];
                int64_t value = scan->leaves[leaf];
                if (row.declarable) {
                    if (row.declared && value) return false;
                    continue;
                }
                if (row.adds) {
                    adds = true;
                    continue;
                }
                if (value > tb_most_leaf / row.times) return false;
                if (!agree(count, given, row.slot, value * row.times)) return false;
            }
        }
        if (adds && !add(dialect, scan, count, given)) return false;
        return meters_of(dialect, scan, count, given);
    }

   private:
    struct Walk {
        TbScan* scan;
        const TbDialect* dialect;
        uint64_t seen[tb_most_places / 64];  // names of the objects that are being read
        bool has_needed;
    };

    static bool same(const std::string& text, const char* at, Py_ssize_t size) {
        return text.size() == (size_t)size && memcmp(text.data(), at, (size_t)size) == 0;
    }

    static const char* skip(const char* p) {
        while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r') p++;
        return p;
    }

    // Reads a key and its colon at p; returns where its value begins, or NULL.
    static const char* key_at(const TbScan* scan, const char* p, TbSpan* key) {
        if (*p != '"') return nullptr;
        key->at = p + 1;
        const char* const stop = tb_plain_end(key->at, scan->end);
        if (!stop) return nullptr;
        key->size = stop - key->at;
        p = skip(stop + 1);
        return *p == ':' ? skip(p + 1) : nullptr;
    }

    // Returns the end of null, true or false at p, or NULL.
    static const char* word_end(const TbScan* scan, const char* p, bool only_null) {
        if (scan->end - p < 5) return nullptr;
        if (memcmp(p, "null", 4) == 0) return p + 4;
        if (only_null) return nullptr;
        if (memcmp(p, "true", 4) == 0) return p + 4;
        return memcmp(p, "false", 5) == 0 ? p + 5 : nullptr;
    }

    static int inner_place(const TbDialect& dialect, int place, const char* at, Py_ssize_t size) {
        const int end = dialect.places[place].end;
        for (int i = place + 1; i < end; i = dialect.places[i].end)
            if (same(dialect.places[i].name, at, size)) return i;
        return -1;
    }

    const char* object(Walk& state, int place, const char* p, int depth) const {
        TbSpan unknown[tb_most_unknown], key;
        int unknown_number = 0;
        TbScan* const scan = state.scan;
        if (depth == tb_most_depth) return nullptr;
        p = skip(p + 1);
        if (*p == '}') return p + 1;
        for (;;) {
            p = key_at(scan, p, &key);
            if (!p) return nullptr;
            const int inner = inner_place(*state.dialect, place, key.at, key.size);
            if (inner < 0) {
                if (unknown_number == tb_most_unknown) return nullptr;
                for (int i = 0; i < unknown_number; i++)
                    if (unknown[i].size == key.size && memcmp(unknown[i].at, key.at, (size_t)key.size) == 0)
                        return nullptr;
                unknown[unknown_number++] = key;
                p = unknown_value(scan, p, same(state.dialect->places[place].key, key.at, key.size));
            } else {
                uint64_t& word = state.seen[inner / 64];
                const uint64_t bit = (uint64_t)1 << inner % 64;
                if (word & bit) return nullptr;  // a name that occurs twice
                word |= bit;
                if (state.dialect->places[inner].needed) state.has_needed = true;
                p = value(state, inner, p, depth);
            }
            if (!p) return nullptr;
            p = skip(p);
            if (*p == '}') return p + 1;
            if (*p != ',') return nullptr;
            p = skip(p + 1);
        }
    }

    // Reads the value of a place of the table.
    const char* value(Walk& state, int place, const char* p, int depth) const {
        const TbPlace& here = state.dialect->places[place];
        TbScan* const scan = state.scan;
        if (*p == 'n') return word_end(scan, p, true);
        if (here.row >= 0) return leaf(scan, state.dialect->rows[here.row], here.row, p);
        if (!here.is_list) return *p == '{' ? object(state, place, p, depth + 1) : nullptr;
        if (*p != '[') return nullptr;
        p = skip(p + 1);
        if (*p == ']') return p + 1;
        for (;;) {
            if (*p == 'n') {
                p = word_end(scan, p, true);
            } else {
                const int kind = *p == '{' ? item(state, place, p) : -1;
                if (kind < 0) return nullptr;
                for (int i = kind; i < state.dialect->places[kind].end; i++)
                    state.seen[i / 64] &= ~((uint64_t)1 << i % 64);
                p = object(state, kind, p, depth + 1);
            }
            if (!p) return nullptr;
            p = skip(p);
            if (*p == ']') return p + 1;
            if (*p != ',') return nullptr;
            p = skip(p + 1);
        }
    }

    const char* leaf(TbScan* scan, const TbLeafRow& row, int number, const char* p) const {
        const char* stop;
        if (row.skipped) {
            if (*p == '"') return text(scan, p, false);
            if (*p == 't' || *p == 'f') return word_end(scan, p, false);
            stop = tb_real_end(p, scan->end);
            if (stop) tb_mark(scan, tb_skipped_real, 0, p, stop);
            return stop;
        }
        int64_t count;
        stop = tb_digits(p, scan->end, &count);
        if (!stop || *stop == '.' || *stop == 'e' || *stop == 'E') return nullptr;
        uint64_t& word = scan->leaves_seen[number / 64];
        const uint64_t bit = (uint64_t)1 << number % 64;
        if (word & bit) {  // of several items of a list: their sum has no shape
            scan->marks_number = tb_max_marks + 1;
            if (count > tb_most_leaf || scan->leaves[number] > tb_most_leaf) return nullptr;
            scan->leaves[number] += count;
        } else {
            word |= bit;
            scan->leaves[number] = count;
            tb_mark(scan, tb_leaf, number, p, stop);
        }
        return stop;
    }

    // Skips a text; one that decides what the item of a list is stays in the shape.
    static const char* text(TbScan* scan, const char* p, bool decides) {
        const char* const stop = tb_plain_end(p + 1, scan->end);
        if (!stop) return nullptr;
        if (!decides) tb_mark(scan, tb_skipped_text, 0, p + 1, stop);
        return stop + 1;
    }

    // Skips the value of a name that the table does not have: a text, a word, or 0, which stays in the shape.
    static const char* unknown_value(TbScan* scan, const char* p, bool decides) {
        if (*p == '"') return text(scan, p, decides);
        if (*p == '0') return *(p + 1) == ',' || *(p + 1) == '}' || *(p + 1) == ' ' ? p + 1 : nullptr;
        return word_end(scan, p, false);
    }

    // Returns the place of an item of a list by the text of its key, or -1. The item is read for good later.
    int item(const Walk& state, int place, const char* p) const {
        const TbPlace& list = state.dialect->places[place];
        if (list.key.empty()) return place + 1;
        TbSpan key;
        p = skip(p + 1);
        for (int names = 0; names < 32; names++) {
            p = key_at(state.scan, p, &key);
            if (!p) return -1;
            if (same(list.key, key.at, key.size)) {
                const char* const stop = *p == '"' ? tb_plain_end(p + 1, state.scan->end) : nullptr;
                return stop ? inner_place(*state.dialect, place, p + 1, stop - p - 1) : -1;
            }
            p = flat_end(state.scan, p);
            if (!p) return -1;
            p = skip(p);
            if (*p != ',') return -1;
            p = skip(p + 1);
        }
        return -1;
    }

    // Returns the end of a value of few levels at p, whatever it is; NULL where its text ends first.
    static const char* flat_end(const TbScan* scan, const char* p) {
        int depth = 0;
        for (; p < scan->end; p++) {
            if (*p == '"') {
                p = tb_plain_end(p + 1, scan->end);
                if (!p) return nullptr;
            } else if (*p == '{' || *p == '[') {
                depth++;
            } else if (*p == '}' || *p == ']') {
                if (depth == 0) return p;
                depth--;
            } else if (*p == ',' && depth == 0) {
                return p;
            }
        }
        return nullptr;
    }

    static bool has(const uint64_t* given, int slot) { return given[slot / 64] >> slot % 64 & 1; }

    // Notes one of the names of a count: zeros are as if absent, other values must agree.
    static bool agree(int64_t* count, uint64_t* given, int slot, int64_t value) {
        given[slot / 64] |= (uint64_t)1 << slot % 64;
        if (value == 0) return true;
        if (count[slot] != 0) return count[slot] == value;
        count[slot] = value;
        return true;
    }

    static bool add(const TbDialect& dialect, const TbScan* scan, int64_t* count, uint64_t* given) {
        int64_t sums[tb_slots];
        uint64_t summed[2] = {0, 0};
        for (size_t leaf = 0; leaf < dialect.rows.size(); leaf++) {
            const TbLeafRow& row = dialect.rows[leaf];
            if (!row.adds || !(scan->leaves_seen[leaf / 64] >> leaf % 64 & 1)) continue;
            if (scan->leaves[leaf] > tb_most_leaf / row.times) return false;
            if (!has(summed, row.slot)) sums[row.slot] = 0;
            summed[row.slot / 64] |= (uint64_t)1 << row.slot % 64;
            sums[row.slot] += scan->leaves[leaf] * row.times;  // at most tb_most_leaves of tb_most_leaf
        }
        for (int word = 0; word < 2; word++)
            for (uint64_t left = summed[word]; left; left &= left - 1) {
                const int slot = 64 * word + __builtin_ctzll(left);
                if (!agree(count, given, slot, sums[slot])) return false;
            }
        return true;
    }

    // Splits the counts of every group, checks the grand total, and fills the scan's counts.
    static bool meters_of(const TbDialect& dialect, TbScan* scan, int64_t* count, uint64_t* given) {
        int64_t meter[tb_meters];
        memset(meter, 0, sizeof(meter));
        if (dialect.total_is_input && has(given, tb_role_total) && !has(given, tb_role_input) &&
            !has(given, tb_role_output))
            agree(count, given, tb_role_input, count[tb_role_total]);
        if (dialect.rest_is_reasoning && !has(given, tb_role_reasoning)) {
            const int64_t rest = count[tb_role_total] - count[tb_role_input] - count[tb_role_output];
            if (rest > 0) agree(count, given, tb_role_reasoning, rest);
        }
        for (int group = 0; group < dialect.groups; group++) {
            int64_t* const c = count + group * tb_roles;
            const int first = group * tb_roles;
            const int64_t parts = c[tb_role_written_5m] + c[tb_role_written_1h];
            int64_t& written = c[tb_role_written];
            if (written == 0) {
                written = parts;
            } else if (parts && (parts > written || (has(given, first + tb_role_written_5m) && parts != written))) {
                return false;
            }
            const int64_t media_known = c[tb_role_cached_audio] + c[tb_role_cached_image] + c[tb_role_cached_video];
            const int64_t known = media_known + c[tb_role_cached_text];
            int64_t& cached = c[tb_role_cached];
            if (!has(given, first + tb_role_uncached)) {
                if (cached == 0) cached = known;
            } else if (has(given, first + tb_role_cached)) {
                if (cached + c[tb_role_uncached] != c[tb_role_input]) return false;
            } else {
                if (c[tb_role_uncached] > c[tb_role_input]) return false;
                cached = c[tb_role_input] - c[tb_role_uncached];
            }
            if (!input(dialect, c, has(given, first + tb_role_cached_text), media_known, known, meter)) return false;
            if (!output(dialect, c, meter)) return false;
        }
        if (has(given, tb_role_total) && !dialect.totals.empty() && !total_holds(dialect, count)) return false;
        for (int i = 0; i < tb_meters; i++) {
            meter[i] += count[tb_most_groups * tb_roles + i];
            if (scan->meters_seen >> i & 1) meter[i] += scan->counts[i];  // at most 18 digits
            scan->counts[i] = meter[i];
        }
        scan->meters_seen = ((uint32_t)1 << tb_meters) - 1;
        return true;
    }

    static bool input(const TbDialect& dialect, const int64_t* c, bool knows_text, int64_t media_known, int64_t known,
                      int64_t* meter) {
        const int64_t cached = c[tb_role_cached], written = c[tb_role_written], hour = c[tb_role_written_1h];
        const int64_t audio = c[tb_role_audio_input], image = c[tb_role_image_input], video = c[tb_role_video_input];
        const int64_t media = audio + image + video, text = c[tb_role_text_input];
        const int64_t total = c[tb_role_input] + (dialect.cached_inside ? 0 : cached) +
                              (dialect.written_inside ? 0 : written);
        if (media > total || cached + written > total || hour > written) return false;
        if (c[tb_role_cached_audio] > audio || c[tb_role_cached_image] > image) return false;
        if (c[tb_role_cached_video]) return false;  // it has no built-in meter
        if (known > cached || (known && knows_text && known != cached)) return false;
        if (text && text + media != total) {
            if (!dialect.text_may_leave_out_cache) return false;
            if (text + media != total - cached && text + media != total - cached - written) return false;
        }
        const int64_t cached_text = cached - media_known;
        if (cached_text + written > total - media) return false;
        meter[tb_meter_input] += total - media - cached_text - written;
        meter[tb_meter_cache_read] += cached_text;
        meter[tb_meter_cache_write] += written - hour;
        meter[tb_meter_cache_write_1h] += hour;
        meter[tb_meter_audio_input] += audio - c[tb_role_cached_audio];
        meter[tb_meter_audio_cache_read] += c[tb_role_cached_audio];
        meter[tb_meter_image_input] += image - c[tb_role_cached_image];
        meter[tb_meter_image_cache_read] += c[tb_role_cached_image];
        meter[tb_meter_video_input] += video;
        return true;
    }

    static bool output(const TbDialect& dialect, const int64_t* c, int64_t* meter) {
        const int64_t reasoning = c[tb_role_reasoning], text = c[tb_role_text_output];
        const int64_t total = c[tb_role_output] + (dialect.reasoning_inside ? 0 : reasoning);
        const int64_t media = c[tb_role_audio_output] + c[tb_role_image_output] + c[tb_role_video_output];
        if (media + reasoning > total || c[tb_role_predicted] > total) return false;
        if (text && text + media != total && text + media != total - reasoning) return false;
        meter[tb_meter_output] += total - media - reasoning;
        meter[tb_meter_reasoning] += reasoning;
        meter[tb_meter_audio_output] += c[tb_role_audio_output];
        meter[tb_meter_image_output] += c[tb_role_image_output];
        meter[tb_meter_video_output] += c[tb_role_video_output];
        return true;
    }

    // True if the grand total is one of the sums that it may be; cached and written are resolved by now.
    static bool total_holds(const TbDialect& dialect, const int64_t* count) {
        for (const auto& slots : dialect.totals) {
            int64_t sum = 0;
            for (const uint8_t slot : slots) sum += count[slot];
            if (sum == count[tb_role_total]) return true;
        }
        return false;
    }
};
