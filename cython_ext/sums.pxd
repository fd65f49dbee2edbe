from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport AccountStore
from cython_ext.wide cimport i128


cdef enum:
    MAX_EVENTS = 0x7FFFFFFFFFFFFFFF    # of one rollup row


# The sums of a rollup row of one hour, price book version and combination, in the order of
# billing.commits.commit_record.RollupRow; tests/cython_ext/test_row_layout.py compares.
cdef struct Sums:
    int64_t hour_us
    int32_t version
    int32_t combination
    int64_t events              # 0: nothing was summed yet; such a row is not taken
    i128 tokens
    i128 standard_micro
    i128 amount_pico
    i128 net_pico
    i128 burned_micro
    i128 charged_pico
    i128 absorbed_micro
    i128 absorbed_pico
    i128 revenue_pico


cdef struct Earned:             # journal sums of one currency and one plan label (net is 0) or price book version
    int16_t currency            # numbers in AccountStore.words, as plan
    int16_t plan                # a plan's label; -1: of a price book version
    int32_t version             # -1: of a plan
    i128 amount_pico
    i128 net_pico


cdef inline size_t slot_of(int64_t hour_us, int32_t version, int32_t combination) noexcept nogil:
    """Return the hash of a key of sums. It only computes; unsigned arithmetic wraps on purpose."""
    cdef uint64_t mixed = (<uint64_t>hour_us + <uint64_t>version * 0x9E3779B97F4A7C15ULL) ^ (
        <uint64_t>combination * 0xC2B2AE3D27D4EB4FULL
    )
    mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9ULL
    return mixed >> 32


cdef class CommitSums:
    cdef AccountStore accounts
    cdef vector[Sums] sums
    cdef vector[int32_t] slots          # a hash table of indexes into sums; -1: empty
    cdef vector[Earned] earned
    cdef Sums* _begin(self, int64_t hour_us, int32_t version, int32_t combination) except NULL nogil

    cdef inline Sums* of(self, int64_t hour_us, int32_t version, int32_t combination) except NULL nogil:
        """Find the sums of a key, or begin them at 0. The pointer is valid until the next call."""
        cdef size_t mask = self.slots.size() - 1
        cdef size_t at = slot_of(hour_us, version, combination) & mask
        cdef Sums* sums
        while self.slots[at] >= 0:
            sums = &self.sums[self.slots[at]]
            if sums.combination == combination and sums.hour_us == hour_us and sums.version == version:
                return sums
            at = (at + 1) & mask
        return self._begin(hour_us, version, combination)

    cdef inline Earned* earned_of(self, int16_t currency, int16_t plan, int32_t version) except NULL nogil:
        """Find the journal sums of a plan label or price book version, or begin them at 0. The pointer is valid until
        the next call.

        Few plans and books are used at a time: a scan is fastest.
        """
        cdef size_t i
        cdef Earned fresh
        for i in range(self.earned.size()):
            if (
                self.earned[i].plan == plan
                and self.earned[i].version == version
                and self.earned[i].currency == currency
            ):
                return &self.earned[i]
        fresh.currency = currency
        fresh.plan = plan
        fresh.version = version
        fresh.amount_pico = 0
        fresh.net_pico = 0
        self.earned.push_back(fresh)
        return &self.earned.back()
