// The identities that a partition remembers: the containers of billing.calculator.dedupe in C++. Plain data, no Python.
// Functions that allocate may throw std::bad_alloc; Cython turns it into MemoryError.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
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

// Identities of unnumbered sources: 128-bit hash to content hash, open addressing.
struct TbIdentities {
    struct Entry {
        uint64_t first, second;
        uint32_t content, used;
    };
    std::vector<Entry> entries;
    size_t used = 0;

    const uint32_t* find(uint64_t first, uint64_t second) const {
        if (entries.empty()) return nullptr;
        const size_t mask = entries.size() - 1;
        for (size_t at = first & mask; entries[at].used; at = (at + 1) & mask)
            if (entries[at].first == first && entries[at].second == second) return &entries[at].content;
        return nullptr;
    }

    size_t bytes_held() const { return entries.size() * sizeof(Entry); }

    // Makes room for more identities.
    void reserve(size_t more) {
        size_t size = entries.empty() ? 64 : entries.size();
        while (10 * (used + more) > 7 * size) size *= 2;
        if (size == entries.size()) return;
        std::vector<Entry> old(size);
        old.swap(entries);
        used = 0;
        for (const Entry& entry : old)
            if (entry.used) place(entry.first, entry.second, entry.content);
    }

    void put(uint64_t first, uint64_t second, uint32_t content) {
        if (10 * (used + 1) > 7 * entries.size()) reserve(1);
        place(first, second, content);
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

// Says which identities a part may have: buckets by the upper bits of the first half, with 32 bits of the second half
// for each identity. It is never wrong when it says no; it says yes once in some 500 million times without reason.
// An identity takes 4.25 to 4.5 bytes.
struct TbFilter {
    static constexpr int bucket_bits = 3;  // a bucket has 8 to 16 identities on average
    std::vector<uint32_t> starts, rests;   // bucket i is rests[starts[i]:starts[i + 1]]
    int shift = 63;

    bool may_have(uint64_t first, uint64_t second) const {
        if (starts.empty()) return true;
        const size_t bucket = first >> shift;
        for (uint32_t at = starts[bucket]; at < starts[bucket + 1]; at++)
            if (rests[at] == (uint32_t)second) return true;
        return false;
    }

    size_t bytes_held() const { return (starts.size() + rests.size()) * sizeof(uint32_t); }

    void build(const TbIdentities& of) {
        int bits = 1;
        while ((of.used >> (bits + bucket_bits + 1)) != 0) bits++;
        shift = 64 - bits;
        std::vector<uint32_t> ends((size_t(1) << bits) + 1), found(of.used);
        for (const auto& entry : of.entries)
            if (entry.used) ends[(entry.first >> shift) + 1]++;
        for (size_t i = 1; i < ends.size(); i++) ends[i] += ends[i - 1];
        starts = ends;
        for (const auto& entry : of.entries)
            if (entry.used) found[ends[entry.first >> shift]++] = (uint32_t)entry.second;
        rests.swap(found);
    }
};

// Identities that consecutive commits rated in one hour of log time: billing.commits.identities.LogPart.
struct TbPart {
    int64_t log_hour_us, first_commit, last_commit;
    bool open;          // takes new identities
    bool held = true;   // the identities are in memory
    bool blind = false; // not even a filter is kept
    TbIdentities identities;
    TbFilter filter;

    bool may_have(uint64_t first, uint64_t second) const { return filter.may_have(first, second); }

    // Drops the identities for a filter, or the filter.
    void shrink() {
        open = false;
        if (held && !blind && filter.starts.empty() && identities.used) filter.build(identities);
        else if (!held) blind = true;
        if (blind) filter = TbFilter();
        held = false;
        identities = TbIdentities();
    }
};

typedef std::unordered_map<int64_t, TbIdentities> TbHours;           // by hour of event time
typedef std::map<std::pair<int64_t, int64_t>, std::vector<char>> TbPending;  // by hour of event time and of log time

// Keeps a rated identity for the commit: 20 bytes each, billing.calculator.dedupe.HASHED.
static inline void tb_keep(
    TbPending* pending, int64_t hour_us, int64_t log_hour_us, uint64_t first, uint64_t second, uint32_t content) {
    std::vector<char>& into = (*pending)[{hour_us, log_hour_us}];
    const size_t at = into.size();
    into.resize(at + 20);
    memcpy(&into[at], &first, 8);
    memcpy(&into[at + 8], &second, 8);
    memcpy(&into[at + 16], &content, 4);
}

// Finds an hour of event time, or NULL.
static inline TbIdentities* tb_hour(TbHours* hours, int64_t hour_us) {
    auto found = hours->find(hour_us);
    return found == hours->end() ? nullptr : &found->second;
}
