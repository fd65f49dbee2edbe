// The identities that a partition remembers: the containers of billing.calculator.dedupe in C++. Plain data, no Python.
// Functions that allocate may throw std::bad_alloc; Cython turns it into MemoryError.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

struct TbHashes {
    uint32_t id, content;
};

enum TbKind : uint8_t { tb_unknown_source, tb_numbered, tb_unnumbered };

// One source of events. Numbers are from 1 to 2^63-1.
struct TbSource {
    static constexpr int64_t recent_numbers = 65536;  // billing.calculator.dedupe.RECENT_NUMBERS
    struct Recent {
        int64_t number;  // 0: empty
        TbHashes hashes;
    };

    uint8_t kind = tb_unknown_source;
    bool touched = false;
    int64_t highest = 0;  // rated number
    uint64_t seen = 0;    // how many numbers the runs have
    std::vector<std::pair<int64_t, int64_t>> runs;  // sorted, disjoint, not adjacent, closed
    std::unordered_set<int64_t> refused;
    std::vector<Recent> recent;  // by number modulo its size, a power of two
    std::vector<char> pending;   // 16 bytes for each rated since the last commit: billing.calculator.dedupe.RECENT

    // No event was rated: the next one that is decides if the source is numbered.
    bool undecided() const { return kind == tb_unknown_source || (kind == tb_numbered && seen == refused.size()); }

    int64_t highest_seen() const { return runs.empty() ? 0 : runs.back().second; }

    void load(int64_t first, int64_t last) {
        runs.push_back({first, last});
        seen += (uint64_t)(last - first) + 1;
    }

    // Begins the source anew, as numbered or not.
    void decide(bool numbered) {
        kind = numbered ? tb_numbered : tb_unnumbered;
        touched = true;
        if (numbered) return;
        runs.clear();
        refused.clear();
        seen = 0;
    }

    bool has(int64_t number) const {
        if (runs.empty() || number > runs.back().second) return false;
        if (number >= runs.back().first) return true;
        auto after = std::upper_bound(runs.begin(), runs.end(), number,
                                      [](int64_t n, const std::pair<int64_t, int64_t>& run) { return n < run.first; });
        return after != runs.begin() && number <= std::prev(after)->second;
    }

    void add(int64_t number) {
        if (!runs.empty() && runs.back().second == number - 1) {  // a number is at least 1: the difference fits
            runs.back().second = number;
            seen++;
            return;
        }
        auto after = std::upper_bound(runs.begin(), runs.end(), number,
                                      [](int64_t n, const std::pair<int64_t, int64_t>& run) { return n < run.first; });
        const bool has_left = after != runs.begin();
        if (has_left && number <= std::prev(after)->second) return;
        seen++;
        const bool joins_left = has_left && std::prev(after)->second == number - 1;
        const bool joins_right = after != runs.end() && after->first - 1 == number;
        if (joins_left && joins_right) {
            std::prev(after)->second = after->second;
            runs.erase(after);
        } else if (joins_left) {
            std::prev(after)->second = number;
        } else if (joins_right) {
            after->first = number;
        } else {
            runs.insert(after, {number, number});
        }
    }

    void remember(int64_t number, TbHashes hashes) {
        highest = std::max(highest, number);
        if (number <= highest - recent_numbers) return;  // recall answers NULL for it
        if (recent.empty()) recent.resize(64);
        for (;;) {
            Recent& slot = recent[(uint64_t)number & (recent.size() - 1)];
            if (slot.number == 0 || slot.number == number || slot.number <= highest - recent_numbers) {
                slot = {number, hashes};
                return;
            }
            std::vector<Recent> wider(2 * recent.size());  // numbers less than 65536 apart never collide in 65536 slots
            for (const Recent& old : recent)
                if (old.number > highest - recent_numbers && old.number)
                    wider[(uint64_t)old.number & (wider.size() - 1)] = old;
            recent.swap(wider);
        }
    }

    const TbHashes* recall(int64_t number) const {
        if (recent.empty() || number <= highest - recent_numbers) return nullptr;
        const Recent& slot = recent[(uint64_t)number & (recent.size() - 1)];
        return slot.number == number ? &slot.hashes : nullptr;
    }

    void keep(int64_t number, TbHashes hashes) {
        const size_t at = pending.size();
        pending.resize(at + 16);
        memcpy(&pending[at], &number, 8);
        memcpy(&pending[at + 8], &hashes, 8);
    }
};

// The identities of unnumbered sources in one hour of event time: 128-bit hash to content hash, open addressing.
struct TbHour {
    struct Entry {
        uint64_t first, second;
        uint32_t content, used;
    };
    std::vector<Entry> entries;
    size_t used = 0;
    std::vector<char> pending;  // 20 bytes for each rated since the last commit: billing.calculator.dedupe.HASHED

    const uint32_t* find(uint64_t first, uint64_t second) const {
        if (entries.empty()) return nullptr;
        const size_t mask = entries.size() - 1;
        for (size_t at = first & mask; entries[at].used; at = (at + 1) & mask)
            if (entries[at].first == first && entries[at].second == second) return &entries[at].content;
        return nullptr;
    }

    size_t bytes_held() const { return entries.size() * sizeof(Entry) + pending.capacity(); }

    void put(uint64_t first, uint64_t second, uint32_t content) {
        if (10 * (used + 1) > 7 * entries.size()) {
            std::vector<Entry> old(entries.empty() ? 64 : 2 * entries.size());
            old.swap(entries);
            used = 0;
            for (const Entry& entry : old)
                if (entry.used) place(entry.first, entry.second, entry.content);
        }
        place(first, second, content);
    }

    void keep(uint64_t first, uint64_t second, uint32_t content) {
        const size_t at = pending.size();
        pending.resize(at + 20);
        memcpy(&pending[at], &first, 8);
        memcpy(&pending[at + 8], &second, 8);
        memcpy(&pending[at + 16], &content, 4);
    }

   private:
    void place(uint64_t first, uint64_t second, uint32_t content) {
        const size_t mask = entries.size() - 1;
        size_t at = first & mask;
        while (entries[at].used && (entries[at].first != first || entries[at].second != second)) at = (at + 1) & mask;
        used += !entries[at].used;
        entries[at] = {first, second, content, 1};
    }
};

typedef std::unordered_map<int64_t, TbHour> TbHours;

// The identities of an hour, empty where none are known.
static inline TbHour* tb_hour(TbHours* hours, int64_t hour_us) { return &(*hours)[hour_us]; }
