"""``tokenbill webhook`` manages webhooks and their deliveries; ``tokenbill webhooks`` runs the process that sends."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from billing.store import webhook_rows as stored
from billing.store.database import Database
from billing.store.partition_stops import PARTITION_STOPPED
from schemas.outputs import OUTPUTS
from schemas.topics import ACCOUNT_EVENT_TOPIC
from tokenbill.command_database import opened
from tokenbill.commands.process import log_to_stderr, may_open_files, servers, wait_for_topics
from tokenbill.commands.times import time_option
from tokenbill.user_errors import UserError
from tokenbill.webhooks.receiver import IpNetwork, why_no_receiver
from tokenbill.webhooks.receiver_network import RESOLVER_OPTIONS, why_not_permitted

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
JOIN_SECONDS = 20.0
_OTHER_FILES = 200
DATABASE_CONNECTIONS = 10
"""Size of the connection pool; fewer than concurrent requests, because these wait for receivers, not for SQL."""


@click.command()
@click.option("--web-port", type=int, default=6069, show_default=True, help="Port of /healthz, /readyz and /metrics.")
@click.option("--web-host", default="127.0.0.1", show_default=True, help="Address of /healthz, /readyz and /metrics.")
@click.option(
    "--notify-network",
    "networks",
    multiple=True,
    metavar="CIDR",
    envvar="TOKENBILL_NOTIFY_NETWORKS",
    help="Network of gateways that may be notified though it is not public, such as 10.20.0.0/16. Repeatable.",
)
@_DATA_DIR
def webhooks(web_port: int, web_host: str, networks: tuple[str, ...], data_dir: Path | None) -> None:
    """Run the webhook sender in the foreground.

    Several may run: each event is recorded once for each webhook, and one process sends each delivery. The process also
    notifies gateways of 3GPP charging sessions when money comes in, a price changes or a session is aborted.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL are the addresses of the servers; if they are not set, the servers of the
    local stack in --data-dir are used.

    \b
    Example:
      tokenbill webhooks --web-port 6069
    """
    from streams.health_pages import serve_pages
    from tokenbill.webhooks.gateway_notifier import GatewayNotifier
    from tokenbill.webhooks.webhook_intake import WebhookIntake
    from tokenbill.webhooks.webhook_metrics import WebhookMetrics
    from tokenbill.webhooks.webhook_sender import CONCURRENCY, WebhookSender

    log_to_stderr()
    permitted = [_network(text) for text in networks]
    os.environ.setdefault(*RESOLVER_OPTIONS)
    may_open_files(CONCURRENCY + _OTHER_FILES)
    kafka, url = servers(data_dir)
    wait_for_topics(kafka)
    with closing(Database(url, DATABASE_CONNECTIONS, "tokenbill webhooks")) as database:
        metrics = WebhookMetrics()
        parts = (
            WebhookIntake(database, kafka, metrics),
            WebhookSender(database, metrics=metrics),
            GatewayNotifier(database, permitted, metrics=metrics),
        )

        def end(*_: object) -> None:
            for part in parts:
                part.end()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        threads = [threading.Thread(target=part.run, name=type(part).__name__) for part in parts]
        for thread in threads:
            thread.start()

        def health() -> dict[str, object]:
            missing = [f"{thread.name} has ended" for thread in threads if not thread.is_alive()]
            return {"ready": not missing, "missing": missing}

        pages = serve_pages(web_host, web_port, health, metrics.registry)
        # If one part ends because of a defect, the process ends too, so that the supervisor restarts it.
        while all(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.5)
        end()
        for thread in threads:
            thread.join(JOIN_SECONDS)
        pages.shutdown()
    sys.exit(0)


def _network(text: str) -> IpNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UserError(f"{text!r} is not a network", str(error), "Write one such as 10.20.0.0/16.") from error


@click.group()
def webhook() -> None:
    """Register, list and remove webhooks; list and replay their deliveries.

    \b
    Example:
      tokenbill webhook add https://crm.example/hooks --type threshold.reached.v1
    """


@webhook.command()
@click.argument("url")
@click.option("--account", help="Only events of this account [default: every account].")
@click.option(
    "--type",
    "types",
    multiple=True,
    help="Only events of this type, such as threshold.reached.v1; may be repeated [default: every type].",
)
@click.option(
    "--allow-private",
    is_flag=True,
    help="Permit a receiver on this host or in a private network; without it, only public addresses are connected to.",
)
@_JSON
@_DATA_DIR
def add(
    url: str, account: str | None, types: tuple[str, ...], allow_private: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Send account events to URL from now on, and print the secret that signs the requests.

    \b
    Examples:
      tokenbill webhook add https://crm.example/hooks --type threshold.reached.v1
      tokenbill webhook add http://10.0.0.7:9000/hooks --allow-private
    """
    os.environ.setdefault(*RESOLVER_OPTIONS)
    why = why_no_receiver(url)
    if why is not None:
        raise UserError(f"{url!r} is not the address of a receiver", why, "Write https://HOST/PATH.")
    private = None if allow_private else why_not_permitted(urlsplit(url).hostname or "")
    if private is not None:
        raise UserError(f"{url!r} is not a public address", private, "If it is the right one, add --allow-private.")
    known = sorted(type_ for type_, event in OUTPUTS.items() if event.TOPIC == ACCOUNT_EVENT_TOPIC)
    known.append(PARTITION_STOPPED)
    for one in types:
        if one not in known:
            raise UserError(f"No account event has the type {one!r}", "", f"Name one of {', '.join(known)}.")
    with opened(data_dir) as database:
        made = stored.add_webhook(database, url, account, types, allow_private=allow_private)
    if as_json:
        click.echo(json.dumps({"webhook_id": made.webhook_id, "secret": made.secret}))
        return
    click.echo(f"{made.webhook_id}  secret {made.secret}")


@webhook.command(name="list")
@_JSON
@_DATA_DIR
def list_(as_json: bool, data_dir: Path | None) -> None:
    """List the webhooks.

    \b
    Example:
      tokenbill webhook list
    """
    with opened(data_dir) as database:
        found = stored.list_webhooks(database)
    if as_json:
        click.echo(json.dumps([_document(hook) for hook in found], ensure_ascii=False))
        return
    for hook in found:
        private = "  private allowed" if hook.allow_private else ""
        click.echo(f"{hook.webhook_id}  {hook.url}  {hook.account or '*'}  {' '.join(hook.types or ('*',))}{private}")


def _document(hook: stored.Webhook) -> dict[str, Any]:
    return {
        "webhook_id": hook.webhook_id,
        "url": hook.url,
        "account": hook.account,
        "types": list(hook.types),
        "allow_private": hook.allow_private,
    }


@webhook.command(name="allow-private")
@click.argument("webhook_id")
@_DATA_DIR
def allow_private(webhook_id: str, data_dir: Path | None) -> None:
    """Permit a webhook to connect to this host and to private networks.

    \b
    Example:
      tokenbill webhook allow-private 1f0c2d3e4a5b
    """
    with opened(data_dir) as database:
        if not stored.permit_private(database, webhook_id):
            raise _unknown(webhook_id)
    click.echo(f"{webhook_id} may connect to any address")


@webhook.command()
@click.argument("webhook_id")
@_DATA_DIR
def remove(webhook_id: str, data_dir: Path | None) -> None:
    """Remove a webhook; its pending deliveries are not sent.

    \b
    Example:
      tokenbill webhook remove 1f0c2d3e4a5b
    """
    with opened(data_dir) as database:
        if not stored.remove_webhook(database, webhook_id):
            raise _unknown(webhook_id)
    click.echo(f"removed {webhook_id}")


@webhook.command()
@click.option("--webhook", "webhook_id", help="Only deliveries to this webhook.")
@click.option(
    "--state",
    type=click.Choice((stored.DELIVERY_PENDING, stored.DELIVERED, stored.FAILED)),
    help="Only deliveries in this state.",
)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Largest number of deliveries."
)
@_JSON
@_DATA_DIR
def deliveries(webhook_id: str | None, state: str | None, limit: int, as_json: bool, data_dir: Path | None) -> None:
    """List deliveries, newest first.

    \b
    Example:
      tokenbill webhook deliveries --state failed
    """
    with opened(data_dir) as database:
        if webhook_id is not None and not stored.was_added(database, webhook_id):
            raise _unknown(webhook_id)
        found = stored.list_deliveries(database, webhook_id, state, limit)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    for one in found:
        click.echo(
            f"{one['delivery_id']}  {one['webhook_id']}  {one['type']}  {one['account']}  {one['state']}"
            f"  after {one['attempts']}  {one['last_error'] or ''}".rstrip()
        )


def _unknown(webhook_id: str) -> UserError:
    return UserError(f"There is no webhook {webhook_id!r}", "", "`tokenbill webhook list` shows the ids.")


@webhook.command()
@click.argument("webhook_id")
@click.option(
    "--since", metavar="TIME", help="Only deliveries created at or after this time (RFC 3339) [default: all]."
)
@click.option("--failed", "failed_only", is_flag=True, help="Only failed deliveries, not those that succeeded.")
@_DATA_DIR
def replay(webhook_id: str, since: str | None, failed_only: bool, data_dir: Path | None) -> None:
    """Send the finished deliveries of a webhook again, with the same event ids.

    Finished deliveries are kept for 30 days.

    \b
    Example:
      tokenbill webhook replay 1f0c2d3e4a5b --failed
    """
    moment = time_option("--since", since)
    with opened(data_dir) as database:
        if all(hook.webhook_id != webhook_id for hook in stored.list_webhooks(database)):
            raise _unknown(webhook_id)
        number = stored.replay(database, webhook_id, moment, failed_only=failed_only)
    click.echo(f"{number} deliveries are sent again")
