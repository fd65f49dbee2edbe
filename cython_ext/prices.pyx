"""The price tables of the core; :mod:`billing.calculator.core_prices` fills them with answers of the plain rules."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t
from libcpp.utility cimport pair

from cython_ext.prices cimport (
    TbNoRow,
    TbPiece,
    TbPrice,
    TbPrices,
    TbVersion,
    tb_no_row_price,
    tb_plain_price,
    tb_unknown_price,
)
from cython_ext.wide cimport tb_million

from schemas.meters import METERS, is_context_meter, is_output_meter

cdef enum:
    MAX_SITUATIONS = 1048576   # 2^20, of the table of momentary prices and of the time bands of a version
    MAX_PIECE = 1048576     # bytes of a constant piece of JSON
    MAX_PRICE_PIECE = 256   # bytes of the piece of a unit price: TbPrices::most_of_line counts on it
    MAX_PIECES = 0xFFFFFFFF    # bytes of all pieces, by TbPiece

cdef int64_t INT64_MAX = 0x7FFFFFFFFFFFFFFF     # billing.catalog.source.MAX_INT64


cdef class PriceTables:
    """Versions of price books, unit prices, and which unit prices a combination has in a version at a moment."""

    def __cinit__(self):
        for meter, name in enumerate(METERS):
            self.tables.meter_heads[meter] = self._piece(b'{"meter":"' + name.encode() + b'","quantity":')
            self.tables.meter_names[meter] = self._piece(repr(name).encode())
            if is_context_meter(name):
                self.tables.context_meters |= <uint32_t>1 << <int>meter
            if is_output_meter(name):
                self.tables.output_meters |= <uint32_t>1 << <int>meter

    def clear(self):
        """Forget which versions are in force and which prices match; numbers of versions and prices stay valid."""
        cdef size_t i
        self.tables.in_force.clear()
        self.tables.momentary.clear()
        for i in range(self.tables.versions.size()):
            self.tables.versions[i].price_of.clear()
            self.tables.versions[i].bands_of.clear()
            self.tables.versions[i].last_slot = -1

    def add_version(
        self,
        int16_t book_number,
        int16_t currency_number,
        book,
        bytes head not None,
        bytes label not None,
        edges=(),
        output_edges=(),
    ):
        """Put a price book version in force, in order of ``effective_from_us`` and version; returns its number.

        ``head`` is the JSON of a rated line between the account's text and the amount's, ``label`` that between the
        standard tokens and the first meter. ``edges`` are the contexts at which a price may change, rising, and
        ``output_edges`` the output lengths.

        Raises:
            OverflowError: the tax rate is not between 0 and 1, or a piece of JSON is too long.
        """
        cdef TbVersion version
        cdef int32_t number = <int32_t>self.tables.versions.size()
        if not 0 <= book.tax_rate_micro <= tb_million:
            raise OverflowError(f"{book.label}: the tax rate is not between 0 and 1")
        version.book = book_number
        version.currency = currency_number
        version.tax_divisor = tb_million + <int64_t>book.tax_rate_micro
        version.head = self._piece(head)
        version.label = self._piece(label)
        version.edges = edges
        version.output_edges = output_edges
        self.tables.versions.push_back(version)
        if self.tables.in_force.size() <= <size_t>book_number:
            self.tables.in_force.resize(book_number + 1)
        self.tables.in_force[book_number].push_back(pair[int64_t, int32_t](book.effective_from_us, number))
        return number

    def add_price(self, prices not None, list refusal not None):
        """Keep unit prices; returns their number, or -1 where only the plain rule can compute with them.

        ``prices`` are {meter number: (pico a unit, micro standard tokens a unit, JSON between quantity and amount)}.
        ``refusal`` is the refusal of a meter that has no price, as JSON from after the id: before, between and after
        the name of the meter in quotes and its count. It is empty where the plain rule refuses the meter.

        Raises:
            OverflowError: a piece of JSON has more than 256 bytes.
        """
        cdef TbPrice price
        cdef int meter
        if any(not 0 <= pico <= INT64_MAX or not 0 <= micro <= INT64_MAX for pico, micro, _ in prices.values()):
            return tb_plain_price
        for number, (pico, micro, piece) in prices.items():
            if not 0 <= number < len(METERS):
                continue  # a declared meter: an event that counts it goes to the plain rule
            if len(piece) > MAX_PRICE_PIECE:
                raise OverflowError("a constant piece of output is too long")
            meter = number
            price.priced |= <uint32_t>1 << meter
            price.of[meter].price_pico = pico
            price.of[meter].coefficient_micro = micro
            price.of[meter].piece = self._piece(piece)
        if refusal:
            price.missing, price.missing_middle, price.missing_tail = [self._piece(piece) for piece in refusal]
        self.tables.prices.push_back(price)
        return self.tables.prices.size() - 1

    def add_no_row(self, bytes head not None, bytes tail not None, bytes between not None=b""):
        """Keep the refusal that no row matches, as JSON from after the id to the context, and after it; returns a
        number that stands for a price. With ``between`` the output length follows the context and that."""
        cdef TbNoRow none
        none.head = self._piece(head)
        none.between = self._piece(between)
        none.tail = self._piece(tail)
        self.tables.no_row.push_back(none)
        return tb_no_row_price + 1 - <int>self.tables.no_row.size()

    def set_outside(self, bytes head not None, bytes tail not None):
        """Keep the refusal of a time before the first version of the only book, as JSON to the time, and after it."""
        self.tables.outside = self._piece(head)
        self.tables.outside_tail = self._piece(tail)

    def set_price(self, int32_t version, int32_t combination, int32_t price):
        """Set the price of a combination in a version: the number of :meth:`add_price`, or -1 where only the plain rule
        can price it, or -3 where the price depends on the context and the time of the event.

        Raises:
            IndexError: there is no such version, combination or price.
        """
        cdef TbVersion* known = self._version(version, combination, price)
        if known.price_of.size() <= <size_t>combination:
            known.price_of.resize(combination + 1, tb_unknown_price)
        known.price_of[combination] = price

    def set_bands(self, int32_t version, int64_t slot, int32_t bands):
        """Set the time bands that contain a quarter of an hour, ``slot`` since 1970 UTC: the number of that set, below
        2^16, or -1 where a band begins or ends within the slot.

        Raises:
            IndexError: there is no such version.
        """
        cdef TbVersion* known = self._version(version, 0, tb_plain_price)
        if known.bands_of.size() >= MAX_SITUATIONS:
            known.bands_of.clear()
        known.bands_of[slot] = bands

    def set_price_at(self, int32_t version, int32_t combination, int32_t segment, int32_t bands, int32_t price):
        """Set the price of a combination between edges, in a set of time bands. ``segment`` is the number of context
        edges at or below the context, and 256 for each output edge at or below the output length. The price is the
        number of :meth:`add_price` or :meth:`add_no_row`, or -1.

        Raises:
            IndexError: there is no such version, combination or price.
        """
        self._version(version, combination, price)
        if self.tables.momentary.size() >= MAX_SITUATIONS:
            self.tables.momentary.clear()
        self.tables.momentary[self.tables.situation(version, combination, segment, bands)] = price

    @property
    def wanted_price(self):
        """The (version, combination) whose price need 2 asks for."""
        return self.tables.wanted.version, self.tables.wanted.combination

    @property
    def wanted_moment(self):
        """The (version, combination, segment, bands, slot) whose price need 6 asks for; the slot lies in the bands."""
        return (
            self.tables.wanted.version,
            self.tables.wanted.combination,
            self.tables.wanted.segment,
            self.tables.wanted.bands,
            self.tables.wanted.slot,
        )

    @property
    def wanted_bands(self):
        """The (version, slot) whose time bands need 7 asks for."""
        return self.tables.wanted.version, self.tables.wanted.slot

    cdef TbVersion* _version(self, int32_t version, int32_t combination, int32_t price) except NULL:
        """Return a version, or raise IndexError where there is no such version, combination or price."""
        if not 0 <= version < <Py_ssize_t>self.tables.versions.size() or combination < 0:
            raise IndexError(f"version {version}, combination {combination}")
        if price >= <Py_ssize_t>self.tables.prices.size() or (
            price <= tb_no_row_price and tb_no_row_price - price >= <Py_ssize_t>self.tables.no_row.size()
        ):
            raise IndexError(f"price {price}")
        return &self.tables.versions[version]

    cdef TbPiece _piece(self, bytes text) except *:
        """Keep a constant piece of JSON."""
        cdef TbPiece piece
        cdef const char* data = text
        if self.tables.pieces.size() + len(text) > MAX_PIECES or len(text) > MAX_PIECE:
            raise OverflowError("a constant piece of output is too long")
        piece.at = <uint32_t>self.tables.pieces.size()
        piece.size = <uint32_t>len(text)
        self.tables.pieces.insert(self.tables.pieces.end(), data, data + len(text))
        return piece
