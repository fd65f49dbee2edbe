"""Table of 3GPP rating groups and the usage that each one means, maintained by an administrator.

A group without an entry means the model ``rating-group-N``, which a price book may price.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from billing.store.api.rating_group_rows import list_rating_groups, put_rating_group, read_rating_group
from schemas.fields import Name, Text
from schemas.usage import UsageAttributes
from tokenbill.api.context import ApiContext, context_of
from tokenbill.api.holds.reservations import read_body
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.bodies import described, strict_schema
from tokenbill.api.http.problems import Problem, responses

router = APIRouter(prefix="/v1/rating-groups", tags=["rating groups"])

GROUPS_REMEMBERED_SECONDS = 5.0
_REMEMBERED = 10_000
Number = Annotated[int, Path(ge=0, lt=2**32, description="rating group")]


class RatingGroup(BaseModel):
    """The dimensions of the usage of a rating group, and the meter that each of its units counts."""

    model_config = ConfigDict(frozen=True)

    model: Name = Field(description="model")
    hardware_tier: Text = Field(default="unknown", description="as in a usage event")
    energy_source: Text = Field(default="unknown", description="as in a usage event")
    site: Text = Field(default="unknown", description="as in a usage event")
    channel: Text = Field(default="cloud", description="as in a usage event")
    service_tier: Text = Field(default="standard", description="as in a usage event")
    attributes: UsageAttributes = Field(default_factory=dict, description="as in a usage event")
    serviceSpecificUnits: Name = Field(default="output", description="meter that counts these units")
    totalVolume: Name = Field(default="output", description="meter that counts these units")
    uplinkVolume: Name = Field(default="input", description="meter that counts these units")
    downlinkVolume: Name = Field(default="output", description="meter that counts these units")
    time: Name = Field(default="milliseconds", description="meter that counts time")
    unitsPerSecond: int = Field(
        default=1_000,
        ge=0,
        le=10**9,
        strict=True,
        description="units of that meter in one second; 0: time is not billed",
    )
    unit: Literal["serviceSpecificUnits", "totalVolume", "time"] | None = Field(
        default=None,
        description="unit that the group counts, if a container has several, and grants, if none is named; null: the "
        "first of service-specific units, volume and time",
    )

    def meter_of(self, unit: str) -> str:
        """Return the meter that counts a unit of the specification."""
        return str(getattr(self, unit))

    def dimensions(self) -> dict[str, str]:
        """Return the dimensions of the usage."""
        names = ("model", "hardware_tier", "energy_source", "site", "channel", "service_tier")
        return {name: getattr(self, name) for name in names} | {"outcome": "completed"}


class RatingGroups(BaseModel):
    """All rating groups that have an entry."""

    items: dict[str, RatingGroup] = Field(description="by number")


async def rating_group_of(request: Request, number: int) -> RatingGroup:
    """Return the meaning of a rating group. A change takes effect within five seconds."""
    known: dict[int, tuple[float, RatingGroup]] = request.app.state.__dict__.setdefault("rating_groups", {})
    now = time.monotonic()
    found = known.get(number)
    if found is not None and now < found[0]:
        return found[1]
    body = await read_rating_group(context_of(request).database, number)
    group = RatingGroup(model=f"rating-group-{number}") if body is None else RatingGroup.model_validate(body)
    if len(known) >= _REMEMBERED:
        known.clear()
    known[number] = (now + GROUPS_REMEMBERED_SECONDS, group)
    return group


@router.get("", response_model=RatingGroups, responses=responses())
async def rating_groups(request: Request, caller: Annotated[Caller, Depends(needs("correct"))]) -> Response:
    """List the rating groups that have an entry."""
    shared: ApiContext = context_of(request)
    return json_answer({"items": {str(number): body for number, body in await list_rating_groups(shared.database)}})


@router.put(
    "/{number}",
    response_model=RatingGroup,
    responses=responses("other_account", "invalid_data", "unsupported_media_type", "too_large"),
    openapi_extra=described(strict_schema(RatingGroup)),
)
async def set_rating_group(
    request: Request, number: Number, caller: Annotated[Caller, Depends(needs("correct"))]
) -> Response:
    """Set the usage that a rating group means from now on, for every account. A key bound to one account is refused."""
    if caller.account is not None:
        raise Problem("other_account", f"A rating group is for every account; the key is for {caller.account!r} alone.")
    group, _ = await read_body(request, RatingGroup)
    shown: dict[str, Any] = group.model_dump()
    await put_rating_group(context_of(request).database, number, shown)
    return json_answer(shown)
