"""Prices lines of JSON events, from the bytes they were read into to the bytes that are written.

It prices by one book, number 0 of its tables, and has no accounts, time limits or memory of identities. A line that the
scanner does not read, or the tables do not price, stops the loop, which returns what the line needs, as in
:mod:`cython_ext.usage`.
"""

from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memchr

from cython_ext.decode cimport BUILT_IN_METERS, ID, NO_DIALECT, REQUESTS, SOURCE, SUBJECT, Decoder, Scan, Span
from cython_ext.prices cimport ALL_DONE, DONE, NEEDS_PLAIN, PriceTables, TbRated, tb_refused
from cython_ext.wide cimport tb_put_bytes

cdef extern from "Python.h":
    int PyBUF_READ


cdef inline bint _is_space(char c) noexcept nogil:
    """True if ``bytes.strip`` strips the character. Cannot fail: it compares."""
    return c == c' ' or c'\t' <= c <= c'\r'


cdef class LineRater:
    """The compiled half of :class:`billing.calculator.core_rater.CompiledRater`."""

    def __cinit__(self, Decoder decoder not None, PriceTables prices not None):
        self.decoder = decoder
        self.prices = prices
        self.tables = &prices.tables

    def run(self, unsigned char[::1] text not None, Py_ssize_t at, Py_ssize_t end, bint ended):
        """Price the lines of ``text[at:end]`` until one needs something.

        The text after the last newline is a line only if the file has ended. Returns (at, need). Need 5: all lines are
        done, and ``at`` is behind them. Else ``at`` is where the line begins and :attr:`next_at` is behind its newline;
        need 4 asks for the plain rule, whose line is given to :meth:`put`, and others are those of
        :mod:`cython_ext.prices`.

        Raises:
            ValueError: ``text`` has no room for one byte at ``end``.
        """
        cdef char* first
        cdef char* line_end
        cdef char* p
        cdef char kept
        cdef int need = ALL_DONE
        if not 0 <= at <= end < text.shape[0]:
            raise ValueError(f"{at} to {end} of {text.shape[0]} bytes")
        first = <char*>&text[0]
        with nogil:
            while at < end:
                line_end = <char*>memchr(first + at, c'\n', end - at)
                if line_end == NULL:
                    if not ended:
                        break
                    line_end = first + end
                self.next_at = min(line_end - first + 1, end)
                p = first + at
                while p < line_end and _is_space(p[0]):
                    p += 1
                if p < line_end:
                    kept = line_end[0]
                    line_end[0] = 0  # the scanner stops there
                    need = self._line(first + at, line_end)
                    line_end[0] = kept
                    if need != DONE:
                        break
                    need = ALL_DONE
                at = self.next_at
        return at, need

    cdef int _line(self, char* at, char* end) except -1 nogil:
        """Price one line and write it, or return what it needs."""
        cdef Scan scan
        cdef Span value
        cdef TbRated rated
        cdef uint64_t hash64 = 0
        cdef int16_t meters[BUILT_IN_METERS]
        cdef int64_t counts[BUILT_IN_METERS]
        cdef uint32_t number = 0, seen
        cdef int32_t version, combination
        cdef int need, meter = 0
        cdef bint one_request
        cdef size_t texts
        cdef char* p
        value.at = at
        value.size = end - at
        if not self.decoder._scan(&scan, value, NULL):
            return NEEDS_PLAIN
        combination = self.decoder._combination(&scan, &hash64)
        version = self.tables.version_at(0, scan.time_us)
        if version < 0:
            return self._refuse(&scan, self.tables.refuse_outside(scan.time_us))
        seen = scan.meters_seen
        one_request = scan.dialect != NO_DIALECT and scan.counts[REQUESTS] == 0
        while seen >> meter:
            if seen >> meter & 1 and scan.counts[meter] != 0:
                meters[number] = meter
                counts[number] = scan.counts[meter]
                number += 1
            meter += 1
        need = self.tables.rate(version, combination, scan.time_us, meters, counts, number, one_request, &rated)
        if need != DONE:
            return self._refuse(&scan, need)
        texts = scan.attributes[SOURCE].size + scan.attributes[ID].size + scan.attributes[SUBJECT].size
        p = self.written.room(texts + self.tables.most_of_line(rated, number))
        p = self.tables.put_plain_line(
            p, scan.attributes[SOURCE], scan.attributes[ID], scan.attributes[SUBJECT], rated, meters, counts, number
        )
        self.written.wrote(tb_put_bytes(p, b"]}\n", 3))
        self.rated += 1
        return DONE

    cdef int _refuse(self, Scan* scan, int need) except -1 nogil:
        """Write the refusal of a line that has no price, or return what the line needs."""
        cdef char* p
        if need != tb_refused:
            return need
        p = self.written.room(
            scan.attributes[SOURCE].size + scan.attributes[ID].size + self.tables.most_of_refusal()
        )
        self.written.wrote(self.tables.put_refusal(p, scan.attributes[SOURCE], scan.attributes[ID]))
        self.rejected += 1
        return DONE

    def put(self, bytes line not None):
        """Append a line that the plain rule wrote, in its place."""
        self.written.put(line, len(line))

    def output(self):
        """Return what was written since :meth:`clear`, valid until the next :meth:`run`, ``put`` or ``clear``."""
        if not self.written.size:
            return b""
        return PyMemoryView_FromMemory(self.written.data, self.written.size, PyBUF_READ)

    def clear(self):
        """Forget what was written, and keep its memory."""
        self.written.size = 0
