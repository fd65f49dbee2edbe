"""The accounts of one partition, held compactly, and what is written of them: balance documents and ``COPY`` rows.

An account is 112 bytes, a bucket 112 and its grant id; names that repeat are numbers. A plain
:class:`billing.accounts.account.Account` is made on demand and stored back. What one has beyond wallet and buckets
(:mod:`billing.accounts.extras`) lies packed behind its buckets. No rules here.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy
from libcpp.algorithm cimport sort
from libcpp.vector cimport vector

from cython_ext.tables cimport TextTable
from cython_ext.wide cimport (
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
    to_wide,
)

cdef extern from "wide.hpp" nogil:
    cdef cppclass TbNamed:
        int32_t place
        TbNamed() noexcept
        TbNamed(const char* text, size_t size, int32_t place) noexcept

cdef int64_t MAX_TIME_US = 253402300800000000
cdef enum:
    UNCHANGED = 0
    CHANGED = 1   # a bit: columns that usage changes
    REPLACED = 2  # a bit: the terms too (billing.commits.copy_text.account_terms, bucket_terms)


cdef inline uint8_t _account_difference(Account* a, Account* b) noexcept nogil:
    """How two rows of an account differ, but for extras."""
    if a.credit_limit_pico != b.credit_limit_pico:
        return REPLACED
    return (
        a.wallet_pico != b.wallet_pico
        or a.absorbed_micro != b.absorbed_micro
        or a.absorbed_pico != b.absorbed_pico
        or a.status != b.status
        or a.clock_us != b.clock_us
        or a.next_due_us != b.next_due_us
    )


cdef inline uint8_t _bucket_difference(Bucket* a, Bucket* b) noexcept nogil:
    if (
        a.amount_micro != b.amount_micro
        or a.valid_from_us != b.valid_from_us
        or a.valid_until_us != b.valid_until_us
        or a.lapse_at_us != b.lapse_at_us
        or a.carried_cycles != b.carried_cycles
    ):
        return REPLACED
    return (
        a.remaining_micro != b.remaining_micro
        or a.liability_pico != b.liability_pico
        or a.alerts_fired != b.alerts_fired
        or a.status != b.status
    )


cdef class AccountStore:
    """Accounts by their number in the decoder's table.

    ``account_type`` and ``bucket_type`` are the plain values; ``packer`` is a :class:`billing.calculator.packed_extras.ExtrasPacker`.
    """

    def __cinit__(self, TextTable numbers not None, account_type, bucket_type, packer):
        self.numbers = numbers
        self.words = TextTable()
        self._account_type = account_type
        self._bucket_type = bucket_type
        self._packer = packer
        self._rule_numbers = {}
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
        """The number of a bucket of a plan version (:class:`billing.catalog.model.Plan`), given now if it is new."""
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

    def put(self, account, list sorted_buckets, list rules, list floors, bint stored):
        """Put an account; its buckets in deduction order, with the rule number and alert floor of each.

        Raises:
            OverflowError: a number does not fit its column.
            ValueError: a bucket's time is not between 1970 and 9999.
        """
        cdef Account record
        cdef Account* old
        cdef Bucket* bucket
        cdef Bucket* buckets = NULL
        cdef bytes grant
        cdef Py_ssize_t i, number = len(sorted_buckets)
        cdef int32_t name = self.numbers.number(account.account.encode())
        cdef bytes extras = self._packer.pack(account.extras)
        cdef size_t extras_size = len(extras)
        cdef bint new_extras
        cdef size_t likely = 0
        if number > 65535:
            raise OverflowError(f"account {account.account!r} has {number} buckets")
        if extras_size > 0xFFFFFFFF:
            raise OverflowError(f"account {account.account!r} has {extras_size} bytes beyond its buckets")
        to_wide(account.wallet_pico, &record.wallet_pico)
        to_wide(account.absorbed_micro, &record.absorbed_micro)
        to_wide(account.absorbed_pico, &record.absorbed_pico)
        to_wide(account.credit_limit_pico, &record.credit_limit_pico)
        record.clock_us = account.clock_us
        record.next_due_us = account.next_due_us
        record.number = name
        record.currency = self.word(account.currency)
        record.book = self.word(account.price_book)
        record.payment = self.word(account.payment)
        record.status = self.word(account.status)
        record.bucket_number = <uint16_t>number
        record.stored = stored
        record.dirty = UNCHANGED if stored else REPLACED
        record.touched = 0
        record.wallet_floor_bits = account.extras.wallet_floor_bits
        record.extras_size = <uint32_t>extras_size
        record.buckets = NULL
        old = self.find(name)
        if number or extras_size:
            buckets = <Bucket*>malloc(number * sizeof(Bucket) + extras_size)
            if buckets == NULL:
                raise MemoryError
            memcpy(&buckets[number], <const char*>extras, extras_size)
        try:
            for i in range(number):
                plain = sorted_buckets[i]
                bucket = &buckets[i]
                to_wide(plain.amount_micro, &bucket.amount_micro)
                to_wide(plain.remaining_micro, &bucket.remaining_micro)
                to_wide(plain.liability_pico, &bucket.liability_pico)
                to_wide(floors[i], &bucket.floor_micro)
                bucket.valid_from_us = plain.valid_from_us
                bucket.valid_until_us = plain.valid_until_us
                bucket.lapse_at_us = plain.lapse_at_us
                if not 0 <= bucket.valid_from_us < MAX_TIME_US:
                    raise ValueError(f"bucket {plain.grant_id!r} begins outside of 1970 to 9999")
                if bucket.valid_until_us < 0 or MAX_TIME_US <= bucket.valid_until_us < NO_END_US:
                    raise ValueError(f"bucket {plain.grant_id!r} ends outside of 1970 to 9999")
                bucket.rule = rules[i]
                bucket.alerts_fired = plain.alerts_fired
                bucket.carried_cycles = plain.carried_cycles
                bucket.unit = self.word(plain.unit)
                bucket.status = self.word(plain.status)
                grant = plain.grant_id.encode()
                if len(grant) > 1000:
                    raise OverflowError(f"grant id {plain.grant_id!r} is too long")
                self._place_grant(bucket, grant, old, stored, &likely)
        except BaseException:
            free(buckets)
            raise
        record.buckets = buckets
        if old != NULL:
            record.touched = old.touched
            if stored:
                record.dirty = old.dirty
            else:
                new_extras = record.extras_size != old.extras_size or (
                    extras_size and memcmp(&buckets[number], &old.buckets[old.bucket_number], extras_size) != 0
                )
                record.dirty = old.dirty | (REPLACED if new_extras else _account_difference(&record, old))
            record.stored = record.stored or old.stored
            free(old.buckets)
            old[0] = record
        else:
            while self.record_of.size() <= <size_t>name:
                self.record_of.push_back(-1)
            self.record_of[name] = <int32_t>self.records.size()
            self.records.push_back(record)
        if not stored:
            self.touch(self.find(name))

    cdef int _place_grant(self, Bucket* bucket, bytes grant, Account* old, bint stored, size_t* likely) except -1:
        """Find the grant's text among the account's old ones, or keep it; a key once stored stays so.

        ``likely`` is where it is looked for first, and then where the next one will be: they keep their order.
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
        if self.grants.size() + size > 0xFFFFFFFF:
            raise OverflowError("the grant ids of a partition take more than 4 GiB")
        bucket.grant_at = <uint32_t>self.grants.size()
        self.grants.insert(self.grants.end(), text, text + size)
        return 0

    def has(self, int32_t number):
        """Whether the account of this number is in memory."""
        return self.find(number) != NULL

    def get(self, str account_id not None):
        """The account as a plain value of its own, buckets in deduction order; None where it is not in memory."""
        cdef int32_t number = self.numbers.known(account_id.encode())
        cdef Account* record
        cdef Bucket* bucket
        cdef Rule* rule
        cdef Py_ssize_t i
        if number < 0:
            return None
        record = self.find(number)
        if record == NULL:
            return None
        buckets = []
        for i in range(record.bucket_number):
            bucket = &record.buckets[i]
            rule = &self.rules[bucket.rule]
            grant = self.grants.data()[bucket.grant_at : bucket.grant_at + bucket.grant_size]
            buckets.append(
                self._bucket_type(
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
            )
        return self._account_type(
            account=account_id,
            currency=self._text(record.currency),
            price_book=self._text(record.book),
            payment=self._text(record.payment),
            credit_limit_pico=from_wide(record.credit_limit_pico),
            wallet_pico=from_wide(record.wallet_pico),
            absorbed_micro=from_wide(record.absorbed_micro),
            absorbed_pico=from_wide(record.absorbed_pico),
            status=self._text(record.status),
            clock_us=record.clock_us,
            next_due_us=record.next_due_us,
            buckets=buckets,
            extras=self._packer.unpack(self._extras(record)),
        )

    def take(self, list balance_pieces):
        """What touched accounts became, and forget that they were touched.

        ``balance_pieces`` are the constant parts of a balance event: before its number in the commit, before the
        subject, before the account object, and the end. Returns the number of balance frames, the frames, and the
        rows that differ from those taken before, as ``billing.commits.commit_record.AccountChanges`` has them.
        """
        cdef bytes head = balance_pieces[0], middle = balance_pieces[1], data = balance_pieces[2]
        cdef bytes tail = balance_pieces[3]
        cdef vector[int32_t] order = self._sorted_touched()
        cdef vector[int32_t] by_grant
        cdef size_t i, j
        cdef Account* account
        cdef Bucket* bucket
        self.frames.size = 0
        self.accounts_new.size = 0
        self.accounts_changed.size = 0
        self.accounts_replaced.size = 0
        self.buckets_new.size = 0
        self.buckets_changed.size = 0
        self.buckets_replaced.size = 0
        for i in range(order.size()):
            if i + 16 < order.size():
                tb_prefetch(&self.records[order[i + 16]])
                tb_prefetch(<char*>&self.records[order[i + 16]] + 64)
            if i + 8 < order.size():
                account = &self.records[order[i + 8]]
                tb_prefetch(self.numbers.arena.data() + self.numbers.starts[account.number])
                tb_prefetch(account.buckets)
                tb_prefetch(<char*>account.buckets + 64)
            if i + 4 < order.size() and self.records[order[i + 4]].bucket_number:
                tb_prefetch(self.grants.data() + self.records[order[i + 4]].buckets[0].grant_at)
            account = &self.records[order[i]]
            self._sort_by_grant(account, &by_grant)
            self._put_frame(&self.frames, account, by_grant.data(), i, head, middle, data, tail)
            if not account.stored:
                self._put_account_row(&self.accounts_new, account)
            elif account.dirty & REPLACED:
                self._put_account_row(&self.accounts_replaced, account)
            elif account.dirty:
                self._put_account_row(&self.accounts_changed, account)
            for j in range(account.bucket_number):
                bucket = &account.buckets[by_grant[j]]
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
        self.touched.clear()
        return (
            order.size(),
            self.frames.data[: self.frames.size],
            self.accounts_new.data[: self.accounts_new.size],
            self.accounts_changed.data[: self.accounts_changed.size],
            self.accounts_replaced.data[: self.accounts_replaced.size],
            self.buckets_new.data[: self.buckets_new.size],
            self.buckets_changed.data[: self.buckets_changed.size],
            self.buckets_replaced.data[: self.buckets_replaced.size],
        )

    cdef bytes _extras(self, Account* account):
        """As the packer packed them."""
        return (<const char*>&account.buckets[account.bucket_number])[: account.extras_size]

    cdef int16_t word(self, str text) except -1:
        cdef bytes encoded = text.encode()
        if len(encoded) > 256:
            raise OverflowError(f"{text!r} is longer than 256 bytes")
        number = self.words.number(encoded)
        if number > 32767:
            raise OverflowError("more than 32767 names of books, plans, currencies and units")
        return <int16_t>number

    cdef str _text(self, int32_t number):
        return self.words.text_at(number).decode()

    cdef vector[int32_t] _sorted_touched(self) noexcept nogil:
        """Touched accounts by name (bytes of UTF-8 sort as Python's text does)."""
        cdef vector[TbNamed] named
        cdef vector[int32_t] result
        cdef size_t i
        cdef int32_t number
        named.reserve(self.touched.size())
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
        result.reserve(named.size())
        for i in range(named.size()):
            result.push_back(named[i].place)
        return result

    cdef void _sort_by_grant(self, Account* account, vector[int32_t]* order) noexcept nogil:
        """Most accounts have few buckets: those are put in order where they are."""
        cdef Py_ssize_t i, j
        cdef int32_t held
        cdef vector[TbNamed] named
        order.resize(account.bucket_number)
        if account.bucket_number > 16:
            named.reserve(account.bucket_number)
            for i in range(account.bucket_number):
                named.push_back(
                    TbNamed(self.grants.data() + account.buckets[i].grant_at, account.buckets[i].grant_size, <int32_t>i)
                )
            sort(named.begin(), named.end())
            for i in range(account.bucket_number):
                order[0][i] = named[i].place
            return
        for i in range(account.bucket_number):
            held = <int32_t>i
            j = i
            while j > 0 and self._grant_less(&account.buckets[held], &account.buckets[order[0][j - 1]]):
                order[0][j] = order[0][j - 1]
                j -= 1
            order[0][j] = held

    cdef bint _grant_less(self, Bucket* a, Bucket* b) noexcept nogil:
        cdef uint16_t shorter = a.grant_size if a.grant_size < b.grant_size else b.grant_size
        cdef int order = memcmp(self.grants.data() + a.grant_at, self.grants.data() + b.grant_at, shorter)
        return order < 0 or (order == 0 and a.grant_size < b.grant_size)

    cdef char* _json_word(self, char* p, int32_t number) noexcept nogil:
        return tb_put_json(
            p,
            self.words.arena.data() + self.words.starts[number],
            self.words.starts[number + 1] - self.words.starts[number],
        )

    cdef char* _copy_word(self, char* p, int32_t number) noexcept nogil:
        return tb_put_copy(
            p,
            self.words.arena.data() + self.words.starts[number],
            self.words.starts[number + 1] - self.words.starts[number],
        )

    cdef void _put_frame(
        self,
        TbBuffer* frames,
        Account* account,
        const int32_t* order,
        size_t number,
        bytes head,
        bytes middle,
        bytes data,
        bytes tail,
    ) except *:
        """One frame of billing.commits.outbox_frames.encode_frame with one package.balance event (billing.commits.output_documents)."""
        cdef const char* name = self.numbers.arena.data() + self.numbers.starts[account.number]
        cdef size_t size = self.numbers.starts[account.number + 1] - self.numbers.starts[account.number]
        cdef Bucket* bucket
        cdef Py_ssize_t i
        cdef char* first
        cdef char* p
        cdef uint32_t lengths[4]
        # names of words are at most 256 bytes, texts grow sixfold at most, a number of 128 bits has at most 53 places
        p = frames.room(
            16 + size + len(head) + len(middle) + len(data) + len(tail) + 12 * size + 2048
            + account.bucket_number * (6 * (1000 + 3 * 256) + 512)
        )
        lengths[0] = 0xFFFFFFFF
        lengths[1] = <uint32_t>size
        lengths[2] = 0
        first = p
        p = tb_put_bytes(p + 16, name, size)
        p = tb_put_bytes(p, head, len(head))
        p = tb_put_u64(p, number)
        p = tb_put_bytes(p, middle, len(middle))
        p[0] = c'"'
        p = tb_put_json(p + 1, name, size)
        p[0] = c'"'
        p = tb_put_bytes(p + 1, data, len(data))
        p = tb_put_bytes(p, b'{"account":"', 12)
        p = tb_put_json(p, name, size)
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
            bucket = &account.buckets[order[i]]
            if i:
                p[0] = c','
                p += 1
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
            p = tb_put_bytes(p, b'","reserved":"0","valid_from":"', 31)
            p = tb_put_time(p, bucket.valid_from_us)
            if bucket.valid_until_us >= NO_END_US:
                p = tb_put_bytes(p, b'","valid_until":null,"status":"', 31)
            else:
                p = tb_put_bytes(p, b'","valid_until":"', 17)
                p = tb_put_time(p, bucket.valid_until_us)
                p = tb_put_bytes(p, b'","status":"', 12)
            p = self._json_word(p, bucket.status)
            p = tb_put_bytes(p, b'"}', 2)
        p = tb_put_bytes(p, b']}', 2)
        p = tb_put_bytes(p, tail, len(tail))
        lengths[3] = <uint32_t>(p - first - 16 - size)
        memcpy(first, lengths, 16)
        frames.wrote(p)

    cdef void _put_account_row(self, TbBuffer* rows, Account* account) except *:
        """billing.commits.copy_text.account_row."""
        cdef bytes document = self._packer.document(self._extras(account)) if account.extras_size else b"{}"
        cdef const char* name = self.numbers.arena.data() + self.numbers.starts[account.number]
        cdef size_t size = self.numbers.starts[account.number + 1] - self.numbers.starts[account.number]
        cdef char* p
        p = rows.room(2 * size + 8 * 256 + 8 * 45 + 2 * len(document))
        p = tb_put_copy(p, name, size)
        p = self._tab(p)
        p = self._copy_word(p, account.currency)
        p = self._tab(p)
        p = self._copy_word(p, account.book)
        p = self._tab(p)
        p = self._copy_word(p, account.payment)
        p = tb_put_i128(self._tab(p), account.credit_limit_pico)
        p = tb_put_i128(self._tab(p), account.wallet_pico)
        p = tb_put_i128(self._tab(p), account.absorbed_micro)
        p = tb_put_i128(self._tab(p), account.absorbed_pico)
        p = self._copy_word(self._tab(p), account.status)
        p = tb_put_i128(self._tab(p), <i128>account.clock_us)
        p = self._end(self._tab(p), account.next_due_us)
        p = tb_put_copy(self._tab(p), document, len(document))
        p[0] = c'\n'
        rows.wrote(p + 1)

    cdef void _put_bucket_row(self, TbBuffer* rows, Account* account, Bucket* bucket) noexcept nogil:
        """billing.commits.copy_text.bucket_row."""
        cdef const char* name = self.numbers.arena.data() + self.numbers.starts[account.number]
        cdef size_t size = self.numbers.starts[account.number + 1] - self.numbers.starts[account.number]
        cdef Rule* rule = &self.rules[bucket.rule]
        cdef char* p = rows.room(2 * size + 2 * bucket.grant_size + 6 * 256 + 11 * 45)
        p = tb_put_copy(p, name, size)
        p = tb_put_copy(self._tab(p), self.grants.data() + bucket.grant_at, bucket.grant_size)
        p = self._copy_word(self._tab(p), rule.plan)
        p = tb_put_u64(self._tab(p), rule.version)
        p = tb_put_u64(self._tab(p), rule.bucket_no)
        p = self._copy_word(self._tab(p), bucket.unit)
        p = tb_put_i128(self._tab(p), bucket.amount_micro)
        p = tb_put_i128(self._tab(p), bucket.remaining_micro)
        p = tb_put_i128(self._tab(p), bucket.liability_pico)
        p = tb_put_u64(self._tab(p), bucket.valid_from_us)
        p = self._end(self._tab(p), bucket.valid_until_us)
        p = self._end(self._tab(p), bucket.lapse_at_us)
        p = tb_put_u64(self._tab(p), bucket.alerts_fired)
        p = self._copy_word(self._tab(p), bucket.status)
        p = tb_put_u64(self._tab(p), bucket.carried_cycles)
        p[0] = c'\n'
        rows.wrote(p + 1)

    cdef char* _tab(self, char* p) noexcept nogil:
        p[0] = c'\t'
        return p + 1

    cdef char* _end(self, char* p, int64_t value_us) noexcept nogil:
        if value_us >= NO_END_US:
            return tb_put_bytes(p, b"\\N", 2)
        return tb_put_i128(p, <i128>value_us)
