"""The catalogue as this process last read it, and what is computed from it, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from billing.catalog import Catalog
from billing.catalog.entries import from_entries
from billing.engine.quoter import Asked, Quoter
from billing.store.api.catalog_reads import read_bodies, read_epoch
from billing.store.api.pool import ApiDatabase
from schemas.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Edition:
    """The catalogue of one epoch."""

    epoch: int
    catalog: Catalog
    quoter: Quoter
    declared_meters: frozenset[str]
    """Meters that some price book declares beyond the built-in ones."""


class Catalogue:
    """One per process. Every answer is by the epoch that is published at that moment."""

    def __init__(self, database: ApiDatabase) -> None:
        self._database = database
        self._edition: Edition | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catalogue")

    async def current(self) -> Edition:
        """The catalogue that is published now."""
        known = self._edition
        if known is not None and known.epoch == await read_epoch(self._database):
            return known
        epoch, bodies = await read_bodies(self._database)
        edition = await asyncio.get_running_loop().run_in_executor(self._thread, _edition, epoch, bodies)
        if self._edition is None or self._edition.epoch < epoch:
            self._edition = edition
        return edition

    async def quote(self, edition: Edition, asked: Asked, explained: bool) -> dict[str, Any] | Refusal:
        """What usage would cost (:class:`billing.engine.quoter.Quoter`)."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: edition.quoter.quote(asked, explained=explained))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


def _edition(epoch: int, bodies: list[dict[str, Any]]) -> Edition:
    catalog = from_entries(bodies)
    return Edition(epoch, catalog, Quoter(catalog), catalog.declared_meters())
