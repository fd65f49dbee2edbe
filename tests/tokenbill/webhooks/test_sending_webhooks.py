"""Deliveries are signed, retried, given up and replayed, with a real receiver and a real database."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from own_database import prepared_database

from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from billing.store.webhook_rows import FedEvent
from tokenbill.webhooks.webhook_sender import LANES, WebhookSender, signature

BODY = b'{"type":"threshold.reached.v1"}'


class Receiver:
    """HTTP receiver that records requests; answers with the statuses in ``answers``, then with success."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.waits: threading.Event | None = None
        self.body = b""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                if receiver.waits is not None:
                    receiver.waits.wait(30)
                time.sleep(len(receiver.got) % 3 * 0.005)
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200 if receiver.body else 204)
                self.send_header("content-length", str(10**12 if receiver.body else 0))
                self.end_headers()
                with contextlib.suppress(OSError):
                    while receiver.body:
                        self.wfile.write(receiver.body)

            def log_message(self, format: str, *args: object) -> None:
                """Discard the line: requests are not logged."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hooks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def database(servers: object) -> Iterator[Database]:
    server_url: str = servers.admin_database_url  # type: ignore[attr-defined]
    with prepared_database(server_url, 2) as made, closing(Database(made.app_url, 4)) as opened:
        yield opened


@contextlib.contextmanager
def sending(database: Database) -> Iterator[None]:
    """Run the sender in a thread, as its process does."""
    sender = WebhookSender(database)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        yield
    finally:
        sender.end()
        thread.join(30)


def until(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.02)


def event(offset: int, account: str = "a", type_name: str = "threshold.reached.v1") -> FedEvent:
    return FedEvent(0, offset, account, type_name, f"urn:tokenbill:partition:0/e-{offset}", BODY)


def states(database: Database) -> list[tuple[object, object]]:
    return [(one["state"], one["attempts"]) for one in reversed(webhooks.list_deliveries(database, None, None, 100))]


def send_all(database: Database, *, retry: tuple[float, ...] = (0.0, 0.0)) -> None:
    async def send() -> None:
        sender = WebhookSender(database, retry)
        async with sender.opened():
            while due := webhooks.take_due(database, 10):
                for delivery in due:
                    await sender.send(delivery)

    asyncio.run(send())


def test_an_event_arrives_signed(database: Database, receiver: Receiver) -> None:
    hook = webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    assert webhooks.file_events(database, [event(7)], {0: 8}) == 1
    assert webhooks.feed_positions(database) == {0: 8}
    send_all(database)
    [(headers, body)] = receiver.got
    assert body == BODY
    assert headers["webhook-id"] == "urn:tokenbill:partition:0/e-7"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    # The check of the Standard Webhooks libraries: the key is the base64-decoded secret after its prefix.
    key = base64.b64decode(hook.secret.removeprefix("whsec_"), validate=True)
    assert hook.secret.startswith("whsec_") and len(key) == 32
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert states(database) == [("delivered", 1)]


def test_an_event_filed_again_is_not_sent_again(database: Database, receiver: Receiver) -> None:
    webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    for _ in range(2):
        webhooks.file_events(database, [event(1), event(2)], {0: 3})
        send_all(database)
    assert [headers["webhook-id"][-3:] for headers, _ in receiver.got] == ["e-1", "e-2"]


def test_only_what_a_webhook_asked_for(database: Database, receiver: Receiver) -> None:
    webhooks.add_webhook(database, receiver.url, "a", ["threshold.reached.v1"], allow_private=True)
    filed = [event(1), event(2, "b"), event(3, "a", "bucket.ended.v1")]
    assert webhooks.file_events(database, filed, {0: 4}) == 1


def test_what_fails_is_tried_again_and_then_given_up_and_replayed(database: Database, receiver: Receiver) -> None:
    hook = webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    receiver.answers = [500, 302, 204, 500, 500, 500]
    webhooks.file_events(database, [event(1)], {0: 2})
    send_all(database)
    assert states(database) == [("delivered", 3)]
    webhooks.file_events(database, [event(2)], {0: 3})
    send_all(database)
    assert states(database) == [("delivered", 3), ("failed", 3)]
    assert webhooks.replay(database, hook.webhook_id, None, failed_only=True) == 1
    send_all(database)
    assert states(database)[1] == ("delivered", 1)
    assert webhooks.replay(database, hook.webhook_id, None, failed_only=False) == 2
    send_all(database)
    assert len(receiver.got) == 9


def test_a_receiver_that_is_not_there_is_tried_again_later(database: Database, receiver: Receiver) -> None:
    webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    receiver.server.shutdown()
    receiver.server.server_close()
    webhooks.file_events(database, [event(1)], {0: 2})
    send_all(database, retry=(3600.0,))
    assert states(database) == [("pending", 1)]


def test_a_removed_webhook_is_told_nothing_more(database: Database, receiver: Receiver) -> None:
    hook = webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    webhooks.file_events(database, [event(1)], {0: 2})
    assert webhooks.remove_webhook(database, hook.webhook_id)
    assert not webhooks.remove_webhook(database, hook.webhook_id)
    webhooks.file_events(database, [event(2)], {0: 3})
    send_all(database)
    assert receiver.got == []
    assert webhooks.replay(database, hook.webhook_id, None, failed_only=True) == 0


def test_what_is_being_sent_is_not_taken_twice(database: Database, receiver: Receiver) -> None:
    webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    webhooks.file_events(database, [event(1)], {0: 2})
    assert len(webhooks.take_due(database, 10)) == 1
    assert webhooks.take_due(database, 10) == []


def test_a_slow_receiver_holds_up_nobody_else_and_an_account_is_told_in_order(
    database: Database, receiver: Receiver
) -> None:
    slow = Receiver()
    slow.waits = threading.Event()
    webhooks.add_webhook(database, slow.url, None, [], allow_private=True)
    webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    filed = [event(number, f"account-{number % 7}") for number in range(200)]
    webhooks.file_events(database, filed, {0: 200})
    with sending(database):
        until(lambda: len(receiver.got) == 200)
        told = [int(headers["webhook-id"].rpartition("-")[2]) for headers, _ in receiver.got]
        for account in range(7):
            assert [one for one in told if one % 7 == account] == list(range(account, 200, 7))
        assert len(slow.got) <= LANES
        slow.waits.set()
        until(lambda: len(slow.got) == 200)
    slow.server.shutdown()
    slow.server.server_close()


def test_an_answer_without_end_is_an_answer(database: Database, receiver: Receiver) -> None:
    webhooks.add_webhook(database, receiver.url, None, [], allow_private=True)
    receiver.body = bytes(1 << 14)
    webhooks.file_events(database, [event(1)], {0: 2})
    with sending(database):
        until(lambda: states(database) == [("delivered", 1)])


def test_a_secret_of_before_signs_as_it_did() -> None:
    signed = base64.b64encode(hmac.new(b"secret", b"id.1.body", hashlib.sha256).digest()).decode()
    assert signature("secret", "id", 1, b"body") == f"v1,{signed}"
