"""The memory of event identities: :class:`billing.calculator.dedupe.Dedupe` over columns. It answers with a number and
writes no sentences (docs/reference/principles.md, "Identity").

Numbered sources keep runs of numbers, the refused numbers among them, and a ring of the hashes of the last 65,536; the
ring grows from 64 entries, so that a source that has just begun takes little memory. Unnumbered sources keep 24 bytes
for each identity.
"""

from cython.operator cimport dereference, preincrement
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cython_ext.decode cimport ACCOUNT_FACTOR, MAX_TEXT, SEPARATOR, EventColumns
from cython_ext.murmur cimport murmur3
from cython_ext.tables cimport TextTable

cdef enum:
    RECENT_BYTES = 16       # billing.calculator.dedupe.RECENT: number, id hash, content hash
    HASHED_BYTES = 20       # billing.calculator.dedupe.HASHED: identity, content hash
    MAX_NUMBER = 0x7FFFFFFFFFFFFFFF


cdef inline int64_t hour_of(int64_t time_us) noexcept nogil:
    """Return the hour of an event's time, which is not negative. Cannot fail: the divisor is a constant."""
    return time_us - time_us % HOUR_US


cdef inline TbSource* _source(Memory memory, int32_t number) except NULL nogil:
    """Find a source by its number, or begin it."""
    if <size_t>number >= memory.known.size():
        memory.known.resize(number + 1)
    return &memory.known[number]


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
        self.sequence_jump = MAX_NUMBER

    def decide_by(self, bint names_account, int64_t sequence_jump):
        """Use these rules (:class:`billing.log_time.IdentityRules`) from now on."""
        self.names_account = names_account
        self.sequence_jump = sequence_jump

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

    def put_hour(self, int64_t hour_us, payloads):
        """Replace the identities of an hour, packed as :data:`billing.calculator.dedupe.HASHED`."""
        cdef TbHour* hour = tb_hour(&self.hours, hour_us)
        cdef TbHour fresh
        cdef const unsigned char[:] payload
        cdef Py_ssize_t at
        cdef uint64_t first = 0, second = 0
        cdef uint32_t content = 0
        fresh.pending.swap(hour.pending)
        for part in payloads:
            payload = part
            for at in range(0, payload.shape[0] - (HASHED_BYTES - 1), HASHED_BYTES):
                memcpy(&first, &payload[at], 8)
                memcpy(&second, &payload[at + 8], 8)
                memcpy(&content, &payload[at + 16], 4)
                fresh.put(first, second, content)
        hour[0] = fresh

    def hours_held(self):
        """Return (hour_us, bytes in memory) of each hour of identities, sorted."""
        cdef TbHours.iterator at = self.hours.begin()
        held = []
        while at != self.hours.end():
            held.append((dereference(at).first, dereference(at).second.bytes_held()))
            preincrement(at)
        return sorted(held)

    def drop_hour(self, int64_t hour_us):
        """Drop an hour of identities; it is put again when it is needed."""
        self.hours.erase(hour_us)

    def missing_hours(self, EventColumns columns not None, const unsigned char[::1] mine):
        """Return the hours that rows of ``mine`` may need and that are not in memory, as a set.

        Raises:
            ValueError: there is not one mark for each row.
        """
        cdef Py_ssize_t row
        cdef int64_t hour_us, last_us = -1
        cdef set missing = set()
        cdef TbSource* source
        if mine.shape[0] != columns.rows:
            raise ValueError(f"{mine.shape[0]} marks for {columns.rows} rows")
        for row in range(columns.rows):
            if not mine[row]:
                continue
            source = _source(self, columns.source[row])
            if source.kind == tb_numbered and not source.undecided():
                continue
            hour_us = hour_of(columns.time_us[row])
            if hour_us != last_us and self.hours.count(hour_us) == 0:
                missing.add(hour_us)
            last_us = hour_us
        return missing

    def is_numbered(self, EventColumns columns not None, Py_ssize_t row):
        """Return True if the row's source is numbered. Its first rated event decides that, which may be this one."""
        return self.numbered(columns, columns._row(row))

    def highest_seen(self, EventColumns columns not None, Py_ssize_t row):
        """Return the highest number seen of the row's source, 0 if there is none."""
        return _source(self, columns.source[columns._row(row)]).highest_seen()

    def look_at(self, EventColumns columns not None, Py_ssize_t row):
        """Return 0 new, 1 duplicate, 2 duplicate with other content, 3 number reused by another event, 4 number
        missing, 5 number too far ahead."""
        return self.look(columns, columns._row(row))

    def set_rated(self, EventColumns columns not None, Py_ssize_t row):
        """Remember the identity of a row that was rated, for good."""
        self.rated(columns, columns._row(row))

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
        """Return (hour_us, packed hashes) of the identities added since the last call, sorted."""
        cdef TbHours.iterator at = self.hours.begin()
        cdef TbHour* hour
        taken = []
        while at != self.hours.end():
            hour = &dereference(at).second
            if hour.pending.size():
                taken.append((dereference(at).first, hour.pending.data()[: hour.pending.size()]))
                hour.pending.clear()
            preincrement(at)
        taken.sort()
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

    cdef int look(self, EventColumns columns, Py_ssize_t row) except -1 nogil:
        """Return NEW, DUPLICATE, CONFLICT, REUSED, NO_NUMBER or TOO_FAR."""
        cdef TbSource* source = _source(self, columns.source[row])
        cdef int64_t number = columns.sequence[row]
        cdef const TbHashes* hashes
        if not self.names_account and source.kind == tb_unknown_source:
            source.decide(number != 0)  # by an event that may be rejected, as a release did without the account
        if not self.numbered(columns, row):
            return self.look_by_hash(columns, row)
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

    cdef int look_by_hash(self, EventColumns columns, Py_ssize_t row) except -1 nogil:
        """Return NEW, DUPLICATE or CONFLICT for a row of an unnumbered source."""
        cdef TbHour* hour = tb_hour(&self.hours, hour_of(columns.time_us[row]))
        cdef uint64_t first = 0, second = 0
        cdef const uint32_t* content
        self.identity(columns, row, self.names_account, &first, &second)
        content = hour.find(first, second)
        if content == NULL and self.names_account:
            self.identity(columns, row, False, &first, &second)  # rated before the account was part of it
            content = hour.find(first, second)
        if content == NULL:
            return NEW
        return DUPLICATE if content[0] == columns.content_hash[row] else CONFLICT

    cdef int rated(self, EventColumns columns, Py_ssize_t row) except -1 nogil:
        """Remember the identity of a row that was rated, and keep its hashes for the commit.

        The first rated event of a source decides if the source is numbered.
        """
        cdef TbSource* source = _source(self, columns.source[row])
        cdef int64_t number = columns.sequence[row]
        cdef uint64_t first = 0, second = 0
        cdef TbHashes hashes
        cdef TbHour* hour
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
        self.identity(columns, row, self.names_account, &first, &second)
        hour = tb_hour(&self.hours, hour_of(columns.time_us[row]))
        hour.put(first, second, columns.content_hash[row])
        hour.keep(first, second, columns.content_hash[row])
        return 0
