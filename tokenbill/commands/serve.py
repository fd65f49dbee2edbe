"""``tokenbill serve`` runs the HTTP API in the foreground until SIGTERM; ``tokenbill api-key`` manages its keys."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from billing.store.api.keys import ROLES, ApiKey
from tokenbill.command_database import opened
from tokenbill.commands.process import log_to_stderr, may_open_files, servers, tune_garbage_collection, wait_for_topics
from tokenbill.commands.table import write_rows
from tokenbill.commands.times import time_option
from tokenbill.user_errors import UserError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from streams.health_pages import HealthState

log = logging.getLogger("tokenbill.api")

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
SERVE_STOP_SECONDS = 10
WEB_PORT = 6070
"""Port of the pages of health and metrics, if none is given."""
_OTHER_FILES = 200
"""Files that the API has open besides the connections of its clients."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8080, show_default=True, help="Port to listen on.")
@click.option(
    "--connections",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    help="Largest number of connections at once.",
)
@click.option(
    "--connections-per-address",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="Largest number of connections of one address at once. Behind a proxy, give it the number of --connections.",
)
@click.option(
    "--charging-port",
    type=click.IntRange(1, 65_535),
    help="Port for gateways: 3GPP charging alone, over HTTP/2 with prior knowledge [default: none; --port has it too].",
)
@click.option("--charging-host", default="127.0.0.1", show_default=True, help="Address of the charging port.")
@click.option(
    "--web-port", type=int, help=f"Port of /healthz, /readyz and /metrics, without key [default: {WEB_PORT}]."
)
@click.option(
    "--web-host", default="127.0.0.1", show_default=True, help="Address of /healthz, /readyz and /metrics, without key."
)
@_DATA_DIR
def serve(
    host: str,
    port: int,
    connections: int,
    connections_per_address: int,
    charging_port: int | None,
    charging_host: str,
    web_port: int | None,
    web_host: str,
    data_dir: Path | None,
) -> None:
    """Run the HTTP API in the foreground.

    Several instances may run behind a proxy; they share only the servers. The API speaks plain HTTP: on an address
    other than loopback, put a proxy with TLS in front of it.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL are the addresses of the servers; if they are not set, the servers of the
    local stack in --data-dir are used.

    \b
    Example:
      tokenbill serve --port 8080 --web-port 6070
      tokenbill serve --port 8080 --charging-host 10.20.0.5 --charging-port 7777
    """
    import uvicorn

    from tokenbill.api.app import create_app, readiness, served
    from tokenbill.api.context import ApiSettings
    from tokenbill.api.http.bounded_connection import ConnectionLimits, bounded
    from tokenbill.api.http.charging_port import ChargingAddress

    log_to_stderr()
    may_open_files(connections + _OTHER_FILES)
    kafka, database = servers(data_dir)
    charging = None if charging_port is None else ChargingAddress(charging_host, charging_port, connections)
    app = create_app(ApiSettings(kafka, database, wait_for_topics(kafka)), charging)
    app.state.metrics.protocol = protocol = bounded(ConnectionLimits(connections, connections_per_address))
    pages = _pages(web_host, web_port, readiness(app), app.state.metrics.registry)
    tune_garbage_collection()
    uvicorn.run(
        served(app),
        host=host,
        port=port,
        loop="uvloop",
        http=protocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=SERVE_STOP_SECONDS,
    )
    if pages is not None:
        pages.shutdown()


def _pages(
    host: str, port: int | None, health: Callable[[], HealthState], registry: CollectorRegistry
) -> ThreadingHTTPServer | None:
    """Serve health and metrics. Where no port is given and the default port is taken, serve none and say so.

    Raises:
        UserError: the given port is taken.
    """
    from streams.health_pages import serve_pages

    try:
        return serve_pages(host, WEB_PORT if port is None else port, health, registry)
    except OSError as error:
        if port is not None:
            raise UserError(f"--web-port {port} cannot be used", str(error), "Give another --web-port.") from error
        log.warning("no metrics are served: port %d is taken; give each process a --web-port of its own", WEB_PORT)
        return None


@click.group(name="api-key")
def api_key() -> None:
    """Create, list and revoke keys of the HTTP API.

    \b
    Example:
      tokenbill api-key create shop --role operator
    """


@api_key.command(name="create")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="Permissions of the key.")
@click.option("--account", help="Restrict the key to this account [default: every account].")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="PREFIX",
    help="Sources whose usage the key may send: PREFIX itself, and PREFIX followed by : / or # and more. Repeatable; "
    "needed with --account for a key that sends usage.",
)
@click.option("--expires", metavar="TIME", help="RFC 3339 time from which the key is refused [default: never].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@_DATA_DIR
def create(
    name: str,
    role: str,
    account: str | None,
    sources: tuple[str, ...],
    expires: str | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Create a key named NAME and print it. It is printed only once, because only its digest is stored.

    \b
    Examples:
      tokenbill api-key create shop --role operator
      tokenbill api-key create gateway --role ingest --account acct-000123 --source urn:worker:gateway
    """
    from billing.store.api.keys import create_key, overlapping_keys, sources_fault

    fault = sources_fault(role, account, sources)
    if fault is not None:
        raise click.UsageError(f"--source: {fault}.")
    with opened(data_dir) as database:
        for other, theirs, ours in overlapping_keys(database, account, sources):
            click.echo(
                f"warning: {ours} overlaps {theirs} of the key {other.key_id} ({other.name}) for account"
                f" {other.account}: both may number the same source",
                err=True,
            )
        key, token = create_key(database, name, role, account, time_option("--expires", expires), sources)
    if as_json:
        click.echo(json.dumps(_document(key) | {"token": token}))
        return
    click.echo(token)
    click.echo("Send it as `Authorization: Bearer KEY`. It is not shown again.", err=True)


@api_key.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@_DATA_DIR
def list_(as_json: bool, data_dir: Path | None) -> None:
    """List the keys, without their secrets.

    \b
    Example:
      tokenbill api-key list
    """
    from billing.store.api.keys import list_keys

    with opened(data_dir) as database:
        found = [_document(key) for key in list_keys(database)]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    columns = ("key_id", "name", "role", "account", "sources", "created", "expires", "revoked")
    write_rows([one | {"sources": " ".join(one["sources"])} for one in found], columns, "table", sys.stdout)


@api_key.command(name="revoke")
@click.argument("key_id")
@_DATA_DIR
def revoke(key_id: str, data_dir: Path | None) -> None:
    """Revoke a key permanently; the API refuses it within five seconds.

    \b
    Example:
      tokenbill api-key revoke 1f0c2d3e4a5b
    """
    from billing.store.api.keys import revoke_key

    with opened(data_dir) as database:
        if not revoke_key(database, key_id):
            raise UserError(f"There is no key {key_id!r}", "", "`tokenbill api-key list` shows the ids.")
    click.echo(f"revoked {key_id}")


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "role": key.role,
        "account": key.account,
        "sources": list(key.sources),
        "created": _written(key.created_at),
        "expires": _written(key.expires_at),
        "revoked": _written(key.revoked_at),
    }


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
