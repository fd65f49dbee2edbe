"""Hashes of rows in ``COPY`` text and their sums: the compiled twin of :mod:`billing.commits.row_hashes`."""

from cpython.long cimport PyLong_AsLongLong
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from cython_ext.wide cimport COPY_GROWTH, MAX_NUMBER, TbBuffer, tb_put_copy, tb_put_i128, tb_widen

cdef extern from "blake2b.hpp" nogil:
    enum:
        TB_LANES                # texts that are hashed at once

    cdef cppclass TbBlake2b:
        uint64_t h[8]
        void begin(uint32_t digest_bytes, const uint64_t* salt, const char* person) noexcept
        void take_all(const char* text, size_t size) noexcept

    cdef cppclass TbSum512:
        uint64_t words[8]

    void tb_hash_each(
        TbBlake2b* states, const TbBlake2b* begun, const char* const* texts, const size_t* sizes, int count
    ) noexcept
    void tb_add_weights(TbSum512* sum, const TbBlake2b* begun, const char* const* row_hashes, int count) noexcept
    char* tb_put_hex(char* p, const unsigned char* data, size_t size) noexcept

cdef enum:
    HASH_BYTES = 32             # billing.commits.row_hashes.HASH_BYTES
    PERSON_BYTES = 16
    MARK_BYTES = 4
    TAIL_BYTES = 68             # a tab, \\x and the hash in hexadecimal digits


cdef struct Begun:              # the states in which every hash of a table begins
    TbBlake2b row
    TbBlake2b weight


cdef int _begin(Begun* begun, str table, int32_t partition) except -1:
    """Set the states for the rows of a table in a partition.

    Raises:
        ValueError: the name is longer than 16 bytes.
    """
    cdef bytes name = table.encode()
    cdef char[PERSON_BYTES] person
    cdef int64_t wide = partition
    cdef uint64_t[2] salt
    if len(name) > PERSON_BYTES:
        raise ValueError(f"{table!r} is longer than 16 bytes")
    memset(person, 0, PERSON_BYTES)
    memcpy(person, <const char*>name, len(name))
    salt[0] = <uint64_t>wide
    salt[1] = 0xFFFFFFFFFFFFFFFF if partition < 0 else 0
    begun.row.begin(HASH_BYTES, salt, person)
    _begin_weight(&begun.weight)
    return 0


cdef void _begin_weight(TbBlake2b* begun) noexcept nogil:
    """Set the state for weights. Cannot fail: it computes."""
    cdef char[PERSON_BYTES] person
    cdef uint64_t[2] salt
    memset(person, 0, PERSON_BYTES)
    memcpy(person, b"row sum", 7)
    salt[0] = salt[1] = 0
    begun.begin(64, salt, person)


cdef struct Rows:               # up to TB_LANES rows and their hashes
    int count
    const char* texts[TB_LANES]
    size_t sizes[TB_LANES]
    TbBlake2b hashed[TB_LANES]
    const char* hashes[TB_LANES]   # the first 32 bytes of `hashed`


cdef inline void _hash_rows(const Begun* begun, Rows* rows) noexcept nogil:
    """Compute the hashes of the rows. Cannot fail: it computes."""
    cdef int i
    tb_hash_each(rows.hashed, &begun.row, rows.texts, rows.sizes, rows.count)
    for i in range(rows.count):
        rows.hashes[i] = <const char*>rows.hashed[i].h


cdef inline const char* _line_end(const char* p, const char* end) except NULL nogil:
    """Return the end of the line that begins at ``p``.

    Raises:
        ValueError: the text does not end with a newline.
    """
    cdef const char* found = <const char*>memchr(p, c'\n', end - p)
    if found == NULL:
        with gil:
            raise ValueError("the last row does not end with a newline")
    return found


def sum_of_hashes(const unsigned char[::1] hashes not None):
    """Return (rows, sum) of :func:`billing.commits.row_hashes.sum_of_hashes`; the sum as 64 bytes.

    Raises:
        ValueError: the length is not a multiple of 32 bytes.
    """
    cdef TbBlake2b begun
    cdef TbSum512 total
    cdef const char* taken[TB_LANES]
    cdef Py_ssize_t i
    cdef int count = 0
    if hashes.shape[0] % HASH_BYTES:
        raise ValueError(f"{hashes.shape[0]} bytes are not hashes of 32 bytes")
    _begin_weight(&begun)
    memset(&total, 0, sizeof(total))
    with nogil:
        for i in range(hashes.shape[0] // HASH_BYTES):
            taken[count] = <const char*>&hashes[i * HASH_BYTES]
            count += 1
            if count == TB_LANES:
                tb_add_weights(&total, &begun, taken, count)
                count = 0
        tb_add_weights(&total, &begun, taken, count)
    return hashes.shape[0] // HASH_BYTES, (<const char*>&total)[: sizeof(total)]


cdef inline int _take_rows(Rows* rows, const char** p, const char* end) except -1 nogil:
    """Take up to TB_LANES lines from ``p`` on, which then is behind them; a line has no newline.

    Raises:
        ValueError: the text does not end with a newline.
    """
    cdef const char* line_end
    rows.count = 0
    while rows.count < TB_LANES and p[0] < end:
        line_end = _line_end(p[0], end)
        rows.texts[rows.count] = p[0]
        rows.sizes[rows.count] = line_end - p[0]
        rows.count += 1
        p[0] = line_end + 1
    return 0


def with_hashes(str table not None, int32_t partition, bytes rows not None):
    """Return (rows with their hashes, number, sum) of :func:`billing.commits.row_hashes.with_hashes`.

    Raises:
        ValueError: the last row does not end with a newline, or the name of the table is too long.
    """
    cdef Begun begun
    cdef Rows taken
    cdef TbSum512 total
    cdef TbBuffer out
    cdef const char* p = rows
    cdef const char* end = p + len(rows)
    cdef char* to
    cdef int i
    cdef Py_ssize_t number = 0
    _begin(&begun, table, partition)
    memset(&total, 0, sizeof(total))
    with nogil:
        while p < end:
            _take_rows(&taken, &p, end)
            _hash_rows(&begun, &taken)
            tb_add_weights(&total, &begun.weight, taken.hashes, taken.count)
            for i in range(taken.count):
                to = out.room(taken.sizes[i] + TAIL_BYTES + 1)
                memcpy(to, taken.texts[i], taken.sizes[i])
                to += taken.sizes[i]
                memcpy(to, b"\t\\\\x", MARK_BYTES)
                to = tb_put_hex(to + MARK_BYTES, <const unsigned char*>taken.hashes[i], HASH_BYTES)
                to[0] = c'\n'
                out.wrote(to + 1)
            number += taken.count
    return out.data[: out.size], number, (<const char*>&total)[: sizeof(total)]


def check_hashes(str table not None, int32_t partition, bytes rows not None):
    """Return (number, sum, indexes) of :func:`billing.commits.row_hashes.check_hashes`.

    Raises:
        ValueError: the last row does not end with a newline, a row has one column, or the name is too long.
    """
    cdef Begun begun
    cdef Rows taken
    cdef TbSum512 total
    cdef const char* p = rows
    cdef const char* end = p + len(rows)
    cdef const char* tab
    cdef const char* line_ends[TB_LANES]
    cdef char[TAIL_BYTES] tail
    cdef int i
    cdef Py_ssize_t number = 0
    cdef list differ = []
    _begin(&begun, table, partition)
    memset(&total, 0, sizeof(total))
    memcpy(tail, b"\t\\\\x", MARK_BYTES)
    while p < end:
        _take_rows(&taken, &p, end)
        for i in range(taken.count):
            tab = taken.texts[i] + taken.sizes[i] - 1
            while tab >= taken.texts[i] and tab[0] != c'\t':
                tab -= 1
            if tab < taken.texts[i]:
                raise ValueError(f"row {number + i} has no column for its hash")
            line_ends[i] = taken.texts[i] + taken.sizes[i]
            taken.sizes[i] = tab - taken.texts[i]
        _hash_rows(&begun, &taken)
        tb_add_weights(&total, &begun.weight, taken.hashes, taken.count)
        for i in range(taken.count):
            tab = taken.texts[i] + taken.sizes[i]
            tb_put_hex(tail + MARK_BYTES, <const unsigned char*>taken.hashes[i], HASH_BYTES)
            if line_ends[i] - tab != TAIL_BYTES or memcmp(tail, tab, TAIL_BYTES) != 0:
                differ.append(number + i)
        number += taken.count
    return number, (<const char*>&total)[: sizeof(total)], differ


cdef int _put_values(TbBuffer* out, tuple row, Py_ssize_t last) except -1:
    """Write the values of a row as ``COPY`` text, without those from ``last`` on.

    Raises:
        TypeError: a value is neither text, integer nor None.
        OverflowError: an integer has more than 64 bits; numbers of 128 bits come as text.
    """
    cdef Py_ssize_t i, size
    cdef const char* text
    cdef char* p
    out.size = 0
    for i in range(last):
        value = row[i]
        if i:
            out.put(b"\t", 1)
        if value is None:
            out.put(b"\\N", 2)
        elif isinstance(value, str):
            text = PyUnicode_AsUTF8AndSize(value, &size)
            p = out.room(COPY_GROWTH * size + MAX_NUMBER)
            out.wrote(tb_put_copy(p, text, size))
        elif type(value) is int:
            p = out.room(MAX_NUMBER)
            out.wrote(tb_put_i128(p, tb_widen(PyLong_AsLongLong(value))))
        else:
            raise TypeError(f"{value!r} is no value of a row")
    return 0


def check_values(str table not None, list rows not None):
    """Return the indexes of rows, given as values, whose hash is not theirs.

    The last two values of a row are its partition and its hash, which may be None.

    Raises:
        TypeError, OverflowError: a value cannot be written.
        ValueError: a row has less than three values, or the name of the table is too long.
    """
    cdef Begun begun
    cdef Rows taken
    cdef TbBuffer texts[TB_LANES]
    cdef tuple row
    cdef Py_ssize_t number, last, first = 0
    cdef object partition = None
    cdef list differ = []
    taken.count = 0
    for number in range(len(rows)):
        row = rows[number]
        last = len(row) - 2
        if last < 1:
            raise ValueError(f"row {number} has {len(row)} values")
        if row[last] != partition:
            _compare(&begun, &taken, rows, first, differ)
            first = number
            partition = row[last]
            _begin(&begun, table, partition)
        _put_values(&texts[taken.count], row, last)
        taken.texts[taken.count] = texts[taken.count].data
        taken.sizes[taken.count] = texts[taken.count].size
        taken.count += 1
        if taken.count == TB_LANES:
            _compare(&begun, &taken, rows, first, differ)
            first = number + 1
    _compare(&begun, &taken, rows, first, differ)
    return differ


cdef int _compare(const Begun* begun, Rows* taken, list rows, Py_ssize_t first, list differ) except -1:
    """Compare rows, the first of which has the number ``first``, with their hashes, and take no more of them."""
    cdef int i
    cdef tuple row
    _hash_rows(begun, taken)
    for i in range(taken.count):
        row = rows[first + i]
        stored = row[len(row) - 1]
        if not isinstance(stored, bytes) or stored != taken.hashes[i][:HASH_BYTES]:
            differ.append(first + i)
    taken.count = 0
    return 0
