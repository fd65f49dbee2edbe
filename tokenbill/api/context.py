"""State that all handlers share, created once when the application starts. Holds no state of a request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from billing.store.api.pool import ApiDatabase
from billing.store.api.record_key_reads import ApiRecordKeys
from streams.send.sender import InputSender
from tokenbill.api.catalogue_routes import Catalogue
from tokenbill.api.http.auth import KeyRing
from tokenbill.api.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Addresses of the servers, number of partitions, and number of database connections of one process."""

    kafka: str
    database_url: str
    partitions: int
    connections: int = 8


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The servers and caches that the handlers use."""

    settings: ApiSettings
    database: ApiDatabase
    keys: KeyRing
    record_keys: ApiRecordKeys
    """The keys that mark the records of the API as the product's own."""
    sender: InputSender
    outcomes: Outcomes
    catalogue: Catalogue
    sending: asyncio.Semaphore
    """Limits the requests that hold a database connection while they wait for Kafka."""
    replaying: asyncio.Semaphore
    """Limits the replays that run at the same time."""

    @property
    def partitions(self) -> int:
        """Number of partitions over which the accounts are distributed."""
        return self.settings.partitions


def context_of(request: Request) -> ApiContext:
    """Return the context of the application that serves this request."""
    context: ApiContext = request.app.state.context
    return context


Shared = Annotated[ApiContext, Depends(context_of)]
