"""Quotes: the price of a usage event and who would pay it, decided by the plain rules without changing anything.

The account is a copy, so a quote is what the pipeline would decide at this moment. Never: SQL, Kafka, the clock.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from billing.accounts.account import Account
from billing.calculator.interface import UsageBatch
from billing.calculator.plain import PlainCalculator
from billing.catalog.model import Catalog, PriceBook
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import PlainRecord
from billing.commits.outbox_frames import SEQUENCE_MARK, compress, unpack_frames
from billing.commits.output_documents import Stamp, account_object
from billing.pricing.explain import explain
from billing.pricing.match import RowIndex
from schemas.cloudevents import write_structured
from schemas.refusals import Refusal
from schemas.units import format_pico
from schemas.usage import USAGE_TYPE, parse_usage

QUOTE_SOURCE = "urn:tokenbill:quote"
_PAYER = "quoted"
_MEMORY = 1_000
"""Quotes after which a new calculator is made, because it keeps a small amount of memory for each quote."""
_PAID = ("burned", "charged", "absorbed")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a quote: ``data`` as in a usage event, ``account`` as stored, or None for the price alone."""

    price_book: str
    time_us: int
    data: dict[str, Any]
    account: Account | None


class Quoter:
    """Maker of quotes from one catalogue. Not thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._meters, self._attributes = catalog.declared_meters(), catalog.declared_attributes()
        self._indexes: dict[str, RowIndex] = {}
        self._calculator = self._new_calculator()
        self._made = 0

    def quote(self, asked: Asked, *, explained: bool) -> dict[str, Any] | Refusal:
        """Return the quote, or the rejection of the event.

        A quote is a rated line (docs/reference/command-line.md, "Rated line") without identity. With an account it also
        has ``burned``, ``charged``, ``absorbed``, ``absorbed_amount`` and the account ``after`` the event; if
        ``explained``, also ``explain``.
        """
        value = write_structured(USAGE_TYPE, QUOTE_SOURCE, f"q-{self._made}", asked.time_us, _PAYER, asked.data)
        event = parse_usage(value, declared_meters=self._meters, declared_attributes=self._attributes)
        if isinstance(event, Refusal):
            return event
        book = self._catalog.price_book_at(asked.price_book, asked.time_us)
        if book is None:
            return event.refuse("no_price_book", f"no version of price book {asked.price_book!r} is in force then")
        decided = self._decide(value, self._payer(asked, book))
        if isinstance(decided, Refusal):
            return decided
        line, after = decided
        quote = {name: line[name] for name in line if name not in ("source", "id", "account", "offset", *_PAID)}
        if asked.account is not None:
            quote |= {name: line[name] for name in _PAID}
            quote["absorbed_amount"] = format_pico(after.absorbed_pico - asked.account.absorbed_pico)
            quote["after"] = account_object(after)
        if explained:
            quote["explain"] = explain(event, self._index(book))
        return quote

    def _payer(self, asked: Asked, book: PriceBook) -> Account:
        if asked.account is not None:
            return replace(asked.account, account=_PAYER)
        return Account(_PAYER, book.currency, book.name, "prepaid", 0)

    def _decide(self, value: bytes, payer: Account) -> tuple[dict[str, Any], Account] | Refusal:
        if self._made % _MEMORY == 0:
            self._calculator = self._new_calculator()
        self._made += 1
        calculator = self._calculator
        calculator.put_account(payer, stored=True)
        decoded = calculator.decode(UsageBatch(0, 1, [PlainRecord(0, 0, None, value)], 0, None))
        outcome = calculator.apply(decoded)
        after = calculator.account(_PAYER)
        effects = calculator.take_effects(Stamp(0, 0, 0))
        for held in calculator.parts_held():
            calculator.drop_part(held.part)
        if outcome.rejected:
            return outcome.rejected[0][1]
        [frame] = unpack_frames(compress(effects.rated_frames))
        body = json.loads((frame.value or b"").replace(SEQUENCE_MARK, b"0"))
        if after is None:
            raise LookupError("the calculator lost the account that it was given")
        return body["data"]["events"][0], after

    def _new_calculator(self) -> PlainCalculator:
        calculator = PlainCalculator()
        calculator.load(PartitionState(0, 1))
        calculator.set_catalog(self._catalog)
        return calculator

    def _index(self, book: PriceBook) -> RowIndex:
        if book.label not in self._indexes:
            self._indexes[book.label] = RowIndex(book)
        return self._indexes[book.label]
