"""Usage events as JSON become columns of integers; what is unusual is left, unread, to :func:`schemas.usage.parse_usage`.

The scanner knows the event's schema (CONTRACT §1). It accepts a row only where the plain decoder accepts the same bytes
with the same result; everything else (escapes, text beyond ASCII, a key twice, a number that is not a small count, a
field of an unexpected kind, a limit exceeded) leaves the row UNREAD. It refuses nothing itself: the reasons are written
once, in plain Python. Rows of a decoded batch point into the records' values, which the columns keep alive.

Every JSON value is a ``bytes`` object, which ends in a NUL: a scan stops there without asking for the length.
"""

from sys import intern

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from libcpp.vector cimport vector

from cython_ext.murmur cimport murmur3_64
from cython_ext.records cimport PackedRecords, PackedRow
from cython_ext.tables cimport TextTable
from cython_ext.wide cimport tb_plain_end, tb_prefetch

from schemas.meters import METERS
from schemas.upcast import current_type

cdef extern from "records.hpp":
    cdef cppclass TbAsked:
        int places[3]
    void tb_learn_record(TbAsked* asked, PyObject* record, PyObject** names, PyObject** found) noexcept
    PyObject** tb_known_values(const TbAsked* asked, PyObject* record) noexcept
    void tb_ask_records(const TbAsked* asked, PyObject** records, Py_ssize_t at, Py_ssize_t number) noexcept
    PyObject** tb_items(object records) noexcept


cdef enum:
    # The first seven are the dimensions of a combination, in its order.
    MODEL, HARDWARE_TIER, ENERGY_SOURCE, SITE, CHANNEL, SERVICE_TIER, OUTCOME
    REQUESTED_MODEL, MEMBER, REQUEST_ID, RESERVATION, USAGE_DIALECT, USAGE
    DIMENSIONS = 7

cdef enum:
    MAX_TEXT = 256
    MAX_UNKNOWN = 8
    BLOCK = 32      # rows whose accounts are looked up together

cdef inline bint _is(const char* at, const char* text, size_t size) noexcept nogil:
    return memcmp(at, text, size) == 0


cdef inline const char* _skip(const char* p) noexcept nogil:
    """The first character that is not JSON white space."""
    while p[0] == c' ' or p[0] == c'\n' or p[0] == c'\t' or p[0] == c'\r':
        p += 1
    return p


cdef inline int _attribute(const char* at, Py_ssize_t size) noexcept nogil:
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
    elif size == 7:
        if _is(at, "channel", 7):
            return CHANNEL
        if _is(at, "outcome", 7):
            return OUTCOME
    elif size == 10:
        if _is(at, "request_id", 10):
            return REQUEST_ID
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


cdef inline int _meter(const char* at, Py_ssize_t size) noexcept nogil:
    """Index in schemas.meters.METERS of a built-in meter, or -1."""
    if size == 5:
        if _is(at, "input", 5):
            return 0
        if _is(at, "pages", 5):
            return 20
        if _is(at, "seats", 5):
            return 23
    elif size == 6:
        if _is(at, "output", 6):
            return 4
        if _is(at, "images", 6):
            return 16
    elif size == 8:
        if _is(at, "requests", 8):
            return 15
        if _is(at, "searches", 8):
            return 21
        if _is(at, "gb_hours", 8):
            return 22
    elif size == 9:
        if _is(at, "reasoning", 9):
            return 5
    elif size == 10:
        if _is(at, "cache_read", 10):
            return 1
        if _is(at, "characters", 10):
            return 19
    elif size == 11:
        if _is(at, "cache_write", 11):
            return 2
        if _is(at, "audio_input", 11):
            return 6
        if _is(at, "image_input", 11):
            return 9
        if _is(at, "video_input", 11):
            return 12
    elif size == 12:
        if _is(at, "audio_output", 12):
            return 8
        if _is(at, "image_output", 12):
            return 11
        if _is(at, "video_output", 12):
            return 13
        if _is(at, "sensor_input", 12):
            return 14
        if _is(at, "milliseconds", 12):
            return 17
    elif size == 14:
        if _is(at, "cache_write_1h", 14):
            return 3
    elif size == 16:
        if _is(at, "audio_cache_read", 16):
            return 7
        if _is(at, "image_cache_read", 16):
            return 10
    elif size == 19:
        if _is(at, "device_milliseconds", 19):
            return 18
    return -1


cdef inline const char* _skip_trivial(Scan* scan, const char* p) noexcept nogil:
    """The end of a plain string, null, true, false or a short integer; NULL for any other value."""
    cdef const char* first
    cdef const char* end = scan.end
    if p[0] == c'"':
        first = p + 1
        p = tb_plain_end(first, end)
        if p == NULL:
            return NULL
        tb_mark(scan, tb_skipped_text, 0, first, p)
        return p + 1
    if end - p < 5:
        return NULL
    if p[0] == c'n':
        if _is(p, "null", 4):
            return p + 4
        return NULL
    if p[0] == c't':
        if _is(p, "true", 4):
            return p + 4
        return NULL
    if p[0] == c'f':
        if _is(p, "false", 5):
            return p + 5
        return NULL
    first = p
    while c'0' <= p[0] <= c'9':
        p += 1
    if p == first or (first[0] == c'0' and p - first > 1) or p - first > 18:
        return NULL
    tb_mark(scan, tb_skipped_number, 0, first, p)
    if p[0] == c'.' or p[0] == c'e' or p[0] == c'E':
        return NULL
    return p


cdef inline bint _twice(Span* unknown, int number, const char* at, Py_ssize_t size) noexcept nogil:
    cdef int i
    for i in range(number):
        if unknown[i].size == size and memcmp(unknown[i].at, at, size) == 0:
            return True
    return False


cdef inline const char* _scan_usage(Scan* scan, const char* p) noexcept nogil:
    """Read ``{"meter": count, ...}`` at p; returns its end, or NULL for the plain decoder."""
    cdef const char* key
    cdef const char* first
    cdef const char* key_end
    cdef int meter
    cdef int64_t count
    if p[0] != c'{':
        return NULL
    p = _skip(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"':
            return NULL
        key = p + 1
        key_end = tb_plain_end(key, scan.end)
        if key_end == NULL:
            return NULL
        meter = _meter(key, key_end - key)
        if meter < 0 or scan.meters_seen >> meter & 1:
            return NULL
        p = _skip(key_end + 1)
        if p[0] != c':':
            return NULL
        p = _skip(p + 1)
        first = p
        count = 0
        while c'0' <= p[0] <= c'9':
            if p - first == 18:  # 18 digits fit 63 bits
                return NULL
            count = count * 10 + (p[0] - c'0')
            p += 1
        if p == first or (first[0] == c'0' and p - first > 1):
            return NULL
        scan.meters_seen |= <uint32_t>1 << meter
        scan.counts[meter] = count
        tb_mark(scan, tb_count, meter, first, p)
        p = _skip(p)  # a fraction or exponent is neither of these and ends the scan
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _skip(p + 1)


cdef inline const char* _scan_data(Scan* scan, const char* p) noexcept nogil:
    """Read the ``data`` object at p; returns its end, or NULL for the plain decoder."""
    cdef Span unknown[MAX_UNKNOWN]
    cdef const char* key
    cdef const char* stop
    cdef Py_ssize_t size
    cdef int field, unknown_number = 0
    if p[0] != c'{':
        return NULL
    p = _skip(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"':
            return NULL
        key = p + 1
        stop = tb_plain_end(key, scan.end)
        if stop == NULL:
            return NULL
        size = stop - key
        p = _skip(stop + 1)
        if p[0] != c':':
            return NULL
        p = _skip(p + 1)
        field = _field(key, size)
        if field < 0:
            if unknown_number == MAX_UNKNOWN or _twice(unknown, unknown_number, key, size):
                return NULL
            unknown[unknown_number].at = key
            unknown[unknown_number].size = size
            unknown_number += 1
            p = _skip_trivial(scan, p)
            if p == NULL:
                return NULL
        else:
            if scan.fields_seen >> field & 1:
                return NULL
            scan.fields_seen |= <uint32_t>1 << field
            if field == USAGE:
                p = _scan_usage(scan, p)
                if p == NULL:
                    return NULL
                scan.fields[USAGE].at = key
            elif p[0] == c'"':
                stop = tb_plain_end(p + 1, scan.end)
                if stop == NULL or stop - p - 1 > MAX_TEXT:
                    return NULL
                scan.fields[field].at = p + 1
                scan.fields[field].size = stop - p - 1
                tb_mark(scan, tb_field, field, p + 1, stop)
                p = stop + 1
            elif scan.end - p >= 4 and _is(p, "null", 4):
                p += 4
            else:
                return NULL
        p = _skip(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _skip(p + 1)


cdef inline const char* _scan_envelope(Scan* scan, const char* p) noexcept nogil:
    """Read a structured event at p; returns its end, or NULL for the plain decoder."""
    cdef Span unknown[MAX_UNKNOWN]
    cdef const char* key
    cdef const char* stop
    cdef Py_ssize_t size
    cdef int attribute, unknown_number = 0
    if p[0] != c'{':
        return NULL
    p = _skip(p + 1)
    while True:
        if p[0] != c'"':
            return NULL
        key = p + 1
        stop = tb_plain_end(key, scan.end)
        if stop == NULL:
            return NULL
        size = stop - key
        p = _skip(stop + 1)
        if p[0] != c':':
            return NULL
        p = _skip(p + 1)
        attribute = _attribute(key, size)
        if attribute < 0:
            if unknown_number == MAX_UNKNOWN or _twice(unknown, unknown_number, key, size):
                return NULL
            unknown[unknown_number].at = key
            unknown[unknown_number].size = size
            unknown_number += 1
            p = _skip_trivial(scan, p)
            if p == NULL:
                return NULL
        else:
            if scan.attributes_seen >> attribute & 1:
                return NULL
            scan.attributes_seen |= <uint32_t>1 << attribute
            if attribute == DATA:
                p = _scan_data(scan, p)
                if p == NULL:
                    return NULL
            elif p[0] == c'"':
                stop = tb_plain_end(p + 1, scan.end)
                if stop == NULL:
                    return NULL
                scan.attributes[attribute].at = p + 1
                scan.attributes[attribute].size = stop - p - 1
                tb_mark(scan, tb_attribute, attribute, p + 1, stop)
                p = stop + 1
            elif scan.end - p >= 4 and _is(p, "null", 4):
                p += 4
            else:
                return NULL
        p = _skip(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _skip(p + 1)


cdef inline int _digits(const char* at, int number) noexcept nogil:
    """The value of so many decimal digits, at most 4; -1 where one is no digit."""
    cdef int i, value = 0
    for i in range(number):
        if not c'0' <= at[i] <= c'9':
            return -1
        value = value * 10 + (at[i] - c'0')
    return value


@cython.cdivision(True)
cdef inline int64_t _days(int year, int month, int day) noexcept nogil:
    """Days from 1970-01-01 to a date of the Gregorian calendar; year from 1970 to 9999: no operand is negative."""
    cdef int y = year - 1 if month <= 2 else year
    cdef int shifted = month + 9 if month <= 2 else month - 3  # March is 0
    cdef int era = y // 400
    cdef int year_of_era = y - era * 400
    cdef int day_of_year = (153 * shifted + 2) // 5 + day - 1
    cdef int day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return <int64_t>era * 146097 + day_of_era - 719468


@cython.cdivision(True)
cdef inline int _days_in_month(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef inline int64_t _time_us(const char* at, Py_ssize_t size) noexcept nogil:
    """Microseconds since 1970 of an RFC 3339 time from 1970 to 9999, or -1 for the plain decoder."""
    cdef int year, month, day, hour, minute, second, digits = 0, zone_hour, zone_minute
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
    p = at + 19
    if p[0] == c'.':
        p += 1
        while p < end and c'0' <= p[0] <= c'9':
            if digits < 6:
                micros = micros * 10 + (p[0] - c'0')
            digits += 1
            p += 1
        if digits == 0 or digits > 9:
            return -1
        while digits < 6:
            micros *= 10
            digits += 1
    result = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    if end - p == 1 and (p[0] == c'Z' or p[0] == c'z'):
        pass
    elif end - p == 6 and (p[0] == c'+' or p[0] == c'-') and p[3] == c':':
        zone_hour = _digits(p + 1, 2)
        zone_minute = _digits(p + 4, 2)
        if not 0 <= zone_hour <= 23 or not 0 <= zone_minute <= 59:
            return -1
        if p[0] == c'+':
            result -= (zone_hour * 60 + zone_minute) * 60
        else:
            result += (zone_hour * 60 + zone_minute) * 60
    else:
        return -1
    # 9999-12-31T23:59:59 plus a day in microseconds is below 2^58
    result = result * 1000000 + micros
    return result if 0 <= result < 253402300800000000LL else -1


cdef inline bint _plain_header(Span* span) noexcept nogil:
    """Whether a header is printable ASCII (then it is the attribute's text)."""
    cdef Py_ssize_t i
    for i in range(span.size):
        if <signed char>span.at[i] < c' ':
            return False
    return True


cdef inline bint _begin(Scan* scan, HeaderSpans* envelope) noexcept nogil:
    """Nothing is read yet but the headers; False where one is not printable ASCII."""
    cdef int i
    for i in range(ATTRIBUTES):
        scan.attributes[i].at = NULL
    for i in range(FIELDS):
        scan.fields[i].at = NULL
    scan.attributes_seen = 0
    scan.fields_seen = 0
    scan.meters_seen = 0
    scan.marks_number = 0
    scan.region.at = NULL
    if envelope != NULL:
        for i in range(DATA):
            scan.attributes[i] = envelope.attributes[i]
            if scan.attributes[i].at != NULL and not _plain_header(&scan.attributes[i]):
                return False
    return True


cdef inline bint _check(Scan* scan) noexcept nogil:
    """Whether required fields are there and all within limits; fills defaults, time and sequence."""
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
    if span[SEQUENCE].at != NULL:
        if not 1 <= span[SEQUENCE].size <= 18 or span[SEQUENCE].at[0] == c'0':
            return False
        for i in range(span[SEQUENCE].size):
            if not c'0' <= span[SEQUENCE].at[i] <= c'9':
                return False
            scan.sequence = scan.sequence * 10 + (span[SEQUENCE].at[i] - c'0')
    span = scan.fields
    if span[USAGE].at == NULL or span[USAGE_DIALECT].at != NULL or span[MODEL].at == NULL or span[MODEL].size < 1:
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
            # An extension (given twice? UTF-8?) or another spelling of a name we read: for the plain decoder.
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
    """0 structured, 1 binary, 2 for the plain decoder."""
    cdef object pair, name, content
    cdef bint attributes = False
    cdef object content_type = None
    for pair in headers:
        if not PyTuple_CheckExact(pair) or PyTuple_GET_SIZE(pair) != 2:
            return 2
        name = <object>PyTuple_GET_ITEM(pair, 0)
        content = <object>PyTuple_GET_ITEM(pair, 1)
        if not PyUnicode_CheckExact(name) or not PyBytes_CheckExact(content):
            return 2
        if name == "content-type":
            if content_type is None:
                content_type = content
        elif name.lower() == "content-type":
            return 2
        elif name.lower().startswith("ce_"):
            attributes = True
    if content_type is None:
        return 1 if attributes else 0
    return 0 if content_type.strip().lower().startswith(b"application/cloudevents") else 1


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
    """Where the values and attributes of record objects, or of ``bytes``, lie; what keeps them there."""
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
        dense = given[rows - 1].offset - first_offset == rows - 1  # in order: so every one between is there
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
    PackedRecords packed, EventColumns columns, vector[Span]& values, vector[int32_t]& binary, vector[HeaderSpans]& envelopes
):
    """The same of packed records."""
    cdef Py_ssize_t row
    cdef PackedRow* at
    cdef PackedRow* structured = NULL   # a record whose headers say that the value is the whole event
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
    if mode == 1:
        for attribute in range(ATTRIBUTES):
            spans.attributes[attribute].at = NULL
        if not _read_headers(headers, &spans):
            return False
        binary[row] = <int32_t>envelopes.size()
        envelopes.push_back(spans)
        keep.append(headers)
    return mode != 2


cdef class EventColumns:
    """Usage events as columns, one row per record: numbers of source, account and combination, time in microseconds
    UTC, sequence (0: none), hashes, and the counts that are not 0 as (meter, count) pairs in canonical order."""

    def __len__(self):
        return self.rows

    def status_of(self, Py_ssize_t row):
        """0 read, 1 unread (for the plain decoder), 2 refused."""
        return self.status[self._row(row)]

    def refuse(self, Py_ssize_t row):
        """Mark a row as refused by the plain decoder."""
        self.status[self._row(row)] = REFUSED

    def unread(self):
        """The rows that wait for the plain decoder, in order."""
        return [row for row in range(self.rows) if self.status[row] == UNREAD]

    def reservations(self):
        """By row the reservation that it names, of the rows that were read here."""
        cdef size_t i
        return {
            self.reserved[i]: self.reservation[i].at[: self.reservation[i].size].decode()
            for i in range(self.reserved.size())
        }

    def id_of(self, Py_ssize_t row):
        """The id of a row that was read."""
        self._row(row)
        return self.id_at[row][: self.id_size[row]].decode()

    def as_tuple(self, Py_ssize_t row):
        """A read row as (source number, id, sequence, time_us, account number, combination number, id hash, content
        hash, ((meter number, count), ...)); for tests and for the plain rule."""
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
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        return row


cdef class Decoder:
    """Decodes batches of one partition; its tables of texts persist, so a text has one number for its life."""

    def __cinit__(self):
        self.sources = TextTable()
        self.accounts = TextTable()
        self.combinations = TextTable()
        self.meters = TextTable()
        self._last_source = -1

    def __init__(self):
        if len(METERS) != BUILT_IN_METERS or current_type("token.usage.v1") != "token.usage.v1":
            raise RuntimeError("cython_ext.decode knows other meters or another version than schemas: adapt it")
        for number, name in enumerate(METERS):
            text = name.encode()
            if self.meters.number(text) != number or _meter(text, len(text)) != number:
                raise RuntimeError(f"cython_ext.decode has another number for the meter {name}")

    def combination(self, Py_ssize_t number):
        """The seven texts of a combination: model, hardware tier, energy source, site, channel, service tier, outcome."""
        return tuple(self.combinations[number].decode().split("\x1f"))

    cpdef EventColumns decode(self, object records):
        """Decode records (packed, or ``bytes``, or objects with ``value`` and ``headers``) into columns.

        Records are in offset order. Never refuses a record: what the scanner does not read is left UNREAD.
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
        columns.offset.resize(rows)
        columns.logged_ms.resize(rows)
        if type(records) is PackedRecords:
            columns.keep = _spans_of_packed(records, columns, values, binary, envelopes)
        else:
            columns.keep = _spans_of_objects(list(records), columns, values, binary, envelopes)
        columns.rows = rows
        columns.status.resize(rows)
        columns.source.resize(rows)
        columns.id_at.resize(rows)
        columns.id_size.resize(rows)
        columns.id_hash.resize(rows)
        columns.sequence.resize(rows)
        columns.time_us.resize(rows)
        columns.account.resize(rows)
        columns.combination.resize(rows)
        columns.content_hash.resize(rows)
        columns.count_first.resize(rows)
        columns.count_number.resize(rows)
        columns.meter.reserve(4 * rows)
        columns.count.reserve(4 * rows)
        columns.ids.reserve(32 * rows)
        with nogil:
            for row in range(rows):
                if row + 6 < rows and values[row + 6].at != NULL:
                    for attribute in range(0, 512, 64):
                        tb_prefetch(values[row + 6].at + attribute)
                columns.status[row] = UNREAD
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

    cdef bint _scan(self, Scan* scan, Span value, HeaderSpans* envelope) noexcept nogil:
        """Read one record; False for the plain decoder."""
        cdef const char* p = _skip(value.at)
        cdef const char* begin = p
        scan.end = value.at + value.size
        if not _begin(scan, envelope):
            return False
        if self.shapes.read(p, scan, envelope != NULL) != NULL:
            return _check(scan)
        _begin(scan, envelope)
        p = _scan_envelope(scan, p) if envelope == NULL else _scan_data(scan, p)
        if p == NULL or _skip(p) != scan.end:
            return False
        if not _check(scan):
            return False
        self.shapes.learn(scan[0], begin, envelope != NULL)
        return True

    cdef int32_t _combination(self, Scan* scan, uint64_t* hash64) except -1 nogil:
        """The number of an event's combination, and its hash."""
        cdef char joined[DIMENSIONS * (MAX_TEXT + 1)]
        cdef Py_ssize_t length = 0
        cdef int32_t combination = -1
        cdef int i
        if scan.region.at != NULL:
            combination = self.shapes.combination(scan, hash64)
        if combination < 0:
            for i in range(DIMENSIONS):
                memcpy(joined + length, scan.fields[i].at, scan.fields[i].size)
                length += scan.fields[i].size
                joined[length] = 0x1F
                length += 1
            combination = self.combinations.intern(joined, length - 1)
            hash64[0] = self.combinations.hashes[combination]
            if scan.region.at != NULL:
                self.shapes.keep_combination(scan, combination, hash64[0])
        return combination

    cdef int _store(
        self, EventColumns columns, Py_ssize_t row, Scan* scan, Waiting* waiting
    ) except -1 nogil:
        """Fill the row but for its account."""
        cdef int32_t combination, source = self._last_source
        cdef uint64_t hash64 = 0
        cdef size_t size = scan.attributes[ID].size, at = columns.ids.size()
        cdef const char* text = scan.attributes[ID].at
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
        columns.id_hash[row] = <uint32_t>murmur3_64(text, size)
        columns.id_at[row] = text
        if at + size <= columns.ids.capacity():  # it must not move
            columns.ids.insert(columns.ids.end(), text, text + size)
            columns.id_at[row] = columns.ids.data() + at
        columns.id_size[row] = <int32_t>size
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
        waiting.row = row
        waiting.account = scan.attributes[SUBJECT]
        waiting.account_hash = murmur3_64(waiting.account.at, waiting.account.size)
        waiting.combination_hash = hash64
        tb_prefetch(self.accounts.slots.data() + (waiting.account_hash & self.accounts.mask))
        return 0

    cdef int _place(self, EventColumns columns, Waiting* waiting, int number) except -1 nogil:
        """Give the rows of a block their accounts; what is looked up is asked for a block at a time."""
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
            columns.content_hash[row] = self._content_hash(
                columns, row, waiting[i].account_hash, waiting[i].combination_hash
            )
            columns.status[row] = READ
        return 0

    cdef uint32_t _content_hash(
        self, EventColumns columns, Py_ssize_t row, uint64_t account, uint64_t combination
    ) noexcept nogil:
        """:func:`schemas.hashing.content_hash32` of a row, with the hashes of its account and combination."""
        cdef uint64_t words[3 + 2 * 255]
        cdef uint32_t i, first = columns.count_first[row], number = columns.count_number[row]
        words[0] = <uint64_t>columns.time_us[row]
        words[1] = account
        words[2] = combination
        for i in range(number):
            words[3 + 2 * i] = self.meters.hashes[columns.meter[first + i]]
            words[4 + 2 * i] = <uint64_t>columns.count[first + i]
        return <uint32_t>murmur3_64(<const char*>words, 8 * (3 + 2 * number))

    cpdef void set_event(self, EventColumns columns, Py_ssize_t row, object event) except *:
        """Fill an unread row with what the plain decoder read (a :class:`schemas.usage.UsageEvent`).

        Raises:
            OverflowError: more than 255 counts, or more than 32767 meters in this partition's life.
        """
        columns._row(row)
        if len(event.counts) > 255:
            raise OverflowError(f"an event counts {len(event.counts)} meters: the columns hold 255")
        cdef bytes text = event.id.encode()
        columns.keep.append(text)
        cdef list meters = [self.meters.number(meter.encode()) for meter, _ in event.counts]
        if len(self.meters) > 32767:
            raise OverflowError("the columns hold 32767 meters")
        joined = "\x1f".join(
            (
                event.model,
                event.hardware_tier,
                event.energy_source,
                event.site,
                event.channel,
                event.service_tier,
                event.outcome,
            )
        )
        columns.combination[row] = self.combinations.number(joined.encode())
        columns.source[row] = self.sources.number(event.source.encode())
        columns.account[row] = self.accounts.number(event.account.encode())
        columns.id_at[row] = PyBytes_AS_STRING(text)
        columns.id_size[row] = <int32_t>PyBytes_GET_SIZE(text)
        columns.id_hash[row] = <uint32_t>murmur3_64(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        columns.time_us[row] = event.time_us
        columns.sequence[row] = event.sequence or 0
        columns.count_first[row] = <uint32_t>columns.count.size()
        columns.count_number[row] = <uint8_t>len(meters)
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
