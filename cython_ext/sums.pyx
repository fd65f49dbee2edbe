"""The sums of a commit: rollup rows by hour, price book version and combination, and journal sums of what was earned.

It holds sums of 128 bits and finds them; :mod:`cython_ext.usage` adds to them, checked. It decides nothing.
"""

from libc.stdint cimport int16_t, int32_t, int64_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport AccountStore
from cython_ext.wide cimport from_wide, to_wide

cdef enum:
    FIRST_SLOTS = 64        # of the hash table; a power of two, as every later size


cdef class CommitSums:
    """The sums since they were last taken. ``accounts`` has the numbers of currencies and plan labels."""

    def __cinit__(self, AccountStore accounts not None):
        self.accounts = accounts
        self.slots.resize(FIRST_SLOTS, -1)

    cdef Sums* _begin(self, int64_t hour_us, int32_t version, int32_t combination) except NULL nogil:
        """Begin the sums of a key at 0. The hash table doubles when it is half full."""
        cdef Sums fresh
        cdef Sums* sums
        cdef size_t i = self.sums.size(), at, mask = self.slots.size() - 1
        fresh.hour_us = hour_us
        fresh.version = version
        fresh.combination = combination
        fresh.events = 0
        fresh.tokens = 0
        fresh.standard_micro = 0
        fresh.amount_pico = 0
        fresh.net_pico = 0
        fresh.burned_micro = 0
        fresh.charged_pico = 0
        fresh.absorbed_micro = 0
        fresh.absorbed_pico = 0
        fresh.revenue_pico = 0
        self.sums.push_back(fresh)
        if 2 * self.sums.size() > mask:
            mask = 2 * mask + 1
            self.slots.assign(mask + 1, -1)
            i = 0
        while i < self.sums.size():
            sums = &self.sums[i]
            at = slot_of(sums.hour_us, sums.version, sums.combination) & mask
            while self.slots[at] >= 0:
                at = (at + 1) & mask
            self.slots[at] = <int32_t>i
            i += 1
        return &self.sums.back()

    def take(self):
        """Return [(hour_us, version, combination, (events, tokens, ..., revenue_pico))] since the last call."""
        cdef size_t i
        cdef Sums* sums
        taken = []
        for i in range(self.sums.size()):
            sums = &self.sums[i]
            if sums.events == 0:
                continue
            values = (
                sums.events,
                from_wide(sums.tokens),
                from_wide(sums.standard_micro),
                from_wide(sums.amount_pico),
                from_wide(sums.net_pico),
                from_wide(sums.burned_micro),
                from_wide(sums.charged_pico),
                from_wide(sums.absorbed_micro),
                from_wide(sums.absorbed_pico),
                from_wide(sums.revenue_pico),
            )
            taken.append((sums.hour_us, sums.version, sums.combination, values))
        self.sums.clear()
        self.slots.assign(FIRST_SLOTS, -1)
        return taken

    def put(self, int64_t hour_us, int32_t version, int32_t combination, tuple values not None):
        """Begin the sums of a key at ten values, as :meth:`take` returns them; for tests near the limits.

        Raises:
            OverflowError: a value does not fit.
        """
        cdef Sums* sums = self.of(hour_us, version, combination)
        sums.events = values[0]
        to_wide(values[1], &sums.tokens)
        to_wide(values[2], &sums.standard_micro)
        to_wide(values[3], &sums.amount_pico)
        to_wide(values[4], &sums.net_pico)
        to_wide(values[5], &sums.burned_micro)
        to_wide(values[6], &sums.charged_pico)
        to_wide(values[7], &sums.absorbed_micro)
        to_wide(values[8], &sums.absorbed_pico)
        to_wide(values[9], &sums.revenue_pico)

    def take_earned(self):
        """Return [(currency, plan label or None, version, amount_pico, net_pico)] since the last call."""
        cdef size_t i
        cdef Earned* earned
        taken = []
        for i in range(self.earned.size()):
            earned = &self.earned[i]
            plan = self.accounts._text(earned.plan) if earned.plan >= 0 else None
            amounts = from_wide(earned.amount_pico), from_wide(earned.net_pico)
            taken.append((self.accounts._text(earned.currency), plan, earned.version, *amounts))
        self.earned.clear()
        return taken

    def put_earned(self, str currency not None, str plan, int32_t version, amount_pico, net_pico):
        """Begin journal sums at these values, as :meth:`take_earned` returns them; for tests near the limits.

        Raises:
            OverflowError: a value does not fit.
        """
        cdef int16_t label = -1 if plan is None else self.accounts.word(plan)
        cdef Earned* earned = self.earned_of(self.accounts.word(currency), label, version)
        to_wide(amount_pico, &earned.amount_pico)
        to_wide(net_pico, &earned.net_pico)
