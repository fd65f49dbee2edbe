"""The accounts of one partition in compact memory, and how they are written: balance documents and ``COPY`` rows.

An account takes 112 bytes, a bucket 112 and its grant id; names that repeat are numbers. A plain
:class:`billing.accounts.account.Account` is made on demand and stored back. Extras (:mod:`billing.accounts.extras`) lie
packed behind the buckets of their account. It holds no rules.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from libcpp.algorithm cimport sort
from libcpp.vector cimport vector

from cython_ext.decode cimport MAX_TEXT, MAX_TIME_US
from cython_ext.frames cimport FRAME_HEAD, put_frame_head
from cython_ext.tables cimport TextTable
from cython_ext.wide cimport (
    COPY_GROWTH,
    JSON_GROWTH,
    MAX_NUMBER,
    TbBuffer,
    from_wide,
    i128,
    tb_prefetch,
    tb_put_bytes,
    tb_put_copy,
    tb_put_i128,
    tb_put_json,
    tb_put_micro,
    tb_put_pico,
    tb_put_time,
    tb_put_u64,
    tb_widen,
    to_wide,
)

cdef extern from "wide.hpp" nogil:
    cdef cppclass TbNamed:
        int32_t place
        TbNamed() noexcept
        TbNamed(const char* text, size_t size, int32_t place) noexcept

cdef enum:
    MAX_BUCKETS = 65535        # of one account, by Account.bucket_number; billing.accounts.account grants fewer
    MAX_EXTRAS = 0xFFFFFFFF    # bytes, by Account.extras_size
    MAX_GRANTS = 0xFFFFFFFF    # bytes of all grant ids, by Bucket.grant_at
    MAX_WORDS = 32767          # by the columns that hold their numbers
    SORTED_IN_PLACE = 16        # buckets of an account that insertion sorts
    SURE_DIGITS = 18            # a number of so many digits has 64 bits

# Columns of a row: billing.commits.columns.ACCOUNT_COLUMNS and BUCKET_COLUMNS.
cdef enum:
    A_ACCOUNT, A_CURRENCY, A_PRICE_BOOK, A_PAYMENT, A_CREDIT_LIMIT_PICO, A_WALLET_PICO, A_ABSORBED_MICRO
    A_ABSORBED_PICO, A_STATUS, A_CLOCK_US, A_NEXT_DUE_US, A_EXTRAS

cdef enum:
    B_ACCOUNT, B_GRANT_ID, B_PLAN, B_PLAN_VERSION, B_BUCKET_NO, B_UNIT, B_AMOUNT_MICRO, B_REMAINING_MICRO
    B_LIABILITY_PICO, B_VALID_FROM_US, B_VALID_UNTIL_US, B_LAPSE_AT_US, B_ALERTS_FIRED, B_STATUS, B_CARRIED_CYCLES


cdef inline uint8_t _account_difference(Account* a, Account* b) noexcept nogil:
    """Return how two rows of an account differ, extras apart. Cannot fail: it compares."""
    if a.credit_limit_pico != b.credit_limit_pico:
        return REPLACED
    if (
        a.wallet_pico != b.wallet_pico
        or a.absorbed_micro != b.absorbed_micro
        or a.absorbed_pico != b.absorbed_pico
        or a.status != b.status
        or a.clock_us != b.clock_us
        or a.next_due_us != b.next_due_us
    ):
        return CHANGED
    return UNCHANGED


cdef inline uint8_t _bucket_difference(Bucket* a, Bucket* b) noexcept nogil:
    """Return how two rows of a bucket differ. Cannot fail: it compares."""
    if (
        a.amount_micro != b.amount_micro
        or a.valid_from_us != b.valid_from_us
        or a.valid_until_us != b.valid_until_us
        or a.lapse_at_us != b.lapse_at_us
        or a.carried_cycles != b.carried_cycles
    ):
        return REPLACED
    if (
        a.remaining_micro != b.remaining_micro
        or a.liability_pico != b.liability_pico
        or a.alerts_fired != b.alerts_fired
        or a.status != b.status
    ):
        return CHANGED
    return UNCHANGED


cdef int _read_number(object text, i128* result) except -1:
    """Store the 128-bit integer that a column holds as text.

    Raises:
        ValueError: the text is no integer.
        OverflowError: it does not fit.
    """
    cdef Py_ssize_t size, i = 0
    cdef const char* digits = PyUnicode_AsUTF8AndSize(text, &size)
    cdef int64_t value = 0
    if 0 < size <= SURE_DIGITS:
        while i < size and c'0' <= digits[i] <= c'9':
            value = 10 * value + (digits[i] - c'0')
            i += 1
        if i == size:
            result[0] = tb_widen(value)
            return 0
    return to_wide(int(text), result)


cdef inline int64_t _end_us(object value) except? -1:
    """Return the time of a column, :data:`NO_END_US` for null."""
    return NO_END_US if value is None else <int64_t>value


cdef inline char* _tab(char* p) noexcept nogil:
    """Write what separates two columns."""
    p[0] = c'\t'
    return p + 1


cdef inline char* _put_end(char* p, int64_t value_us) noexcept nogil:
    """Write a time as a column, null for one that never comes."""
    if value_us >= NO_END_US:
        return tb_put_bytes(p, b"\\N", 2)
    return tb_put_i128(p, tb_widen(value_us))


cdef inline bint _grant_less(AccountStore store, Bucket* a, Bucket* b) noexcept nogil:
    """True if a bucket's grant id sorts before another's. Cannot fail: it compares."""
    cdef uint16_t shorter = min(a.grant_size, b.grant_size)
    cdef int order = memcmp(store.grants.data() + a.grant_at, store.grants.data() + b.grant_at, shorter)
    return order < 0 or (order == 0 and a.grant_size < b.grant_size)


cdef inline void _prefetch_touched(AccountStore store, const vector[int32_t]& order, size_t i) noexcept nogil:
    """Load ahead the accounts that are written soon. Cannot fail: a prefetch of any address is allowed."""
    cdef Account* account
    if i + 16 < order.size():
        tb_prefetch(&store.records[order[i + 16]])
        tb_prefetch(<char*>&store.records[order[i + 16]] + 64)
    if i + 8 < order.size():
        account = &store.records[order[i + 8]]
        tb_prefetch(store.numbers.arena.data() + store.numbers.starts[account.number])
        tb_prefetch(account.buckets)
        tb_prefetch(<char*>account.buckets + 64)
    if i + 4 < order.size() and store.records[order[i + 4]].bucket_number:
        tb_prefetch(store.grants.data() + store.records[order[i + 4]].buckets[0].grant_at)


@cython.no_gc
cdef class BufferPool:
    """Memory of frames, which is used again once nobody looks at what was written there: fresh memory is slow."""

    cdef int lend_to(self, TbBuffer* buffer) except -1:
        """Give the spare memory to an empty buffer that has none."""
        if buffer.data == NULL:
            buffer.swap(self.spare)
        buffer.size = 0
        return 0

    cdef object taken(self, TbBuffer* buffer):
        """Return what a buffer holds, and leave it empty."""
        cdef TakenFrames frames = TakenFrames.__new__(TakenFrames)
        frames.pool = self
        frames.buffer.swap(buffer[0])
        return memoryview(frames)


@cython.no_gc
cdef class TakenFrames:
    """Bytes that were written and do not change any more; their memory goes back to its pool at the end."""

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.buffer.data, self.buffer.size, 1, flags)

    def __dealloc__(self):
        if self.pool is not None and self.pool.spare.data == NULL:
            self.buffer.swap(self.pool.spare)


cdef class AccountStore:
    """The accounts in memory, by their number in the decoder's table.

    ``account_type`` and ``bucket_type`` are the classes of plain values; ``packer`` is a
    :class:`billing.calculator.packed_extras.ExtrasPacker`.
    """

    def __cinit__(self, TextTable numbers not None, account_type, bucket_type, packer):
        self.numbers = numbers
        self.words = TextTable()
        self._account_type = account_type
        self._bucket_type = bucket_type
        self._packer = packer
        self.pool = BufferPool()
        self._rule_numbers = {}
        self._word_numbers = {}
        _, self._bare_floor_bits = packer.packed("{}")
        self._open = self.word("open")
        self._closed = self.word("closed")
        self._active = self.word("active")
        self._pending = self.word("pending")
        self._suspended = self.word("suspended")

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.records.size()):
            free(self.records[i].buckets)

    def __len__(self):
        return self.records.size()

    def rule(self, plan, int bucket_no):
        """Return the number of a bucket of a :class:`billing.catalog.model.Plan`; a new one gets the next."""
        cdef Rule rule
        key = (plan.name, plan.version, bucket_no)
        number = self._rule_numbers.get(key)
        if number is None:
            rule.plan = self.word(plan.name)
            rule.label = self.word(f"{plan.name}@{plan.version}")
            rule.version = plan.version
            rule.bucket_no = bucket_no
            rule.pays_as_you_go = plan.overage.mode == "pay_as_you_go"
            rule.waits_for_use = plan.activation == "first_use"
            rule.any_scope = not plan.buckets[bucket_no - 1].scope
            rule.simple = (
                plan.buckets[bucket_no - 1].unit == "STD_TOKEN"
                and not plan.windows
                and plan.members is None
                and plan.buckets[bucket_no - 1].carry_max_micro is None
                and not plan.buckets[bucket_no - 1].carry_min_micro
            )
            rule.plain_overage = (
                plan.overage.mode not in ("pay_as_you_go", "block")
                or plan.overage.cap_pico != 0
                or plan.overage.consent_required
            )
            number = self.rules.size()
            self.rules.push_back(rule)
            self._rule_numbers[key] = number
        return number

    def put(
        self,
        account,
        list sorted_buckets not None,
        list rules not None,
        list floors not None,
        bint stored,
        uint8_t at_least=UNCHANGED,
    ):
        """Put an account, its buckets in deduction order, with the rule number and alert floor of each.

        ``stored``: it is as SQL has it. Else it is new or changed, and :meth:`take` returns it; its row has changed at
        least as the bits of ``at_least`` say.

        Raises:
            OverflowError: a number does not fit its column; a sum of money or tokens has 128 bits.
            ValueError: a bucket's time is not between 1970 and 9999, or a rule or floor is missing.
        """
        cdef Account record
        cdef bytes extras = self._packer.pack(account.extras)
        cdef Py_ssize_t number = len(sorted_buckets)
        if number > MAX_BUCKETS:
            raise OverflowError(f"account {account.account!r} has {number} buckets")
        if <size_t>len(extras) > MAX_EXTRAS:
            raise OverflowError(f"account {account.account!r} has {len(extras)} bytes beyond its buckets")
        if len(rules) != number or len(floors) != number:
            raise ValueError(f"{len(rules)} rules and {len(floors)} floors for {number} buckets")
        self._read_account(&record, account, extras, stored)
        record.bucket_number = <uint16_t>number
        if number or record.extras_size:
            record.buckets = <Bucket*>malloc(number * sizeof(Bucket) + record.extras_size)
            if record.buckets == NULL:
                raise MemoryError
            memcpy(&record.buckets[number], <const char*>extras, record.extras_size)
        try:
            self._read_buckets(&record, sorted_buckets, rules, floors, stored)
            self._store(&record, stored)
            if not stored:
                self.find(record.number).dirty |= at_least
        except BaseException:
            free(record.buckets)
            raise

    def put_rows(self, list account_rows not None, list bucket_rows not None, terms_of, order_of):
        """Put accounts as SQL has them, from rows as :class:`billing.commits.stored_accounts.StoredAccounts` has them.

        ``terms_of`` is a mapping from (plan, version, bucket number, amount as text, alerts fired) to (rule number,
        alert floor, plan bucket). ``order_of`` returns the place of a bucket in the deduction order as a key: of its
        plan bucket, its end, its start and its grant id. Otherwise as :meth:`put`.

        Raises:
            ValueError: a bucket row is of no account, or rows are not in the order of accounts.
        """
        cdef Py_ssize_t first, at = 0, number = len(bucket_rows)
        cdef tuple row
        for row in account_rows:
            name = row[A_ACCOUNT]
            first = at
            while at < number and (<tuple>bucket_rows[at])[B_ACCOUNT] == name:
                at += 1
            self._put_stored(row, bucket_rows, first, at, terms_of, order_of)
        if at != number:
            raise ValueError(f"the bucket row {at} of {number} is out of order: its account has no row here")

    cdef int _put_stored(
        self, tuple row, list bucket_rows, Py_ssize_t first, Py_ssize_t end, terms_of, order_of
    ) except -1:
        """Put one account from its row and those of its buckets."""
        cdef Account record
        cdef Account* old
        cdef Py_ssize_t i, number = end - first
        cdef size_t likely = 0
        cdef tuple bucket_row, terms
        cdef bytes extras, grant
        cdef list sorted_rows
        text = row[A_EXTRAS]
        extras, wallet_floor_bits = (b"", self._bare_floor_bits) if text == "{}" else self._packer.packed(text)
        if number > MAX_BUCKETS:
            raise OverflowError(f"account {row[A_ACCOUNT]!r} has {number} buckets")
        if <size_t>len(extras) > MAX_EXTRAS:
            raise OverflowError(f"account {row[A_ACCOUNT]!r} has {len(extras)} bytes beyond its buckets")
        sorted_rows = []
        for i in range(first, end):
            bucket_row = bucket_rows[i]
            terms = terms_of[
                bucket_row[B_PLAN], bucket_row[B_PLAN_VERSION], bucket_row[B_BUCKET_NO], bucket_row[B_AMOUNT_MICRO],
                bucket_row[B_ALERTS_FIRED],
            ]
            key = None
            if number > 1:
                key = order_of(
                    terms[2], _end_us(bucket_row[B_VALID_UNTIL_US]), bucket_row[B_VALID_FROM_US], bucket_row[B_GRANT_ID]
                )
            sorted_rows.append((key, i, bucket_row, terms))
        if number > 1:
            sorted_rows.sort()
        self._read_account_row(&record, row)
        record.wallet_floor_bits = wallet_floor_bits
        record.told_extras = bool(extras) and self._packer.told(extras)
        record.extras_size = <uint32_t>len(extras)
        record.bucket_number = <uint16_t>number
        if number or record.extras_size:
            record.buckets = <Bucket*>malloc(number * sizeof(Bucket) + record.extras_size)
            if record.buckets == NULL:
                raise MemoryError
            memcpy(&record.buckets[number], <const char*>extras, record.extras_size)
        try:
            old = self.find(record.number)
            for i in range(number):
                _, _, bucket_row, terms = sorted_rows[i]
                self._read_bucket_row(&record.buckets[i], bucket_row, terms)
                grant = bucket_row[B_GRANT_ID].encode()
                if len(grant) > MAX_GRANT:
                    raise OverflowError(f"grant id {bucket_row[B_GRANT_ID]!r} is too long")
                self._place_grant(&record.buckets[i], grant, old, True, &likely)
            self._store(&record, True)
        except BaseException:
            free(record.buckets)
            raise
        return 0

    cdef int _read_account_row(self, Account* record, tuple row) except -1:
        """Fill a record from a row, its buckets and extras apart."""
        _read_number(row[A_CREDIT_LIMIT_PICO], &record.credit_limit_pico)
        _read_number(row[A_WALLET_PICO], &record.wallet_pico)
        _read_number(row[A_ABSORBED_MICRO], &record.absorbed_micro)
        _read_number(row[A_ABSORBED_PICO], &record.absorbed_pico)
        record.clock_us = row[A_CLOCK_US]
        record.next_due_us = _end_us(row[A_NEXT_DUE_US])
        record.number = self.numbers.number(row[A_ACCOUNT].encode())
        record.currency = self.word(row[A_CURRENCY])
        record.price_book = self.word(row[A_PRICE_BOOK])
        record.payment = self.word(row[A_PAYMENT])
        record.status = self.word(row[A_STATUS])
        record.stored = True
        record.dirty = UNCHANGED
        record.touched = 0
        record.buckets = NULL
        return 0

    cdef int _read_bucket_row(self, Bucket* bucket, tuple row, tuple terms) except -1:
        """Fill a bucket from a row, its grant id apart."""
        _read_number(row[B_AMOUNT_MICRO], &bucket.amount_micro)
        _read_number(row[B_REMAINING_MICRO], &bucket.remaining_micro)
        _read_number(row[B_LIABILITY_PICO], &bucket.liability_pico)
        to_wide(terms[1], &bucket.floor_micro)
        bucket.valid_from_us = row[B_VALID_FROM_US]
        bucket.valid_until_us = _end_us(row[B_VALID_UNTIL_US])
        bucket.lapse_at_us = _end_us(row[B_LAPSE_AT_US])
        bucket.rule = terms[0]
        bucket.alerts_fired = row[B_ALERTS_FIRED]
        bucket.carried_cycles = row[B_CARRIED_CYCLES]
        bucket.unit = self.word(row[B_UNIT])
        bucket.status = self.word(row[B_STATUS])
        return self._check_bucket(bucket, row[B_GRANT_ID])

    cdef int _read_account(self, Account* record, object account, bytes extras, bint stored) except -1:
        """Fill a record from a plain account, its buckets apart."""
        to_wide(account.credit_limit_pico, &record.credit_limit_pico)
        to_wide(account.wallet_pico, &record.wallet_pico)
        to_wide(account.absorbed_micro, &record.absorbed_micro)
        to_wide(account.absorbed_pico, &record.absorbed_pico)
        record.clock_us = account.clock_us
        record.next_due_us = account.next_due_us
        record.number = self.numbers.number(account.account.encode())
        record.currency = self.word(account.currency)
        record.price_book = self.word(account.price_book)
        record.payment = self.word(account.payment)
        record.status = self.word(account.status)
        record.stored = stored
        record.dirty = UNCHANGED if stored else REPLACED
        record.touched = 0
        record.wallet_floor_bits = account.extras.wallet_floor_bits
        record.told_extras = self._packer.told(extras)
        record.extras_size = <uint32_t>len(extras)
        record.buckets = NULL
        return 0

    cdef int _read_bucket(self, Bucket* bucket, object plain, int32_t rule, object floor_micro) except -1:
        """Fill a bucket from a plain one, its grant id apart."""
        to_wide(plain.amount_micro, &bucket.amount_micro)
        to_wide(plain.remaining_micro, &bucket.remaining_micro)
        to_wide(plain.liability_pico, &bucket.liability_pico)
        to_wide(floor_micro, &bucket.floor_micro)
        bucket.valid_from_us = plain.valid_from_us
        bucket.valid_until_us = plain.valid_until_us
        bucket.lapse_at_us = plain.lapse_at_us
        bucket.rule = rule
        bucket.alerts_fired = plain.alerts_fired
        bucket.carried_cycles = plain.carried_cycles
        bucket.unit = self.word(plain.unit)
        bucket.status = self.word(plain.status)
        return self._check_bucket(bucket, plain.grant_id)

    cdef int _check_bucket(self, Bucket* bucket, object grant_id) except -1:
        """Refuse times that cannot be written, and an unknown rule."""
        if not 0 <= bucket.valid_from_us < MAX_TIME_US:
            raise ValueError(f"bucket {grant_id!r} begins outside of 1970 to 9999")
        if bucket.valid_until_us < 0 or MAX_TIME_US <= bucket.valid_until_us < NO_END_US:
            raise ValueError(f"bucket {grant_id!r} ends outside of 1970 to 9999")
        if not 0 <= bucket.rule < <Py_ssize_t>self.rules.size():
            raise ValueError(f"bucket {grant_id!r} is of rule {bucket.rule}, which was not given")
        return 0

    cdef int _read_buckets(self, Account* record, list buckets, list rules, list floors, bint stored) except -1:
        """Fill the buckets of a record; a grant id that the account had before keeps its place."""
        cdef Account* old = self.find(record.number)
        cdef bytes grant
        cdef Py_ssize_t i
        cdef size_t likely = 0
        for i in range(record.bucket_number):
            plain = buckets[i]
            self._read_bucket(&record.buckets[i], plain, rules[i], floors[i])
            grant = plain.grant_id.encode()
            if len(grant) > MAX_GRANT:
                raise OverflowError(f"grant id {plain.grant_id!r} is too long")
            self._place_grant(&record.buckets[i], grant, old, stored, &likely)
        return 0

    cdef int _place_grant(self, Bucket* bucket, bytes grant, Account* old, bint stored, size_t* likely) except -1:
        """Find the text of a grant id among the account's old ones, or append it; compare the bucket with its old row.

        ``likely`` is the place to look first, and afterwards the likely place of the next one: grants keep their order.
        A row that was stored once stays so.
        """
        cdef size_t i, tried
        cdef size_t size = len(grant)
        cdef const char* text = grant
        bucket.grant_size = <uint16_t>size
        bucket.stored = stored
        bucket.dirty = UNCHANGED if stored else REPLACED
        if old != NULL:
            for tried in range(old.bucket_number):
                i = (likely[0] + tried) % old.bucket_number
                if old.buckets[i].grant_size == size and (
                    memcmp(self.grants.data() + old.buckets[i].grant_at, text, size) == 0
                ):
                    bucket.grant_at = old.buckets[i].grant_at
                    bucket.stored = stored or old.buckets[i].stored
                    bucket.dirty = old.buckets[i].dirty
                    if not stored:
                        bucket.dirty |= _bucket_difference(bucket, &old.buckets[i])
                    likely[0] = i + 1
                    return 0
        if self.grants.size() + size > MAX_GRANTS:
            raise OverflowError("the grant ids of a partition take more than 4 GiB")
        bucket.grant_at = <uint32_t>self.grants.size()
        self.grants.insert(self.grants.end(), text, text + size)
        return 0

    cdef int _store(self, Account* record, bint stored) except -1:
        """Put a record in the place of the account's old one, or behind the others; the store owns its buckets then."""
        cdef Account* old = self.find(record.number)
        cdef bint new_extras
        if old != NULL:
            record.touched = old.touched
            record.dirty = old.dirty
            if not stored:
                new_extras = record.extras_size != old.extras_size or (
                    record.extras_size and memcmp(
                        &record.buckets[record.bucket_number], &old.buckets[old.bucket_number], record.extras_size
                    ) != 0
                )
                record.dirty |= REPLACED if new_extras else _account_difference(record, old)
            record.stored = record.stored or old.stored
            free(old.buckets)
            old[0] = record[0]
        else:
            if self.record_of.size() <= <size_t>record.number:
                self.record_of.resize(record.number + 1, -1)
            self.records.push_back(record[0])
            self.record_of[record.number] = <int32_t>self.records.size() - 1
        record.buckets = NULL
        if not stored:
            self.touch(self.find(record.number))
        return 0

    def has(self, int32_t number):
        """Return True if the account of this number is in memory."""
        return self.find(number) != NULL

    def get(self, str account_id not None):
        """Return the account as a new plain value, buckets in deduction order; None where it is not in memory."""
        cdef int32_t number = self.numbers.known(account_id.encode())
        cdef Account* record = self.find(number) if number >= 0 else NULL
        cdef Py_ssize_t i
        if record == NULL:
            return None
        buckets = [self._plain_bucket(&record.buckets[i]) for i in range(record.bucket_number)]
        return self._plain_account(record, account_id, buckets, self._extras(record))

    def get_part(self, str account_id not None, list places not None):
        """Return an account in memory as a plain value that has only the buckets of some places, in their order, and no
        extras: for an event that neither reads nor changes any.

        Raises:
            ValueError: the account is not in memory, or has no bucket of such a place.
        """
        cdef Account* record = self._known(account_id)
        buckets = [self._plain_bucket(self._bucket_at(record, place)) for place in places]
        return self._plain_account(record, account_id, buckets, b"")

    def put_part(self, account, list places not None, list floors not None):
        """Put back what :meth:`get_part` returned, after an event: the account without its extras, and these buckets.

        The buckets are in the order of ``places``, each with its alert floor; no bucket may be new.

        Raises:
            OverflowError: a number does not fit its column.
            ValueError: the account is not in memory, or buckets, places and floors do not go together.
        """
        cdef Account* record = self._known(account.account)
        cdef Account changed
        cdef Bucket bucket
        cdef Bucket* old
        cdef Py_ssize_t i
        cdef list plain = account.buckets
        if len(plain) != len(places) or len(floors) != len(places):
            raise ValueError(f"{len(plain)} buckets and {len(floors)} floors for {len(places)} places")
        self._read_account(&changed, account, b"", False)
        changed.bucket_number = record.bucket_number
        changed.buckets = record.buckets
        changed.extras_size = record.extras_size
        changed.told_extras = record.told_extras
        changed.wallet_floor_bits = record.wallet_floor_bits
        changed.stored = record.stored
        changed.touched = record.touched
        changed.dirty = record.dirty | _account_difference(&changed, record)
        for i in range(len(places)):
            old = self._bucket_at(record, places[i])
            bucket = old[0]
            self._read_bucket(&bucket, plain[i], old.rule, floors[i])
            bucket.dirty = old.dirty | _bucket_difference(&bucket, old)
            old[0] = bucket
        record[0] = changed
        self.touch(record)

    cdef Account* _known(self, str account_id) except NULL:
        """Return the record of an account in memory."""
        cdef int32_t number = self.numbers.known(account_id.encode())
        cdef Account* record = self.find(number) if number >= 0 else NULL
        if record == NULL:
            raise ValueError(f"account {account_id!r} is not in memory")
        return record

    cdef Bucket* _bucket_at(self, Account* record, Py_ssize_t place) except NULL:
        """Return the bucket of a place."""
        if not 0 <= place < record.bucket_number:
            raise ValueError(f"place {place} of {record.bucket_number} buckets")
        return &record.buckets[place]

    cdef object _plain_account(self, Account* record, str account_id, list buckets, bytes extras):
        """Return a record as a plain value with these buckets and packed extras."""
        return self._account_type(
            account=account_id,
            currency=self._text(record.currency),
            price_book=self._text(record.price_book),
            payment=self._text(record.payment),
            credit_limit_pico=from_wide(record.credit_limit_pico),
            wallet_pico=from_wide(record.wallet_pico),
            absorbed_micro=from_wide(record.absorbed_micro),
            absorbed_pico=from_wide(record.absorbed_pico),
            status=self._text(record.status),
            clock_us=record.clock_us,
            next_due_us=record.next_due_us,
            buckets=buckets,
            extras=self._packer.unpack(extras),
        )

    cdef object _plain_bucket(self, Bucket* bucket):
        """Return a bucket as a plain value."""
        cdef Rule* rule = &self.rules[bucket.rule]
        grant = self.grants.data()[bucket.grant_at : bucket.grant_at + bucket.grant_size]
        return self._bucket_type(
            grant_id=grant.decode(),
            plan=self._text(rule.plan),
            plan_version=rule.version,
            bucket_no=rule.bucket_no,
            unit=self._text(bucket.unit),
            amount_micro=from_wide(bucket.amount_micro),
            remaining_micro=from_wide(bucket.remaining_micro),
            liability_pico=from_wide(bucket.liability_pico),
            valid_from_us=bucket.valid_from_us,
            valid_until_us=bucket.valid_until_us,
            lapse_at_us=bucket.lapse_at_us,
            alerts_fired=bucket.alerts_fired,
            status=self._text(bucket.status),
            carried_cycles=bucket.carried_cycles,
        )

    def take(self, list balance_pieces not None):
        """Return the touched accounts as output and rows, and forget that they were touched.

        ``balance_pieces`` are the constant parts of a balance event:
        before its number in the commit, before the subject, before the account object, and the end; and what an account
        object says of empty extras. Returns the number of balance frames, the frames, and the
        rows that differ from those taken before, as :class:`billing.commits.commit_record.AccountChanges` has them.

        Raises:
            OverflowError: a frame is longer than 4 GiB.
        """
        cdef vector[int32_t] order = self._sorted_touched()
        cdef vector[int32_t] by_grant
        cdef size_t i
        cdef Account* account
        self.pool.lend_to(&self.frames)
        self.accounts_new.size = 0
        self.accounts_changed.size = 0
        self.accounts_replaced.size = 0
        self.buckets_new.size = 0
        self.buckets_changed.size = 0
        self.buckets_replaced.size = 0
        for i in range(order.size()):
            _prefetch_touched(self, order, i)
            account = &self.records[order[i]]
            self._sort_by_grant(account, &by_grant)
            self._put_frame(account, by_grant.data(), i, balance_pieces)
            self._put_rows(account, by_grant.data())
        self.touched.clear()
        return (
            order.size(),
            self.pool.taken(&self.frames),
            self.accounts_new.data[: self.accounts_new.size],
            self.accounts_changed.data[: self.accounts_changed.size],
            self.accounts_replaced.data[: self.accounts_replaced.size],
            self.buckets_new.data[: self.buckets_new.size],
            self.buckets_changed.data[: self.buckets_changed.size],
            self.buckets_replaced.data[: self.buckets_replaced.size],
        )

    cdef int _put_rows(self, Account* account, const int32_t* order) except -1:
        """Append the rows of an account and its buckets that differ from those taken before; they are as taken then."""
        cdef Bucket* bucket
        cdef Py_ssize_t i
        if not account.stored:
            self._put_account_row(&self.accounts_new, account)
        elif account.dirty & REPLACED:
            self._put_account_row(&self.accounts_replaced, account)
        elif account.dirty:
            self._put_account_row(&self.accounts_changed, account)
        for i in range(account.bucket_number):
            bucket = &account.buckets[order[i]]
            if not bucket.stored:
                self._put_bucket_row(&self.buckets_new, account, bucket)
            elif bucket.dirty & REPLACED:
                self._put_bucket_row(&self.buckets_replaced, account, bucket)
            elif bucket.dirty:
                self._put_bucket_row(&self.buckets_changed, account, bucket)
            bucket.stored = 1
            bucket.dirty = UNCHANGED
        account.stored = 1
        account.dirty = UNCHANGED
        account.touched = 0
        return 0

    cdef bytes _extras(self, Account* account):
        """Return the extras as the packer packed them."""
        return (<const char*>&account.buckets[account.bucket_number])[: account.extras_size]

    cdef int16_t word(self, str text) except -1:
        """Return the number of a text that repeats; a new one gets the next."""
        known = self._word_numbers.get(text)
        if known is not None:
            return <int16_t>known
        cdef bytes encoded = text.encode()
        if len(encoded) > MAX_TEXT:
            raise OverflowError(f"{text!r} is longer than {<int>MAX_TEXT} bytes")
        number = self.words.number(encoded)
        if number > MAX_WORDS:
            raise OverflowError(f"more than {<int>MAX_WORDS} names of books, plans, currencies and units")
        self._word_numbers[text] = number
        return <int16_t>number

    cdef str _text(self, int32_t number):
        """Return the text of a number."""
        return self.words.text_at(number).decode()

    cdef vector[int32_t] _sorted_touched(self) except *:
        """Return the places of touched accounts, sorted by name (bytes of UTF-8 sort as Python's text does)."""
        cdef vector[TbNamed] named
        cdef vector[int32_t] result
        cdef size_t i
        cdef int32_t number
        named.reserve(self.touched.size())
        result.reserve(self.touched.size())
        for i in range(self.touched.size()):
            if i + 16 < self.touched.size():
                tb_prefetch(&self.records[self.touched[i + 16]].number)
            if i + 8 < self.touched.size():
                tb_prefetch(self.numbers.starts.data() + self.records[self.touched[i + 8]].number)
            number = self.records[self.touched[i]].number
            named.push_back(
                TbNamed(
                    self.numbers.arena.data() + self.numbers.starts[number],
                    self.numbers.starts[number + 1] - self.numbers.starts[number],
                    self.touched[i],
                )
            )
        sort(named.begin(), named.end())
        for i in range(named.size()):
            result.push_back(named[i].place)
        return result

    cdef int _sort_by_grant(self, Account* account, vector[int32_t]* order) except -1 nogil:
        """Fill ``order`` with the places of an account's buckets, sorted by grant id. Most accounts have few."""
        cdef Py_ssize_t i, j
        cdef int32_t held
        cdef vector[TbNamed] named
        order.resize(account.bucket_number)
        if account.bucket_number > SORTED_IN_PLACE:
            named.reserve(account.bucket_number)
            for i in range(account.bucket_number):
                named.push_back(
                    TbNamed(self.grants.data() + account.buckets[i].grant_at, account.buckets[i].grant_size, <int32_t>i)
                )
            sort(named.begin(), named.end())
            for i in range(account.bucket_number):
                order[0][i] = named[i].place
            return 0
        for i in range(account.bucket_number):
            held = <int32_t>i
            j = i
            while j > 0 and _grant_less(self, &account.buckets[held], &account.buckets[order[0][j - 1]]):
                order[0][j] = order[0][j - 1]
                j -= 1
            order[0][j] = held
        return 0

    cdef int _put_frame(self, Account* account, const int32_t* order, size_t number, list pieces) except -1:
        """Append one frame of billing.commits.outbox_frames.encode_frame with one ``package.balance`` event."""
        cdef bytes head = pieces[0], middle = pieces[1], data = pieces[2], tail = pieces[3]
        cdef bytes told = self._packer.balance(self._extras(account)) if account.told_extras else pieces[4]
        cdef const char* name = self.numbers.arena.data() + self.numbers.starts[account.number]
        cdef size_t size = self.numbers.starts[account.number + 1] - self.numbers.starts[account.number]
        cdef char* first
        cdef char* p
        # a bucket: its grant id, three words, and less than 512 bytes of keys, numbers and times
        first = self.frames.room(
            FRAME_HEAD + size + len(head) + len(middle) + len(data) + len(told) + len(tail)
            + JSON_GROWTH * (2 * size + 4 * MAX_TEXT) + 2048
            + account.bucket_number * (JSON_GROWTH * (MAX_GRANT + 3 * MAX_TEXT) + 512)
        )
        p = tb_put_bytes(first + FRAME_HEAD, name, size)
        p = tb_put_bytes(p, head, len(head))
        p = tb_put_u64(p, number)
        p = tb_put_bytes(p, middle, len(middle))
        p[0] = c'"'
        p = tb_put_json(p + 1, name, size)
        p[0] = c'"'
        p = tb_put_bytes(p + 1, data, len(data))
        p = self._put_account_object(p, account, order)
        p = self._put_terms(p, account)
        p = tb_put_bytes(p, told, len(told))
        p[0] = c'}'
        p = tb_put_bytes(p + 1, tail, len(tail))
        put_frame_head(first, size, p - first - FRAME_HEAD - size)
        self.frames.wrote(p)
        return 0

    # What follows writes into room that was asked for before, or abort where there is none: it cannot fail.

    cdef char* _put_account_object(self, char* p, Account* account, const int32_t* order) noexcept nogil:
        """Write the account object of billing.commits.output_documents.balance_object as JSON, without its closing
        brace; returns its end."""
        cdef Py_ssize_t i
        p = tb_put_bytes(p, b'{"account":"', 12)
        p = tb_put_json(
            p,
            self.numbers.arena.data() + self.numbers.starts[account.number],
            self.numbers.starts[account.number + 1] - self.numbers.starts[account.number],
        )
        p = tb_put_bytes(p, b'","currency":"', 14)
        p = self._json_word(p, account.currency)
        p = tb_put_bytes(p, b'","wallet":"', 12)
        p = tb_put_pico(p, account.wallet_pico)
        p = tb_put_bytes(p, b'","absorbed":"', 14)
        p = tb_put_micro(p, account.absorbed_micro)
        p = tb_put_bytes(p, b'","absorbed_amount":"', 21)
        p = tb_put_pico(p, account.absorbed_pico)
        p = tb_put_bytes(p, b'","buckets":[', 13)
        for i in range(account.bucket_number):
            if i:
                p[0] = c','
                p += 1
            p = self._put_bucket_object(p, &account.buckets[order[i]])
        p[0] = c']'
        return p + 1

    cdef char* _put_terms(self, char* p, Account* account) noexcept nogil:
        """Write what a balance says beyond the account object, up to the extras; returns its end."""
        p = tb_put_bytes(p, b',"status":"', 11)
        p = self._json_word(p, account.status)
        p = tb_put_bytes(p, b'","price_book":"', 16)
        p = self._json_word(p, account.price_book)
        p = tb_put_bytes(p, b'","payment":"', 13)
        p = self._json_word(p, account.payment)
        p = tb_put_bytes(p, b'","credit_limit":"', 18)
        p = tb_put_pico(p, account.credit_limit_pico)
        return tb_put_bytes(p, b'",', 2)

    cdef char* _put_bucket_object(self, char* p, Bucket* bucket) noexcept nogil:
        """Write billing.commits.output_documents.bucket_object as JSON; returns its end. Holds are no part of it."""
        p = tb_put_bytes(p, b'{"grant_id":"', 13)
        p = tb_put_json(p, self.grants.data() + bucket.grant_at, bucket.grant_size)
        p = tb_put_bytes(p, b'","plan":"', 10)
        p = self._json_word(p, self.rules[bucket.rule].plan)
        p = tb_put_bytes(p, b'","unit":"', 10)
        p = self._json_word(p, bucket.unit)
        p = tb_put_bytes(p, b'","amount":"', 12)
        p = tb_put_micro(p, bucket.amount_micro)
        p = tb_put_bytes(p, b'","remaining":"', 15)
        p = tb_put_micro(p, bucket.remaining_micro)
        p = tb_put_bytes(p, b'","valid_from":"', 16)
        p = tb_put_time(p, bucket.valid_from_us)
        if bucket.valid_until_us >= NO_END_US:
            p = tb_put_bytes(p, b'","valid_until":null,"status":"', 31)
        else:
            p = tb_put_bytes(p, b'","valid_until":"', 17)
            p = tb_put_time(p, bucket.valid_until_us)
            p = tb_put_bytes(p, b'","status":"', 12)
        p = self._json_word(p, bucket.status)
        return tb_put_bytes(p, b'"}', 2)

    cdef int _put_account_row(self, TbBuffer* rows, Account* account) except -1:
        """Append billing.commits.copy_text.account_row."""
        cdef bytes document = self._packer.document(self._extras(account)) if account.extras_size else b"{}"
        cdef const char* name = self.numbers.arena.data() + self.numbers.starts[account.number]
        cdef size_t size = self.numbers.starts[account.number + 1] - self.numbers.starts[account.number]
        cdef char* p
        p = rows.room(COPY_GROWTH * (size + 4 * MAX_TEXT + len(document)) + 8 * MAX_NUMBER)
        p = tb_put_copy(p, name, size)
        p = self._copy_word(_tab(p), account.currency)
        p = self._copy_word(_tab(p), account.price_book)
        p = self._copy_word(_tab(p), account.payment)
        p = tb_put_i128(_tab(p), account.credit_limit_pico)
        p = tb_put_i128(_tab(p), account.wallet_pico)
        p = tb_put_i128(_tab(p), account.absorbed_micro)
        p = tb_put_i128(_tab(p), account.absorbed_pico)
        p = self._copy_word(_tab(p), account.status)
        p = tb_put_i128(_tab(p), tb_widen(account.clock_us))
        p = _put_end(_tab(p), account.next_due_us)
        p = tb_put_copy(_tab(p), document, len(document))
        p[0] = c'\n'
        rows.wrote(p + 1)
        return 0

    cdef void _put_bucket_row(self, TbBuffer* rows, Account* account, Bucket* bucket) noexcept nogil:
        """Append billing.commits.copy_text.bucket_row."""
        cdef const char* name = self.numbers.arena.data() + self.numbers.starts[account.number]
        cdef size_t size = self.numbers.starts[account.number + 1] - self.numbers.starts[account.number]
        cdef Rule* rule = &self.rules[bucket.rule]
        cdef char* p = rows.room(COPY_GROWTH * (size + bucket.grant_size + 3 * MAX_TEXT) + 11 * MAX_NUMBER)
        p = tb_put_copy(p, name, size)
        p = tb_put_copy(_tab(p), self.grants.data() + bucket.grant_at, bucket.grant_size)
        p = self._copy_word(_tab(p), rule.plan)
        p = tb_put_u64(_tab(p), rule.version)
        p = tb_put_u64(_tab(p), rule.bucket_no)
        p = self._copy_word(_tab(p), bucket.unit)
        p = tb_put_i128(_tab(p), bucket.amount_micro)
        p = tb_put_i128(_tab(p), bucket.remaining_micro)
        p = tb_put_i128(_tab(p), bucket.liability_pico)
        p = tb_put_u64(_tab(p), bucket.valid_from_us)
        p = _put_end(_tab(p), bucket.valid_until_us)
        p = _put_end(_tab(p), bucket.lapse_at_us)
        p = tb_put_u64(_tab(p), bucket.alerts_fired)
        p = self._copy_word(_tab(p), bucket.status)
        p = tb_put_u64(_tab(p), bucket.carried_cycles)
        p[0] = c'\n'
        rows.wrote(p + 1)

    cdef char* _json_word(self, char* p, int32_t number) noexcept nogil:
        """Write the text of a number inside a JSON string."""
        return tb_put_json(
            p,
            self.words.arena.data() + self.words.starts[number],
            self.words.starts[number + 1] - self.words.starts[number],
        )

    cdef char* _copy_word(self, char* p, int32_t number) noexcept nogil:
        """Write the text of a number as a column."""
        return tb_put_copy(
            p,
            self.words.arena.data() + self.words.starts[number],
            self.words.starts[number + 1] - self.words.starts[number],
        )
