"""Routes that read all versions of plans and price books. The catalogue is published from files, not over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from billing.catalog.entry_documents import book_head, book_object, plan_object
from billing.catalog.model import PriceBook
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN
from schemas.outputs import Decimal
from tokenbill.api.context import Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Reader
from tokenbill.api.http.pages import Cursor, Limit, page, read_cursor
from tokenbill.api.http.problems import Problem, responses

router = APIRouter(prefix="/v1", tags=["catalogue"])

EntryName = Annotated[
    str, Path(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="name of the entry")
]
PathVersion = Annotated[int, Path(ge=1, lt=2**31, description="version of the price book")]


class PlanPrice(BaseModel):
    """The fee of one cycle."""

    amount: Decimal = Field(description="fee, tax included")
    currency: str = Field(description="currency of the fee")
    tax_rate: Decimal = Field(description="tax rate that the fee includes")


class PlanBody(BaseModel):
    """One immutable version of a plan as written in its file, with defaults filled in."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="plan name")
    version: int = Field(description="version number")
    title: dict[str, str] = Field(description="title by language: zh, en")
    price: PlanPrice = Field(description="fee of one cycle")
    cycle: dict[str, Any] = Field(description="length of a cycle")
    buckets: list[dict[str, Any]] = Field(description="buckets that one cycle grants")
    overage: dict[str, Any] = Field(description="rule for usage that no bucket covers")
    withdrawn_from: str = Field(
        default="",
        description="only in a version that withdraws the plan: time from which no version is sold; the latest decides",
    )


class PlanPage(BaseModel):
    """A page of plans by name, each in its latest version."""

    items: list[PlanBody] = Field(description="plans of this page")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


class PlanVersions(BaseModel):
    """Every version of one plan, latest first."""

    name: str = Field(description="plan name")
    versions: list[PlanBody] = Field(description="versions of the plan")


class BookHead(BaseModel):
    """One immutable version of a price book, without its rows."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="price book name")
    version: int = Field(description="version number")
    currency: str = Field(description="currency of the prices")
    tax_rate: Decimal = Field(description="tax rate that the prices include")
    effective_from: str = Field(description="time from which the version is in force")
    rows: int = Field(description="number of rows")


class BookPage(BaseModel):
    """A page of price book versions, sorted by name and version."""

    items: list[BookHead] = Field(description="versions of this page")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


class BookBody(BaseModel):
    """One immutable version of a price book with its rows, as written in its file, with defaults filled in."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="price book name")
    version: int = Field(description="version number")
    currency: str = Field(description="currency of the prices")
    rows: list[dict[str, Any]] = Field(description="rows in order")
    adjustments: list[dict[str, Any]] = Field(description="adjustments in order")


def _place(book: PriceBook) -> str:
    """Return a text that sorts by name, then by version."""
    return f"{book.name}\x01{book.version:010d}"


@router.get("/plans", response_model=PlanPage, responses=responses("invalid_cursor"))
async def plans(shared: Shared, caller: Reader, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """List plans by name, each in its latest version."""
    catalog = (await shared.catalogue.current()).catalog
    after = read_cursor(cursor)
    latest = {plan.name: plan for plan in sorted(catalog.plans, key=lambda one: (one.name, one.version))}
    found, more = page([plan for name, plan in latest.items() if name > after], limit, lambda plan: plan.name)
    return json_answer({"items": [plan_object(plan) for plan in found], "next_cursor": more})


@router.get("/plans/{name}", response_model=PlanVersions, responses=responses("unknown_plan"))
async def plan(shared: Shared, caller: Reader, name: EntryName) -> Response:
    """Return every version of a plan, latest first."""
    catalog = (await shared.catalogue.current()).catalog
    found = sorted((plan for plan in catalog.plans if plan.name == name), key=lambda one: -one.version)
    if not found:
        raise Problem("unknown_plan", f"There is no plan {name!r}.")
    return json_answer({"name": name, "versions": [plan_object(plan) for plan in found]})


@router.get("/price-books", response_model=BookPage, responses=responses("invalid_cursor"))
async def price_books(shared: Shared, caller: Reader, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """List every version of every price book, without rows."""
    catalog = (await shared.catalogue.current()).catalog
    after = read_cursor(cursor)
    books = sorted(catalog.price_books, key=lambda book: (book.name, book.version))
    found, more = page([book for book in books if _place(book) > after], limit, _place)
    return json_answer({"items": [book_head(book) for book in found], "next_cursor": more})


@router.get(
    "/price-books/{name}/versions/{version}", response_model=BookBody, responses=responses("unknown_price_book")
)
async def price_book(shared: Shared, caller: Reader, name: EntryName, version: PathVersion) -> Response:
    """Return one version of a price book with its rows."""
    found = (await shared.catalogue.current()).catalog.price_book(name, version)
    if found is None:
        raise Problem("unknown_price_book", f"There is no price book {name!r} version {version}.")
    return json_answer(book_object(found))
