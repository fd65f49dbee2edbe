"""Health pages, the only ones without a key. They say nothing about what is stored."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenbill.api.context import Shared
from tokenbill.api.http.problems import responses

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: str = Field(description="ok", pattern="^ok$")


@router.get("/healthz", response_model=Health, openapi_extra={"security": []})
async def live() -> Any:
    """Whether the process lives. Says nothing about the servers it needs."""
    return Health(status="ok")


@router.get(
    "/readyz",
    response_model=Health,
    openapi_extra={"security": []},
    responses={status: text for status, text in responses("starting").items() if status == 503},
)
async def ready(shared: Shared) -> Any:
    """Whether it serves: the database answers and is prepared."""
    async with shared.database.connection() as connection:
        await connection.execute("SELECT 1 FROM api_key LIMIT 1")
    return Health(status="ok")
