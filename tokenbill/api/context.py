"""What every handler shares, made once when the application starts. No state of a request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from billing.store.api.pool import ApiDatabase
from streams.send.sender import InputSender
from tokenbill.api.catalogue_routes import Catalogue
from tokenbill.api.http.auth import KeyRing
from tokenbill.api.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the servers are, how accounts are spread, and how many connections a process holds."""

    kafka: str
    database_url: str
    partitions: int
    connections: int = 8


@dataclass(frozen=True, slots=True)
class Context:
    """The servers as the handlers use them."""

    settings: ApiSettings
    database: ApiDatabase
    keys: KeyRing
    sender: InputSender
    outcomes: Outcomes
    catalogue: Catalogue
    sending: asyncio.Semaphore
    """How many requests may hold a connection while they wait for Kafka."""
    replaying: asyncio.Semaphore
    """How many balances of the past may be computed at once."""

    @property
    def partitions(self) -> int:
        """How many partitions accounts are spread over."""
        return self.settings.partitions


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(context_of)]
