"""Receivers that drip, redirect, answer without end or lead into private networks: only their own events wait."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from click.testing import CliRunner
from own_database import PreparedDatabase, prepared_database
from test_sending_webhooks import Receiver, event, send_all, sending, states, until

from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from tokenbill.commands.webhook import webhook
from tokenbill.user_errors import UserError
from tokenbill.webhooks import webhook_sender
from tokenbill.webhooks.receiver import ip_address, why_no_receiver, why_not_public

DRIP_SECONDS = 15.0
DRIPPING = 50
"""Number of webhooks whose receivers drip: with four lanes each, more than there were threads of a sender."""


@pytest.fixture
def prepared(servers: object) -> Iterator[PreparedDatabase]:
    server_url: str = servers.admin_database_url  # type: ignore[attr-defined]
    with prepared_database(server_url, 2) as made:
        yield made


@pytest.fixture
def database(prepared: PreparedDatabase) -> Iterator[Database]:
    with closing(Database(prepared.app_url, 4)) as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


class Hostile:
    """A server whose answer never ends: ``head`` first, then ``piece`` every ``pause`` seconds."""

    def __init__(self, head: bytes, piece: bytes, pause: float) -> None:
        self.head, self.piece, self.pause = head, piece, pause
        self.accepted = 0
        self.held: list[float] = []
        """Seconds for which each connection was held."""
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/hooks"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self.listener.accept()
                self.accepted += 1
                threading.Thread(target=self.answer, args=(line,), daemon=True).start()

    def answer(self, line: socket.socket) -> None:
        begun = time.monotonic()
        with contextlib.suppress(OSError), line:
            line.sendall(self.head)
            while True:
                line.sendall(self.piece)
                time.sleep(self.pause)
        self.held.append(time.monotonic() - begun)


@pytest.fixture
def hostile() -> Iterator[Callable[[bytes, bytes, float], Hostile]]:
    made: list[Hostile] = []

    def make(head: bytes, piece: bytes, pause: float) -> Hostile:
        made.append(Hostile(head, piece, pause))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()


def test_receivers_that_drip_headers_hold_up_nobody_else(
    database: Database,
    receiver: Receiver,
    hostile: Callable[[bytes, bytes, float], Hostile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook_sender, "POST_SECONDS", DRIP_SECONDS)
    dripping = hostile(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", 0.2)
    for _ in range(DRIPPING):
        webhooks.add_webhook(database, dripping.url, None, [], allow_private=True)
    filed = [event(number, f"account-{number % 16}") for number in range(32)]
    webhooks.file_events(database, filed, {0: 32})
    with sending(database):
        until(lambda: dripping.accepted >= DRIPPING)
        # Every dripping receiver holds a lane at least. A healthy one gets its events meanwhile.
        webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
        webhooks.file_events(database, [event(number, f"a-{number}") for number in range(100, 150)], {0: 150})
        until(lambda: len(receiver.got) == 50)
        assert dripping.held == []
    until(lambda: len(dripping.held) == dripping.accepted)
    assert max(dripping.held) < DRIP_SECONDS + 10


@pytest.mark.parametrize(
    ("head", "piece", "error"),
    [
        (b"", b"", "no answer within"),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65_536, "ProtocolError"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000, "ProtocolError"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "no answer within"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b"", "no answer within"),
    ],
    ids=["nothing", "one header", "headers", "only informational", "another protocol"],
)
def test_an_answer_without_end_fails_by_the_deadline(
    database: Database,
    hostile: Callable[[bytes, bytes, float], Hostile],
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
    piece: bytes,
    error: str,
) -> None:
    monkeypatch.setattr(webhook_sender, "POST_SECONDS", 1.0)
    webhooks.add_webhook(database, hostile(head, piece, 0.005).url, None, [], allow_private=True)
    webhooks.file_events(database, [event(1)], {0: 2})
    begun = time.monotonic()
    send_all(database, retry=(3600.0,))
    assert time.monotonic() - begun < 5.0
    [found] = webhooks.list_deliveries(database, None, None, 10)
    assert found["state"] == "pending" and error in str(found["last_error"])
    assert len(str(found["last_error"])) <= 500


def test_a_body_that_drips_is_an_answer_and_ends_soon(
    database: Database, hostile: Callable[[bytes, bytes, float], Hostile]
) -> None:
    dripping = hostile(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", b"x", 0.1)
    webhooks.add_webhook(database, dripping.url, None, [], allow_private=True)
    webhooks.file_events(database, [event(1)], {0: 2})
    begun = time.monotonic()
    send_all(database)
    assert time.monotonic() - begun < 5.0
    assert states(database) == [("delivered", 1)]


def test_a_redirect_is_not_followed(
    database: Database, receiver: Receiver, hostile: Callable[[bytes, bytes, float], Hostile]
) -> None:
    head = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {receiver.url}\r\ncontent-length: 0\r\n\r\n"
    webhooks.add_webhook(database, hostile(head.encode(), b"", 1).url, None, [], allow_private=True)
    webhooks.file_events(database, [event(1)], {0: 2})
    send_all(database, retry=())
    assert states(database) == [("failed", 1)] and receiver.got == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_private_receiver_is_not_connected_to_without_permission(
    database: Database, receiver: Receiver, host: str
) -> None:
    url = receiver.url.replace("127.0.0.1", host)
    hook = webhooks.add_webhook(database, url, None, [])
    webhooks.file_events(database, [event(1)], {0: 2})
    send_all(database, retry=(0.0,))
    [found] = webhooks.list_deliveries(database, None, None, 10)
    assert (found["state"], receiver.got) == ("failed", [])
    assert "a loopback address: permit it with `tokenbill webhook allow-private`" in str(found["last_error"])
    assert webhooks.permit_private(database, hook.webhook_id)
    webhooks.replay(database, hook.webhook_id, None, failed_only=True)
    send_all(database, retry=(0.0,))
    assert states(database) == [("delivered", 1)] and len(receiver.got) == 1


def test_a_connection_with_permission_is_not_lent_to_others(database: Database, receiver: Receiver) -> None:
    webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    webhooks.add_webhook(database, receiver.url, None, [])
    webhooks.file_events(database, [event(number) for number in range(4)], {0: 5})
    send_all(database, retry=())
    assert sorted(states(database)) == [("delivered", 1)] * 4 + [("failed", 1)] * 4


def test_a_name_is_resolved_once_and_its_checked_address_connected_to(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for a name server answers the first question otherwise than later ones, as an attacker's does."""
    real, asked = socket.getaddrinfo, list[str]()

    def rebinding(host: str, *rest: object, **named: object) -> object:
        if host != "rebound.example":
            return real(host, *rest, **named)  # type: ignore[arg-type]
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = receiver.url.replace("127.0.0.1", "rebound.example")
    webhooks.add_webhook(database, url, None, [], allow_private=True)
    webhooks.file_events(database, [event(1)], {0: 2})
    send_all(database, retry=())
    assert (len(asked), states(database)) == (1, [("delivered", 1)])
    [(headers, _)] = receiver.got
    assert headers["host"].startswith("rebound.example:")
    webhooks.add_webhook(database, url, None, [])
    webhooks.file_events(database, [event(2)], {0: 3})
    send_all(database, retry=())
    assert sorted(states(database)) == [("delivered", 1), ("failed", 1), ("failed", 1)]
    assert len(receiver.got) == 1


PRIVATE = {
    "127.0.0.1": "loopback", "127.255.0.9": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback", "2002:7f00:1::": "loopback", "::7f00:1": "loopback",
    "10.0.0.1": "private", "172.16.0.1": "private", "192.168.0.1": "private", "100.64.0.1": "private",
    "192.0.2.1": "private", "198.18.0.1": "private", "fc00::1": "private", "2001:db8::1": "private",
    "0.1.2.3": "private", "64:ff9b::a00:1": "private", "2002:a00:1::": "private", "2001::1": "private",
    "169.254.169.254": "link-local", "fe80::1": "link-local", "::ffff:169.254.169.254": "link-local",
    "224.0.0.1": "multicast", "ff0e::1": "multicast", "239.255.255.250": "multicast",
    "240.0.0.1": "reserved", "255.255.255.255": "reserved",
    "0.0.0.0": "unspecified", "::": "unspecified",
}  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_has_a_kind(address: str) -> None:
    found = ip_address(address)
    assert found is not None
    assert PRIVATE[address] in str(why_not_public(found))


@pytest.mark.parametrize("address", ["8.8.8.8", "223.5.5.5", "2400:3200::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_that_is_public_has_none(address: str) -> None:
    assert why_not_public(ipaddress.ip_address(address)) is None


BAD = [
    "https://crm.example/a\r\nx-evil: 1", "https://crm.example/a b", "https://crm.example/\t", "https://crm.example/\x00",
    " https://crm.example/", "https://crm.example/é", "https://crm.example:0/", "https://crm.example:99999/",
    "https://crm.example:x/", "https://crm.example:/", "https:///hooks", "https://", "https:crm.example", "crm.example",
    "//crm.example/", "ftp://crm.example/", "file:///etc/passwd", "javascript:alert(1)", "https://u:p@crm.example/",
    "https://u@crm.example/", "https://@crm.example/", "https://crm.example/#a", "https://[::1/", "https://[zz]/",
    "https://a..b/", "https://-a.example/", "https://a%2fb/", "https://crm.example\\@10.0.0.1/", "https://a,b/",
    "https://" + "a" * 64 + ".example/", "https://crm.example/" + "a" * 2_048,
]  # fmt: skip


@pytest.mark.parametrize("url", BAD, ids=range(len(BAD)))
def test_a_bad_address_is_refused_when_it_is_added(url: str) -> None:
    outcome = CliRunner().invoke(webhook, ["add", "--allow-private", "--", url])
    assert isinstance(outcome.exception, UserError)
    assert "is not the address of a receiver" in str(outcome.exception)


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example/hooks", "http://crm.example:8080", "https://[2400:3200::1]:8443/a?b=c%20d",
        "https://CRM.example./", "http://a_b.internal/", "https://xn--fiqs8s.example/~a;b=1",
    ],
)  # fmt: skip
def test_a_good_address_is_taken(url: str) -> None:
    assert why_no_receiver(url) is None


def test_a_private_address_is_refused_when_it_is_added(
    prepared: PreparedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", prepared.app_url)
    for host in ("127.0.0.1", "localhost", "10.0.0.7", "[::1]", "169.254.169.254", "0x7f.1"):
        outcome = CliRunner().invoke(webhook, ["add", f"http://{host}:9000/hooks"])
        assert isinstance(outcome.exception, UserError) and "add --allow-private" in str(outcome.exception)
    made = CliRunner().invoke(webhook, ["add", "http://10.0.0.7:9000/hooks", "--allow-private", "--json"])
    assert made.exit_code == 0, made.output
    [listed] = json.loads(CliRunner().invoke(webhook, ["list", "--json"]).stdout)
    assert listed["allow_private"] is True and listed["webhook_id"] == json.loads(made.stdout)["webhook_id"]
    unknown = CliRunner().invoke(webhook, ["allow-private", "none"])
    assert isinstance(unknown.exception, UserError)
