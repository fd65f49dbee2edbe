"""Records as Kafka packs them (record batch, format 2), read in place: one becomes an object only on demand.

It knows the layout of a batch's records and no more: header, checksum and compression of the batch are the transport's.
The decoder reads rows in place and expects a NUL after a value, as Python's ``bytes`` have one. The count of a record's
headers follows its value: once it has been read, it is overwritten with the NUL.

Functions that read are ``noexcept``: they stay within the batch and allocate nothing. For a batch that is not whole
they return False.
"""

from collections.abc import Sequence

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from cython_ext.wide cimport tb_add_64

cdef enum:
    MAX_PART = 0x7FFFFFFF   # bytes of a key, value or header, by PackedRow
    MIN_RECORD = 7          # bytes of a record without key, value and headers


cdef class PackedRecord:
    """One record, copied out of its batch, with the attributes of ``billing.commits.input_batch.Record``."""

    cdef readonly int64_t offset
    cdef readonly int64_t timestamp
    cdef readonly bytes key
    cdef readonly bytes value
    cdef readonly tuple headers


cdef struct Cursor:
    const char* at
    const char* end
    bint broken         # the bytes ended too early, or a number does not fit: what was read after that is undefined


cdef int64_t _number(Cursor* cursor) noexcept nogil:
    """Read a zigzag varint."""
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while cursor.at < cursor.end and shift < 64:
        byte = <uint8_t>cursor.at[0]
        cursor.at += 1
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            return <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
        shift += 7
    cursor.broken = True
    return 0


cdef const char* _part(Cursor* cursor, int32_t* size) noexcept nogil:
    """Read bytes that follow their length; NULL and -1 for null."""
    cdef int64_t length = _number(cursor)
    cdef const char* at = cursor.at
    if length < 0:
        size[0] = -1
        return NULL
    if length > cursor.end - cursor.at or length > MAX_PART:
        cursor.broken = True
        length = 0
    size[0] = <int32_t>length
    cursor.at += length
    return at


cdef int64_t _counted_from(Cursor* cursor, int64_t base) noexcept nogil:
    """Read a number that is written as its difference to the batch's."""
    cdef int64_t value = _number(cursor)
    if tb_add_64(&value, base):
        cursor.broken = True
    return value


cdef bint _read_row(Cursor* cursor, PackedRow* row, int64_t base_offset, int64_t first_ms) noexcept nogil:
    """Read one record and step behind it; False if it is not whole."""
    cdef int64_t length = _number(cursor), count
    cdef int32_t size = 0
    cdef const char* end
    if cursor.broken or not 0 < length <= cursor.end - cursor.at:
        return False
    end = cursor.at + length
    cursor.at += 1      # attributes: none are defined
    row.timestamp_ms = _counted_from(cursor, first_ms)
    row.offset = _counted_from(cursor, base_offset)
    row.key = _part(cursor, &row.key_size)
    row.value = _part(cursor, &row.value_size)
    cdef char* after_value = <char*>cursor.at
    count = _number(cursor)
    if cursor.broken or not 0 <= count <= cursor.end - cursor.at:
        return False
    row.header_count = <int32_t>count
    row.headers = cursor.at
    while count and not cursor.broken:
        if _part(cursor, &size) == NULL:
            return False    # a header without a name
        _part(cursor, &size)
        count -= 1
    row.headers_size = <int32_t>(cursor.at - row.headers)
    after_value[0] = 0
    return not cursor.broken and cursor.at == end


cdef bytes _bytes(const char* at, int32_t size):
    """Return bytes of memory, None for NULL."""
    return None if at == NULL else PyBytes_FromStringAndSize(at, size)


cdef class PackedRecords:
    """A sequence of records that lie packed in memory, in offset order.

    ``size_bytes`` is the length of all values, ``held_bytes`` that of keys, values and headers.
    """

    def __cinit__(self):
        self.keep = []

    @staticmethod
    def read(bytes body not None, Py_ssize_t count, int64_t base_offset, int64_t first_ms, append_ms):
        """Read the records of one batch, uncompressed.

        ``body`` belongs to the result from then on: its bytes may change, so no other reference may exist.
        ``append_ms`` is the log's time of all records, or None where each has its own, counted from ``first_ms``.

        Raises:
            ValueError: the batch is not whole, or has more in it than ``count`` records.
        """
        if not 0 <= count <= len(body):
            raise ValueError(f"a record batch at offset {base_offset} of {len(body)} bytes cannot hold {count} records")
        records, used = PackedRecords.read_part(body, count, base_offset, first_ms, append_ms, len(body))
        if len(records) != count or used != len(body):
            raise ValueError(f"the record batch at offset {base_offset} does not hold {count} whole records")
        return records

    @staticmethod
    def read_part(
        bytes body not None, Py_ssize_t count, int64_t base_offset, int64_t first_ms, append_ms, int64_t largest
    ):
        """Read up to ``count`` records from the beginning of ``body``, which may end inside a record.

        Returns the records before the first that is not whole, is damaged or has more than ``largest`` bytes, and the
        number of bytes they take. Otherwise as :meth:`read`.
        """
        cdef PackedRecords records = PackedRecords()
        cdef PackedRow row
        cdef Cursor cursor, ahead
        cdef Py_ssize_t i, size_bytes = 0, held_bytes = 0
        cdef int64_t log_ms = 0 if append_ms is None else append_ms
        cdef bint own_times = append_ms is None
        cdef const char* whole_until = PyBytes_AS_STRING(body)
        cursor.at = whole_until
        cursor.end = cursor.at + PyBytes_GET_SIZE(body)
        cursor.broken = False
        records.rows.reserve(min(count, <Py_ssize_t>(cursor.end - cursor.at) // MIN_RECORD + 1))
        with nogil:
            for i in range(count):
                ahead = cursor
                if _number(&ahead) > largest:
                    break
                if not _read_row(&cursor, &row, base_offset, first_ms):
                    break
                if not own_times:
                    row.timestamp_ms = log_ms
                if row.value != NULL:
                    size_bytes += row.value_size
                    held_bytes += row.value_size
                if row.key != NULL:
                    held_bytes += row.key_size
                held_bytes += row.headers_size
                records.rows.push_back(row)
                whole_until = cursor.at
        records.size_bytes = size_bytes
        records.held_bytes = held_bytes
        records.keep.append(body)
        return records, whole_until - PyBytes_AS_STRING(body)

    @staticmethod
    def joined(parts):
        """Return the records of several batches, one after the other."""
        cdef PackedRecords records = PackedRecords(), part
        for part in parts:
            records.rows.insert(records.rows.end(), part.rows.begin(), part.rows.end())
            records.keep += part.keep
            records.size_bytes += part.size_bytes
            records.held_bytes += part.held_bytes
        return records

    def __len__(self):
        return <Py_ssize_t>self.rows.size()

    def __iter__(self):
        cdef Py_ssize_t row
        for row in range(<Py_ssize_t>self.rows.size()):
            yield self[row]

    def __getitem__(self, index):
        cdef Py_ssize_t row
        if isinstance(index, slice):
            return self._part_of(*index.indices(len(self)))
        row = index
        if row < 0:
            row += <Py_ssize_t>self.rows.size()
        if not 0 <= row < <Py_ssize_t>self.rows.size():
            raise IndexError(index)
        cdef PackedRow* at = &self.rows[row]
        cdef PackedRecord record = PackedRecord.__new__(PackedRecord)
        record.offset = at.offset
        record.timestamp = at.timestamp_ms
        record.key = _bytes(at.key, at.key_size)
        record.value = _bytes(at.value, at.value_size)
        record.headers = self.headers_of(row)
        return record

    def _part_of(self, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t step):
        """Return consecutive records, which share the memory of these."""
        cdef PackedRecords part = PackedRecords()
        cdef Py_ssize_t row
        if step != 1:
            raise ValueError("packed records are taken in one piece")
        for row in range(start, stop):
            part.rows.push_back(self.rows[row])
            if self.rows[row].value != NULL:
                part.size_bytes += self.rows[row].value_size
                part.held_bytes += self.rows[row].value_size
            if self.rows[row].key != NULL:
                part.held_bytes += self.rows[row].key_size
            part.held_bytes += self.rows[row].headers_size
        part.keep += self.keep
        return part

    cdef tuple headers_of(self, Py_ssize_t row):
        """Return the names and contents of a record's headers."""
        cdef PackedRow* at = &self.rows[row]
        cdef Cursor cursor
        cdef int32_t name_size = 0, size = 0, number
        cdef const char* name
        cdef const char* content
        cdef list headers
        if not at.header_count:
            return ()
        headers = []
        cursor.at = at.headers
        cursor.end = at.headers + at.headers_size
        cursor.broken = False
        for number in range(at.header_count):
            name = _part(&cursor, &name_size)
            content = _part(&cursor, &size)
            headers.append((name[:name_size].decode("utf-8", "backslashreplace"), _bytes(content, size)))
        return tuple(headers)


Sequence.register(PackedRecords)
