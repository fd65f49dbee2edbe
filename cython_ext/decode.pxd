from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from cython_ext.tables cimport TextTable


cdef enum:                      # EventColumns.status
    READ = 0                    # the row's columns are filled
    UNREAD = 1                  # for the plain decoder
    REFUSED = 2                 # the plain decoder rejected it; the row's columns mean nothing


cdef enum:                      # the attributes of an event's envelope (schemas.cloudevents)
    SPECVERSION, TYPE, SOURCE, ID, TIME, SUBJECT, SEQUENCE, DATA


cdef enum:
    MAX_TIME_US = 253402300800000000    # the year 10000: schemas.fields.MAX_TIME_US
    SEPARATOR = 0x1F                    # between texts that are hashed together: schemas.hashing.SEPARATOR
    ACCOUNT_FACTOR = 31                 # of the account's hash in the hash of an id: schemas.hashing.ACCOUNT_FACTOR


cdef extern from "shape.hpp" nogil:
    enum:                       # their values are in shape.hpp
        ATTRIBUTES "tb_attributes"
        FIELDS "tb_fields"
        DIMENSIONS "tb_dimensions"
        BUILT_IN_METERS "tb_meters"
        MAX_TEXT "tb_max_text"
        MAX_DIGITS "tb_max_digits"
        MAX_TAGS "tb_max_tags"
        MOST_LEAVES "tb_most_leaves"
        NO_DIALECT "tb_no_dialect"
        tb_attribute, tb_field, tb_count, tb_skipped_text, tb_skipped_number, tb_tag, tb_tag_word

    cdef struct Span "TbSpan":
        const char* at          # NULL: absent or null
        Py_ssize_t size

    cdef struct Scan "TbScan":
        Span attributes[ATTRIBUTES]
        Span fields[FIELDS]
        uint32_t attributes_seen
        uint32_t fields_seen
        uint32_t meters_seen
        int64_t counts[BUILT_IN_METERS]
        int dialect
        int64_t time_us
        int64_t sequence
        const char* end
        int marks_number
        const Span* tag_names
        int tag_number
        Span tags[MAX_TAGS]
        uint32_t tags_seen
        Span region

    cdef cppclass TbShape:
        pass

    # Declared noexcept are those that allocate nothing.
    cdef cppclass TbShapes:
        const TbShape* read(const char* p, Scan* scan, bint binary) noexcept
        void learn(const Scan& scan, const char* begin, bint binary) except +
        int32_t combination(const Scan* scan, uint64_t* hash) noexcept
        void keep_combination(const Scan* scan, int32_t number, uint64_t hash) noexcept
        void clear() noexcept

    const char* tb_word_end(const char* p, const char* end) noexcept
    void tb_mark(Scan* scan, uint8_t kind, int slot, const char* at, const char* end) noexcept


cdef extern from "dialects.hpp" nogil:
    enum:
        MOST_GROUPS "tb_most_groups"
        MOST_PLACES "tb_most_places"
        ROLES "tb_roles"
        REQUESTS "tb_meter_requests"

    cdef cppclass TbPlace:
        TbPlace() except +
        string name
        int16_t row
        int16_t end
        bint is_list
        bint needed
        string key

    cdef cppclass TbLeafRow:
        TbLeafRow() except +
        uint8_t slot
        bint skipped
        bint declarable
        bint declared
        bint adds
        int64_t times

    cdef cppclass TbDialect:
        TbDialect() except +
        string name
        vector[TbPlace] places
        vector[TbLeafRow] rows
        vector[vector[uint8_t]] totals
        int groups
        bint cached_inside
        bint written_inside
        bint reasoning_inside
        bint text_may_leave_out_cache
        bint total_is_input
        bint rest_is_reasoning

    cdef cppclass TbDialects:
        vector[TbDialect] dialects
        int number(const char* at, Py_ssize_t size) noexcept
        const char* walk(Scan* scan, const char* p) noexcept
        bint split(Scan* scan) noexcept


cdef struct HeaderSpans:
    Span attributes[ATTRIBUTES]


cdef struct Waiting:        # a row whose account has no number yet
    Span account
    uint64_t account_hash
    uint64_t combination_hash
    Py_ssize_t row


cdef class EventColumns:
    cdef readonly Py_ssize_t rows
    cdef vector[uint8_t] status
    cdef vector[int32_t] source
    cdef vector[const char*] id_at
    cdef vector[int32_t] id_size
    cdef vector[uint16_t] request_size  # bytes of request_id, which follows the id, and 1; 0: none
    cdef vector[uint16_t] member_size   # bytes of member, which follows request_id, and 1; 0: none
    cdef vector[uint32_t] id_hash
    cdef vector[int64_t] sequence
    cdef vector[int64_t] time_us
    cdef vector[int32_t] account
    cdef vector[int32_t] combination
    cdef vector[uint32_t] content_hash
    cdef vector[uint32_t] count_first
    cdef vector[uint8_t] count_number
    cdef vector[int64_t] offset       # of the record; the row where it was given as bytes
    cdef vector[int64_t] logged_ms    # the record's timestamp; 0 where it was given as bytes
    cdef vector[uint8_t] one_request  # 1: it stands for one request that it does not count (UsageEvent.is_one_request)
    cdef vector[int16_t] meter        # of all counts of all rows, as count
    cdef vector[int64_t] count        # from 1 to 2^63-1
    cdef vector[Py_ssize_t] reserved  # rows that name a reservation
    cdef vector[Span] reservation     # where its name lies, in what ``keep`` holds
    cdef vector[vector[char]] texts   # copies of ids, so that rendering does not touch the records again
    cdef object keep                  # what the rows point into


cdef class Decoder:
    cdef readonly TextTable sources
    cdef readonly TextTable accounts
    cdef readonly TextTable combinations
    cdef readonly TextTable meters
    cpdef EventColumns decode(self, object records)
    cpdef void declare_meters(self, object meters) except *
    cpdef void set_event(self, EventColumns columns, Py_ssize_t row, object event) except *
    cdef TbShapes shapes
    cdef TbDialects dialects
    cdef list _tag_texts        # what tag_names points into
    cdef vector[Span] tag_names
    cdef int tag_number
    cdef int32_t _last_source
    cdef bint _scan(self, Scan* scan, Span value, HeaderSpans* envelope) except -1 nogil
    cdef int32_t _combination(self, Scan* scan, uint64_t* hash64) except -1 nogil
    cdef int _store(self, EventColumns columns, Py_ssize_t row, Scan* scan, Waiting* waiting) except -1 nogil
    cdef int _place(self, EventColumns columns, Waiting* waiting, int number) except -1 nogil
    cdef uint32_t _content_hash(
        self, EventColumns columns, Py_ssize_t row, uint64_t account, uint64_t combination
    ) noexcept nogil
