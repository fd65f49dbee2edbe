from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.tables cimport TextTable
from cython_ext.wide cimport TbBuffer, i128


cdef enum:
    NO_END_US = 4611686018427387904  # 2**62, billing.accounts.account.NO_END_US


cdef struct Bucket:
    i128 amount_micro
    i128 remaining_micro
    i128 liability_pico
    i128 floor_micro        # the next alert is due when no more than this remains; -1: none is left
    int64_t valid_from_us
    int64_t valid_until_us
    int64_t lapse_at_us
    uint32_t grant_at       # the grant id in AccountStore.grants
    int32_t rule
    int32_t alerts_fired
    uint16_t grant_size
    int16_t unit            # a number in AccountStore.words
    int16_t status          # likewise
    uint8_t stored          # a row of this key is in SQL, or was handed over to go there
    uint8_t dirty           # how the row differs from the one taken last: bits CHANGED (1), REPLACED (2)
    uint16_t carried_cycles


cdef struct Account:
    i128 wallet_pico
    i128 absorbed_micro
    i128 absorbed_pico
    i128 credit_limit_pico
    int64_t clock_us
    int64_t next_due_us
    int32_t number          # in the decoder's table of accounts
    int16_t currency        # numbers in AccountStore.words
    int16_t book
    int16_t payment
    int16_t status
    uint16_t bucket_number
    uint8_t stored
    uint8_t dirty
    uint8_t touched
    int8_t wallet_floor_bits  # billing.accounts.extras.Extras.wallet_floor_bits
    uint32_t extras_size
    Bucket* buckets         # in deduction order; behind the last, its packed extras


cdef struct Rule:           # one bucket of one plan version
    int16_t plan            # numbers in AccountStore.words
    int16_t label
    int32_t version
    int32_t bucket_no
    uint8_t pays_as_you_go
    uint8_t any_scope       # the scope is empty
    uint8_t simple          # standard tokens, no windows, not shared: the core may burn it
    uint8_t plain_overage   # packs, a cap or consent: the plain rule decides what it does not cover
    uint8_t waits_for_use   # a pending bucket begins with the first usage that reaches it


cdef class AccountStore:
    cdef readonly TextTable numbers
    cdef readonly TextTable words
    cdef vector[int32_t] record_of      # by number of the account; -1: not in memory
    cdef vector[Account] records
    cdef vector[char] grants
    cdef vector[int32_t] touched
    cdef vector[Rule] rules
    cdef TbBuffer frames  # kept for their room, like those below
    cdef TbBuffer accounts_new, accounts_changed, accounts_replaced, buckets_new, buckets_changed, buckets_replaced
    cdef object _account_type, _bucket_type, _packer
    cdef dict _rule_numbers
    cdef int16_t _open, _closed, _active, _pending, _suspended
    cdef int16_t word(self, str text) except -1
    cdef inline Account* find(self, int32_t number) noexcept nogil:
        if <size_t>number >= self.record_of.size() or self.record_of[number] < 0:
            return NULL
        return &self.records[self.record_of[number]]
    cdef inline void touch(self, Account* account) noexcept nogil:
        if not account.touched:
            account.touched = 1
            self.touched.push_back(self.record_of[account.number])
    cdef int _place_grant(self, Bucket* bucket, bytes grant, Account* old, bint stored, size_t* likely) except -1
    cdef bytes _extras(self, Account* account)
    cdef str _text(self, int32_t number)
    cdef vector[int32_t] _sorted_touched(self) noexcept nogil
    cdef void _sort_by_grant(self, Account* account, vector[int32_t]* order) noexcept nogil
    cdef bint _grant_less(self, Bucket* a, Bucket* b) noexcept nogil
    cdef char* _json_word(self, char* p, int32_t number) noexcept nogil
    cdef char* _copy_word(self, char* p, int32_t number) noexcept nogil
    cdef void _put_frame(self, TbBuffer* frames, Account* account, const int32_t* order, size_t number, bytes head, bytes middle, bytes data, bytes tail) except *
    cdef void _put_account_row(self, TbBuffer* rows, Account* account) except *
    cdef void _put_bucket_row(self, TbBuffer* rows, Account* account, Bucket* bucket) noexcept nogil
    cdef char* _tab(self, char* p) noexcept nogil
    cdef char* _end(self, char* p, int64_t value_us) noexcept nogil
