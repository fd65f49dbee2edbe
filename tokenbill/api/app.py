"""Assembly of the HTTP application: servers, request gate, routers, problem documents and the OpenAPI document."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from billing.store.api.pool import ApiDatabase
from billing.store.api.record_key_reads import ApiRecordKeys
from streams.health_pages import HealthState
from streams.send.sender import InputSender
from tokenbill import __version__
from tokenbill.api import (
    account_routes as accounts,
)
from tokenbill.api import (
    conflict_routes as conflicts,
)
from tokenbill.api import (
    health,
)
from tokenbill.api import (
    plan_routes as plans,
)
from tokenbill.api import (
    quote_routes as quotes,
)
from tokenbill.api import (
    suspense_routes as suspense,
)
from tokenbill.api import (
    usage_routes as usage,
)
from tokenbill.api.catalogue_routes import Catalogue
from tokenbill.api.context import ApiContext, ApiSettings
from tokenbill.api.holds import nchf, offline_grants, rating_groups, reservations
from tokenbill.api.holds.holding import holding
from tokenbill.api.http import problems
from tokenbill.api.http.api_metrics import ApiMetrics
from tokenbill.api.http.auth import Caller, KeyRing
from tokenbill.api.http.bodies import JSON
from tokenbill.api.http.charging_port import ChargingAddress, charging_port
from tokenbill.api.http.gate import Gate, Verify
from tokenbill.api.orders import command_routes as commands
from tokenbill.api.outcomes import Outcomes

ROUTERS = (
    *(reservations.router, health.router, accounts.router, commands.router, usage.router, plans.router, quotes.router),
    *(
        offline_grants.router,
        nchf.router,
        nchf.sessions,
        rating_groups.router,
        suspense.router,
        conflicts.router,
        conflicts.resolutions,
    ),
)


READY_SECONDS = 8.0
"""Time for the check of readiness: more than a request waits for a database connection."""


def create_app(settings: ApiSettings, charging: ChargingAddress | None = None) -> FastAPI:
    """Create the application. It connects to its servers when it starts to serve, not before.

    ``charging`` is the address of a port for gateways alone; None: they use the port of the others.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.loop = asyncio.get_running_loop()
        database = ApiDatabase(settings.database_url, settings.connections)
        await database.open()
        sender = InputSender(settings.kafka)
        outcomes = Outcomes(settings.kafka, database)
        outcomes.start()
        catalogue = Catalogue(database)
        turns = asyncio.Semaphore(max(1, settings.connections // 2))
        keys, record_keys = KeyRing(database), ApiRecordKeys(database)
        app.state.context = ApiContext(
            settings, database, keys, record_keys, sender, outcomes, catalogue, turns, asyncio.Semaphore(1)
        )
        try:
            async with holding(settings.database_url, sender, settings.partitions, record_keys) as app.state.holding:
                port = contextlib.nullcontext() if charging is None else charging_port(app, charging)
                async with port:
                    yield
        finally:
            await outcomes.close()
            await asyncio.to_thread(sender.close)
            catalogue.close()
            await database.close()

    app = FastAPI(
        title="Tokenbill",
        version=__version__,
        description="Billing and settlement of AI tokens (词元). Every error is a problem document (RFC 9457).",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )

    app.state.metrics = ApiMetrics()
    app.add_middleware(Gate, verify=_verifier(app), answered=app.state.metrics.answered)
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def served(app: FastAPI) -> ASGIApp:
    """Return the application as the server runs it: ``POST /v1/reservations`` bypasses FastAPI.

    That route is requested thousands of times a second. It passes the gate and then its handler, which reads the
    request by itself. The way through the application (middleware, route matching, dependencies) takes longer than the
    handler. The route is registered in the application as well, so that the OpenAPI document describes it.
    """

    async def direct(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await reservations.reserve_quota(Request(scope, receive))
        await answer(scope, receive, send)

    gate = Gate(direct, _verifier(app), app.state.metrics.answered)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == reservations.PATH and scope["method"] == "POST":
            scope["app"] = app
            await gate(scope, receive, send)
        else:
            await app(scope, receive, send)

    return serve


def readiness(app: FastAPI) -> Callable[[], HealthState]:
    """Return a function for another thread that returns ``ready`` and ``missing`` of the running application."""

    def state() -> HealthState:
        loop: asyncio.AbstractEventLoop | None = getattr(app.state, "loop", None)
        if loop is None or not loop.is_running():
            return {"ready": False, "missing": ["the application has not started, or has ended"]}
        try:
            missing = asyncio.run_coroutine_threadsafe(health.missing(app.state.context), loop).result(READY_SECONDS)
        except TimeoutError:
            missing = [f"no answer within {READY_SECONDS:g} s"]
        return {"ready": not missing, "missing": missing}

    return state


def _verifier(app: FastAPI) -> Verify:
    async def verify(scope: Scope, header: bytes | None) -> Caller:
        context: ApiContext = app.state.context
        return await context.keys.verify(header)

    return verify


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with bearer keys as its security scheme and the problems that are really sent."""
    if app.openapi_schema is None:
        from fastapi.openapi.utils import get_openapi

        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        parts = document.setdefault("components", {})
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "tbk_ID_SECRET"}}
        parts.setdefault("schemas", {})["ProblemBody"] = problems.ProblemBody.model_json_schema()
        document["security"] = [{"key": []}]
        for methods in document["paths"].values():
            for operation in methods.values():
                # FastAPI documents a 422 of its own for failed validation; this API answers with a problem, status 400.
                if JSON in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
        for unused in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
