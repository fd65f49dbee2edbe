from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.tables cimport TextTable
from cython_ext.wide cimport TbBuffer, i128


cdef enum:
    NO_END_US = 4611686018427387904     # billing.accounts.account.NO_END_US, 2^62
    MAX_GRANT = 1000                # bytes of a grant id


cdef enum:                      # Account.dirty and Bucket.dirty: how a row differs from the one taken last
    UNCHANGED = 0
    CHANGED = 1                 # a bit: columns that usage changes
    REPLACED = 2                # a bit: the terms too (billing.commits.columns.account_terms and bucket_terms)


# Columns have the order of billing.accounts.account.Bucket and Account, the wide ones first so that no padding lies
# between them; tests/cython_ext/test_row_layout.py compares. Texts that repeat are numbers in AccountStore.words.
cdef struct Bucket:
    i128 amount_micro
    i128 remaining_micro
    i128 liability_pico
    i128 floor_micro            # billing.burning.deduct.alert_floor_micro
    int64_t valid_from_us
    int64_t valid_until_us
    int64_t lapse_at_us
    uint32_t grant_at           # where grant_id begins in AccountStore.grants
    int32_t rule                # plan, plan_version and bucket_no: an index in AccountStore.rules
    int32_t alerts_fired
    uint16_t grant_size         # bytes of grant_id
    int16_t unit
    int16_t status
    uint16_t carried_cycles
    uint8_t stored              # a row of this key is in SQL, or was handed over to go there
    uint8_t dirty


cdef struct Account:
    i128 credit_limit_pico
    i128 wallet_pico
    i128 absorbed_micro
    i128 absorbed_pico
    int64_t clock_us
    int64_t next_due_us
    Bucket* buckets             # in deduction order; the packed extras follow the last
    int32_t number              # the account's name: its number in the decoder's table of accounts
    uint32_t extras_size        # bytes of the packed extras
    int16_t currency
    int16_t price_book
    int16_t payment
    int16_t status
    uint16_t bucket_number
    uint8_t stored
    uint8_t dirty
    uint8_t touched             # it is in AccountStore.touched
    int8_t wallet_floor_bits    # billing.accounts.extras.Extras.wallet_floor_bits
    uint8_t told_extras         # balances tell something of the extras


cdef struct Rule:               # one bucket of one plan version
    int16_t plan                # a number in AccountStore.words, as label
    int16_t label               # plan@version
    int32_t version
    int32_t bucket_no
    uint8_t pays_as_you_go
    uint8_t any_scope           # the scope is empty
    uint8_t simple              # standard tokens, no windows, not shared: the core may burn it
    uint8_t plain_overage       # packs, a cap or consent: the plain calculator decides what it does not cover
    uint8_t waits_for_use       # a pending bucket begins with the first usage that reaches it


cdef class BufferPool:
    cdef TbBuffer spare                 # memory that came back
    cdef int lend_to(self, TbBuffer* buffer) except -1
    cdef object taken(self, TbBuffer* buffer)


cdef class TakenFrames:
    cdef TbBuffer buffer
    cdef BufferPool pool


cdef class AccountStore:
    cdef readonly TextTable numbers
    cdef readonly TextTable words
    cdef vector[int32_t] record_of      # by number of the account; -1: not in memory
    cdef vector[Account] records
    cdef vector[char] grants
    cdef vector[int32_t] touched
    cdef vector[Rule] rules
    cdef BufferPool pool
    # Kept so that their memory is used again, as those below.
    cdef TbBuffer frames
    cdef TbBuffer accounts_new, accounts_changed, accounts_replaced, buckets_new, buckets_changed, buckets_replaced
    cdef object _account_type, _bucket_type, _packer
    cdef dict _rule_numbers, _word_numbers
    cdef int8_t _bare_floor_bits        # Account.wallet_floor_bits of an account without extras
    cdef int16_t _open, _closed, _active, _pending, _suspended
    cdef int16_t word(self, str text) except -1
    cdef inline Account* find(self, int32_t number) noexcept nogil:
        """Find an account in memory, or NULL. Cannot fail: it reads a table within its bounds."""
        if <size_t>number >= self.record_of.size() or self.record_of[number] < 0:
            return NULL
        return &self.records[self.record_of[number]]
    cdef inline int touch(self, Account* account) except -1 nogil:
        """Mark an account as changed: the commit takes it."""
        if not account.touched:
            self.touched.push_back(self.record_of[account.number])
            account.touched = 1
        return 0
    cdef int _read_account(self, Account* record, object account, bytes extras, bint stored) except -1
    cdef int _read_bucket(self, Bucket* bucket, object plain, int32_t rule, object floor_micro) except -1
    cdef int _put_stored(self, tuple row, list bucket_rows, Py_ssize_t first, Py_ssize_t end, terms_of, order_of) except -1
    cdef int _read_account_row(self, Account* record, tuple row) except -1
    cdef int _read_bucket_row(self, Bucket* bucket, tuple row, tuple terms) except -1
    cdef int _check_bucket(self, Bucket* bucket, object grant_id) except -1
    cdef int _read_buckets(self, Account* record, list buckets, list rules, list floors, bint stored) except -1
    cdef int _store(self, Account* record, bint stored) except -1
    cdef int _place_grant(self, Bucket* bucket, bytes grant, Account* old, bint stored, size_t* likely) except -1
    cdef Account* _known(self, str account_id) except NULL
    cdef Bucket* _bucket_at(self, Account* record, Py_ssize_t place) except NULL
    cdef object _plain_account(self, Account* record, str account_id, list buckets, bytes extras)
    cdef bytes _extras(self, Account* account)
    cdef str _text(self, int32_t number)
    cdef object _plain_bucket(self, Bucket* bucket)
    cdef vector[int32_t] _sorted_touched(self) except *
    cdef int _sort_by_grant(self, Account* account, vector[int32_t]* order) except -1 nogil
    cdef int _put_frame(self, Account* account, const int32_t* order, size_t number, list pieces) except -1
    cdef int _put_rows(self, Account* account, const int32_t* order) except -1
    cdef int _put_account_row(self, TbBuffer* rows, Account* account) except -1
    cdef void _put_bucket_row(self, TbBuffer* rows, Account* account, Bucket* bucket) noexcept nogil
    cdef char* _put_account_object(self, char* p, Account* account, const int32_t* order) noexcept nogil
    cdef char* _put_terms(self, char* p, Account* account) noexcept nogil
    cdef char* _put_bucket_object(self, char* p, Bucket* bucket) noexcept nogil
    cdef char* _json_word(self, char* p, int32_t number) noexcept nogil
    cdef char* _copy_word(self, char* p, int32_t number) noexcept nogil
