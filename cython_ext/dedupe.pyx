"""Which events were seen before: :class:`billing.calculator.dedupe.Dedupe` over columns. It writes no reasons: it answers a number.

Numbered sources keep runs of numbers, the refused ones among them, and a ring of the hashes of the last 65,536; the ring
grows from 64 entries, so that a source that just began costs little. Unnumbered ones keep 24 bytes for each identity.
"""

from cython.operator cimport dereference, preincrement
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.utility cimport pair

from cython_ext.decode cimport EventColumns
from cython_ext.murmur cimport murmur3
from cython_ext.tables cimport TextTable

cdef int64_t HOUR_US = 3600000000


cdef inline int64_t hour_of(int64_t time_us) noexcept nogil:
    return time_us - time_us % HOUR_US  # an event's time is not negative


cdef class Memory:
    """The memory of one partition. ``sources`` is the decoder's table: sources are known by their numbers in it."""

    def __cinit__(self, TextTable sources not None):
        self.sources = sources

    def load_source(self, str name, bint numbered, runs, refused):
        """Take a source as SQL has it; ``runs`` are sorted, disjoint closed (first, last)."""
        cdef TbSource* source = self.source(self.sources.number(name.encode()))
        source.kind = 1 if numbered else 2
        for first, last in runs:
            source.runs.push_back(pair[int64_t, int64_t](first, last))
        for number in refused:
            source.refused.insert(number)

    def load_recent(self, str name, const unsigned char[:] payload):
        """Take hashes of recent numbers, packed as :data:`billing.calculator.dedupe.RECENT`.

        Raises:
            KeyError: the source was not loaded before.
        """
        cdef TbSource* source = self.source(self.sources.number(name.encode()))
        cdef Py_ssize_t at
        cdef int64_t number
        cdef TbHashes hashes
        if source.kind == 0:
            raise KeyError(name)
        for at in range(0, payload.shape[0] - 15, 16):
            memcpy(&number, &payload[at], 8)
            memcpy(&hashes, &payload[at + 8], 8)
            source.remember(number, hashes)

    def put_hour(self, int64_t hour_us, payloads):
        """Replace one hour of identities, packed as :data:`billing.calculator.dedupe.HASHED`."""
        cdef TbHour* hour = &self.hours[hour_us]
        cdef TbHour fresh
        cdef const unsigned char[:] payload
        cdef Py_ssize_t at
        cdef uint64_t first = 0, second = 0
        cdef uint32_t content = 0
        fresh.pending.swap(hour.pending)
        for part in payloads:
            payload = part
            for at in range(0, payload.shape[0] - 19, 20):
                memcpy(&first, &payload[at], 8)
                memcpy(&second, &payload[at + 8], 8)
                memcpy(&content, &payload[at + 16], 4)
                fresh.put(first, second, content)
        hour[0] = fresh

    def hours_held(self):
        """(hour_us, bytes in memory) of each hour of identities, sorted."""
        cdef TbHours.iterator at = self.hours.begin()
        held = []
        while at != self.hours.end():
            held.append((dereference(at).first, dereference(at).second.bytes_held()))
            preincrement(at)
        return sorted(held)

    def drop_hour(self, int64_t hour_us):
        """Forget an hour of identities; whoever needs it again puts it."""
        self.hours.erase(hour_us)

    def missing_hours(self, EventColumns columns not None, const unsigned char[:] mine):
        """Hours that rows of ``mine`` may need and that are not in memory, as a set."""
        cdef Py_ssize_t row
        cdef int64_t hour_us, last_us = -1
        cdef set missing = set()
        for row in range(columns.rows):
            if not mine[row] or self.source(columns.source[row]).kind == 1:
                continue
            hour_us = hour_of(columns.time_us[row])
            if hour_us != last_us and self.hours.count(hour_us) == 0:
                missing.add(hour_us)
            last_us = hour_us
        return missing

    def is_numbered(self, EventColumns columns not None, Py_ssize_t row):
        """Whether the row's source is numbered: by its first event, which may be this one."""
        return self.numbered(columns, columns._row(row))

    def look_at(self, EventColumns columns not None, Py_ssize_t row):
        """0 new, 1 duplicate, 2 duplicate with other content, 3 number reused by another id, 4 number missing.

        Changes nothing but the kind of a source that was not known.
        """
        return self.look(columns, columns._row(row))

    def set_rated(self, EventColumns columns not None, Py_ssize_t row):
        """The row was rated: its identity is taken for good."""
        self.rated(columns, columns._row(row))

    def set_refused(self, str name, int64_t number):
        """An event with this number was refused: the number is seen, and stays ratable."""
        cdef TbSource* source = self.source(self.sources.number(name.encode()))
        if source.kind == 0:
            source.kind = 1
        if source.kind == 2 or source.has(number):
            return
        source.add(number)
        source.refused.insert(number)
        source.touched = True

    def take_sources(self):
        """(source, numbered, runs, refused, highest, packed hashes) of sources touched since the last call, sorted."""
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
            taken.append((self.sources[index].decode(), source.kind == 1, runs, refused, source.highest, packed))
            source.touched = False
            source.pending.clear()
        taken.sort()
        return taken

    def take_hours(self):
        """(hour_us, packed hashes) added since the last call, sorted."""
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

    cdef TbSource* source(self, int32_t number) noexcept nogil:
        if <size_t>number >= self.known.size():
            self.known.resize(number + 1)
        return &self.known[number]

    cdef void identity(self, EventColumns columns, Py_ssize_t row, uint64_t* first, uint64_t* second) noexcept nogil:
        """:func:`schemas.hashing.identity_hash`; source and id are at most 256 bytes each."""
        cdef char joined[513]
        cdef int32_t source = columns.source[row]
        cdef size_t size = self.sources.starts[source + 1] - self.sources.starts[source]
        memcpy(joined, self.sources.arena.data() + self.sources.starts[source], size)
        joined[size] = 0x1F
        memcpy(joined + size + 1, columns.id_at[row], columns.id_size[row])
        murmur3(joined, size + 1 + columns.id_size[row], first, second)

    cdef bint numbered(self, EventColumns columns, Py_ssize_t row) noexcept nogil:
        cdef int kind = self.source(columns.source[row]).kind
        return columns.sequence[row] != 0 if kind == 0 else kind == 1

    cdef int look(self, EventColumns columns, Py_ssize_t row) noexcept nogil:
        cdef TbSource* source = self.source(columns.source[row])
        cdef int64_t number = columns.sequence[row]
        cdef uint64_t first = 0, second = 0
        cdef const uint32_t* content
        cdef const TbHashes* hashes
        if source.kind == 0:
            source.kind = 1 if number else 2
            source.touched = True
        if source.kind == 2:
            self.identity(columns, row, &first, &second)
            content = self.hours[hour_of(columns.time_us[row])].find(first, second)
            if content == NULL:
                return NEW
            return DUPLICATE if content[0] == columns.content_hash[row] else CONFLICT
        if number == 0:
            return NO_NUMBER
        if not source.has(number) or (not source.refused.empty() and source.refused.count(number)):
            return NEW
        hashes = source.recall(number)
        if hashes == NULL:
            return DUPLICATE
        if hashes.id != columns.id_hash[row]:
            return REUSED
        return DUPLICATE if hashes.content == columns.content_hash[row] else CONFLICT

    cdef void rated(self, EventColumns columns, Py_ssize_t row) noexcept nogil:
        cdef TbSource* source = self.source(columns.source[row])
        cdef int64_t number = columns.sequence[row]
        cdef uint64_t first = 0, second = 0
        cdef TbHashes hashes
        cdef TbHour* hour
        if source.kind == 1:
            hashes.id = columns.id_hash[row]
            hashes.content = columns.content_hash[row]
            source.add(number)
            if not source.refused.empty():
                source.refused.erase(number)
            source.remember(number, hashes)
            source.keep(number, hashes)
            source.touched = True
            return
        self.identity(columns, row, &first, &second)
        hour = &self.hours[hour_of(columns.time_us[row])]
        hour.put(first, second, columns.content_hash[row])
        hour.keep(first, second, columns.content_hash[row])
