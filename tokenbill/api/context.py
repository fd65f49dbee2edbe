"""What every handler shares, made once when the application starts. No state of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from billing.store.api_pool import ApiDatabase
from tokenbill.api.auth import KeyRing


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the servers are, and how many connections a process holds."""

    kafka: str
    database_url: str
    connections: int = 8


@dataclass(frozen=True, slots=True)
class Context:
    """The servers as the handlers use them."""

    settings: ApiSettings
    database: ApiDatabase
    keys: KeyRing


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(context_of)]
