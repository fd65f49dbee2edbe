"""The webhook process of the stack delivers `account.events`, and continues where it was after kill -9."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from api_rig import Api, until

from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC
from streams.kafka_clients import input_producer
from tokenbill import stack


def command(api: Api, kind: str, account: str, data: dict[str, str], command_id: str) -> None:
    """Send a command to Kafka directly, as an external billing system does."""
    event = {
        "specversion": "1.0", "type": kind, "source": "urn:test:webhooks", "id": command_id,
        "time": datetime.now(UTC).isoformat(), "subject": account, "data": data,
    }  # fmt: skip
    failed: list[str] = []
    producer = input_producer(api.kafka, lambda error, _: failed.append(str(error)))
    headers = [("content-type", b"application/cloudevents+json")]
    target = partition_of(account, api.info.partitions or 0)
    producer.produce(COMMAND_TOPIC, json.dumps(event).encode(), account.encode(), partition=target, headers=headers)
    assert (producer.flush(30), failed) == (0, [])


def test_account_events_are_pushed_once_each_over_a_kill(api: Api) -> None:
    got: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.append(event["data"]["command_id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = api.name("hooked")
    with closing(Database(api.database_url, 1)) as database:
        webhooks.add_webhook(
            database,
            f"http://127.0.0.1:{server.server_address[1]}/",
            account,
            ["command.accepted.v1"],
            allow_private=True,
        )
    command(api, "account.opened.v1", account, {"currency": "CNY", "price_book": "retail-cn"}, "open")
    until(lambda: got == ["open"])
    before = stack.info(api.folder).pids["webhooks"]
    os.kill(before, signal.SIGKILL)
    for number in range(5):
        command(api, "wallet.topped_up.v1", account, {"amount": "1", "payment_ref": f"p{number}"}, f"top-{number}")
    until(lambda: len(got) >= 6)
    assert sorted(set(got)) == ["open", *(f"top-{number}" for number in range(5))]
    server.shutdown()
    server.server_close()
