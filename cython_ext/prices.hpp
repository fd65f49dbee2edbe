// The prices of combinations by price book version, found by numbers; the exact price of an event; and its rated line
// as JSON. cython_ext.prices fills the tables with prices and pieces of JSON that the plain rules made.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "shape.hpp"
#include "wide.hpp"

enum { tb_token_meters = 15, tb_requests = 15 };  // schemas.meters.TOKEN_METERS, the first of METERS; requests

enum TbNeed {  // what an event needs before it can be priced, and what its user needs besides
    tb_priced = 0,
    tb_duplicate = 1,     // of the calculator: nothing, the event was rated before
    tb_needs_price = 2,   // the price of `wanted.version` and `wanted.combination`
    tb_needs_scope = 3,   // of the calculator: whether a combination lies in the scope of a plan's bucket
    tb_needs_plain = 4,   // the plain rule
    tb_all_done = 5,      // of a loop over events: nothing, the last one is done
    tb_needs_moment = 6,  // the price at `wanted.segment` and `wanted.bands` too
    tb_needs_bands = 7,   // the time bands of `wanted.slot`
    tb_refused = 8,       // nothing: it has no price; `refused` holds the refusal
};

enum {  // instead of the number of a price
    tb_plain_price = -1,
    tb_unknown_price = -2,
    tb_momentary_price = -3,  // it depends on the lengths and the time bands of the event
    tb_no_row_price = -16,    // this and below: no row matches; the refusal is in TbPrices::no_row
};

enum { tb_mixed_bands = -1, tb_unknown_bands = -2 };  // instead of the number of a set of time bands
static const int64_t tb_slot_us = 900000000;  // a quarter of an hour; a band that begins or ends within it is mixed

enum {  // bounds of the parts of a key of TbPrices::momentary; beyond them the plain rule decides
    tb_most_versions = 1 << 10,
    tb_most_combinations = 1 << 22,
    tb_most_edges = 255,
    tb_output_segment = 1 << 8,  // a segment of output lengths counts this much more than one of contexts
    tb_most_bands = 1 << 16,
};

struct TbPiece {  // a constant piece of JSON in TbPrices::pieces
    uint32_t at = 0, size = 0;
};

struct TbVersion {  // of a price book
    int16_t book = 0, currency = 0;    // numbers given by the user of the tables
    int64_t tax_divisor = tb_million;  // a million plus the tax rate in millionths
    int64_t latest_us = -1;            // greatest event time rated; kept by the user of the tables
    TbPiece head, label;               // from after the account to the amount; from after the tokens to the first meter
    std::vector<int64_t> edges;        // contexts at which a price may change, rising
    std::vector<int64_t> output_edges;  // output lengths at which a price may change, rising
    std::vector<int32_t> price_of;     // by combination
    std::unordered_map<int64_t, int32_t> bands_of;  // by slot: the set of bands that contain the whole slot
    int64_t last_slot = -1;
    int32_t last_bands = tb_unknown_bands;
};

struct TbUnitPrice {
    int64_t price_pico = 0, coefficient_micro = 0;
    TbPiece piece;  // from after the quantity to the amount
};

struct TbPrice {
    uint32_t priced = 0;  // bit i: meter i has a price
    TbUnitPrice of[tb_meters];
    // the refusal of another meter, before its name, before its count and after it; empty: the plain rule refuses it
    TbPiece missing, missing_middle, missing_tail;
};

struct TbNoRow {  // a refusal that no row matches, as JSON from after the id: before the context, between it and the
                  // output length (empty: the refusal ends with the context), and after them
    TbPiece head, between, tail;
};

struct TbRefused {  // a refusal as JSON, from after the id to its end
    TbPiece head, meter, middle, tail;
    int64_t number;  // written before the tail: a time in microseconds if is_time, else a count or a context
    bool is_time;
    TbPiece last = TbPiece();  // behind the output length, which follows the tail; empty: there is none
    int64_t output = 0;
};

struct TbRated {  // the price of an event; each number is from 0 to 2^63-1
    int64_t amount_pico, net_pico, standard_micro, tokens;
    int32_t version, price;
    bool one_request;  // it is charged beside the counts
};

struct TbWanted {  // what a need asks for
    int32_t version = 0, combination = 0, segment = 0, bands = 0;
    int64_t slot = 0;
};

struct TbPrices {
    std::vector<TbVersion> versions;
    std::vector<std::vector<std::pair<int64_t, int32_t>>> in_force;  // by book: (effective from, version), sorted
    std::vector<TbPrice> prices;
    std::unordered_map<uint64_t, int32_t> momentary;  // by version, combination, segment and set of bands
    std::vector<char> pieces;
    TbPiece meter_heads[tb_meters];  // of a meter's object, from its brace to the quantity
    TbPiece meter_names[tb_meters];  // quoted, in the refusal of a meter
    uint32_t context_meters = 0;     // bit i: meter i counts for the context
    uint32_t output_meters = 0;      // bit i: meter i counts for the output length
    std::vector<TbNoRow> no_row;
    TbPiece outside, outside_tail;   // the refusal of a time before the first version, before the time and after it
    TbWanted wanted;
    TbRefused refused;

    // Returns the version of a book in force at a time, or -1.
    int32_t version_at(int16_t book, int64_t time_us) const {
        if ((size_t)book >= in_force.size()) return -1;
        const auto& known = in_force[book];
        for (size_t i = known.size(); i-- > 0;)
            if (known[i].first <= time_us) return known[i].second;
        return -1;
    }

    static uint64_t situation(int32_t version, int32_t combination, int32_t segment, int32_t bands) {
        // momentary_price checks that the parts do not overlap
        return (uint64_t)bands << 48 | (uint64_t)segment << 32 | (uint64_t)version << 22 | (uint64_t)combination;
    }

    // Prices an event of these counts, from 1 to 2^63-1 each, by a version; else returns what it needs, and fills
    // `wanted`. Prices and coefficients are not negative (PriceTables.add_price), so neither is a product or a sum of
    // them; an event in which one exceeds 2^63-1 goes to the plain rule, as does one without counts. One that stands for
    // `one_request`, and does not count it, is charged for it where the row prices requests.
    int rate(int32_t version, int32_t combination, int64_t time_us, const int16_t* meters, const int64_t* counts,
             uint32_t number, bool one_request, TbRated* rated) {
        TbVersion& in = versions[version];
        if (number > tb_meters || number == 0) return tb_needs_plain;
        int32_t at = (size_t)combination < in.price_of.size() ? in.price_of[combination] : (int32_t)tb_unknown_price;
        if (at < 0) {
            wanted.version = version;
            wanted.combination = combination;
            if (at == tb_unknown_price) return tb_needs_price;
            if (at != tb_momentary_price) return tb_needs_plain;
            const int need = momentary_price(in, version, combination, time_us, meters, counts, number, &at);
            if (need != tb_priced) return need;
        }
        const TbPrice& price = prices[at];
        const bool fee = one_request && price.priced >> tb_requests & 1;
        int64_t amount_pico = 0, standard_micro = 0, tokens = 0;
        for (uint32_t i = 0; i < number; i++) {
            const int meter = meters[i];
            int64_t pico = 0, micro = 0;
            if (meter >= tb_meters) return tb_needs_plain;
            if (!(price.priced >> meter & 1)) {
                if (price.missing.size == 0) return tb_needs_plain;
                refused = {price.missing,      meter_names[meter], price.missing_middle,
                           price.missing_tail, counts[i],          false};
                return tb_refused;
            }
            const TbUnitPrice& unit = price.of[meter];
            if (tb_multiply_64(counts[i], unit.price_pico, &pico)) return tb_needs_plain;
            if (tb_add_64(&amount_pico, pico)) return tb_needs_plain;
            if (tb_multiply_64(counts[i], unit.coefficient_micro, &micro)) return tb_needs_plain;
            if (tb_add_64(&standard_micro, micro)) return tb_needs_plain;
            if (meter < tb_token_meters && tb_add_64(&tokens, counts[i])) return tb_needs_plain;
        }
        if (fee && tb_add_64(&amount_pico, price.of[tb_requests].price_pico)) return tb_needs_plain;
        if (fee && tb_add_64(&standard_micro, price.of[tb_requests].coefficient_micro)) return tb_needs_plain;
        *rated = {amount_pico, tb_net(amount_pico, in.tax_divisor), standard_micro, tokens, version, at, fee};
        return tb_priced;
    }

    // Returns a bound of the bytes that put_line writes, its three texts apart.
    size_t most_of_line(const TbRated& rated, uint32_t number) const {
        // a number takes at most 21 bytes, and 16 more may be written behind it; the piece of a price at most 256
        const TbVersion& version = versions[rated.version];
        return version.head.size + version.label.size + 1024 + number * 512;
    }

    // Writes a line of `tokenbill rate` (docs/reference/command-line.md), from its brace to its last meter: the amount
    // in decimal currency from pico, standard tokens from micro. With `plain`, texts have no escapes and are copied.
    template <bool plain>
    char* put_line(char* p, const TbSpan& source, const TbSpan& id, const TbSpan& account, const TbRated& rated,
                   const int16_t* meters, const int64_t* counts, uint32_t number) const {
        const char* const text = pieces.data();
        const TbVersion& version = versions[rated.version];
        const TbPrice& price = prices[rated.price];
        p = tb_put_bytes(p, "{\"source\":\"", 11);
        p = put_text<plain>(p, source);
        p = tb_put_bytes(p, "\",\"id\":\"", 8);
        p = put_text<plain>(p, id);
        p = tb_put_bytes(p, "\",\"account\":\"", 13);
        p = put_text<plain>(p, account);
        p = tb_put_bytes(p, text + version.head.at, version.head.size);
        p = tb_put_pico_64(p, rated.amount_pico);
        p = tb_put_bytes(p, "\",\"net\":\"", 9);
        p = tb_put_pico_64(p, rated.net_pico);
        p = tb_put_bytes(p, "\",\"standard_tokens\":\"", 21);
        p = tb_put_micro_64(p, rated.standard_micro);
        p = tb_put_bytes(p, text + version.label.at, version.label.size);
        bool fee = rated.one_request;  // its line has its place among the others
        for (uint32_t i = 0; i < number; i++) {
            if (fee && meters[i] > tb_requests) {
                if (i) *p++ = ',';
                p = put_meter(p, price, tb_requests, 1);
                fee = false;
                *p++ = ',';
            } else if (i) {
                *p++ = ',';
            }
            p = put_meter(p, price, meters[i], counts[i]);
        }
        if (fee) {
            *p++ = ',';  // an event without counts is not priced here
            p = put_meter(p, price, tb_requests, 1);
        }
        return p;
    }

    // Refuses a time before the first version of the only book.
    int refuse_outside(int64_t time_us) {
        if (outside.size == 0) return tb_needs_plain;
        refused = {outside, TbPiece(), TbPiece(), outside_tail, time_us, true};
        return tb_refused;
    }

    // Returns a bound of the bytes that put_refusal writes, its two texts apart.
    size_t most_of_refusal() const {
        return refused.head.size + refused.meter.size + refused.middle.size + refused.tail.size + refused.last.size + 160;
    }

    // Writes billing.pricing.rate.rejection_as_json as a line; its texts have no escapes.
    char* put_refusal(char* p, const TbSpan& source, const TbSpan& id) const {
        const char* const text = pieces.data();
        p = tb_put_bytes(p, "{\"source\":\"", 11);
        p = put_text<true>(p, source);
        p = tb_put_bytes(p, "\",\"id\":\"", 8);
        p = put_text<true>(p, id);
        p = tb_put_bytes(p, text + refused.head.at, refused.head.size);
        p = tb_put_bytes(p, text + refused.meter.at, refused.meter.size);
        p = tb_put_bytes(p, text + refused.middle.at, refused.middle.size);
        p = refused.is_time ? tb_put_time(p, refused.number) : tb_put_u64(p, (uint64_t)refused.number);
        p = tb_put_bytes(p, text + refused.tail.at, refused.tail.size);
        if (refused.last.size == 0) return p;
        p = tb_put_u64(p, (uint64_t)refused.output);
        return tb_put_bytes(p, text + refused.last.at, refused.last.size);
    }

   private:
    char* put_meter(char* p, const TbPrice& price, int meter, int64_t count) const {
        const char* const text = pieces.data();
        const TbUnitPrice& unit = price.of[meter];
        p = tb_put_bytes(p, text + meter_heads[meter].at, meter_heads[meter].size);
        p = tb_put_u64(p, (uint64_t)count);
        p = tb_put_bytes(p, text + unit.piece.at, unit.piece.size);
        p = tb_put_pico_64(p, count * unit.price_pico);  // rate checked both products
        p = tb_put_bytes(p, "\",\"standard_tokens\":\"", 21);
        p = tb_put_micro_64(p, count * unit.coefficient_micro);
        return tb_put_bytes(p, "\"}", 2);
    }

    template <bool plain>
    static char* put_text(char* p, const TbSpan& text) {
        return plain ? tb_put_bytes(p, text.at, (size_t)text.size) : tb_put_json(p, text.at, (size_t)text.size);
    }

    // Finds the price that depends on the context and the output length (sums of the counts of their meters) and the
    // time bands.
    int momentary_price(TbVersion& in, int32_t version, int32_t combination, int64_t time_us, const int16_t* meters,
                        const int64_t* counts, uint32_t number, int32_t* at) {
        if (version >= tb_most_versions || combination >= tb_most_combinations) return tb_needs_plain;
        if (in.edges.size() > tb_most_edges || time_us < 0) return tb_needs_plain;
        int64_t context = 0, output = 0;
        for (uint32_t i = 0; i < number; i++) {
            if (meters[i] >= tb_meters) return tb_needs_plain;  // a declared meter may count for a length
            if (context_meters >> meters[i] & 1 && tb_add_64(&context, counts[i])) return tb_needs_plain;
        }
        const int64_t slot = time_us / tb_slot_us;
        if (slot != in.last_slot) {
            const auto bands = in.bands_of.find(slot);
            if (bands == in.bands_of.end()) {
                wanted.slot = slot;
                return tb_needs_bands;
            }
            in.last_slot = slot;
            in.last_bands = bands->second;
        }
        if (in.last_bands < 0 || in.last_bands >= tb_most_bands) return tb_needs_plain;
        int32_t segment = 0;
        while ((size_t)segment < in.edges.size() && context >= in.edges[segment]) segment++;
        if (!in.output_edges.empty()) {
            if (in.output_edges.size() > tb_most_edges) return tb_needs_plain;
            for (uint32_t i = 0; i < number; i++)
                if (output_meters >> meters[i] & 1 && tb_add_64(&output, counts[i])) return tb_needs_plain;
            for (size_t i = 0; i < in.output_edges.size() && output >= in.output_edges[i]; i++)
                segment += tb_output_segment;
        }
        const auto found = momentary.find(situation(version, combination, segment, in.last_bands));
        if (found == momentary.end()) {
            wanted.segment = segment;
            wanted.bands = in.last_bands;
            wanted.slot = slot;
            return tb_needs_moment;
        }
        *at = found->second;
        if (*at > tb_no_row_price) return *at < 0 ? tb_needs_plain : tb_priced;
        const TbNoRow& none = no_row[tb_no_row_price - *at];
        const bool has_output = none.between.size != 0;
        refused = {none.head, TbPiece(), TbPiece(), has_output ? none.between : none.tail, context, false,
                   has_output ? none.tail : TbPiece(), output};
        return tb_refused;
    }
};
