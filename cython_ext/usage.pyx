"""Decides usage events over columns: time limits, identity, price, payment, and the sums of the commit.

It decides the common case and nothing else: one event of known texts, priced by one row whatever its time and context,
of an open account on which nothing is due, paid whole by one bucket of standard tokens that stays above its next alert,
or whole by the wallet, or absorbed whole. Any other event stops the loop *before it changed anything*, and the loop
returns what it needs: a price, a scope, or the plain calculator.

No number wraps. Products and sums of 64 bits and sums of 128 bits are checked, or a comment proves that they fit. An
event whose numbers do not fit goes to the plain calculator, which computes with Python's integers: it decides the event
exactly, or rejects it (``overflow``) where its price exceeds billing.pricing.rate.MAX_OF_EVENT; a balance that then exceeds 128 bits raises OverflowError when the account is put back, which stops the worker.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport CHANGED, NO_END_US, Account, AccountStore, Bucket, Rule
from cython_ext.decode cimport READ, Decoder, EventColumns
from cython_ext.dedupe cimport DUPLICATE as SEEN
from cython_ext.dedupe cimport HOUR_US, NEW, Memory
from cython_ext.lines cimport BY_BUCKET, BY_NOBODY, BY_WALLET, RatedLines
from cython_ext.murmur cimport kafka_murmur2
from cython_ext.prices cimport (
    ALL_DONE,
    DONE,
    DUPLICATE_DONE,
    NEEDS_PLAIN,
    NEEDS_SCOPE,
    PriceTables,
    TbRated,
    TbVersion,
)
from cython_ext.sums cimport MAX_EVENTS, CommitSums, Earned, Sums
from cython_ext.wide cimport (
    i128,
    tb_difference_fits,
    tb_earned,
    tb_high,
    tb_low,
    tb_multiply_64,
    tb_prefetch,
    tb_sum_fits,
    tb_widen,
)

cdef enum:
    FROM_NO_WALLET = 127                        # billing.accounts.extras.FROM_NO_WALLET
    FROM_ANY_WALLET = -1                        # billing.accounts.extras.FROM_ANY_WALLET
    ELSEWHERE = 0                               # marks of rows that Usage.run is given
    MINE = 1
    MARKED = 2
    SCOPE_UNKNOWN = 0                           # entries of Usage.scope_of
    OUT_OF_SCOPE = 1
    IN_SCOPE = 2
    NEEDS_PART = 8                              # beside what prices.hpp names: see _find_part


# ---- Deciding one event: checks ------------------------------------------------------------------------------------
#
# Each step returns DONE where the event may go on, else what it needs. None of them changes a balance or a sum; a new
# sum begins at 0.


cdef inline int _recognise(Usage usage, EventColumns columns, Py_ssize_t row, const Limits* limits) except -1 nogil:
    """Check the event's time against the log's, then its identity (docs/reference/usage-events.md, "Identity").

    Returns DONE for a new event, DUPLICATE_DONE for one that was rated before, NEEDS_PLAIN for one to be rejected.
    """
    # Event time and log time are not negative: their differences fit 64 bits, whatever the limits are.
    cdef int64_t ahead_us = columns.time_us[row] - usage.log_time_us
    cdef int seen
    if limits.limited:
        if ahead_us > limits.future_us:
            return NEEDS_PLAIN
        if -ahead_us > limits.past_us and not usage.memory.numbered(columns, row):
            return NEEDS_PLAIN
    seen = usage.memory.look(columns, row, usage.log_time_us)
    if seen == SEEN:
        return DUPLICATE_DONE
    return DONE if seen == NEW else NEEDS_PLAIN


cdef inline int _price(Usage usage, EventColumns columns, Py_ssize_t row, Decision* decision) noexcept nogil:
    """Find the open account and price the event by the version of its book that is in force at the event's time.

    Fills the rated amounts: pico of the currency, micro standard tokens, each from 0 to 2^63-1. A price that does not
    fit goes to the plain calculator. Cannot fail: it searches tables and allocates nothing.
    """
    cdef uint32_t first = columns.count_first[row]
    cdef Account* account = usage.accounts.find(columns.account[row])
    if account == NULL or account.status != usage.accounts._open:
        return NEEDS_PLAIN
    decision.account = account
    decision.time_us = columns.time_us[row]
    decision.combination = columns.combination[row]
    decision.version = usage.tables.version_at(account.price_book, decision.time_us)
    if decision.version < 0:
        return NEEDS_PLAIN
    return usage.tables.rate(
        decision.version,
        decision.combination,
        decision.time_us,
        columns.meter.data() + first,
        columns.count.data() + first,
        columns.count_number[row],
        columns.one_request[row],
        &decision.paid.rated,
    )


cdef inline bint _is_due(Usage usage, const Limits* limits, Decision* decision) noexcept nogil:
    """True if time alone changes the account first, up to the log's time or the event's: the plain calculator does it.

    Without a log, an event is decided at the greatest event time of its account so far. A cycle that begins between
    the log's time and the event's is granted for the event, so both times count. Cannot fail: it compares.
    """
    decision.now_us = usage.log_time_us
    if not limits.limited:
        decision.now_us = max(decision.time_us, decision.account.clock_us)
    return decision.now_us >= decision.account.next_due_us or decision.time_us >= decision.account.next_due_us


cdef inline int _in_scope(Usage usage, int32_t rule, int32_t combination) noexcept nogil:
    """Return SCOPE_UNKNOWN, OUT_OF_SCOPE or IN_SCOPE. Cannot fail: it reads a table within its bounds."""
    if <size_t>rule >= usage.scope_of.size() or <size_t>combination >= usage.scope_of[rule].size():
        return SCOPE_UNKNOWN
    return usage.scope_of[rule][combination]


cdef inline int _choose_payer(Usage usage, Decision* decision) noexcept nogil:
    """Choose who pays: the first bucket in deduction order that matches and has something left, else the overage rule
    of the last bucket that matches (docs/reference/plans.md, "Deduction order" and "Overage"); without one the wallet.

    Cannot fail: it reads the account's buckets and their rules.
    """
    cdef Account* account = decision.account
    cdef Bucket* bucket
    cdef Rule* rule = NULL
    cdef Rule* matched = NULL
    cdef int scope
    cdef uint32_t i
    decision.bucket = NULL
    for i in range(account.bucket_number):
        bucket = &account.buckets[i]
        if decision.time_us < bucket.valid_from_us or decision.time_us >= bucket.valid_until_us:
            continue
        if bucket.status == usage.accounts._suspended:
            continue
        rule = &usage.accounts.rules[bucket.rule]
        if not rule.any_scope:
            scope = _in_scope(usage, bucket.rule, decision.combination)
            if scope == SCOPE_UNKNOWN:
                usage.wanted_rule = bucket.rule
                usage.wanted_combination = decision.combination
                return NEEDS_SCOPE
            if scope == OUT_OF_SCOPE:
                continue
        if not rule.simple:
            return NEEDS_PLAIN
        if decision.paid.rated.standard_micro == 0:
            continue  # no bucket of standard tokens is for it
        matched = rule
        if bucket.remaining_micro <= 0:
            if rule.waits_for_use and bucket.lapse_at_us >= NO_END_US:
                return NEEDS_PLAIN  # one that was given away before its first use matches nothing
            continue
        if bucket.status == usage.accounts._pending and rule.waits_for_use:
            return NEEDS_PLAIN
        if bucket.status == usage.accounts._active or bucket.status == usage.accounts._pending:
            decision.bucket = bucket
            decision.paid.payer = BY_BUCKET
            return DONE  # it pays all, or _plan_burn leaves the event to the plain calculator
    if matched != NULL and matched.plain_overage:
        return NEEDS_PLAIN
    decision.paid.payer = BY_WALLET if matched == NULL or matched.pays_as_you_go else BY_NOBODY
    return DONE


cdef inline int _find_part(Usage usage, Decision* decision) except -1 nogil:
    """Collect the buckets that decide an event which one bucket does not pay whole, or which reaches its alert: those
    that pay, in deduction order, and the last that matches if they do not pay all. The plain calculator gets only
    these, so that an account of a thousand buckets is not copied whole each time that one of them is used up.

    Returns NEEDS_PART; NEEDS_PLAIN where a rule looks at other buckets too; NEEDS_SCOPE.
    """
    cdef Account* account = decision.account
    cdef Bucket* bucket
    cdef Rule* rule
    cdef Rule* last_rule = NULL
    cdef int32_t last = -1
    cdef i128 left_micro = tb_widen(decision.paid.rated.standard_micro)
    cdef i128 nothing = tb_widen(0)
    cdef int scope
    cdef int32_t i
    usage.part.clear()
    if account.wallet_floor_bits != FROM_ANY_WALLET:
        return NEEDS_PLAIN  # gift money and alerts are in the extras, which the part has not
    for i in range(<int32_t>account.bucket_number):
        bucket = &account.buckets[i]
        if decision.time_us < bucket.valid_from_us or decision.time_us >= bucket.valid_until_us:
            continue
        if bucket.status == usage.accounts._suspended:
            continue
        rule = &usage.accounts.rules[bucket.rule]
        if not rule.any_scope:
            scope = _in_scope(usage, bucket.rule, decision.combination)
            if scope == SCOPE_UNKNOWN:
                usage.wanted_rule = bucket.rule
                usage.wanted_combination = decision.combination
                return NEEDS_SCOPE
            if scope == OUT_OF_SCOPE:
                continue
        if not rule.simple or (rule.waits_for_use and bucket.lapse_at_us >= NO_END_US):
            return NEEDS_PLAIN
        last = i
        last_rule = rule
        if bucket.remaining_micro <= nothing:
            continue
        if bucket.status == usage.accounts._active or bucket.status == usage.accounts._pending:
            usage.part.push_back(i)
            # 0 < remaining < 2^127 and 0 < left < 2^63: the difference fits
            left_micro = left_micro - bucket.remaining_micro
            if left_micro <= nothing:
                return NEEDS_PART
    if last_rule == NULL or last_rule.plain_overage:
        return NEEDS_PLAIN
    if usage.part.size() == 0 or usage.part.back() != last:
        usage.part.push_back(last)
    return NEEDS_PART


cdef inline int _find_sums(Usage usage, Decision* decision) except -1 nogil:
    """Find the sums that the event adds to: its rollup row (the hour of its own time, version, combination), and the
    journal sums of the bucket's plan or the price book version. Absorbed usage earns nothing."""
    cdef int64_t hour_us = decision.time_us - decision.time_us % HOUR_US
    cdef Account* account = decision.account
    decision.sums = usage.sums.of(hour_us, decision.version, decision.combination)
    decision.earned = NULL
    if decision.paid.payer == BY_BUCKET:
        decision.earned = usage.sums.earned_of(
            account.currency, usage.accounts.rules[decision.bucket.rule].label, -1
        )
    elif decision.paid.payer == BY_WALLET:
        decision.earned = usage.sums.earned_of(account.currency, -1, decision.version)
    return 0


cdef inline bint _plan_burn(Decision* decision) noexcept nogil:
    """Compute what the burn earns: liability x burned / remaining, half even to pico (docs/reference/plans.md,
    "Revenue"). False for the plain calculator: it empties a bucket, fires its alerts, and computes with a liability
    beyond 63 bits. Cannot fail: it computes.
    """
    cdef Bucket* bucket = decision.bucket
    cdef int64_t burned_micro = decision.paid.rated.standard_micro
    # 0 < remaining < 2^127 and 0 <= burned < 2^63: the difference fits
    cdef i128 left = bucket.remaining_micro - tb_widen(burned_micro)
    if left <= 0 or left <= bucket.floor_micro:
        return False
    if tb_high(bucket.liability_pico) != 0 or tb_low(bucket.liability_pico) >> 63:
        return False
    # 0 <= liability < 2^63 and burned < remaining, as tb_earned asks: 0 <= revenue <= liability
    decision.revenue_pico = tb_earned(<int64_t>tb_low(bucket.liability_pico), burned_micro, bucket.remaining_micro)
    decision.paid.grant_at = bucket.grant_at
    decision.paid.grant_size = bucket.grant_size
    return tb_sum_fits(decision.earned.amount_pico, decision.revenue_pico) and (
        tb_sum_fits(decision.sums.burned_micro, burned_micro)
    )


cdef inline bint _plan_charge(Decision* decision) noexcept nogil:
    """Check what the wallet keeps; it may fall below zero, usage that happened is never refused. What is charged is
    earned net of tax (docs/reference/plans.md, "Overage"). False for the plain calculator: it charges a wallet that
    holds gift money or nears its alert. Cannot fail: it compares.
    """
    cdef Account* account = decision.account
    cdef int floor_bits = account.wallet_floor_bits
    cdef int64_t charged_pico = decision.paid.rated.amount_pico
    if floor_bits == FROM_NO_WALLET or not tb_difference_fits(account.wallet_pico, charged_pico):
        return False
    # floor_bits is below 127: the power of two fits
    if floor_bits >= 0 and account.wallet_pico - tb_widen(charged_pico) < tb_widen(1) << floor_bits:
        return False
    decision.revenue_pico = decision.paid.rated.net_pico
    return (
        tb_sum_fits(decision.earned.amount_pico, charged_pico)
        and tb_sum_fits(decision.earned.net_pico, decision.revenue_pico)
        and tb_sum_fits(decision.sums.charged_pico, charged_pico)
    )


cdef inline bint _plan_absorption(Decision* decision) noexcept nogil:
    """Check what the account has absorbed, micro standard tokens and pico: recorded, not charged, nothing earned
    (docs/reference/plans.md, "Overage"). False for the plain calculator. Cannot fail: it compares.
    """
    cdef TbRated* rated = &decision.paid.rated
    decision.revenue_pico = 0
    return (
        tb_sum_fits(decision.account.absorbed_micro, rated.standard_micro)
        and tb_sum_fits(decision.account.absorbed_pico, rated.amount_pico)
        and tb_sum_fits(decision.sums.absorbed_micro, rated.standard_micro)
        and tb_sum_fits(decision.sums.absorbed_pico, rated.amount_pico)
    )


cdef inline bint _plan_payment(Decision* decision) noexcept nogil:
    """Compute the payment, and check every sum that _apply adds to; False for the plain calculator, which sums up in
    Python's integers. Both parts of a sum are added when it is taken. Cannot fail: it computes.
    """
    cdef Sums* sums = decision.sums
    cdef TbRated* rated = &decision.paid.rated
    cdef bint planned
    if decision.paid.payer == BY_BUCKET:
        planned = _plan_burn(decision)
    elif decision.paid.payer == BY_WALLET:
        planned = _plan_charge(decision)
    else:
        planned = _plan_absorption(decision)
    return (
        planned
        and sums.events < MAX_EVENTS
        and tb_sum_fits(sums.tokens, rated.tokens)
        and tb_sum_fits(sums.standard_micro, rated.standard_micro)
        and tb_sum_fits(sums.amount_pico, rated.amount_pico)
        and tb_sum_fits(sums.net_pico, rated.net_pico)
        and tb_sum_fits(sums.revenue_pico, decision.revenue_pico)
    )


# ---- Deciding one event: changes -----------------------------------------------------------------------------------


cdef inline void _pay(Decision* decision) noexcept nogil:
    """Change the bucket or the account, the journal sums, and the payer's sums of the rollup row.

    Cannot fail: _plan_payment checked every result.
    """
    cdef Account* account = decision.account
    cdef Bucket* bucket = decision.bucket
    cdef Earned* earned = decision.earned
    cdef Sums* sums = decision.sums
    cdef i128 standard_micro = tb_widen(decision.paid.rated.standard_micro)
    cdef i128 amount_pico = tb_widen(decision.paid.rated.amount_pico)
    cdef i128 revenue_pico = tb_widen(decision.revenue_pico)
    if decision.paid.payer == BY_BUCKET:
        bucket.remaining_micro = bucket.remaining_micro - standard_micro
        bucket.liability_pico = bucket.liability_pico - revenue_pico
        bucket.dirty |= CHANGED
        earned.amount_pico = earned.amount_pico + revenue_pico
        sums.burned_micro = sums.burned_micro + standard_micro
    elif decision.paid.payer == BY_WALLET:
        account.wallet_pico = account.wallet_pico - amount_pico
        if decision.paid.rated.amount_pico:
            account.dirty |= CHANGED
        earned.amount_pico = earned.amount_pico + amount_pico
        earned.net_pico = earned.net_pico + revenue_pico
        sums.charged_pico = sums.charged_pico + amount_pico
    else:
        account.absorbed_micro = account.absorbed_micro + standard_micro
        account.absorbed_pico = account.absorbed_pico + amount_pico
        account.dirty |= CHANGED
        sums.absorbed_micro = sums.absorbed_micro + standard_micro
        sums.absorbed_pico = sums.absorbed_pico + amount_pico


cdef inline void _add_to_sums(Decision* decision) noexcept nogil:
    """Add the event to the sums of its rollup row that do not depend on the payer.

    Cannot fail: _plan_payment checked every result.
    """
    cdef Sums* sums = decision.sums
    cdef TbRated* rated = &decision.paid.rated
    sums.events += 1
    sums.tokens = sums.tokens + tb_widen(rated.tokens)
    sums.standard_micro = sums.standard_micro + tb_widen(rated.standard_micro)
    sums.amount_pico = sums.amount_pico + tb_widen(rated.amount_pico)
    sums.net_pico = sums.net_pico + tb_widen(rated.net_pico)
    sums.revenue_pico = sums.revenue_pico + tb_widen(decision.revenue_pico)


cdef inline int _apply(
    Usage usage, EventColumns columns, Py_ssize_t row, const Limits* limits, Decision* decision
) except -1 nogil:
    """Store what was decided: identity, balance, journal and rollup sums, and the line to be rendered.

    Every number was checked before. Only memory may run out, and then the batch is lost as a whole: the error ends it,
    and its engine is thrown away (docs/reference/principles.md, "Commit").
    """
    cdef Account* account = decision.account
    cdef TbVersion* version = &usage.tables.versions[decision.version]
    usage.accounts.touch(account)
    usage.memory.rated(columns, row, usage.log_time_us)
    _pay(decision)
    _add_to_sums(decision)
    if not limits.limited and account.clock_us != decision.now_us:
        account.clock_us = decision.now_us
        account.dirty |= CHANGED
    version.latest_us = max(version.latest_us, decision.time_us)
    usage.rated += 1    # rows of one batch: they are in memory
    decision.paid.row = <int32_t>row
    decision.paid.batch = usage.lines.batch
    usage.lines.paid.push_back(decision.paid)
    return 0


cdef inline int _decide(Usage usage, EventColumns columns, Py_ssize_t row, const Limits* limits) except -1 nogil:
    """Decide one row: every check, then every change. Returns DONE, DUPLICATE_DONE, or what the row needs.

    A row that needs something has changed nothing but the kind of a source that was not known. It is decided again
    when the need is met, or by the plain calculator, which applies the same rules in the same order.
    """
    cdef Decision decision
    cdef int need = _recognise(usage, columns, row, limits)
    if need == DONE:
        need = _price(usage, columns, row, &decision)
    if need != DONE:
        return need
    if _is_due(usage, limits, &decision):
        return NEEDS_PLAIN
    need = _choose_payer(usage, &decision)
    if need != DONE:
        return need
    _find_sums(usage, &decision)
    if not _plan_payment(&decision):
        return _find_part(usage, &decision) if decision.paid.payer == BY_BUCKET else NEEDS_PLAIN
    _apply(usage, columns, row, limits, &decision)
    return DONE


# ---- The loop over rows --------------------------------------------------------------------------------------------


cdef inline void _prefetch(
    AccountStore accounts, EventColumns columns, const unsigned char* marks, Py_ssize_t row
) noexcept nogil:
    """Load ahead where an account lies, then the account, then its first bucket: each is there when the next is asked
    for. Cannot fail: a prefetch of any address is allowed.
    """
    cdef Account* account
    cdef Py_ssize_t ahead = row + 24
    if ahead < columns.rows and marks[ahead]:
        tb_prefetch(accounts.record_of.data() + columns.account[ahead])
    ahead = row + 16
    if ahead < columns.rows and marks[ahead]:
        account = accounts.find(columns.account[ahead])
        tb_prefetch(account)
        tb_prefetch(<char*>account + 64)
        tb_prefetch(<char*>account + sizeof(Account) - 1)
    ahead = row + 8
    if ahead < columns.rows and marks[ahead]:
        account = accounts.find(columns.account[ahead])
        if account != NULL and account.buckets != NULL:
            tb_prefetch(account.buckets)
            tb_prefetch(<char*>account.buckets + 64)
            tb_prefetch(<char*>account.buckets + sizeof(Bucket) - 1)


cdef inline int _move_log_time(Usage usage, EventColumns columns, Py_ssize_t row) except -1 nogil:
    """Advance the log's time to the record's timestamp; it never goes back (docs/reference/principles.md, "Log time").

    Raises:
        OverflowError: the timestamp, in milliseconds, has no microseconds in 64 bits.
    """
    cdef int64_t logged_us = 0
    if tb_multiply_64(columns.logged_ms[row], 1000, &logged_us) and columns.logged_ms[row] > 0:
        with gil:
            raise OverflowError(f"the record at offset {columns.offset[row]} is of {columns.logged_ms[row]} ms")
    usage.log_time_us = max(usage.log_time_us, logged_us)
    return 0


cdef inline int _move_clock(Usage usage, EventColumns columns, Py_ssize_t row) except -1 nogil:
    """Without a log, move the clock of a duplicate's account to the event's time; it never goes back."""
    cdef Account* account = usage.accounts.find(columns.account[row])
    if account != NULL and account.clock_us < columns.time_us[row]:
        account.clock_us = columns.time_us[row]
        account.dirty |= CHANGED
        usage.accounts.touch(account)
    return 0


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
        self.sums = CommitSums(accounts)
        self.lines = RatedLines(decoder, accounts, prices)

    def clear_scopes(self):
        """Forget which combinations lie in the scope of which bucket of a plan."""
        self.scope_of.clear()

    def word(self, str text not None):
        """Return the number by which accounts know the name of a price book or a currency."""
        return self.accounts.word(text)

    def set_scope(self, int32_t rule, int32_t combination, bint matches):
        """Set whether a combination lies in the scope of a bucket of a plan.

        Raises:
            ValueError: a number is negative.
        """
        cdef uint8_t mark = IN_SCOPE if matches else OUT_OF_SCOPE
        if rule < 0 or combination < 0:
            raise ValueError(f"rule {rule}, combination {combination}")
        if self.scope_of.size() <= <size_t>rule:
            self.scope_of.resize(rule + 1)
        if self.scope_of[rule].size() <= <size_t>combination:
            self.scope_of[rule].resize(combination + 1, SCOPE_UNKNOWN)
        self.scope_of[rule][combination] = mark  # a C variable: Cython 3.3.1 keeps a dead reference to an element

    def route(self, EventColumns columns not None, int32_t partition, int32_t partitions):
        """Return which rows belong here (bytes of 1 and 0), and [(row, target partition)] of those that do not.

        Raises:
            ValueError: there are no partitions.
        """
        cdef Py_ssize_t row
        cdef int32_t target
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
                marks[row] = MINE
            else:
                elsewhere.append((row, target))
        return bytes(mine), elsewhere

    def missing_accounts(self, EventColumns columns not None, const unsigned char[::1] mine):
        """Return the names of accounts of the rows that belong here and that are not in memory, sorted.

        Raises:
            ValueError: there is not one mark for each row.
        """
        cdef Py_ssize_t row
        cdef set numbers = set()
        if mine.shape[0] != columns.rows:
            raise ValueError(f"{mine.shape[0]} marks for {columns.rows} rows")
        for row in range(columns.rows):
            if mine[row] and self.accounts.find(columns.account[row]) == NULL:
                numbers.add(columns.account[row])
        return sorted([self.accounts.numbers[number].decode() for number in numbers])

    def start(self, int64_t log_time_us):
        """Begin a batch, at the partition's log time before it.

        Raises:
            ValueError: the time is before 1970.
        """
        if log_time_us < 0:
            raise ValueError(f"the log's time cannot be {log_time_us}")
        self.log_time_us = log_time_us
        self.marked.clear()
        self.rated = 0
        self.duplicate = 0

    def run(self, EventColumns columns not None, const unsigned char[::1] mine, Py_ssize_t row, limits):
        """Decide rows from ``row`` on until one needs something. ``limits`` is None or (future_us, past_us).

        ``mine`` has 0 for a row that belongs elsewhere, 1 for one that belongs here, 2 for one that
        :meth:`marked_and_rated` returns besides. Returns (row, need): 3 a scope for :attr:`wanted_rule` and
        :attr:`wanted_combination`; 4 the plain calculator, or a row that the decoder refused; 5 all rows are decided;
        8 the plain calculator with the buckets of :meth:`part_of` only; else what the price tables ask for.
        :attr:`log_time_us` then includes the row.

        Raises:
            ValueError: there is not one mark for each row, or no such row.
            OverflowError: a timestamp does not fit.
            MemoryError: the batch is lost; throw the calculator away.
        """
        cdef Limits within
        cdef const unsigned char* marks
        cdef int need = ALL_DONE
        if mine.shape[0] != columns.rows or not 0 <= row <= columns.rows:
            raise ValueError(f"row {row} of {columns.rows}, {mine.shape[0]} marks")
        within.limited = limits is not None
        within.future_us, within.past_us = limits or (0, 0)
        self.lines.begin(columns, columns.rows - row)
        marks = &mine[0] if columns.rows else NULL
        with nogil:
            while row < columns.rows:
                _prefetch(self.accounts, columns, marks, row)
                _move_log_time(self, columns, row)
                if marks[row] != ELSEWHERE:
                    need = _decide(self, columns, row, &within)
                    if need == DUPLICATE_DONE:
                        self.duplicate += 1
                        if not within.limited:
                            _move_clock(self, columns, row)
                    elif need != DONE:
                        break
                    elif marks[row] == MARKED:
                        self.marked.push_back(row)
                elif columns.status[row] != READ:
                    need = NEEDS_PLAIN
                    break
                need = ALL_DONE
                row += 1
        return row, need

    def part_of(self):
        """Return the places of the buckets that decide the row for which :meth:`run` returned 8."""
        return list(self.part)

    def marked_and_rated(self):
        """Return the rows marked 2 that were rated since :meth:`start`, in order."""
        return list(self.marked)

    def add_line(self, bytes line not None):
        """Append a line that the plain calculator wrote, in its place (:meth:`cython_ext.lines.RatedLines.add`)."""
        self.lines.add(line)

    def describe(self, bytes text not None):
        """Give what lines say of the next combination (:meth:`cython_ext.lines.RatedLines.describe`)."""
        self.lines.describe(text)

    def number_described(self):
        """Return how many combinations are described."""
        return self.lines.number_described()

    def take_frames(self, bytes key not None, list pieces not None, Py_ssize_t at_most):
        """Return the rated lines since the last call in frames (:meth:`cython_ext.lines.RatedLines.take`)."""
        return self.lines.take(key, pieces, at_most)

    def take_sums(self):
        """Return the rollup sums since the last call (:meth:`cython_ext.sums.CommitSums.take`)."""
        return self.sums.take()

    def take_earned(self):
        """Return the journal sums since the last call (:meth:`cython_ext.sums.CommitSums.take_earned`)."""
        return self.sums.take_earned()

    def take_book_times(self):
        """Return {book: greatest event time rated under it since the last call}."""
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
