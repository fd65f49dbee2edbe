"""Cache of the published catalogue, and quotes computed from it in one thread beside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from billing.catalog import Catalog
from billing.catalog.entries import from_entries
from billing.decide.bill_usage import UsageRules
from billing.engine.quoter import Asked, Quoter
from billing.pricing.rate import Raters
from billing.store.api.catalog_reads import read_bodies, read_epoch
from billing.store.api.pool import ApiDatabase
from schemas.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Edition:
    """One epoch of the catalogue, with its quoter."""

    epoch: int
    catalog: Catalog
    quoter: Quoter
    declared_meters: frozenset[str]
    """Meters that price books declare beyond the built-in ones."""
    declared_attributes: frozenset[str]
    """Attributes of events that price books declare as dimensions."""
    usage_rules: UsageRules
    """Rules of usage for the admission of events, for the event loop only."""


class Catalogue:
    """The catalogue for all requests of a process. Each answer uses the epoch that is published at that moment."""

    def __init__(self, database: ApiDatabase) -> None:
        self._database = database
        self._edition: Edition | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catalogue")

    async def current(self) -> Edition:
        """Return the published catalogue. It is read again only if its epoch has changed."""
        known = self._edition
        if known is not None and known.epoch == await read_epoch(self._database):
            return known
        epoch, bodies = await read_bodies(self._database)
        edition = await asyncio.get_running_loop().run_in_executor(self._thread, _edition, epoch, bodies)
        if self._edition is None or self._edition.epoch < epoch:
            self._edition = edition
        return edition

    async def quote(self, edition: Edition, asked: Asked, explained: bool) -> dict[str, Any] | Refusal:
        """Return what usage would cost (:class:`billing.engine.quoter.Quoter`), or why it would be rejected."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: edition.quoter.quote(asked, explained=explained))

    def close(self) -> None:
        """Shut down the thread."""
        self._thread.shutdown(cancel_futures=True)


def _edition(epoch: int, bodies: list[dict[str, Any]]) -> Edition:
    catalog = from_entries(bodies)
    rules = UsageRules(catalog, catalog.plans_by_key().__getitem__, Raters())
    return Edition(epoch, catalog, Quoter(catalog), catalog.declared_meters(), catalog.declared_attributes(), rules)
