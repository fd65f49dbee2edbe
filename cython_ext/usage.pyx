"""Decides usage over columns: limits, dedupe, price, burn, and what the commit sums up; the common case and nothing else.

The common case is one event of known texts, priced by one row whatever its time and context, of an open account on which
nothing is due, paid whole by one bucket of standard tokens that stays above its next alert, or whole by the wallet, or
absorbed whole. Anything else stops the loop *before it changed anything* and names what it needs: a price, a scope, or
the plain rule for this row. Products of 64 bits are checked, sums are 128 bits; an overflow goes the plain way too.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.algorithm cimport sort
from libcpp.vector cimport vector

from cython_ext.accounts cimport NO_END_US, Account, AccountStore, Bucket, Rule
from cython_ext.decode cimport READ, Decoder, EventColumns, Span
from cython_ext.dedupe cimport DUPLICATE as SEEN
from cython_ext.dedupe cimport NEW, Memory
from cython_ext.murmur cimport kafka_murmur2
from cython_ext.prices cimport PriceTables, TbRated, TbVersion, tb_needs_plain, tb_priced
from cython_ext.tables cimport TextTable
from cython_ext.wide cimport (
    TbBuffer,
    from_wide,
    i128,
    tb_earned,
    tb_high,
    tb_low,
    tb_prefetch,
    tb_put_bytes,
    tb_put_json,
    tb_put_micro_64,
    tb_put_pico_64,
    tb_put_u64,
    tb_widen,
)

cdef int64_t HOUR_US = 3600000000

cdef enum:
    # What a row became, or what it needs before it can be decided; needs of a price: cython_ext/prices.hpp.
    DONE = 0
    DUPLICATE_DONE = 1
    NEEDS_SCOPE = 3
    NEEDS_PLAIN = tb_needs_plain
    ALL_DONE = 5
    FROM_NO_WALLET = 127  # billing.accounts.extras

cdef inline Span view(TextTable table, int32_t number) noexcept nogil:
    cdef Span seen
    seen.at = table.arena.data() + table.starts[number]
    seen.size = table.starts[number + 1] - table.starts[number]
    return seen


cdef class Usage:
    """The compiled half of :class:`billing.calculator.compiled.CompiledCalculator`."""

    def __cinit__(
        self,
        Decoder decoder not None,
        Memory memory not None,
        AccountStore accounts not None,
        PriceTables prices not None,
    ):
        self.decoder = decoder
        self.memory = memory
        self.accounts = accounts
        self.prices = prices
        self.tables = &prices.tables
        self.sums_slots.resize(64, -1)
        self.batches = []

    def clear_scopes(self):
        """Forget what lies in the scope of which bucket of a plan."""
        self.scope_of.clear()

    def word(self, str text not None):
        """The number by which accounts know a name of a book or a currency."""
        return self.accounts.word(text)

    def set_scope(self, int32_t rule, int32_t combination, bint matches):
        """Say whether a combination lies in the scope of a plan's bucket."""
        cdef uint8_t mark = 2 if matches else 1  # assigned to the element at once, Cython 3.3.1 keeps a dead reference
        if self.scope_of.size() <= <size_t>rule:
            self.scope_of.resize(rule + 1)
        if self.scope_of[rule].size() <= <size_t>combination:
            self.scope_of[rule].resize(combination + 1, 0)
        self.scope_of[rule][combination] = mark

    def route(self, EventColumns columns not None, int32_t partition, int32_t partitions):
        """Which rows belong here (bytes of 1 and 0), and [(row, target)] of those that belong elsewhere.

        Raises:
            ValueError: there are no partitions.
        """
        cdef Py_ssize_t row
        cdef int32_t account, target
        cdef size_t known = self.partition_hash.size(), i
        if partitions < 1:
            raise ValueError(f"{partitions} is not a number of partitions")
        cdef bytearray mine = bytearray(columns.rows)
        cdef unsigned char[:] marks = mine
        self.partition_hash.resize(self.accounts.numbers.hashes.size())
        for i in range(known, self.partition_hash.size()):
            self.partition_hash[i] = kafka_murmur2(
                self.accounts.numbers.arena.data() + self.accounts.numbers.starts[i],
                self.accounts.numbers.starts[i + 1] - self.accounts.numbers.starts[i],
            )
        elsewhere = []
        for row in range(columns.rows):
            if columns.status[row] != READ:
                continue
            target = self.partition_hash[columns.account[row]] % partitions
            if target == partition:
                marks[row] = 1
            else:
                elsewhere.append((row, target))
        return bytes(mine), elsewhere

    def missing_accounts(self, EventColumns columns not None, const unsigned char[:] mine):
        """Names of accounts of the rows that belong here and that are not in memory, sorted."""
        cdef Py_ssize_t row
        cdef set numbers = set()
        for row in range(columns.rows):
            if mine[row] and self.accounts.find(columns.account[row]) == NULL:
                numbers.add(columns.account[row])
        return sorted([self.accounts.numbers[number].decode() for number in numbers])

    def start(self, int64_t log_time_us):
        """Begin a batch: the partition's log time before it."""
        self.log_time_us = log_time_us
        self.marked.clear()
        self.rated = 0
        self.duplicate = 0

    def run(self, EventColumns columns not None, const unsigned char[:] mine, Py_ssize_t row, limits):
        """Decide rows from ``row`` on until one needs something. ``limits`` is None or (future_us, past_us).

        Returns (row, need): 3 a scope for :attr:`wanted_rule` and :attr:`wanted_combination`; 4 the plain rule, or a
        refusal by the decoder; 5 all rows are decided; else what the price tables ask for. ``log_time_us`` then
        includes the row.
        """
        cdef bint limited = limits is not None
        cdef int64_t future_us = 0, past_us = 0, logged_us
        cdef int need = ALL_DONE
        cdef Py_ssize_t ahead
        cdef Account* account
        if limited:
            future_us, past_us = limits
        if not self.batches or self.batches[len(self.batches) - 1] is not columns:
            self.batches.append(columns)
        self.batch = <int32_t>len(self.batches) - 1
        self.paid.reserve(self.paid.size() + columns.rows - row)
        with nogil:
            while row < columns.rows:
                # where the account lies, then the account, then its first bucket: each is there when the next is asked for
                ahead = row + 24
                if ahead < columns.rows and mine[ahead]:
                    tb_prefetch(self.accounts.record_of.data() + columns.account[ahead])
                ahead = row + 16
                if ahead < columns.rows and mine[ahead]:
                    account = self.accounts.find(columns.account[ahead])
                    tb_prefetch(account)
                    tb_prefetch(<char*>account + 64)
                    tb_prefetch(<char*>account + sizeof(Account) - 1)
                ahead = row + 8
                if ahead < columns.rows and mine[ahead]:
                    account = self.accounts.find(columns.account[ahead])
                    if account != NULL and account.buckets != NULL:
                        tb_prefetch(account.buckets)
                        tb_prefetch(<char*>account.buckets + 64)
                        tb_prefetch(<char*>account.buckets + sizeof(Bucket) - 1)
                # a timestamp is milliseconds of this age: below 2^43
                logged_us = columns.logged_ms[row] * 1000
                if logged_us > self.log_time_us:
                    self.log_time_us = logged_us
                if mine[row]:
                    need = self._decide(columns, row, limited, future_us, past_us)
                    if need > DUPLICATE_DONE:
                        break
                    if mine[row] == 2 and need == DONE:
                        self.marked.push_back(row)
                elif columns.status[row] != READ:
                    need = NEEDS_PLAIN
                    break
                need = ALL_DONE
                row += 1
        return row, need

    cdef int _decide(self, EventColumns columns, Py_ssize_t row, bint limited, int64_t future_us, int64_t past_us) noexcept nogil:
        """Decide one row, or say what it needs and change nothing (but the kind of a new source)."""
        cdef int64_t time_us = columns.time_us[row]
        cdef int32_t combination = columns.combination[row]
        cdef Paid paid
        cdef Account* account
        cdef Bucket* payer = NULL
        cdef Bucket* bucket
        cdef Rule* rule
        cdef TbVersion* version
        cdef Sums* sums
        cdef Earned* earned
        cdef int seen, need
        cdef int32_t version_number
        cdef uint32_t first = columns.count_first[row], i
        cdef int64_t amount_pico, standard_micro, net_pico, now_us
        cdef int64_t charged_pico = 0, burned_micro = 0, revenue_pico = 0
        cdef int64_t absorbed_micro = 0, absorbed_pico = 0
        cdef bint matched = False, pays_as_you_go = False, plain_overage = False
        cdef i128 left

        if limited:
            if time_us > self.log_time_us + future_us:
                return NEEDS_PLAIN
            if time_us < self.log_time_us - past_us and not self.memory.numbered(columns, row):
                return NEEDS_PLAIN
        seen = self.memory.look(columns, row)
        if seen == SEEN:
            self.duplicate += 1
            return DUPLICATE_DONE
        if seen != NEW:
            return NEEDS_PLAIN
        account = self.accounts.find(columns.account[row])
        if account == NULL or account.status != self.accounts._open:
            return NEEDS_PLAIN

        # Price
        version_number = self.tables.version_at(account.book, time_us)
        if version_number < 0:
            return NEEDS_PLAIN
        need = self.tables.rate(
            version_number,
            combination,
            time_us,
            columns.meter.data() + first,
            columns.count.data() + first,
            columns.count_number[row],
            &paid.rated,
        )
        if need != tb_priced:
            return need
        amount_pico = paid.rated.amount_pico
        standard_micro = paid.rated.standard_micro
        net_pico = paid.rated.net_pico

        # Roll-forward
        now_us = self.log_time_us
        if not limited:
            now_us = time_us if time_us > account.clock_us else account.clock_us
        if now_us >= account.next_due_us or time_us >= account.next_due_us:
            return NEEDS_PLAIN  # a cycle that begins between the log's time and the event's is granted for it

        # Who pays
        for i in range(account.bucket_number):
            bucket = &account.buckets[i]
            if time_us < bucket.valid_from_us or time_us >= bucket.valid_until_us:
                continue
            if bucket.status == self.accounts._suspended:
                continue
            rule = &self.accounts.rules[bucket.rule]
            if not rule.any_scope:
                if <size_t>bucket.rule >= self.scope_of.size() or (
                    <size_t>combination >= self.scope_of[bucket.rule].size()
                ) or self.scope_of[bucket.rule][combination] == 0:
                    self.wanted_rule = bucket.rule
                    self.wanted_combination = combination
                    return NEEDS_SCOPE
                if self.scope_of[bucket.rule][combination] == 1:
                    continue
            if not rule.simple:
                return NEEDS_PLAIN
            if standard_micro == 0:
                continue
            matched = True
            pays_as_you_go = rule.pays_as_you_go
            plain_overage = rule.plain_overage
            if bucket.remaining_micro <= 0:
                if rule.waits_for_use and bucket.lapse_at_us >= NO_END_US:
                    return NEEDS_PLAIN  # one that was given away before its first use matches nothing
                continue
            if bucket.status == self.accounts._pending and rule.waits_for_use:
                return NEEDS_PLAIN
            if bucket.status == self.accounts._active or bucket.status == self.accounts._pending:
                payer = bucket
                break  # it pays all, or the plain rule decides
        if payer != NULL:
            left = payer.remaining_micro - tb_widen(standard_micro)
            # not emptied, no alert due, and a product with the liability fits
            if left <= 0 or left <= payer.floor_micro or tb_high(payer.liability_pico) != 0:
                return NEEDS_PLAIN
            if tb_low(payer.liability_pico) >> 63:
                return NEEDS_PLAIN
            revenue_pico = tb_earned(<int64_t>tb_low(payer.liability_pico), standard_micro, payer.remaining_micro)
            burned_micro = standard_micro
            paid.payer = BY_BUCKET
            paid.grant_at = payer.grant_at
            paid.grant_size = payer.grant_size
            payer.remaining_micro = left
            payer.dirty |= 1
            payer.liability_pico = payer.liability_pico - tb_widen(revenue_pico)
            rule = &self.accounts.rules[payer.rule]
            earned = self._earned(account.currency, rule.label, -1)
            earned.amount_pico = earned.amount_pico + tb_widen(revenue_pico)
        elif plain_overage:
            return NEEDS_PLAIN
        elif not matched or pays_as_you_go:
            left = account.wallet_pico - tb_widen(amount_pico)
            if account.wallet_floor_bits == FROM_NO_WALLET:
                return NEEDS_PLAIN
            if account.wallet_floor_bits >= 0 and left < tb_widen(1) << account.wallet_floor_bits:
                return NEEDS_PLAIN
            charged_pico = amount_pico
            paid.payer = BY_WALLET
            account.wallet_pico = left
            if amount_pico:
                account.dirty |= 1
            earned = self._earned(account.currency, -1, version_number)
            earned.amount_pico = earned.amount_pico + tb_widen(amount_pico)
            earned.net_pico = earned.net_pico + tb_widen(net_pico)
            revenue_pico = net_pico
        else:
            absorbed_micro = standard_micro
            absorbed_pico = amount_pico
            paid.payer = BY_NOBODY
            account.absorbed_micro = account.absorbed_micro + tb_widen(absorbed_micro)
            account.absorbed_pico = account.absorbed_pico + tb_widen(absorbed_pico)
            account.dirty |= 1
        if not limited and account.clock_us != now_us:
            account.clock_us = now_us
            account.dirty |= 1

        # What the commit says of it
        self.accounts.touch(account)
        self.memory.rated(columns, row)
        self.rated += 1
        version = &self.tables.versions[version_number]
        if time_us > version.latest_us:
            version.latest_us = time_us
        sums = self._sums(time_us - time_us % HOUR_US, version_number, combination)
        sums.events += 1
        sums.tokens = sums.tokens + tb_widen(paid.rated.tokens)
        sums.standard_micro = sums.standard_micro + tb_widen(standard_micro)
        sums.amount_pico = sums.amount_pico + tb_widen(amount_pico)
        sums.net_pico = sums.net_pico + tb_widen(net_pico)
        sums.burned_micro = sums.burned_micro + tb_widen(burned_micro)
        sums.charged_pico = sums.charged_pico + tb_widen(charged_pico)
        sums.absorbed_micro = sums.absorbed_micro + tb_widen(absorbed_micro)
        sums.absorbed_pico = sums.absorbed_pico + tb_widen(absorbed_pico)
        sums.revenue_pico = sums.revenue_pico + tb_widen(revenue_pico)
        paid.row = <int32_t>row
        paid.batch = self.batch
        self.paid.push_back(paid)
        return DONE

    cdef Sums* _sums(self, int64_t hour_us, int32_t version, int32_t combination) noexcept nogil:
        cdef uint64_t mixed = (<uint64_t>hour_us + <uint64_t>version * 0x9E3779B97F4A7C15ULL) ^ (
            <uint64_t>combination * 0xC2B2AE3D27D4EB4FULL
        )
        cdef size_t at, mask = self.sums_slots.size() - 1, i, slot
        cdef Sums fresh
        cdef Sums* sums
        mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9ULL
        at = (mixed >> 32) & mask
        while self.sums_slots[at] >= 0:
            sums = &self.sums[self.sums_slots[at]]
            if sums.combination == combination and sums.hour_us == hour_us and sums.version == version:
                return sums
            at = (at + 1) & mask
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
        self.sums_slots[at] = <int32_t>self.sums.size() - 1
        if 2 * self.sums.size() > mask:
            mask = 2 * mask + 1
            self.sums_slots.assign(mask + 1, -1)
            for i in range(self.sums.size()):
                sums = &self.sums[i]
                mixed = (<uint64_t>sums.hour_us + <uint64_t>sums.version * 0x9E3779B97F4A7C15ULL) ^ (
                    <uint64_t>sums.combination * 0xC2B2AE3D27D4EB4FULL
                )
                mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9ULL
                slot = (mixed >> 32) & mask
                while self.sums_slots[slot] >= 0:
                    slot = (slot + 1) & mask
                self.sums_slots[slot] = <int32_t>i
        return &self.sums.back()

    cdef Earned* _earned(self, int16_t currency, int16_t plan, int32_t version) noexcept nogil:
        """Few plans and books are used at a time: a scan is fastest."""
        cdef size_t i
        cdef Earned fresh
        for i in range(self.earned.size()):
            if self.earned[i].plan == plan and self.earned[i].version == version and self.earned[i].currency == currency:
                return &self.earned[i]
        fresh.currency = currency
        fresh.plan = plan
        fresh.version = version
        fresh.amount_pico = 0
        fresh.net_pico = 0
        self.earned.push_back(fresh)
        return &self.earned.back()

    cdef size_t _most(self, EventColumns columns, Paid* paid) noexcept nogil:
        """A bound of what :meth:`_put_line` writes, with the comma after it."""
        if paid.payer == WRITTEN:
            return <size_t>paid.rated.net_pico + 1
        # texts grow sixfold at most
        return self.tables.most_of_line(paid.rated, columns.count_number[paid.row]) + 6 * (
            view(self.decoder.sources, columns.source[paid.row]).size
            + view(self.decoder.accounts, columns.account[paid.row]).size
            + columns.id_size[paid.row]
            + 1000
        )

    cdef void _fetch(self, EventColumns columns, Paid* paid, Paid* later, int32_t batch) noexcept nogil:
        """Ask for the texts of a line that is to be rendered soon; a little later one tells where its account's is."""
        cdef int32_t account
        if later != NULL and later.payer != WRITTEN and later.batch == batch:
            tb_prefetch(self.decoder.accounts.starts.data() + columns.account[later.row])
        if paid.payer == WRITTEN or paid.batch != batch:
            return
        account = columns.account[paid.row]
        tb_prefetch(self.decoder.accounts.arena.data() + self.decoder.accounts.starts[account])
        tb_prefetch(columns.id_at[paid.row])
        if paid.payer == BY_BUCKET:
            tb_prefetch(self.accounts.grants.data() + paid.grant_at)

    cdef char* _put_line(self, char* p, EventColumns columns, Paid* paid) noexcept nogil:
        """billing.commits.output_documents.paid_line as JSON."""
        cdef Py_ssize_t row = paid.row
        cdef uint32_t first
        cdef Span id
        if paid.payer == WRITTEN:
            return tb_put_bytes(p, self.written.data + paid.rated.amount_pico, <size_t>paid.rated.net_pico)
        first = columns.count_first[row]
        id.at = columns.id_at[row]
        id.size = columns.id_size[row]
        p = self.tables.put_line(
            p,
            view(self.decoder.sources, columns.source[row]),
            id,
            view(self.decoder.accounts, columns.account[row]),
            paid.rated,
            columns.meter.data() + first,
            columns.count.data() + first,
            columns.count_number[row],
        )
        p = tb_put_bytes(p, b'],"offset":', 11)
        p = tb_put_u64(p, columns.offset[row])
        if paid.payer != BY_BUCKET:
            p = tb_put_bytes(p, b',"burned":[],"charged":"', 24)
        else:
            p = tb_put_bytes(p, b',"burned":[{"grant_id":"', 24)
            p = tb_put_json(p, self.accounts.grants.data() + paid.grant_at, paid.grant_size)
            p = tb_put_bytes(p, b'","standard_tokens":"', 21)
            p = tb_put_micro_64(p, paid.rated.standard_micro)
            p = tb_put_bytes(p, b'"}],"charged":"', 15)
        p = tb_put_pico_64(p, paid.rated.amount_pico if paid.payer == BY_WALLET else 0)
        p = tb_put_bytes(p, b'","absorbed":"', 14)
        p = tb_put_micro_64(p, paid.rated.standard_micro if paid.payer == BY_NOBODY else 0)
        return tb_put_bytes(p, b'"}', 2)

    def marked_and_rated(self):
        """The rows marked 2 that were rated since :meth:`start`, in order."""
        return list(self.marked)

    def add_line(self, bytes line not None):
        """Append a line that the plain rule wrote, in its place."""
        cdef Paid paid
        paid.payer = WRITTEN
        paid.rated.amount_pico = <int64_t>self.written.size
        paid.rated.net_pico = len(line)
        paid.batch = -1
        self.written.put(line, len(line))
        self.paid.push_back(paid)

    def touch(self, str account_id not None):
        """Mark an account as changed."""
        cdef Account* account = self.accounts.find(self.accounts.numbers.known(account_id.encode()))
        if account == NULL:
            raise KeyError(account_id)
        self.accounts.touch(account)

    def take_frames(self, bytes key not None, list pieces, Py_ssize_t at_most):
        """The rated lines since the last call as frames of billing.commits.outbox_frames.encode_frame, at most so many lines each.

        ``pieces`` are the constant parts of a ``usage.rated`` event: before its number in the commit, before the lines,
        and the end. Returns the number of frames, and the frames.

        Raises:
            ValueError: ``at_most`` is not positive.
        """
        cdef bytes head = pieces[0], middle = pieces[1], tail = pieces[2]
        cdef const char* key_text = key
        cdef const char* head_text = head
        cdef const char* middle_text = middle
        cdef const char* tail_text = tail
        cdef size_t key_size = len(key), head_size = len(head), middle_size = len(middle), tail_size = len(tail)
        cdef size_t begin = 0, end, i, number = 0, most = self.paid.size(), first
        cdef uint32_t lengths[4]
        cdef EventColumns columns = None
        cdef int32_t batch = -1
        cdef Paid* later
        cdef char* p
        if at_most < 1:
            raise ValueError(f"{at_most} lines a record")
        self.frames.size = 0
        lengths[0] = 0xFFFFFFFF
        lengths[1] = <uint32_t>key_size
        lengths[2] = 0
        with nogil:
            while begin < most:
                end = min(begin + <size_t>at_most, most)
                first = self.frames.size
                p = self.frames.room(16 + key_size + head_size + 20 + middle_size)
                p = tb_put_bytes(p + 16, key_text, key_size)
                p = tb_put_bytes(p, head_text, head_size)
                p = tb_put_u64(p, number)
                p = tb_put_bytes(p, middle_text, middle_size)
                self.frames.wrote(p)
                for i in range(begin, end):
                    if self.paid[i].batch != batch and self.paid[i].payer != WRITTEN:
                        batch = self.paid[i].batch
                        with gil:
                            columns = self.batches[batch]
                    if i + 8 < most and batch >= 0:
                        later = NULL
                        if i + 16 < most:
                            later = &self.paid[i + 16]
                        self._fetch(columns, &self.paid[i + 8], later, batch)
                    p = self.frames.room(self._most(columns, &self.paid[i]))
                    p = self._put_line(p, columns, &self.paid[i])
                    p[0] = c','
                    self.frames.wrote(p + 1)
                self.frames.size -= 1  # the last comma
                self.frames.put(tail_text, tail_size)
                lengths[3] = <uint32_t>(self.frames.size - first - 16 - key_size)
                memcpy(self.frames.data + first, lengths, 16)
                begin = end
                number += 1
        self.paid.clear()
        self.written.size = 0
        self.batches.clear()
        return number, self.frames.data[: self.frames.size]

    def take_sums(self):
        """[(hour_us, version, combination, (events, tokens, ..., revenue_pico))] since the last call."""
        cdef size_t i
        cdef Sums* sums
        taken = []
        for i in range(self.sums.size()):
            sums = &self.sums[i]
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
        self.sums_slots.assign(64, -1)
        return taken

    def take_earned(self):
        """Journal sums since the last call: [(currency, plan label or None, version, amount_pico, net_pico)]."""
        cdef size_t i
        cdef Earned* earned
        taken = []
        for i in range(self.earned.size()):
            earned = &self.earned[i]
            plan = self.accounts._text(earned.plan) if earned.plan >= 0 else None
            taken.append(
                (
                    self.accounts._text(earned.currency),
                    plan,
                    earned.version,
                    from_wide(earned.amount_pico),
                    from_wide(earned.net_pico),
                )
            )
        self.earned.clear()
        return taken

    def take_book_times(self):
        """{book: greatest event time rated under it since the last call}."""
        cdef size_t i
        cdef TbVersion* version
        times = {}
        for i in range(self.tables.versions.size()):
            version = &self.tables.versions[i]
            if version.latest_us >= 0:
                name = self.accounts._text(version.book)
                times[name] = max(times.get(name, -1), version.latest_us)
                version.latest_us = -1
        return times
