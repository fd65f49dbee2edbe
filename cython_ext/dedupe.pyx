"""The memory of event identities: :class:`billing.calculator.dedupe.Dedupe` over columns. It answers with a number and
writes no sentences (docs/reference/principles.md, "Identity").

Numbered sources keep runs of numbers, the refused numbers among them, and a ring of the hashes of the last 65,536; the
ring grows from 64 entries, so that a source that has just begun takes little memory. Unnumbered sources keep 24 bytes
for each identity.
"""

from cython.operator cimport dereference, preincrement
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cython_ext.decode cimport ACCOUNT_FACTOR, MAX_TEXT, MAX_TIME_US, SEPARATOR, EventColumns
from cython_ext.murmur cimport murmur3
from cython_ext.tables cimport TextTable

cdef enum:
    RECENT_BYTES = 16       # billing.calculator.dedupe.RECENT: number, id hash, content hash
    HASHED_BYTES = 20       # billing.calculator.dedupe.HASHED: identity, content hash
    MAX_NUMBER = 0x7FFFFFFFFFFFFFFF


cdef inline int64_t hour_of(int64_t time_us) noexcept nogil:
    """Return the hour of an event's time, which is not negative. Cannot fail: the divisor is a constant."""
    return time_us - time_us % HOUR_US


cdef inline int64_t _later(int64_t log_time_us, int64_t logged_ms) noexcept nogil:
    """Return the log's time after a record. Cannot fail: a timestamp beyond the year 9999 stops the batch later."""
    cdef int64_t greatest_ms = MAX_TIME_US // 1000
    return max(log_time_us, min(logged_ms, greatest_ms) * 1000)


cdef inline TbSource* _source(Memory memory, int32_t number) except NULL nogil:
    """Find a source by its number, or begin it."""
    if <size_t>number >= memory.known.size():
        memory.known.resize(number + 1)
    return &memory.known[number]


cdef inline bint _may_be_unnumbered(Memory memory, int32_t number) except -1 nogil:
    """True also for an undecided source: an earlier row of the batch may make it unnumbered."""
    cdef TbSource* source = _source(memory, number)
    return source.kind != tb_numbered or source.undecided()


cdef int _unpack(TbIdentities* into, const unsigned char[:] payload) except -1:
    """Add identities packed as :data:`billing.calculator.dedupe.HASHED`."""
    cdef Py_ssize_t at
    cdef uint64_t first = 0, second = 0
    cdef uint32_t content = 0
    for at in range(0, payload.shape[0] - (HASHED_BYTES - 1), HASHED_BYTES):
        memcpy(&first, &payload[at], 8)
        memcpy(&second, &payload[at + 8], 8)
        memcpy(&content, &payload[at + 16], 4)
        into.put(first, second, content)
    return 0


cdef inline size_t _append(char* joined, size_t size, TextTable table, int32_t number) noexcept nogil:
    """Append a text of a table and a separator; return the new size. Cannot fail: the caller has the room."""
    cdef size_t length = table.starts[number + 1] - table.starts[number]
    memcpy(joined + size, table.arena.data() + table.starts[number], length)
    joined[size + length] = SEPARATOR
    return size + length + 1


cdef class Memory:
    """The identities of one partition. ``sources`` and ``accounts`` are the decoder's tables: texts are known by their
    numbers in them."""

    def __cinit__(self, TextTable sources not None, TextTable accounts not None):
        self.sources = sources
        self.accounts = accounts
        self.names_account = True
        self.has_log = False
        self.sequence_jump = MAX_NUMBER

    def decide_by(self, bint names_account, int64_t sequence_jump, future_us, int64_t commit_no):
        """Use these rules (:class:`billing.log_time.IdentityRules`) from now on, for the commit of this number."""
        self.names_account = names_account
        self.sequence_jump = sequence_jump
        self.has_log = future_us is not None
        self.future_us = future_us or 0
        self.commit_no = commit_no

    def load_unlogged(self, int64_t until_us):
        """Load the log time up to which identities are filed without the hour of log time."""
        self.unlogged_until_us = until_us

    def load_source(self, str name not None, bint numbered, runs, refused):
        """Load a source as it is stored; ``runs`` are closed (first, last), sorted and disjoint."""
        cdef TbSource* source = _source(self, self.sources.number(name.encode()))
        source.kind = tb_numbered if numbered else tb_unnumbered
        for first, last in runs:
            source.load(first, last)
        for number in refused:
            source.refused.insert(number)

    def load_recent(self, str name not None, const unsigned char[:] payload):
        """Load hashes of recent numbers, packed as :data:`billing.calculator.dedupe.RECENT`.

        Raises:
            KeyError: the source was not loaded before.
        """
        cdef TbSource* source = _source(self, self.sources.number(name.encode()))
        cdef Py_ssize_t at
        cdef int64_t number
        cdef TbHashes hashes
        if source.kind == tb_unknown_source:
            raise KeyError(name)
        for at in range(0, payload.shape[0] - (RECENT_BYTES - 1), RECENT_BYTES):
            memcpy(&number, &payload[at], 8)
            memcpy(&hashes, &payload[at + 8], 8)
            source.remember(number, hashes)

    def put_hour(self, int64_t hour_us, list payloads not None):
        """Replace the identities of an hour of event time, packed as :data:`billing.calculator.dedupe.HASHED`; those
        that the commit adds are kept."""
        cdef TbIdentities fresh
        cdef TbPending.iterator at = self.pending.begin()
        fresh.reserve(sum(map(len, payloads)) // HASHED_BYTES)
        for part in payloads:
            _unpack(&fresh, part)
        while at != self.pending.end():
            if dereference(at).first.first == hour_us:
                _unpack(&fresh, dereference(at).second.data()[: dereference(at).second.size()])
            preincrement(at)
        self.hours[hour_us] = fresh

    def hours_held(self):
        """Return (hour_us, bytes in memory) of each hour of event time, sorted."""
        cdef TbHours.iterator at = self.hours.begin()
        held = []
        while at != self.hours.end():
            held.append((dereference(at).first, dereference(at).second.bytes_held()))
            preincrement(at)
        return sorted(held)

    def drop_hour(self, int64_t hour_us):
        """Drop an hour of event time; it is put again when it is needed."""
        self.hours.erase(hour_us)

    def missing_hours(self, EventColumns columns not None, const unsigned char[::1] mine, int64_t log_time_us):
        """Return the hours of event time that rows of ``mine`` need and that are not in memory, as a set.

        Raises:
            ValueError: there is not one mark for each row.
        """
        cdef Py_ssize_t row
        cdef int64_t hour_us, last_us = -1
        cdef set missing = set()
        if mine.shape[0] != columns.rows:
            raise ValueError(f"{mine.shape[0]} marks for {columns.rows} rows")
        for row in range(columns.rows):
            log_time_us = _later(log_time_us, columns.logged_ms[row])
            if not mine[row] or not _may_be_unnumbered(self, columns.source[row]):
                continue
            if not self.by_event_hour(columns.time_us[row], log_time_us):
                continue
            hour_us = hour_of(columns.time_us[row])
            if hour_us != last_us and self.hours.count(hour_us) == 0:
                missing.add(hour_us)
            last_us = hour_us
        return missing

    def has_unnumbered(self, EventColumns columns not None, const unsigned char[::1] mine):
        """Return True if the source of a row of ``mine`` is unnumbered, or would be by one of the rows.

        Raises:
            ValueError: there is not one mark for each row.
        """
        cdef Py_ssize_t row
        if mine.shape[0] != columns.rows:
            raise ValueError(f"{mine.shape[0]} marks for {columns.rows} rows")
        for row in range(columns.rows):
            if mine[row] and _may_be_unnumbered(self, columns.source[row]):
                if columns.sequence[row] == 0 or not self.numbered(columns, row):
                    return True
        return False

    def missing_parts(self, EventColumns columns not None, const unsigned char[::1] mine, int64_t log_time_us):
        """Return (log hour, first commit, last commit) of the parts that may have an identity of a row of ``mine`` and
        whose identities are not in memory, oldest first.

        Raises:
            ValueError: there is not one mark for each row.
        """
        cdef Py_ssize_t row
        cdef size_t i
        cdef int64_t window_us
        cdef uint64_t first = 0, second = 0
        cdef TbPart* part
        cdef vector[size_t] asked   # numbers of the parts that are not in memory and not found missing yet
        cdef set missing = set()
        if mine.shape[0] != columns.rows:
            raise ValueError(f"{mine.shape[0]} marks for {columns.rows} rows")
        for i in range(self.parts.size()):
            if not self.parts[i].held:
                asked.push_back(i)
        if asked.empty() or not self.names_account:
            return []
        for row in range(columns.rows):
            log_time_us = _later(log_time_us, columns.logged_ms[row])
            if not mine[row] or not _may_be_unnumbered(self, columns.source[row]):
                continue
            window_us = self.window_us(log_time_us)
            self.identity(columns, row, True, &first, &second)
            for i in range(asked.size()):
                part = &self.parts[asked[i]]
                if part.log_hour_us >= window_us and part.may_have(first, second):
                    missing.add((part.log_hour_us, part.first_commit, part.last_commit))
        return sorted(missing)

    def put_part(
        self, int64_t log_hour_us, int64_t first_commit, int64_t last_commit, list payloads not None
    ):
        """Load the identities of a part; a part that was not known follows those that are."""
        cdef TbPart* part = self.part_of(log_hour_us, first_commit)
        if part == NULL:
            self.new_part(log_hour_us, first_commit, last_commit, False)
            part = &self.parts.back()
        part.held = True
        part.identities.reserve(sum(map(len, payloads)) // HASHED_BYTES)
        for payload in payloads:
            _unpack(&part.identities, payload)

    def parts_held(self):
        """Return (log hour, first commit, last commit, bytes of identities, bytes of the filter), oldest first."""
        cdef size_t i
        held = []
        for i in range(self.parts.size()):
            part = &self.parts[i]
            held.append(
                (
                    *(part.log_hour_us, part.first_commit, part.last_commit),
                    *(part.identities.bytes_held(), part.filter.bytes_held()),
                )
            )
        return held

    def shrink_part(self, int64_t log_hour_us, int64_t first_commit):
        """Drop the identities of a part for a filter, or its filter."""
        cdef TbPart* part = self.part_of(log_hour_us, first_commit)
        if part != NULL:
            part.shrink()

    def drop_part(self, int64_t log_hour_us, int64_t first_commit):
        """Drop a part that is older than what is looked up."""
        cdef vector[TbPart] kept
        cdef size_t i
        for i in range(self.parts.size()):
            if self.parts[i].log_hour_us != log_hour_us or self.parts[i].first_commit != first_commit:
                kept.push_back(self.parts[i])
        self.parts.swap(kept)

    def is_numbered(self, EventColumns columns not None, Py_ssize_t row):
        """Return True if the row's source is numbered. Its first rated event decides that, which may be this one."""
        return self.numbered(columns, columns._row(row))

    def highest_seen(self, EventColumns columns not None, Py_ssize_t row):
        """Return the highest number seen of the row's source, 0 if there is none."""
        return _source(self, columns.source[columns._row(row)]).highest_seen()

    def look_at(self, EventColumns columns not None, Py_ssize_t row, int64_t log_time_us):
        """Return 0 new, 1 duplicate, 2 duplicate with other content, 3 number reused by another event, 4 number
        missing, 5 number too far ahead."""
        return self.look(columns, columns._row(row), log_time_us)

    def set_rated(self, EventColumns columns not None, Py_ssize_t row, int64_t log_time_us):
        """Remember the identity of a row that was rated at this log time."""
        self.rated(columns, columns._row(row), log_time_us)

    def set_refused(self, str name not None, int64_t number):
        """Remember the number of an event that was refused: it counts as seen, and stays ratable."""
        cdef TbSource* source = _source(self, self.sources.number(name.encode()))
        if source.kind == tb_unnumbered or source.has(number):
            return
        if number - source.highest_seen() > self.sequence_jump:
            return
        source.kind = tb_numbered
        source.add(number)
        source.refused.insert(number)
        source.touched = True

    def take_sources(self):
        """Return (source, numbered, runs, refused, highest, packed hashes) of sources touched since the last call,
        sorted."""
        cdef size_t index
        cdef TbSource* source
        taken = []
        for index in range(self.known.size()):
            source = &self.known[index]
            if not source.touched:
                continue
            runs = tuple((run.first, run.second) for run in source.runs)
            refused = tuple(sorted(number for number in source.refused))
            packed = source.pending.data()[: source.pending.size()] if source.pending.size() else b""
            name = self.sources[index].decode()
            taken.append((name, source.kind == tb_numbered, runs, refused, source.highest, packed))
            source.touched = False
            source.pending.clear()
        taken.sort()
        return taken

    def take_hours(self):
        """Return (hour of event time, hour of log time or None, packed hashes) of the identities added since the last
        call, sorted."""
        cdef TbPending.iterator at = self.pending.begin()
        taken = []
        while at != self.pending.end():
            log_hour_us = dereference(at).first.second
            packed = dereference(at).second.data()[: dereference(at).second.size()]
            taken.append((dereference(at).first.first, None if log_hour_us == NO_LOG_HOUR else log_hour_us, packed))
            preincrement(at)
        self.pending.clear()
        return taken

    cdef void identity(
        self, EventColumns columns, Py_ssize_t row, bint names_account, uint64_t* first, uint64_t* second
    ) noexcept nogil:
        """Compute :func:`schemas.hashing.identity_hash` of a row, with its account or without.

        Cannot fail: account, source and id have at most MAX_TEXT bytes each, which both ways into the columns check.
        """
        cdef char joined[3 * MAX_TEXT + 2]
        cdef size_t size = 0
        if names_account:
            size = _append(joined, 0, self.accounts, columns.account[row])
        size = _append(joined, size, self.sources, columns.source[row])
        memcpy(joined + size, columns.id_at[row], columns.id_size[row])
        murmur3(joined, size + columns.id_size[row], first, second)

    cdef uint32_t id_hash(self, EventColumns columns, Py_ssize_t row, bint names_account) noexcept nogil:
        """Return the hash of a row's id that is kept with its number. Cannot fail: it computes modulo 2^32."""
        cdef uint32_t account = <uint32_t>(ACCOUNT_FACTOR * self.accounts.hashes[columns.account[row]])
        return columns.id_hash[row] if names_account else columns.id_hash[row] - account

    cdef bint numbered(self, EventColumns columns, Py_ssize_t row) except -1 nogil:
        """Return True if the row's source is numbered, or would be with this as its first rated event."""
        cdef TbSource* source = _source(self, columns.source[row])
        if source.kind == tb_unknown_source or (self.names_account and source.undecided()):
            return columns.sequence[row] != 0
        return source.kind == tb_numbered

    cdef int look(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil:
        """Return NEW, DUPLICATE, CONFLICT, REUSED, NO_NUMBER or TOO_FAR."""
        cdef TbSource* source = _source(self, columns.source[row])
        cdef int64_t number = columns.sequence[row]
        cdef const TbHashes* hashes
        if not self.names_account and source.kind == tb_unknown_source:
            source.decide(number != 0)  # by an event that may be rejected, as a release did without the account
        if not self.numbered(columns, row):
            return self.look_by_hash(columns, row, log_time_us)
        if number == 0:
            return NO_NUMBER
        if not source.has(number):
            # both are from 0 to 2^63-1: the difference fits
            return TOO_FAR if number - source.highest_seen() > self.sequence_jump else NEW
        if not source.refused.empty() and source.refused.count(number):
            return NEW
        hashes = source.recall(number)
        if hashes == NULL:
            return DUPLICATE
        if hashes.id != self.id_hash(columns, row, self.names_account) and (
            hashes.id != self.id_hash(columns, row, False)
        ):
            return REUSED
        return DUPLICATE if hashes.content == columns.content_hash[row] else CONFLICT

    cdef int look_by_hash(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil:
        """Return NEW, DUPLICATE or CONFLICT for a row of an unnumbered source."""
        cdef TbIdentities* hour = NULL
        cdef TbPart* part
        cdef uint64_t first = 0, second = 0, old_first = 0, old_second = 0
        cdef const uint32_t* content = NULL
        cdef int64_t window_us
        cdef size_t i = self.parts.size()
        self.identity(columns, row, self.names_account, &first, &second)
        if self.by_event_hour(columns.time_us[row], log_time_us):
            hour = tb_hour(&self.hours, hour_of(columns.time_us[row]))
        if hour != NULL:
            content = hour.find(first, second)
            if content == NULL and self.names_account:
                self.identity(columns, row, False, &old_first, &old_second)  # rated without its account
                content = hour.find(old_first, old_second)
        if content == NULL and self.names_account:
            window_us = self.window_us(log_time_us)
            while content == NULL and i > 0:
                i -= 1
                part = &self.parts[i]
                if part.log_hour_us < window_us:
                    break
                if part.held:
                    content = part.identities.find(first, second)
        if content == NULL:
            return NEW
        return DUPLICATE if content[0] == columns.content_hash[row] else CONFLICT

    cdef bint by_event_hour(self, int64_t time_us, int64_t log_time_us) noexcept nogil:
        """True if an event is looked up by the hour of its time: :meth:`billing.log_time.IdentityRules.by_event_hour`.

        Cannot fail: times are from 0 to the year 9999, and a limit beyond that is as good as none.
        """
        cdef int64_t greatest_us = MAX_TIME_US
        if not self.names_account:
            return True
        if not self.has_log:
            return False
        return hour_of(time_us) - min(self.future_us, greatest_us) < max(
            self.window_us(log_time_us), self.unlogged_until_us
        )

    cdef int64_t window_us(self, int64_t log_time_us) noexcept nogil:
        """Return the first hour of log time that is looked up whatever an event's time is. Cannot fail: it fits."""
        return (hour_of(log_time_us) if self.has_log else 0) - RESEND_US

    cdef TbPart* part_of(self, int64_t log_hour_us, int64_t first_commit) noexcept nogil:
        """Find a part, or NULL."""
        cdef size_t i
        for i in range(self.parts.size()):
            if self.parts[i].log_hour_us == log_hour_us and self.parts[i].first_commit == first_commit:
                return &self.parts[i]
        return NULL

    cdef int new_part(self, int64_t log_hour_us, int64_t first, int64_t last, bint open_) except -1 nogil:
        """Add a part after the others."""
        cdef TbPart part
        part.log_hour_us = log_hour_us
        part.first_commit = first
        part.last_commit = last
        part.open = open_
        self.parts.push_back(part)
        return 0

    cdef int rated(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil:
        """Remember the identity of a row that was rated, and keep its hashes for the commit.

        The first rated event of a source decides if the source is numbered.
        """
        cdef TbSource* source = _source(self, columns.source[row])
        cdef int64_t number = columns.sequence[row]
        cdef TbHashes hashes
        cdef bint is_numbered = self.numbered(columns, row)
        if source.kind != (tb_numbered if is_numbered else tb_unnumbered):
            source.decide(is_numbered)
        if is_numbered:
            hashes.id = self.id_hash(columns, row, self.names_account)
            hashes.content = columns.content_hash[row]
            source.add(number)
            if not source.refused.empty():
                source.refused.erase(number)
            source.remember(number, hashes)
            source.keep(number, hashes)
            source.touched = True
            return 0
        return self.rated_by_hash(columns, row, log_time_us)

    cdef int rated_by_hash(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil:
        """Remember the identity of a row of an unnumbered source."""
        cdef uint64_t first = 0, second = 0
        cdef uint32_t content = columns.content_hash[row]
        cdef int64_t hour_us = hour_of(columns.time_us[row]), log_hour_us = NO_LOG_HOUR
        cdef TbIdentities* hour = tb_hour(&self.hours, hour_us)
        cdef TbPart* part
        self.identity(columns, row, self.names_account, &first, &second)
        if hour != NULL:
            hour.put(first, second, content)
        if self.names_account:
            log_hour_us = hour_of(log_time_us) if self.has_log else 0
            if self.parts.empty() or not self.parts.back().open or self.parts.back().log_hour_us != log_hour_us:
                self.new_part(log_hour_us, self.commit_no, self.commit_no, True)
            part = &self.parts.back()
            part.last_commit = self.commit_no
            part.identities.put(first, second, content)
        else:
            self.unlogged_until_us = max(self.unlogged_until_us, log_time_us)
        tb_keep(&self.pending, hour_us, log_hour_us, first, second, content)
        return 0
