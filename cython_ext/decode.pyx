"""Decodes usage events from JSON into columns of integers; the plain decoder reads unusual ones.

The scanner knows the event's schema (docs/reference/usage-events.md, "Fields"). It accepts a row only where
:func:`schemas.usage.parse_usage` accepts the same bytes with the same result. Everything else leaves the row UNREAD:
escapes, text beyond ASCII, a key that occurs twice, a number that is not a small count, a field of an unexpected kind,
a limit exceeded, usage in a dialect that does not add up. It rejects nothing itself: the reasons are written once, in plain Python. Rows of a decoded batch
point into the records' values, which the columns keep alive.

Every JSON value is a ``bytes`` object, which ends in a NUL: a scan stops there without asking for the length. Functions
of the scanner read and compare, allocate nothing and cannot fail: they are ``noexcept``, and NULL, -1 or False leaves
the row to the plain decoder.
"""

from sys import intern

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from libcpp.vector cimport vector

from cython_ext.murmur cimport murmur3_64
from cython_ext.records cimport PackedRecords, PackedRow
from cython_ext.tables cimport TextTable
from cython_ext.wide cimport tb_plain_end, tb_prefetch

from schemas.dialects import TABLES
from schemas.dialects.dialect_table import Role
from schemas.dialects.usage_leaves import table_tree
from schemas.meters import METERS as METER_NAMES
from schemas.upcast import current_type

cdef extern from "records.hpp":
    cdef cppclass TbAsked:
        int places[3]
    void tb_learn_record(TbAsked* asked, PyObject* record, PyObject** names, PyObject** found) noexcept
    PyObject** tb_known_values(const TbAsked* asked, PyObject* record) noexcept
    void tb_ask_records(const TbAsked* asked, PyObject** records, Py_ssize_t at, Py_ssize_t number) noexcept
    PyObject** tb_items(object records) noexcept


cdef enum:
    # The fields of an event's data; the first DIMENSIONS are those of a combination, in its order.
    MODEL, HARDWARE_TIER, ENERGY_SOURCE, SITE, CHANNEL, SERVICE_TIER, OUTCOME
    REQUESTED_MODEL, MEMBER, REQUEST_ID, RESERVATION, GIVEN_ATTRIBUTES, USAGE_DIALECT, METERS, USAGE

cdef enum:
    MAX_UNKNOWN = 24                    # keys of an object that are not of the schema
    MAX_COUNTS = 255                    # of a row, by EventColumns.count_number
    MAX_METERS = 32767                  # of a decoder, by EventColumns.meter
    BLOCK = 32                          # rows whose accounts are looked up together
    TEXTS = 64                          # bytes of a row's id, request_id and member, for which room is made at first

cdef enum:
    # How a record holds its event, by its headers.
    STRUCTURED, BINARY, FOR_PLAIN


cdef inline bint _is(const char* at, const char* text, size_t size) noexcept nogil:
    """True if the bytes at ``at`` are the text."""
    return memcmp(at, text, size) == 0


cdef inline const char* _skip(const char* p) noexcept nogil:
    """Return the first character that is not JSON white space."""
    while p[0] == c' ' or p[0] == c'\n' or p[0] == c'\t' or p[0] == c'\r':
        p += 1
    return p


cdef inline int _attribute(const char* at, Py_ssize_t size) noexcept nogil:
    """Return the attribute of a key of the envelope, or -1."""
    if size == 2:
        if _is(at, "id", 2):
            return ID
    elif size == 4:
        if _is(at, "type", 4):
            return TYPE
        if _is(at, "time", 4):
            return TIME
        if _is(at, "data", 4):
            return DATA
    elif size == 6:
        if _is(at, "source", 6):
            return SOURCE
    elif size == 7:
        if _is(at, "subject", 7):
            return SUBJECT
    elif size == 8:
        if _is(at, "sequence", 8):
            return SEQUENCE
    elif size == 11:
        if _is(at, "specversion", 11):
            return SPECVERSION
    return -1


cdef inline int _field(const char* at, Py_ssize_t size) noexcept nogil:
    """Return the field of a key of the data, or -1."""
    if size == 4:
        if _is(at, "site", 4):
            return SITE
    elif size == 5:
        if _is(at, "model", 5):
            return MODEL
        if _is(at, "usage", 5):
            return USAGE
    elif size == 6:
        if _is(at, "member", 6):
            return MEMBER
        if _is(at, "meters", 6):
            return METERS
    elif size == 7:
        if _is(at, "channel", 7):
            return CHANNEL
        if _is(at, "outcome", 7):
            return OUTCOME
    elif size == 10:
        if _is(at, "request_id", 10):
            return REQUEST_ID
        if _is(at, "attributes", 10):
            return GIVEN_ATTRIBUTES
    elif size == 11:
        if _is(at, "reservation", 11):
            return RESERVATION
    elif size == 12:
        if _is(at, "service_tier", 12):
            return SERVICE_TIER
    elif size == 13:
        if _is(at, "hardware_tier", 13):
            return HARDWARE_TIER
        if _is(at, "energy_source", 13):
            return ENERGY_SOURCE
        if _is(at, "usage_dialect", 13):
            return USAGE_DIALECT
    elif size == 15:
        if _is(at, "requested_model", 15):
            return REQUESTED_MODEL
    return -1


cdef inline int _token_meter(const char* at, Py_ssize_t size) noexcept nogil:
    """Return the index in schemas.meters.METERS of a meter that counts tokens, or -1; Decoder compares them all."""
    if size == 5:
        return 0 if _is(at, "input", 5) else -1
    if size == 6:
        return 4 if _is(at, "output", 6) else -1
    if size == 9:
        return 5 if _is(at, "reasoning", 9) else -1
    if size == 10:
        return 1 if _is(at, "cache_read", 10) else -1
    if size == 11:
        if _is(at, "cache_write", 11):
            return 2
        if _is(at, "audio_input", 11):
            return 6
        if _is(at, "image_input", 11):
            return 9
        return 12 if _is(at, "video_input", 11) else -1
    if size == 12:
        if _is(at, "audio_output", 12):
            return 8
        if _is(at, "image_output", 12):
            return 11
        if _is(at, "video_output", 12):
            return 13
        return 14 if _is(at, "sensor_input", 12) else -1
    if size == 14:
        return 3 if _is(at, "cache_write_1h", 14) else -1
    if size == 16:
        if _is(at, "audio_cache_read", 16):
            return 7
        return 10 if _is(at, "image_cache_read", 16) else -1
    return -1


cdef inline int _meter(const char* at, Py_ssize_t size) noexcept nogil:
    """Return the index in schemas.meters.METERS of a built-in meter, or -1; Decoder compares them all."""
    cdef int meter = _token_meter(at, size)
    if meter >= 0:
        return meter
    if size == 5:
        if _is(at, "pages", 5):
            return 20
        return 23 if _is(at, "seats", 5) else -1
    if size == 6:
        return 16 if _is(at, "images", 6) else -1
    if size == 8:
        if _is(at, "requests", 8):
            return 15
        if _is(at, "searches", 8):
            return 21
        return 22 if _is(at, "gb_hours", 8) else -1
    if size == 10:
        return 19 if _is(at, "characters", 10) else -1
    if size == 12:
        return 17 if _is(at, "milliseconds", 12) else -1
    if size == 19:
        return 18 if _is(at, "device_milliseconds", 19) else -1
    return -1


cdef inline const char* _skip_trivial(Scan* scan, const char* p) noexcept nogil:
    """Return the end of a plain string, null, true, false or a short integer; NULL for any other value."""
    cdef const char* first
    cdef const char* end = scan.end
    if p[0] == c'"':
        first = p + 1
        p = tb_plain_end(first, end)
        if p == NULL:
            return NULL
        tb_mark(scan, tb_skipped_text, 0, first, p)
        return p + 1
    if p[0] == c'n':
        return p + 4 if end - p >= 4 and _is(p, "null", 4) else NULL
    if p[0] == c't':
        return p + 4 if end - p >= 4 and _is(p, "true", 4) else NULL
    if p[0] == c'f':
        return p + 5 if end - p >= 5 and _is(p, "false", 5) else NULL
    first = p
    while c'0' <= p[0] <= c'9':
        p += 1
    if p == first or (first[0] == c'0' and p - first > 1) or p - first > MAX_DIGITS:
        return NULL
    tb_mark(scan, tb_skipped_number, 0, first, p)
    if p[0] == c'.' or p[0] == c'e' or p[0] == c'E':
        return NULL
    return p


cdef inline const char* _scan_key(Scan* scan, const char* p, Span* key) noexcept nogil:
    """Read a key and its colon at p; returns where its value begins, or NULL."""
    cdef const char* stop
    if p[0] != c'"':
        return NULL
    key.at = p + 1
    stop = tb_plain_end(key.at, scan.end)
    if stop == NULL:
        return NULL
    key.size = stop - key.at
    p = _skip(stop + 1)
    return _skip(p + 1) if p[0] == c':' else NULL


cdef inline const char* _scan_unknown(
    Scan* scan, const char* p, const Span* key, Span* unknown, int* number
) noexcept nogil:
    """Skip the value at p of a key that is not of the schema; returns its end, or NULL.

    ``unknown`` are the ``number`` keys of the same object that were skipped before: one that occurs twice is not read.
    """
    cdef int i
    if number[0] == MAX_UNKNOWN:
        return NULL
    for i in range(number[0]):
        if unknown[i].size == key.size and memcmp(unknown[i].at, key.at, key.size) == 0:
            return NULL
    unknown[number[0]] = key[0]
    number[0] += 1
    return _skip_trivial(scan, p)


cdef inline const char* _scan_text(
    Scan* scan, const char* p, uint8_t kind, int slot, Py_ssize_t most, Span* text
) noexcept nogil:
    """Read a plain string of at most ``most`` bytes, or null, at p; returns its end, or NULL."""
    cdef const char* stop
    if p[0] != c'"':
        return p + 4 if scan.end - p >= 4 and _is(p, "null", 4) else NULL
    stop = tb_plain_end(p + 1, scan.end)
    if stop == NULL or stop - p - 1 > most:
        return NULL
    text.at = p + 1
    text.size = stop - p - 1
    tb_mark(scan, kind, slot, p + 1, stop)
    return stop + 1


cdef inline const char* _scan_count(Scan* scan, const char* p, int meter) noexcept nogil:
    """Read a count of at most 18 digits at p; returns its end, or NULL."""
    cdef const char* first = p
    cdef int64_t count = 0
    while c'0' <= p[0] <= c'9':
        if p - first == MAX_DIGITS:
            return NULL
        count = count * 10 + (p[0] - c'0')  # below 10^18
        p += 1
    if p == first or (first[0] == c'0' and p - first > 1):
        return NULL
    scan.meters_seen |= <uint32_t>1 << meter
    scan.counts[meter] = count
    tb_mark(scan, tb_count, meter, first, p)
    return p


cdef inline const char* _scan_meters(Scan* scan, const char* p) noexcept nogil:
    """Read ``{"meter": count, ...}`` at p; returns its end, or NULL."""
    cdef Span key
    cdef int meter
    if p[0] != c'{':
        return NULL
    p = _skip(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        p = _scan_key(scan, p, &key)
        if p == NULL:
            return NULL
        meter = _meter(key.at, key.size)
        if meter < 0 or scan.meters_seen >> meter & 1:
            return NULL
        p = _scan_count(scan, p, meter)
        if p == NULL:
            return NULL
        p = _skip(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL  # a fraction or an exponent, too
        p = _skip(p + 1)


cdef inline int _tag(Scan* scan, const Span* key) noexcept nogil:
    """Return the place of a declared attribute among those of the scan, or -1."""
    cdef int i
    for i in range(scan.tag_number):
        if scan.tag_names[i].size == key.size and memcmp(scan.tag_names[i].at, key.at, key.size) == 0:
            return i
    return -1


cdef inline const char* _scan_tag(Scan* scan, const char* p, int tag) noexcept nogil:
    """Read the value of a declared attribute at p: a plain string, a small integer, true, false or null; returns its
    end, or NULL."""
    cdef const char* stop
    if scan.tags_seen >> tag & 1:
        return NULL
    if p[0] == c'"':
        scan.tags[tag].at = NULL
        p = _scan_text(scan, p, tb_tag, tag, MAX_TEXT, &scan.tags[tag])
    elif p[0] == c'n':
        return p + 4 if scan.end - p >= 4 and _is(p, "null", 4) else NULL
    else:
        stop = tb_word_end(p, scan.end)
        if stop == NULL:
            return NULL
        scan.tags[tag].at = p
        scan.tags[tag].size = stop - p
        tb_mark(scan, tb_tag_word, tag, p, stop)
        p = stop
    if p != NULL:
        scan.tags_seen |= <uint32_t>1 << tag
    return p


cdef inline const char* _scan_attributes(Scan* scan, const char* p) noexcept nogil:
    """Read the object of attributes at p, or null; returns its end, or NULL. Those that no book declares are skipped."""
    cdef Span unknown[MAX_UNKNOWN]
    cdef Span key
    cdef int tag, unknown_number = 0
    if p[0] != c'{':
        return p + 4 if scan.end - p >= 4 and _is(p, "null", 4) else NULL
    if scan.tag_number < 0:
        return NULL
    p = _skip(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        p = _scan_key(scan, p, &key)
        if p == NULL:
            return NULL
        tag = _tag(scan, &key)
        if tag < 0:
            p = _scan_unknown(scan, p, &key, unknown, &unknown_number)
        else:
            p = _scan_tag(scan, p, tag)
        if p == NULL:
            return NULL
        p = _skip(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL  # a fraction or an exponent, too
        p = _skip(p + 1)


cdef int _dialect_ahead(const TbDialects* dialects, const Scan* scan, const char* p) noexcept nogil:
    """Return the number of the dialect that the data at p name, which may follow its usage; NO_DIALECT where none is.

    Cannot fail: it reads up to the end of the event. What it finds elsewhere than in the data is found out when the
    field is read.
    """
    cdef const char* stop
    while scan.end - p > 17:
        if p[0] == c'"' and _is(p, "\"usage_dialect\"", 15):
            p = _skip(p + 15)
            if p[0] != c':':
                return NO_DIALECT
            p = _skip(p + 1)
            if p[0] != c'"':
                return NO_DIALECT
            stop = tb_plain_end(p + 1, scan.end)
            return NO_DIALECT if stop == NULL else dialects.number(p + 1, stop - p - 1)
        p += 1
    return NO_DIALECT


cdef inline const char* _scan_dialect(const TbDialects* dialects, Scan* scan, const char* p) noexcept nogil:
    """Read the dialect's name at p, or null; returns its end, or NULL. The name is no mark: shapes differ in it."""
    cdef const char* stop
    if p[0] != c'"':
        return p + 4 if scan.dialect == NO_DIALECT and scan.end - p >= 4 and _is(p, "null", 4) else NULL
    stop = tb_plain_end(p + 1, scan.end)
    if stop == NULL or scan.dialect == NO_DIALECT or dialects.number(p + 1, stop - p - 1) != scan.dialect:
        return NULL
    scan.fields[USAGE_DIALECT].at = p + 1
    scan.fields[USAGE_DIALECT].size = stop - p - 1
    return stop + 1


cdef inline const char* _scan_field(
    const TbDialects* dialects, Scan* scan, const char* p, int field, const char* key
) noexcept nogil:
    """Read the value at p of a field of the data; returns its end, or NULL."""
    if field == USAGE:
        scan.fields[USAGE].at = key
        if scan.dialect != NO_DIALECT:
            return dialects.walk(scan, p)
        return _scan_meters(scan, p)
    if field == METERS:
        if p[0] == c'n':
            return p + 4 if scan.end - p >= 4 and _is(p, "null", 4) else NULL
        if scan.dialect == NO_DIALECT:
            return NULL
        return _scan_meters(scan, p)
    if field == USAGE_DIALECT:
        return _scan_dialect(dialects, scan, p)
    if field == GIVEN_ATTRIBUTES:
        return _scan_attributes(scan, p)
    return _scan_text(scan, p, tb_field, field, MAX_TEXT, &scan.fields[field])


cdef inline const char* _scan_data(const TbDialects* dialects, Scan* scan, const char* p) noexcept nogil:
    """Read the ``data`` object at p; returns its end, or NULL."""
    cdef Span unknown[MAX_UNKNOWN]
    cdef Span key
    cdef int field, unknown_number = 0
    if p[0] != c'{':
        return NULL
    scan.dialect = _dialect_ahead(dialects, scan, p)
    p = _skip(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        p = _scan_key(scan, p, &key)
        if p == NULL:
            return NULL
        field = _field(key.at, key.size)
        if field < 0:
            p = _scan_unknown(scan, p, &key, unknown, &unknown_number)
        elif scan.fields_seen >> field & 1:
            return NULL
        else:
            scan.fields_seen |= <uint32_t>1 << field
            p = _scan_field(dialects, scan, p, field, key.at)
        if p == NULL:
            return NULL
        p = _skip(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _skip(p + 1)


cdef inline const char* _scan_envelope(const TbDialects* dialects, Scan* scan, const char* p) noexcept nogil:
    """Read a structured event at p; returns its end, or NULL."""
    cdef Span unknown[MAX_UNKNOWN]
    cdef Span key
    cdef int attribute, unknown_number = 0
    if p[0] != c'{':
        return NULL
    p = _skip(p + 1)
    while True:
        p = _scan_key(scan, p, &key)
        if p == NULL:
            return NULL
        attribute = _attribute(key.at, key.size)
        if attribute < 0:
            p = _scan_unknown(scan, p, &key, unknown, &unknown_number)
        elif scan.attributes_seen >> attribute & 1:
            return NULL
        else:
            scan.attributes_seen |= <uint32_t>1 << attribute
            if attribute == DATA:
                p = _scan_data(dialects, scan, p)
            else:  # _check looks at the sizes of attributes
                p = _scan_text(scan, p, tb_attribute, attribute, scan.end - p, &scan.attributes[attribute])
        if p == NULL:
            return NULL
        p = _skip(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _skip(p + 1)


cdef inline int _digits(const char* at, int number) noexcept nogil:
    """Return the value of ``number`` decimal digits, at most 4; -1 where one is no digit."""
    cdef int i, value = 0
    for i in range(number):
        if not c'0' <= at[i] <= c'9':
            return -1
        value = value * 10 + (at[i] - c'0')
    return value


@cython.cdivision(True)
cdef inline int64_t _days(int year, int month, int day) noexcept nogil:
    """Return the days from 1970-01-01 to a date of the Gregorian calendar, for years from 1970 to 9999.

    C division, because no operand is negative.
    """
    cdef int y = year - 1 if month <= 2 else year
    cdef int shifted = month + 9 if month <= 2 else month - 3  # March is 0
    cdef int era = y // 400
    cdef int year_of_era = y - era * 400
    cdef int day_of_year = (153 * shifted + 2) // 5 + day - 1
    cdef int day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return <int64_t>era * 146097 + day_of_era - 719468


@cython.cdivision(True)
cdef inline int _days_in_month(int year, int month) noexcept nogil:
    """Return the days of a month of the Gregorian calendar."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef inline const char* _fraction_us(const char* p, const char* end, int64_t* micros) noexcept nogil:
    """Read a fraction of 1 to 9 digits at p, if there is one; returns its end, or NULL. Nanoseconds are cut off."""
    cdef int digits = 0
    micros[0] = 0
    if p[0] != c'.':
        return p
    p += 1
    while p < end and c'0' <= p[0] <= c'9':
        if digits < 6:
            micros[0] = micros[0] * 10 + (p[0] - c'0')
        digits += 1
        p += 1
    if digits == 0 or digits > 9:
        return NULL
    while digits < 6:
        micros[0] *= 10
        digits += 1
    return p


cdef inline bint _offset_seconds(const char* p, const char* end, int* seconds) noexcept nogil:
    """Read the offset from UTC at p, which is the last part of a time; False where there is none."""
    cdef int hours, minutes
    seconds[0] = 0
    if end - p == 1:
        return p[0] == c'Z' or p[0] == c'z'
    if end - p != 6 or (p[0] != c'+' and p[0] != c'-') or p[3] != c':':
        return False
    hours = _digits(p + 1, 2)
    minutes = _digits(p + 4, 2)
    if not 0 <= hours <= 23 or not 0 <= minutes <= 59:
        return False
    seconds[0] = (hours * 60 + minutes) * 60
    if p[0] == c'-':
        seconds[0] = -seconds[0]
    return True


cdef inline int64_t _time_us(const char* at, Py_ssize_t size) noexcept nogil:
    """Return the microseconds since 1970 of an RFC 3339 time from 1970 to 9999, or -1."""
    cdef int year, month, day, hour, minute, second, offset = 0
    cdef int64_t micros = 0, result
    cdef const char* p
    cdef const char* end = at + size
    if size < 20 or at[4] != c'-' or at[7] != c'-' or (at[10] != c'T' and at[10] != c't'):
        return -1
    if at[13] != c':' or at[16] != c':':
        return -1
    year = _digits(at, 4)
    month = _digits(at + 5, 2)
    day = _digits(at + 8, 2)
    hour = _digits(at + 11, 2)
    minute = _digits(at + 14, 2)
    second = _digits(at + 17, 2)
    if year < 1970 or not 1 <= month <= 12 or day < 1 or day > _days_in_month(year, month):
        return -1
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59:
        return -1
    p = _fraction_us(at + 19, end, &micros)
    if p == NULL or not _offset_seconds(p, end, &offset):
        return -1
    # 9999-12-31T23:59:59 plus a day in microseconds is below 2^58
    result = (((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset) * 1000000 + micros
    return result if 0 <= result < MAX_TIME_US else -1


cdef inline bint _plain_header(Span* span) noexcept nogil:
    """True if a header is printable ASCII: then it is the attribute's text."""
    cdef Py_ssize_t i
    for i in range(span.size):
        if <signed char>span.at[i] < c' ':
            return False
    return True


cdef inline bint _begin(Scan* scan, HeaderSpans* envelope) noexcept nogil:
    """Begin a scan with the attributes of the headers; False where one is not printable ASCII."""
    cdef int i
    for i in range(ATTRIBUTES):
        scan.attributes[i].at = NULL
    for i in range(FIELDS):
        scan.fields[i].at = NULL
    scan.attributes_seen = 0
    scan.fields_seen = 0
    scan.meters_seen = 0
    scan.dialect = NO_DIALECT
    scan.marks_number = 0
    scan.tags_seen = 0
    scan.region.at = NULL
    if envelope != NULL:
        for i in range(DATA):
            scan.attributes[i] = envelope.attributes[i]
            if scan.attributes[i].at != NULL and not _plain_header(&scan.attributes[i]):
                return False
    return True


cdef inline bint _check_attributes(Scan* scan) noexcept nogil:
    """True if the required attributes are there and within limits; fills time and sequence."""
    cdef Span* span = scan.attributes
    cdef Py_ssize_t i
    if span[SPECVERSION].at == NULL or span[SPECVERSION].size != 3 or not _is(span[SPECVERSION].at, "1.0", 3):
        return False
    if span[TYPE].at == NULL or span[TYPE].size != 14 or not _is(span[TYPE].at, "token.usage.v1", 14):
        return False
    if span[SOURCE].at == NULL or not 1 <= span[SOURCE].size <= MAX_TEXT:
        return False
    if span[ID].at == NULL or not 1 <= span[ID].size <= MAX_TEXT:
        return False
    if span[SUBJECT].at == NULL or not 1 <= span[SUBJECT].size <= MAX_TEXT:
        return False
    if span[TIME].at == NULL:
        return False
    scan.time_us = _time_us(span[TIME].at, span[TIME].size)
    if scan.time_us < 0:
        return False
    scan.sequence = 0
    if span[SEQUENCE].at == NULL:
        return True
    if not 1 <= span[SEQUENCE].size <= MAX_DIGITS or span[SEQUENCE].at[0] == c'0':
        return False
    for i in range(span[SEQUENCE].size):
        if not c'0' <= span[SEQUENCE].at[i] <= c'9':
            return False
        scan.sequence = scan.sequence * 10 + (span[SEQUENCE].at[i] - c'0')  # below 10^18
    return True


cdef inline bint _check_fields(Scan* scan) noexcept nogil:
    """True if the required fields are there; fills the defaults of schemas.usage.UsageData."""
    cdef Span* span = scan.fields
    cdef Py_ssize_t i
    if span[USAGE].at == NULL or span[MODEL].at == NULL or span[MODEL].size < 1:
        return False
    for i in range(HARDWARE_TIER, CHANNEL):
        if span[i].at == NULL:
            span[i].at = "unknown"
            span[i].size = 7
    if span[CHANNEL].at == NULL:
        span[CHANNEL].at = "cloud"
        span[CHANNEL].size = 5
    if span[SERVICE_TIER].at == NULL:
        span[SERVICE_TIER].at = "standard"
        span[SERVICE_TIER].size = 8
    if span[OUTCOME].at == NULL:
        span[OUTCOME].at = "completed"
        span[OUTCOME].size = 9
        return True
    if span[OUTCOME].size == 9:
        return _is(span[OUTCOME].at, "completed", 9)
    if span[OUTCOME].size == 7:
        return _is(span[OUTCOME].at, "partial", 7)
    return span[OUTCOME].size == 6 and _is(span[OUTCOME].at, "failed", 6)


cdef inline bint _check(Scan* scan) noexcept nogil:
    """True if the event is whole and within limits; fills defaults, time and sequence."""
    return _check_attributes(scan) and _check_fields(scan)


cdef bint _read_headers(object headers, HeaderSpans* spans) except -1:
    """Take the attributes of a binary-mode record; False for the plain decoder."""
    cdef object pair, name, content
    cdef Span* span
    cdef int attribute
    for pair in headers:
        if not PyTuple_CheckExact(pair) or PyTuple_GET_SIZE(pair) != 2:
            return False
        name = <object>PyTuple_GET_ITEM(pair, 0)
        content = <object>PyTuple_GET_ITEM(pair, 1)
        if not PyUnicode_CheckExact(name) or not PyBytes_CheckExact(content):
            return False
        attribute = _ATTRIBUTE_OF_HEADER.get(name, -1)
        if attribute < 0:
            # An extension, which may occur twice or not be UTF-8, or another spelling of a name that is read here.
            if name.lower().startswith("ce_"):
                return False
            continue
        span = &spans.attributes[attribute]
        if span.at != NULL:
            return False
        span.at = PyBytes_AS_STRING(content)
        span.size = PyBytes_GET_SIZE(content)
    return True


cdef int _mode(object headers) except -1:
    """Return STRUCTURED, BINARY or FOR_PLAIN by a record's headers."""
    cdef object pair, name, content
    cdef bint attributes = False
    cdef object content_type = None
    for pair in headers:
        if not PyTuple_CheckExact(pair) or PyTuple_GET_SIZE(pair) != 2:
            return FOR_PLAIN
        name = <object>PyTuple_GET_ITEM(pair, 0)
        content = <object>PyTuple_GET_ITEM(pair, 1)
        if not PyUnicode_CheckExact(name) or not PyBytes_CheckExact(content):
            return FOR_PLAIN
        if name == "content-type":
            if content_type is None:
                content_type = content
        elif name.lower() == "content-type":
            return FOR_PLAIN
        elif name.lower().startswith("ce_"):
            attributes = True
    if content_type is None:
        return BINARY if attributes else STRUCTURED
    return STRUCTURED if content_type.strip().lower().startswith(b"application/cloudevents") else BINARY


_ATTRIBUTE_OF_HEADER = {
    "ce_specversion": SPECVERSION,
    "ce_type": TYPE,
    "ce_source": SOURCE,
    "ce_id": ID,
    "ce_time": TIME,
    "ce_subject": SUBJECT,
    "ce_sequence": SEQUENCE,
}


cdef object _VALUE = intern("value"), _TIMESTAMP = intern("timestamp"), _HEADERS = intern("headers")


cdef list _spans_of_objects(
    list given, EventColumns columns, vector[Span]& values, vector[int32_t]& binary, vector[HeaderSpans]& envelopes
):
    """Find where the values and attributes of record objects, or of ``bytes``, lie; returns what keeps them there."""
    cdef Py_ssize_t rows = PyList_GET_SIZE(given), row = 0
    cdef TbAsked asked
    cdef object record, value, headers, timestamp
    cdef PyObject* names[3]
    cdef PyObject* found[3]
    cdef PyObject** known
    cdef list keep = []
    cdef int64_t first_offset = 0, offset
    cdef bint dense = False
    names[0] = <PyObject*>_VALUE
    names[1] = <PyObject*>_TIMESTAMP
    names[2] = <PyObject*>_HEADERS
    if rows and not PyBytes_CheckExact(given[0]) and not PyBytes_CheckExact(given[rows - 1]):
        first_offset = given[0].offset
        dense = given[rows - 1].offset - first_offset == rows - 1  # in offset order: none between is missing
    for row in range(rows):
        if PyList_GET_SIZE(given) != rows:
            raise RuntimeError("the list of records changed while it was read")
        tb_ask_records(&asked, tb_items(given), row, rows)
        record = <object>tb_items(given)[row]
        if PyBytes_CheckExact(record):
            value = record
            columns.offset[row] = row
        else:
            known = tb_known_values(&asked, <PyObject*>record)
            if known != NULL:
                value = <object>known[asked.places[0]]
                timestamp = <object>known[asked.places[1]]
                headers = <object>known[asked.places[2]]
            else:
                value = record.value
                timestamp = record.timestamp
                headers = record.headers
                if row == 0:
                    found[0] = <PyObject*>value
                    found[1] = <PyObject*>timestamp
                    found[2] = <PyObject*>headers
                    tb_learn_record(&asked, <PyObject*>record, names, found)
            offset = first_offset + row
            if not dense:
                offset = record.offset
            columns.offset[row] = offset
            columns.logged_ms[row] = timestamp
            if headers and not _take_headers(headers, row, binary, envelopes, keep):
                value = None
        values[row].at = NULL
        if PyBytes_CheckExact(value):
            values[row].at = PyBytes_AS_STRING(value)
            values[row].size = PyBytes_GET_SIZE(value)
            keep.append(value)
    return keep


cdef list _spans_of_packed(
    PackedRecords packed,
    EventColumns columns,
    vector[Span]& values,
    vector[int32_t]& binary,
    vector[HeaderSpans]& envelopes,
):
    """Find where the values and attributes of packed records lie; returns what keeps them there."""
    cdef Py_ssize_t row
    cdef PackedRow* at
    cdef PackedRow* structured = NULL   # a record whose headers mark the value as the whole event
    cdef list keep = [packed]
    for row in range(<Py_ssize_t>packed.rows.size()):
        at = &packed.rows[row]
        columns.offset[row] = at.offset
        columns.logged_ms[row] = at.timestamp_ms
        values[row].at = at.value
        values[row].size = at.value_size
        if not at.header_count or (
            structured != NULL and structured.headers_size == at.headers_size
            and structured.header_count == at.header_count
            and memcmp(structured.headers, at.headers, at.headers_size) == 0
        ):
            continue
        if not _take_headers(packed.headers_of(row), row, binary, envelopes, keep):
            values[row].at = NULL
        elif binary[row] < 0:
            structured = at
    return keep


cdef bint _take_headers(
    object headers, Py_ssize_t row, vector[int32_t]& binary, vector[HeaderSpans]& envelopes, list keep
) except -1:
    """Take a record's attributes where its headers hold them; False for the plain decoder."""
    cdef HeaderSpans spans
    cdef int attribute, mode = _mode(headers)
    if mode == BINARY:
        for attribute in range(ATTRIBUTES):
            spans.attributes[attribute].at = NULL
        if not _read_headers(headers, &spans):
            return False
        binary[row] = <int32_t>envelopes.size()
        envelopes.push_back(spans)
        keep.append(headers)
    return mode != FOR_PLAIN


cdef class EventColumns:
    """Usage events as columns, one row per record.

    Columns are the numbers of source, account and combination, the time in microseconds UTC, the sequence (0: none),
    hashes, and the counts that are not 0 as (meter, count) pairs in canonical order.
    """

    def __len__(self):
        return self.rows

    def status_of(self, Py_ssize_t row):
        """Return 0 read, 1 unread (for the plain decoder), 2 refused."""
        return self.status[self._row(row)]

    def refuse(self, Py_ssize_t row):
        """Mark a row as refused by the plain decoder."""
        self.status[self._row(row)] = REFUSED

    def unread(self):
        """Return the rows that wait for the plain decoder, in order."""
        return [row for row in range(self.rows) if self.status[row] == UNREAD]

    def rows_from(self, const unsigned char[::1] marked not None):
        """Return the rows that were read and whose source is marked, in order; one mark for each source number."""
        cdef Py_ssize_t row
        return [
            row for row in range(self.rows)
            if self.status[row] == READ and self.source[row] < marked.shape[0] and marked[self.source[row]]
        ]

    def reservations(self):
        """Return {row: the reservation that it names} of the rows that the scanner read."""
        cdef size_t i
        return {
            self.reserved[i]: self.reservation[i].at[: self.reservation[i].size].decode()
            for i in range(self.reserved.size())
        }

    def is_one_request(self, Py_ssize_t row):
        """Return :attr:`schemas.usage.UsageEvent.is_one_request` of a row that was read."""
        return bool(self.one_request[self._row(row)])

    def id_of(self, Py_ssize_t row):
        """Return the id of a row that was read."""
        self._row(row)
        return self.id_at[row][: self.id_size[row]].decode()

    def tags_of(self, Py_ssize_t row):
        """Return request_id and member of a row that was read, None for one that it does not have."""
        self._row(row)
        cdef const char* at = self.id_at[row] + self.id_size[row]
        cdef Py_ssize_t request = max(0, <Py_ssize_t>self.request_size[row] - 1)
        cdef Py_ssize_t member = max(0, <Py_ssize_t>self.member_size[row] - 1)
        return (
            at[:request].decode() if self.request_size[row] else None,
            at[request : request + member].decode() if self.member_size[row] else None,
        )

    def as_tuple(self, Py_ssize_t row):
        """Return a row as (source number, id, sequence, time_us, account number, combination number, id hash, content
        hash, ((meter number, count), ...)); for tests and for the plain calculator.

        Raises:
            ValueError: the row was not read.
        """
        self._row(row)
        if self.status[row] != READ:
            raise ValueError(f"row {row} was not read")
        cdef uint32_t first = self.count_first[row], i
        counts = tuple((self.meter[first + i], self.count[first + i]) for i in range(self.count_number[row]))
        return (
            self.source[row],
            self.id_at[row][: self.id_size[row]].decode(),
            self.sequence[row] or None,
            self.time_us[row],
            self.account[row],
            self.combination[row],
            self.id_hash[row],
            self.content_hash[row],
            counts,
        )

    def _row(self, Py_ssize_t row):
        """Return the row, or raise IndexError where there is none."""
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        return row


cdef int _make_room(EventColumns columns, Py_ssize_t rows) except -1:
    """Give the columns their rows, all of them UNREAD."""
    columns.rows = rows
    columns.status.resize(rows, UNREAD)
    columns.source.resize(rows)
    columns.id_at.resize(rows)
    columns.id_size.resize(rows)
    columns.request_size.resize(rows)
    columns.member_size.resize(rows)
    columns.id_hash.resize(rows)
    columns.sequence.resize(rows)
    columns.time_us.resize(rows)
    columns.account.resize(rows)
    columns.combination.resize(rows)
    columns.content_hash.resize(rows)
    columns.count_first.resize(rows)
    columns.count_number.resize(rows)
    columns.one_request.resize(rows)
    columns.offset.resize(rows)
    columns.logged_ms.resize(rows)
    columns.meter.reserve(4 * rows)
    columns.count.reserve(4 * rows)
    columns.texts.resize(1)
    columns.texts.back().reserve(TEXTS * rows)
    return 0


cdef inline int _keep_texts(EventColumns columns, Py_ssize_t row, const Scan* scan) except -1 nogil:
    """Copy a row's id, request_id and member, one behind the other."""
    cdef const Span* id = &scan.attributes[ID]
    cdef const Span* request = &scan.fields[REQUEST_ID]
    cdef const Span* member = &scan.fields[MEMBER]
    cdef size_t at = columns.texts.back().size()
    cdef size_t size = id.size
    if request.at != NULL:
        size += request.size
    if member.at != NULL:
        size += member.size
    if at + size > columns.texts.back().capacity():  # the copies must not move
        columns.texts.resize(columns.texts.size() + 1)
        columns.texts.back().reserve(size + TEXTS * BLOCK)
        at = 0
    columns.texts.back().insert(columns.texts.back().end(), id.at, id.at + id.size)
    columns.id_at[row] = columns.texts.back().data() + at
    columns.id_size[row] = <int32_t>id.size
    if request.at != NULL:
        columns.texts.back().insert(columns.texts.back().end(), request.at, request.at + request.size)
        columns.request_size[row] = <uint16_t>(request.size + 1)  # at most MAX_TEXT bytes
    if member.at != NULL:
        columns.texts.back().insert(columns.texts.back().end(), member.at, member.at + member.size)
        columns.member_size[row] = <uint16_t>(member.size + 1)
    return 0


cdef int _set_texts(EventColumns columns, Py_ssize_t row, object event) except -1:
    """Fill the id of a row, and what follows it, with those of an event of the plain decoder.

    Raises:
        OverflowError: a text is too large.
    """
    cdef bytes id = event.id.encode(), request = (event.request_id or "").encode()
    cdef bytes member = (event.member or "").encode(), texts = id + request + member
    if max(len(id), len(request), len(member)) > MAX_TEXT:
        raise OverflowError(f"an id of {len(id)}, a request_id of {len(request)} or a member of {len(member)} bytes")
    columns.keep.append(texts)
    columns.id_at[row] = PyBytes_AS_STRING(texts)
    columns.id_size[row] = <int32_t>len(id)
    columns.request_size[row] = 0 if event.request_id is None else <uint16_t>(len(request) + 1)
    columns.member_size[row] = 0 if event.member is None else <uint16_t>(len(member) + 1)
    columns.id_hash[row] = <uint32_t>murmur3_64(columns.id_at[row], columns.id_size[row])
    return 0


cdef int _fill_dialects(TbDialects* into) except -1:
    """Build the tables of :data:`schemas.dialects.TABLES` once more for the scanner.

    Raises:
        OverflowError: a table is larger than the scanner's limits.
    """
    cdef TbDialect made
    into.dialects.clear()
    for table in TABLES.values():
        made = TbDialect()
        made.name = table.name.encode()
        made.groups = len(table.groups)
        made.cached_inside = Role.CACHED in table.input_includes
        made.written_inside = Role.WRITTEN in table.input_includes
        made.reasoning_inside = table.output_includes_reasoning
        made.text_may_leave_out_cache = table.text_may_leave_out_cache
        made.total_is_input = table.total_is_input
        made.rest_is_reasoning = table.rest_is_reasoning
        for row in table.rows:
            _add_row(&made, table, row)
        numbers = {row.path: number for number, row in enumerate(table.rows)}
        _add_place(&made, table_tree(table), "", "", numbers, frozenset(table.needs))
        for names in table.totals:
            parts = [name.rpartition("/")[::2] for name in names]
            made.totals.push_back([table.groups.index(group) * ROLES + _ROLES.index(role) for group, role in parts])
        if len(table.groups) > MOST_GROUPS or len(table.rows) > MOST_LEAVES or made.places.size() > MOST_PLACES:
            raise OverflowError(f"the table of {table.name} is larger than what cython_ext.decode holds")
        into.dialects.push_back(made)
    return 0


cdef list _ROLES = [str(role) for role in Role]


cdef int _add_row(TbDialect* into, object table, object row) except -1:
    """Add a row of a dialect's table."""
    cdef TbLeafRow made = TbLeafRow()
    made.declarable = bool(row.meter) and row.meter not in METER_NAMES
    made.skipped = row.role is Role.NOT_BILLED and not made.declarable
    made.declared = made.declarable and row.role is Role.METER
    made.adds = row.add
    made.times = row.times
    if made.declarable or made.skipped:
        made.slot = 0
    elif row.role is Role.METER:
        made.slot = MOST_GROUPS * ROLES + METER_NAMES.index(row.meter)
    else:
        made.slot = table.groups.index(row.group) * ROLES + _ROLES.index(row.role)
    into.rows.push_back(made)
    return 0


cdef int _add_place(TbDialect* into, object node, str name, str key, dict numbers, object needs) except -1:
    """Add a place of a dialect's tree and, behind it, its inner places."""
    cdef TbPlace made = TbPlace()
    cdef size_t number = into.places.size()
    made.name = name.encode()
    made.row = -1 if node.row is None else numbers[node.row.path]
    made.is_list = node.key is not None
    made.key = (node.key or key).encode()
    made.needed = name in needs and bool(number)
    into.places.push_back(made)
    for value, inner in node.items.items():
        _add_place(into, inner, value, node.key, numbers, ())
    for inner_name, inner in node.names.items():
        _add_place(into, inner, inner_name, "", numbers, () if number else needs)
    into.places[number].end = <int16_t>into.places.size()
    return 0


cdef inline Py_ssize_t _append(char* joined, Py_ssize_t length, const Span* text) noexcept nogil:
    """Append a text and a separator to joined texts, which have room for it; returns their length."""
    memcpy(joined + length, text.at, text.size)
    joined[length + text.size] = SEPARATOR
    return length + text.size + 1


cdef class Decoder:
    """Decodes the batches of one partition. Its tables of texts persist: a text keeps its number."""

    def __cinit__(self):
        self.sources = TextTable()
        self.accounts = TextTable()
        self.combinations = TextTable()
        self.meters = TextTable()
        self._last_source = -1
        self._tag_texts = []

    def __init__(self):
        if len(METER_NAMES) != BUILT_IN_METERS or current_type("token.usage.v1") != "token.usage.v1":
            raise RuntimeError("cython_ext.decode knows other meters or another version than schemas: adapt it")
        _fill_dialects(&self.dialects)
        for number, name in enumerate(METER_NAMES):
            text = name.encode()
            if self.meters.number(text) != number or _meter(text, len(text)) != number:
                raise RuntimeError(f"cython_ext.decode has another number for the meter {name}")

    def declare_attributes(self, list names not None):
        """Set the attributes that books declare as dimensions, sorted; more than 8 are left to the plain decoder."""
        cdef Span span
        cdef bytes text
        cdef list texts = [name.encode() for name in names]
        if texts == self._tag_texts:
            return
        self._tag_texts = texts
        self.tag_names.clear()
        for text in self._tag_texts:
            span.at = text
            span.size = len(text)
            self.tag_names.push_back(span)
        self.tag_number = <int>len(names) if len(names) <= MAX_TAGS else -1
        self.shapes.clear()

    def combination(self, Py_ssize_t number):
        """Return the texts of a combination: those of :data:`schemas.usage.DIMENSIONS`, then name and value of each
        attribute that a book declares (:meth:`billing.pricing.match.Combination.from_texts`)."""
        return tuple(self.combinations[number].decode().split("\x1f"))

    cpdef void declare_meters(self, object meters) except *:
        """Set the meters that price books declare: counts that become them are left to the plain decoder."""
        cdef size_t dialect = 0, row
        for table in TABLES.values():
            row = 0
            for one in table.rows:
                self.dialects.dialects[dialect].rows[row].declared = one.role is Role.METER or one.meter in meters
                row += 1
            dialect += 1

    cpdef EventColumns decode(self, object records):
        """Decode records into columns: packed ones, ``bytes``, or objects with ``value`` and ``headers``.

        Records are in offset order. None is refused: what the scanner does not read is left UNREAD.
        """
        cdef EventColumns columns = EventColumns()
        cdef Py_ssize_t rows = len(records), row = 0
        cdef vector[Span] values
        cdef vector[int32_t] binary
        cdef vector[HeaderSpans] envelopes
        cdef HeaderSpans* envelope
        cdef Waiting waiting[BLOCK]
        cdef int attribute, number = 0
        cdef Scan scan
        values.resize(rows)
        binary.resize(rows, -1)
        _make_room(columns, rows)
        if type(records) is PackedRecords:
            columns.keep = _spans_of_packed(records, columns, values, binary, envelopes)
        else:
            columns.keep = _spans_of_objects(list(records), columns, values, binary, envelopes)
        with nogil:
            for row in range(rows):
                if row + 6 < rows and values[row + 6].at != NULL:
                    for attribute in range(0, 512, 64):
                        tb_prefetch(values[row + 6].at + attribute)
                if values[row].at == NULL:
                    continue
                envelope = NULL
                if binary[row] >= 0:
                    envelope = &envelopes[binary[row]]
                if self._scan(&scan, values[row], envelope):
                    self._store(columns, row, &scan, &waiting[number])
                    number += 1
                    if number == BLOCK:
                        self._place(columns, waiting, number)
                        number = 0
            self._place(columns, waiting, number)
        return columns

    cdef bint _scan(self, Scan* scan, Span value, HeaderSpans* envelope) except -1 nogil:
        """Read one record; False for the plain decoder."""
        cdef const char* p = _skip(value.at)
        cdef const char* begin = p
        scan.end = value.at + value.size
        scan.tag_names = self.tag_names.data()
        scan.tag_number = self.tag_number
        if not _begin(scan, envelope):
            return False
        if self.shapes.read(p, scan, envelope != NULL) != NULL:
            return _check(scan) and (scan.dialect == NO_DIALECT or self.dialects.split(scan))
        _begin(scan, envelope)
        if envelope == NULL:
            p = _scan_envelope(&self.dialects, scan, p)
        else:
            p = _scan_data(&self.dialects, scan, p)
        if p == NULL or _skip(p) != scan.end:
            return False
        if not _check(scan):
            return False
        if scan.dialect == NO_DIALECT:
            self.shapes.learn(scan[0], begin, envelope != NULL)
            return True
        if scan.fields[USAGE_DIALECT].at == NULL:
            return False  # what was found ahead lies elsewhere
        self.shapes.learn(scan[0], begin, envelope != NULL)
        return self.dialects.split(scan)

    cdef int32_t _combination(self, Scan* scan, uint64_t* hash64) except -1 nogil:
        """Return the number of an event's combination, and fill its hash."""
        cdef char joined[(DIMENSIONS + 2 * MAX_TAGS) * (MAX_TEXT + 1)]
        cdef Py_ssize_t length = 0
        cdef int32_t combination = -1
        cdef int i
        if scan.region.at != NULL and not scan.tags_seen:
            combination = self.shapes.combination(scan, hash64)
        if combination < 0:
            for i in range(DIMENSIONS):
                length = _append(joined, length, &scan.fields[i])
            for i in range(scan.tag_number):
                if scan.tags_seen >> i & 1:
                    length = _append(joined, length, &scan.tag_names[i])
                    length = _append(joined, length, &scan.tags[i])
            combination = self.combinations.intern(joined, length - 1)
            hash64[0] = self.combinations.hashes[combination]
            if scan.region.at != NULL and not scan.tags_seen:
                self.shapes.keep_combination(scan, combination, hash64[0])
        return combination

    cdef int _store(
        self, EventColumns columns, Py_ssize_t row, Scan* scan, Waiting* waiting
    ) except -1 nogil:
        """Fill a row, its account apart."""
        cdef int32_t combination, source = self._last_source
        cdef uint64_t hash64 = 0
        cdef int i
        cdef uint32_t seen = scan.meters_seen, first = <uint32_t>columns.count.size()
        combination = self._combination(scan, &hash64)
        columns.combination[row] = combination
        if source < 0 or (
            <size_t>scan.attributes[SOURCE].size != self.sources.starts[source + 1] - self.sources.starts[source]
        ) or not _is(
            scan.attributes[SOURCE].at,
            self.sources.arena.data() + self.sources.starts[source],
            scan.attributes[SOURCE].size,
        ):
            source = self.sources.intern(scan.attributes[SOURCE].at, scan.attributes[SOURCE].size)
            self._last_source = source
        columns.source[row] = source
        columns.id_hash[row] = <uint32_t>murmur3_64(scan.attributes[ID].at, scan.attributes[ID].size)
        _keep_texts(columns, row, scan)
        columns.time_us[row] = scan.time_us
        columns.sequence[row] = scan.sequence
        if scan.fields[RESERVATION].at != NULL:
            columns.reserved.push_back(row)
            columns.reservation.push_back(scan.fields[RESERVATION])
        columns.count_first[row] = first
        for i in range(BUILT_IN_METERS):
            if seen >> i == 0:
                break
            if seen >> i & 1 and scan.counts[i] != 0:
                columns.meter.push_back(<int16_t>i)
                columns.count.push_back(scan.counts[i])
        columns.count_number[row] = <uint8_t>(columns.count.size() - first)
        columns.one_request[row] = scan.dialect != NO_DIALECT and scan.counts[REQUESTS] == 0
        waiting.row = row
        waiting.account = scan.attributes[SUBJECT]
        waiting.account_hash = murmur3_64(waiting.account.at, waiting.account.size)
        waiting.combination_hash = hash64
        tb_prefetch(self.accounts.slots.data() + (waiting.account_hash & self.accounts.mask))
        return 0

    cdef int _place(self, EventColumns columns, Waiting* waiting, int number) except -1 nogil:
        """Fill the accounts of a block of rows; what is looked up is loaded ahead, a block at a time."""
        cdef int i
        cdef uint64_t slot
        cdef Py_ssize_t row
        for i in range(number):
            slot = self.accounts.slots[waiting[i].account_hash & self.accounts.mask]
            if slot != 0:
                tb_prefetch(self.accounts.starts.data() + (slot & 0xFFFFFFFFULL) - 1)
        for i in range(number):
            slot = self.accounts.slots[waiting[i].account_hash & self.accounts.mask]
            if slot != 0:
                tb_prefetch(self.accounts.arena.data() + self.accounts.starts[(slot & 0xFFFFFFFFULL) - 1])
        for i in range(number):
            row = waiting[i].row
            columns.account[row] = self.accounts.intern_hashed(
                waiting[i].account.at, waiting[i].account.size, waiting[i].account_hash
            )
            columns.id_hash[row] += <uint32_t>(ACCOUNT_FACTOR * waiting[i].account_hash)  # modulo 2^32, as it is meant
            columns.content_hash[row] = self._content_hash(
                columns, row, waiting[i].account_hash, waiting[i].combination_hash
            )
            columns.status[row] = READ
        return 0

    cdef uint32_t _content_hash(
        self, EventColumns columns, Py_ssize_t row, uint64_t account, uint64_t combination
    ) noexcept nogil:
        """Return :func:`schemas.hashing.content_hash32` of a row, by the hashes of its account and combination.

        Cannot fail: a row has at most MAX_COUNTS counts.
        """
        cdef uint64_t words[3 + 2 * MAX_COUNTS]
        cdef uint32_t i, first = columns.count_first[row], number = columns.count_number[row]
        words[0] = <uint64_t>columns.time_us[row]
        words[1] = account
        words[2] = combination
        for i in range(number):
            words[3 + 2 * i] = self.meters.hashes[columns.meter[first + i]]
            words[4 + 2 * i] = <uint64_t>columns.count[first + i]
        return <uint32_t>murmur3_64(<const char*>words, 8 * (3 + 2 * number))

    cpdef void set_event(self, EventColumns columns, Py_ssize_t row, object event) except *:
        """Fill an unread row with an event of the plain decoder (:class:`schemas.usage.UsageEvent`).

        Raises:
            OverflowError: a text, the number of counts, or the number of meters in this partition's life is too large.
            ValueError: a count or the sequence is negative, or the time is not between 1970 and 9999.
        """
        columns._row(row)
        cdef bytes source = event.source.encode()
        if len(source) > MAX_TEXT:
            raise OverflowError(f"a source of {len(source)} bytes")
        if len(event.counts) > MAX_COUNTS:
            raise OverflowError(f"an event counts {len(event.counts)} meters: the columns hold {<int>MAX_COUNTS}")
        # the calculator computes with numbers that are not negative
        for _, count in event.counts:
            if count < 0:
                raise ValueError(f"event {event.id!r} counts {count}")
        if event.sequence is not None and event.sequence < 0:
            raise ValueError(f"event {event.id!r} has the sequence {event.sequence}")
        cdef int64_t time_us = event.time_us
        if not 0 <= time_us < MAX_TIME_US:
            raise ValueError(f"event {event.id!r} is not between 1970 and 9999")
        _set_texts(columns, row, event)
        cdef list meters = [self.meters.number(meter.encode()) for meter, _ in event.counts]
        if len(self.meters) > MAX_METERS:
            raise OverflowError(f"the columns hold {<int>MAX_METERS} meters")
        joined = "\x1f".join(
            (
                event.model,
                event.hardware_tier,
                event.energy_source,
                event.site,
                event.channel,
                event.service_tier,
                event.outcome,
                *[text for attribute in event.attributes for text in attribute],
            )
        )
        columns.combination[row] = self.combinations.number(joined.encode())
        columns.source[row] = self.sources.number(source)
        columns.account[row] = self.accounts.number(event.account.encode())
        # modulo 2^32, as it is meant
        columns.id_hash[row] += <uint32_t>(ACCOUNT_FACTOR * self.accounts.hashes[columns.account[row]])
        columns.time_us[row] = time_us
        columns.sequence[row] = event.sequence or 0
        columns.count_first[row] = <uint32_t>columns.count.size()
        columns.count_number[row] = <uint8_t>len(meters)
        columns.one_request[row] = event.is_one_request
        for meter, (_, count) in zip(meters, event.counts):
            columns.meter.push_back(meter)
            columns.count.push_back(count)
        columns.content_hash[row] = self._content_hash(
            columns,
            row,
            self.accounts.hashes[columns.account[row]],
            self.combinations.hashes[columns.combination[row]],
        )
        columns.status[row] = READ
