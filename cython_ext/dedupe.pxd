from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp.map cimport map as ordered_map
from libcpp.unordered_map cimport unordered_map
from libcpp.unordered_set cimport unordered_set
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from cython_ext.decode cimport EventColumns
from cython_ext.tables cimport TextTable


cdef extern from "memory.hpp" nogil:
    enum:
        tb_unknown_source, tb_numbered, tb_unnumbered

    cdef struct TbHashes:
        uint32_t id
        uint32_t content

    # Declared noexcept are those that allocate nothing.
    cdef cppclass TbSource:
        uint8_t kind
        bint touched
        int64_t highest
        vector[pair[int64_t, int64_t]] runs
        unordered_set[int64_t] refused
        vector[char] pending
        bint undecided() noexcept
        int64_t highest_seen() noexcept
        void load(int64_t first, int64_t last) except +
        void decide(bint numbered) noexcept
        bint has(int64_t number) noexcept
        void add(int64_t number) except +
        void remember(int64_t number, TbHashes hashes) except +
        const TbHashes* recall(int64_t number) noexcept
        void keep(int64_t number, TbHashes hashes) except +

    cdef cppclass TbIdentities:
        size_t used
        size_t bytes_held() noexcept
        const uint32_t* find(uint64_t first, uint64_t second) noexcept
        void reserve(size_t more) except +
        void put(uint64_t first, uint64_t second, uint32_t content) except +

    cdef cppclass TbFilter:
        size_t bytes_held() noexcept

    cdef cppclass TbPart:
        int64_t log_hour_us
        int64_t first_commit
        int64_t last_commit
        bint open
        bint held
        TbIdentities identities
        TbFilter filter
        bint may_have(uint64_t first, uint64_t second) noexcept
        void shrink() except +

    ctypedef unordered_map[int64_t, TbIdentities] TbHours
    ctypedef ordered_map[pair[int64_t, int64_t], vector[char]] TbPending
    void tb_keep(
        TbPending* pending, int64_t hour_us, int64_t log_hour_us, uint64_t first, uint64_t second, uint32_t content
    ) except +
    TbIdentities* tb_hour(TbHours* hours, int64_t hour_us) noexcept


cdef enum:
    HOUR_US = 3600000000        # schemas.times.HOUR_US
    RESEND_US = 86400000000     # billing.log_time.RESEND_US
    NO_LOG_HOUR = -1            # of an identity that was rated without its account


cdef enum:                      # answers of look
    NEW, DUPLICATE, CONFLICT, REUSED, NO_NUMBER, TOO_FAR


cdef class Memory:
    cdef TextTable sources
    cdef TextTable accounts
    cdef vector[TbSource] known     # by number of the source
    cdef TbHours hours
    cdef vector[TbPart] parts       # oldest first
    cdef TbPending pending          # what the commit adds
    cdef bint names_account         # rules of identity: billing.log_time.IdentityRules
    cdef bint has_log
    cdef int64_t sequence_jump
    cdef int64_t future_us
    cdef int64_t commit_no
    cdef int64_t unlogged_until_us
    cdef int look(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil
    cdef int rated(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil
    cdef int rated_by_hash(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil
    cdef bint numbered(self, EventColumns columns, Py_ssize_t row) except -1 nogil
    cdef int look_by_hash(self, EventColumns columns, Py_ssize_t row, int64_t log_time_us) except -1 nogil
    cdef bint by_event_hour(self, int64_t time_us, int64_t log_time_us) noexcept nogil
    cdef int64_t window_us(self, int64_t log_time_us) noexcept nogil
    cdef TbPart* part_of(self, int64_t log_hour_us, int64_t first_commit) noexcept nogil
    cdef int new_part(self, int64_t log_hour_us, int64_t first, int64_t last, bint open_) except -1 nogil
    cdef uint32_t id_hash(self, EventColumns columns, Py_ssize_t row, bint names_account) noexcept nogil
    cdef void identity(
        self, EventColumns columns, Py_ssize_t row, bint names_account, uint64_t* first, uint64_t* second
    ) noexcept nogil
