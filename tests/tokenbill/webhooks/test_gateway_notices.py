"""Gateways are notified of money, prices and aborted sessions: with a real receiver and a real database."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sending_webhooks import Receiver, database, receiver, until

from billing.catalog import load_folder
from billing.store import charging_notice_rows as notices
from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from billing.store.published_catalog import publish
from billing.store.webhook_rows import FedEvent
from schemas.times import parse_time_us
from tokenbill.webhooks.gateway_notifier import GatewayNotifier

__all__ = ["database", "receiver"]  # fixtures

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
BOOK = """\
kind: price_book
name: retail
version: {version}
currency: EUR
effective_from: "{begins}"
rows:
  - {{model: m, per_million: {{output: "{version}"}}}}
"""


def session(database: Database, uri: str, groups: list[int], name: str = "chg-1", state: str = "open") -> None:
    """Store an open session of account ``a`` that was last answered by retail@1."""
    steps = {"create": {"sha256": ""}, "notify": {"sha256": "", "uri": uri, "groups": groups, "book": "retail@1"}}
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO hold (reservation_id, account, kind, state, held_micro, wallet_pico, terms, steps,"
            " created_us, expires_us) VALUES (%s, 'a', 'charging', %s, '{}', 0, '{}', %s, 0, 4000000000000000)",
            (name, state, json.dumps(steps)),
        )


def account_event(offset: int, type_name: str = "command.accepted.v1", **movement: str) -> FedEvent:
    body = {"data": {"movements": [movement] if movement else []}}
    return FedEvent(0, offset, "a", type_name, f"urn:tokenbill:partition:0/e-{offset}", json.dumps(body).encode())


def file(database: Database, *events: FedEvent) -> list[dict[str, Any]]:
    positions = {0: events[-1].offset + 1}
    webhooks.file_events(database, events, positions, notices.file_notices)
    return list(reversed(notices.list_notices(database)))


@contextlib.contextmanager
def notifying(database: Database, **options: Any) -> Iterator[GatewayNotifier]:
    notifier = GatewayNotifier(database, **({"networks": LOOPBACK, "retry_seconds": (0.0, 0.0)} | options))
    thread = threading.Thread(target=notifier.run)
    thread.start()
    try:
        yield notifier
    finally:
        notifier.end()
        thread.join(30)


def until_states(database: Database, *states: tuple[str, int]) -> list[dict[str, Any]]:
    until(lambda: [(one["state"], one["attempts"]) for one in reversed(notices.list_notices(database))] == [*states])
    return notices.list_notices(database)


def test_a_top_up_asks_the_gateway_to_authorise_again(database: Database, receiver: Receiver) -> None:
    session(database, receiver.url, [7, 1001])
    session(database, receiver.url, [], "chg-2")
    session(database, receiver.url, [7], "chg-3", "released")
    filed = file(database, account_event(1, wallet="-5"), account_event(2, wallet="10"), account_event(3))
    assert [(one["session"], one["kind"], one["groups"]) for one in filed] == [("chg-1", "REAUTHORIZATION", [7, 1001])]
    assert len(file(database, account_event(2, wallet="10"))) == 1, "an event read again is filed once"
    with notifying(database):
        until_states(database, ("delivered", 1))
    [(headers, body)] = receiver.got
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "notificationType": "REAUTHORIZATION",
        "reauthorizationDetails": [{"ratingGroup": 7}, {"ratingGroup": 1001}],
    }


def test_a_suspended_account_ends_the_charging(database: Database, receiver: Receiver) -> None:
    session(database, receiver.url, [])
    file(database, account_event(1, "account.suspended.v1"))
    with notifying(database):
        until_states(database, ("delivered", 1))
    assert json.loads(receiver.got[0][1]) == {"notificationType": "ABORT_CHARGING"}


def test_a_price_that_begins_is_told_once_whoever_looks(database: Database, receiver: Receiver, tmp_path: Path) -> None:
    session(database, receiver.url, [7])
    with database.transaction() as connection:
        connection.execute("SET LOCAL tokenbill.partition = '0'")
        connection.execute(
            "INSERT INTO account (account, currency, price_book, payment, credit_limit_pico, wallet_pico,"
            " absorbed_micro, absorbed_pico, status, clock_us)"
            " VALUES ('a', 'EUR', 'retail', 'prepaid', 0, 0, 0, 0, 'open', 0)"
        )
    (tmp_path / "one.yaml").write_text(BOOK.format(version=1, begins="2026-01-01T00:00:00Z"))
    (tmp_path / "two.yaml").write_text(BOOK.format(version=2, begins="2026-06-01T00:00:00Z"))
    publish(database, load_folder(tmp_path))
    now_us = parse_time_us("2026-05-01T00:00:00Z")
    notifier = GatewayNotifier(database, clock_us=lambda: now_us)
    assert notifier.look_at_prices() == notifier.look_at_prices() == 0
    now_us = parse_time_us("2026-06-01T00:00:00Z")
    assert notifier.look_at_prices() == 1 and notifier.look_at_prices() == 0
    assert GatewayNotifier(database, clock_us=lambda: now_us).look_at_prices() == 0
    [filed] = notices.list_notices(database)
    assert (filed["kind"], filed["cause"]) == ("REAUTHORIZATION", "price retail@2")


def test_a_notification_is_tried_again_and_given_up(database: Database, receiver: Receiver) -> None:
    session(database, receiver.url, [7])
    receiver.answers = [500, 503]
    file(database, account_event(1, wallet="10"))
    with notifying(database):
        until_states(database, ("delivered", 3))
    receiver.answers = [500] * 3
    file(database, account_event(2, wallet="10"))
    with notifying(database):
        [last, _] = until_states(database, ("delivered", 3), ("failed", 3))
    assert last["last_error"] == "status 500"


def test_a_gateway_without_the_session_is_not_asked_again(database: Database, receiver: Receiver) -> None:
    session(database, receiver.url, [7])
    receiver.answers = [404]
    file(database, account_event(1, wallet="10"))
    with notifying(database):
        until_states(database, ("failed", 1))
    assert len(receiver.got) == 1


def test_a_session_that_has_ended_is_not_notified(database: Database, receiver: Receiver) -> None:
    session(database, receiver.url, [7])
    file(database, account_event(1, wallet="10"))
    with database.transaction() as connection:
        connection.execute("UPDATE hold SET state = 'released'")
    with notifying(database):
        [ended] = until_states(database, ("failed", 1))
    assert ended["last_error"] == "the session has ended" and receiver.got == []


@pytest.mark.parametrize(
    ("uri", "networks", "error"),
    [
        ("", [], "a loopback address"),
        ("", [ipaddress.ip_network("10.0.0.0/8")], "a loopback address"),
        ("file:///etc/passwd", LOOPBACK, "its scheme is 'file'"),
        ("http://user@127.0.0.1/x", LOOPBACK, "it has a user"),
        ("not an address", LOOPBACK, "no address of a receiver"),
    ],
)
def test_only_permitted_addresses_are_connected_to(
    database: Database, receiver: Receiver, uri: str, networks: list[Any], error: str
) -> None:
    session(database, uri or receiver.url, [7])
    file(database, account_event(1, wallet="10"))
    with notifying(database, networks=networks, retry_seconds=()):
        [refused] = until_states(database, ("failed", 1))
    assert error in refused["last_error"] and receiver.got == []
