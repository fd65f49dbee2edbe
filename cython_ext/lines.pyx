"""The rated lines of a commit: events that were priced and paid, rendered as JSON and framed for the outbox.

It decides nothing: :mod:`cython_ext.usage` adds a line for each event it decides, the plain calculator for each of its
own. Texts are rendered from the columns of their batch, which it keeps until the lines are taken.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp.vector cimport vector

from cython_ext.accounts cimport MAX_GRANT, AccountStore, BufferPool
from cython_ext.decode cimport Decoder, EventColumns, Span
from cython_ext.frames cimport FRAME_HEAD, put_frame_head
from cython_ext.prices cimport PriceTables
from cython_ext.tables cimport TextTable
from cython_ext.wide cimport (
    JSON_GROWTH,
    TbBuffer,
    tb_prefetch,
    tb_put_bytes,
    tb_put_json,
    tb_put_micro_64,
    tb_put_padded,
    tb_put_pico_64,
    tb_put_time,
    tb_put_u64,
)

cdef enum:
    MINUTE_US = 60000000

# Functions that render write into room that was asked for before, or abort where there is none: they cannot fail.


cdef inline Span _text_of(TextTable table, int32_t number) noexcept nogil:
    """Return where a table keeps the text of a number."""
    cdef Span span
    span.at = table.arena.data() + table.starts[number]
    span.size = table.starts[number + 1] - table.starts[number]
    return span


cdef inline Span _described(RatedLines lines, int32_t combination) noexcept nogil:
    """Return what lines say of a combination; take checks that all are described."""
    cdef Span span
    cdef uint64_t begin = lines.described_to[combination - 1] if combination > 0 else 0
    span.at = lines.described.data + begin
    span.size = lines.described_to[combination] - begin
    return span


cdef inline size_t _most_of_line(RatedLines lines, EventColumns columns, Paid* paid) noexcept nogil:
    """Return a bound of the bytes that _put_line writes, with the comma after them."""
    if paid.payer == WRITTEN:
        return <size_t>paid.rated.net_pico + 1
    return lines.tables.most_of_line(paid.rated, columns.count_number[paid.row]) + JSON_GROWTH * (
        _text_of(lines.decoder.sources, columns.source[paid.row]).size
        + _text_of(lines.decoder.accounts, columns.account[paid.row]).size
        + columns.id_size[paid.row]
        + columns.request_size[paid.row]
        + columns.member_size[paid.row]
        + MAX_GRANT
    ) + _described(lines, columns.combination[paid.row]).size


cdef inline void _prefetch_line(RatedLines lines, EventColumns columns, size_t i, int32_t batch) noexcept nogil:
    """Load ahead the texts of a line that is rendered soon, and where the account's text of a later one lies."""
    cdef Paid* paid
    cdef int32_t account
    if i + 16 < lines.paid.size():
        paid = &lines.paid[i + 16]
        if paid.payer != WRITTEN and paid.batch == batch:
            tb_prefetch(lines.decoder.accounts.starts.data() + columns.account[paid.row])
    if i + 8 >= lines.paid.size():
        return
    paid = &lines.paid[i + 8]
    if paid.payer == WRITTEN or paid.batch != batch:
        return
    account = columns.account[paid.row]
    tb_prefetch(lines.decoder.accounts.arena.data() + lines.decoder.accounts.starts[account])
    tb_prefetch(columns.id_at[paid.row])
    if paid.payer == BY_BUCKET:
        tb_prefetch(lines.accounts.grants.data() + paid.grant_at)


@cython.cdivision(True)  # a time is not negative
cdef inline char* _put_event_time(RatedLines lines, char* p, int64_t time_us) noexcept nogil:
    """Write a time; events that follow each other are mostly of the same minute."""
    cdef int64_t minute = time_us // MINUTE_US, rest = time_us - minute * MINUTE_US
    if minute != lines.minute:
        lines.minute = minute
        tb_put_time(lines.minute_text, minute * MINUTE_US)
    p = tb_put_bytes(p, lines.minute_text, 17)
    p = tb_put_padded(p, rest // 1000000, 2)
    rest = rest % 1000000
    if rest:
        p[0] = c'.'
        p = tb_put_padded(p + 1, rest, 6)
    p[0] = c'Z'
    return p + 1


cdef inline char* _put_line(RatedLines lines, char* p, EventColumns columns, Paid* paid) noexcept nogil:
    """Write billing.commits.output_documents.paid_line as JSON; returns its end."""
    cdef Py_ssize_t row = paid.row
    cdef uint32_t first
    cdef Span id, combination
    cdef const char* tags
    if paid.payer == WRITTEN:
        return tb_put_bytes(p, lines.written.data + paid.rated.amount_pico, <size_t>paid.rated.net_pico)
    first = columns.count_first[row]
    id.at = columns.id_at[row]
    id.size = columns.id_size[row]
    p = lines.tables.put_line(
        p,
        _text_of(lines.decoder.sources, columns.source[row]),
        id,
        _text_of(lines.decoder.accounts, columns.account[row]),
        paid.rated,
        columns.meter.data() + first,
        columns.count.data() + first,
        columns.count_number[row],
    )
    p = tb_put_bytes(p, b'],"offset":', 11)
    p = tb_put_u64(p, columns.offset[row])
    p = tb_put_bytes(p, b',"time":"', 9)
    p = _put_event_time(lines, p, columns.time_us[row])
    p = tb_put_bytes(p, b'",', 2)
    combination = _described(lines, columns.combination[row])
    p = tb_put_bytes(p, combination.at, combination.size)
    tags = id.at + id.size
    if columns.request_size[row]:
        p = tb_put_bytes(p, b',"request_id":"', 15)
        p = tb_put_json(p, tags, columns.request_size[row] - 1)
        p[0] = c'"'
        p += 1
        tags += columns.request_size[row] - 1
    if columns.member_size[row]:
        p = tb_put_bytes(p, b',"member":"', 11)
        p = tb_put_json(p, tags, columns.member_size[row] - 1)
        p[0] = c'"'
        p += 1
    if paid.payer != BY_BUCKET:
        p = tb_put_bytes(p, b',"burned":[],"charged":"', 24)
    else:
        p = tb_put_bytes(p, b',"burned":[{"grant_id":"', 24)
        p = tb_put_json(p, lines.accounts.grants.data() + paid.grant_at, paid.grant_size)
        p = tb_put_bytes(p, b'","standard_tokens":"', 21)
        p = tb_put_micro_64(p, paid.rated.standard_micro)
        p = tb_put_bytes(p, b'"}],"charged":"', 15)
    p = tb_put_pico_64(p, paid.rated.amount_pico if paid.payer == BY_WALLET else 0)
    p = tb_put_bytes(p, b'","absorbed":"', 14)
    p = tb_put_micro_64(p, paid.rated.standard_micro if paid.payer == BY_NOBODY else 0)
    return tb_put_bytes(p, b'"}', 2)


cdef class RatedLines:
    """The lines since they were last taken, in decision order."""

    def __cinit__(self, Decoder decoder not None, AccountStore accounts not None, PriceTables prices not None):
        self.decoder = decoder
        self.accounts = accounts
        self.prices = prices
        self.tables = &prices.tables
        self.batches = []
        self.pool = BufferPool()
        self.minute = -1

    cdef int begin(self, object columns, size_t most) except -1:
        """Begin or continue a batch, of which at most ``most`` lines follow: adding them cannot fail then."""
        if not self.batches or self.batches[len(self.batches) - 1] is not columns:
            self.batches.append(columns)
        self.batch = <int32_t>len(self.batches) - 1
        self.paid.reserve(self.paid.size() + most)
        return 0

    def add(self, bytes line not None):
        """Append a line that the plain calculator wrote, in its place."""
        cdef Paid paid
        paid.payer = WRITTEN
        paid.rated.amount_pico = <int64_t>self.written.size
        paid.rated.net_pico = len(line)
        paid.batch = -1
        self.written.put(line, len(line))
        self.paid.push_back(paid)

    def describe(self, bytes text not None):
        """Give what the lines of the next combination, by its number in the decoder's table, say of it: members of a
        JSON object, without a comma before the first or after the last."""
        self.described.put(text, len(text))
        self.described_to.push_back(self.described.size)

    def number_described(self):
        """Return how many combinations are described."""
        return self.described_to.size()

    def take(self, bytes key not None, list pieces not None, Py_ssize_t at_most):
        """Return the number of frames, and the frames, of the lines since the last call, ``at_most`` lines each.

        A frame is one of :func:`billing.commits.outbox_frames.encode_frame`. ``pieces`` are the constant parts of a
        ``usage.rated`` event: before its number in the commit, before the lines, and the end.

        Raises:
            ValueError: ``at_most`` is not positive, or a combination is not described.
            OverflowError: a frame is longer than 4 GiB.
        """
        cdef size_t begin = 0, end, number = 0
        if at_most < 1:
            raise ValueError(f"{at_most} lines a record")
        if self.described_to.size() < self.decoder.combinations.hashes.size():
            raise ValueError(f"{self.described_to.size()} of {len(self.decoder.combinations)} combinations described")
        self.pool.lend_to(&self.frames)
        while begin < self.paid.size():
            end = min(begin + <size_t>at_most, self.paid.size())
            self._put_frame(key, pieces, number, begin, end)
            begin = end
            number += 1
        self.paid.clear()
        self.written.size = 0
        self.batches.clear()
        return number, self.pool.taken(&self.frames)

    cdef int _put_frame(self, bytes key, list pieces, size_t number, size_t begin, size_t end) except -1:
        """Append one frame with the lines from ``begin`` to ``end``, which is behind the last."""
        cdef bytes head = pieces[0], middle = pieces[1], tail = pieces[2]
        cdef size_t first = self.frames.size, key_size = len(key), i
        cdef EventColumns columns = None
        cdef int32_t batch = -1
        cdef char* p = self.frames.room(FRAME_HEAD + key_size + len(head) + 20 + len(middle))
        p = tb_put_bytes(p + FRAME_HEAD, key, key_size)
        p = tb_put_bytes(p, head, len(head))
        p = tb_put_u64(p, number)
        self.frames.wrote(tb_put_bytes(p, middle, len(middle)))
        with nogil:
            for i in range(begin, end):
                if self.paid[i].batch != batch and self.paid[i].payer != WRITTEN:
                    batch = self.paid[i].batch
                    with gil:
                        columns = self.batches[batch]
                if batch >= 0:
                    _prefetch_line(self, columns, i, batch)
                p = self.frames.room(_most_of_line(self, columns, &self.paid[i]))
                p = _put_line(self, p, columns, &self.paid[i])
                p[0] = c','
                self.frames.wrote(p + 1)
        self.frames.size -= 1  # the last comma
        self.frames.put(tail, len(tail))
        put_frame_head(self.frames.data + first, key_size, self.frames.size - first - FRAME_HEAD - key_size)
        return 0
