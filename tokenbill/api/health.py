"""Health pages, the only routes without a key. They reveal nothing about stored data."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from billing.errors import DatabaseDown, NotPrepared
from billing.store.api.partition_reads import stopped_numbers
from tokenbill.api.context import ApiContext, Shared
from tokenbill.api.http.problems import responses

router = APIRouter(tags=["health"])


async def missing(context: ApiContext) -> list[str]:
    """Return the reasons why the API cannot serve; none if the database answers and is prepared."""
    try:
        await _check(context)
    except (DatabaseDown, NotPrepared) as error:
        return [f"{'the database does not answer' if isinstance(error, DatabaseDown) else 'not prepared'}: {error}"]
    return []


async def _check(context: ApiContext) -> None:
    async with context.database.connection() as connection:
        await connection.execute("SELECT 1 FROM api_key LIMIT 1")


class Health(BaseModel):
    """Answer of a health page."""

    status: str = Field(description="always `ok`", pattern="^ok$")


class Readiness(BaseModel):
    """Answer of the readiness page."""

    status: str = Field(
        description="`ok`, or `degraded` while a partition is stopped: the API serves, and its usage waits",
        pattern="^(ok|degraded)$",
    )
    stopped_partitions: list[int] = Field(default=[], description="partitions that are stopped until resumed")


@router.get("/healthz", response_model=Health, openapi_extra={"security": []})
async def live() -> Any:
    """Return 200 while the process runs. Does not check the servers that the process needs."""
    return Health(status="ok")


@router.get(
    "/readyz",
    response_model=Readiness,
    openapi_extra={"security": []},
    responses={status: text for status, text in responses("starting").items() if status == 503},
)
async def ready(shared: Shared) -> Any:
    """Return 200 when the API can serve: the database answers and is prepared.

    A stopped partition does not make it unready, because the accounts of the others are served.
    """
    await _check(shared)
    stopped = await stopped_numbers(shared.database)
    return Readiness(status="degraded" if stopped else "ok", stopped_partitions=stopped)
