"""Records that somebody with access to Kafka writes to the product's topics: they change nothing, and are reported."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import httpx
import psycopg
from aiokafka import AIOKafkaProducer
from api_rig import Api, until
from api_steps import opened, order
from click.testing import CliRunner
from confluent_kafka import Producer
from test_usage_over_http import event, remaining, with_package

from billing.record_keys import own_header
from billing.store.database import Database
from billing.store.proofs.audit import audit
from billing.store.record_key_rows import read_record_keys
from schemas.routing import partition_of
from schemas.times import format_time_us
from schemas.topics import (
    COMMAND_FORWARDED_TOPIC,
    COMMAND_TOPIC,
    FORWARD_NUMBER_HEADER,
    FORWARD_ORIGIN_HEADER,
    USAGE_FORWARDED_TOPIC,
    USAGE_TOPIC,
)
from tokenbill import stack
from tokenbill.cli import cli

PARTITIONS = 2


def produce(api: Api, topic: str, partition: int, value: Any, headers: Sequence[tuple[str, bytes]] = ()) -> None:
    producer = Producer({"bootstrap.servers": api.kafka})
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    producer.produce(topic, body, None, partition, headers=list(headers))
    assert producer.flush(30) == 0


def asked(api: Api, query: str, *values: Any) -> list[Any]:
    url = stack.info(api.folder).admin_database_url
    assert url is not None
    with psycopg.connect(url) as connection:
        connection.execute("SET search_path TO tokenbill")
        return connection.execute(query, values).fetchall()  # type: ignore[arg-type]


def next_number(api: Api, topic: str, origin: int, target: int) -> int:
    query = "SELECT next_number FROM forward_next WHERE topic = %s AND partition = %s AND target = %s"
    found = asked(api, query, topic, origin, target)
    return found[0][0] if found else 0


def foreign(api: Api) -> int:
    return int(asked(api, "SELECT count(*) FROM foreign_record")[0][0])


def numbered(origin: int, number: int) -> tuple[tuple[str, bytes], ...]:
    return ((FORWARD_ORIGIN_HEADER, b"%d" % origin), (FORWARD_NUMBER_HEADER, b"%d" % number))


def worker(api: Api) -> int:
    return stack.info(api.folder).pids["worker-1"]


def run(api: Api, *arguments: str) -> str:
    done = CliRunner().invoke(cli, [*arguments, "--data-dir", str(api.folder)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_forged_forward_takes_no_number_from_usage_of_300_yuan(api: Api) -> None:
    account, before = opened(api, top_up="1000"), worker(api)
    target = partition_of(account, PARTITIONS)
    origin, kept = 1 - target, foreign(api)
    number = next_number(api, USAGE_FORWARDED_TOPIC, origin, target)
    for headers in ((), numbered(origin, number), numbered(origin, number + 1), numbered(origin, 10**9)):
        produce(api, USAGE_FORWARDED_TOPIC, target, event(account, 7), headers)
    until(lambda: foreign(api) == kept + 4)
    used = event(account, 1, data={"model": "deepseek-v3.2", "usage": {"output": 100_000_000}})
    produce(api, USAGE_TOPIC, origin, used)
    until(lambda: balance(api, account)["wallet"] != "1000")
    charged = 1000 - float(balance(api, account)["wallet"])
    assert charged == 300, charged
    assert worker(api) == before
    listed = json.loads(run(api, "foreign", "list", "--format", "json"))
    assert [one["carries"] for one in listed[-4:]] == ["no origin and number", *["no digest"] * 3]
    shown = json.loads(run(api, "foreign", "show", listed[-1]["place"]))
    assert json.loads(shown["value"]["text"])["subject"] == account
    outcome = audit(api.database_url)
    assert outcome.passed, outcome
    assert any("foreign_record" in text for one in outcome.findings for text in one.shown)


def balance(api: Api, account: str) -> dict[str, Any]:
    body: dict[str, Any] = api.clients["read"].get(f"/v1/accounts/{account}/balance").json()
    return body


def test_a_forged_transfer_makes_no_tokens_on_the_stack(api: Api) -> None:
    account, kept = with_package(api), foreign(api)
    target = partition_of(account, PARTITIONS)
    body = {
        "transfer_id": "transfer-0", "sender": "nobody", "grant_id": "g/1", "plan": "token-9.9", "plan_version": 1,
        "bucket_no": 1, "unit": "STD_TOKEN", "amount": "1000000000", "liability": "0", "currency": "CNY",
        "valid_from": "2026-11-01T00:00:00Z", "carried_cycles": 0,
    }  # fmt: skip
    message = event(account, 1, type="package.received.v1", source="urn:tokenbill:transfer:x", id="in", data=body)
    origin = 1 - target
    headers = numbered(origin, next_number(api, COMMAND_FORWARDED_TOPIC, origin, target))
    produce(api, COMMAND_FORWARDED_TOPIC, target, message, headers)
    produce(api, COMMAND_FORWARDED_TOPIC, target, message)
    produce(api, COMMAND_TOPIC, target, message)
    until(lambda: foreign(api) == kept + 2)
    top_up = {"amount": "1", "payment_ref": "later"}
    assert order(api.clients["operator"], f"/v1/accounts/{account}/top-ups", top_up, f"l-{account}").status_code == 201
    assert [bucket["grant_id"] for bucket in balance(api, account)["buckets"]] == ["g/1"]


def test_a_forged_order_answers_for_no_real_one(api: Api) -> None:
    """A command with the identity that an order of the API will have is refused, and the order is carried out."""
    account, client = opened(api), api.clients["operator"]
    key_id, key = api.tokens["operator"].split("_")[1], f"top-{account}"
    command = event(
        account, 1, type="wallet.topped_up.v1", source=f"urn:tokenbill:api:{key_id}", id=key,
        data={"amount": "500", "payment_ref": "forged"},
    )  # fmt: skip
    produce(api, COMMAND_TOPIC, partition_of(account, PARTITIONS), command)
    time.sleep(1)
    answer = order(client, f"/v1/accounts/{account}/top-ups", {"amount": "5", "payment_ref": "r"}, key)
    assert (answer.status_code, answer.json()["outcome"]) == (201, "accepted"), answer.text
    assert balance(api, account)["wallet"] == "5"


def settle(client: httpx.Client, account: str, output: int) -> None:
    asked_for = {"account": account, "model": "deepseek-v3.2", "usage": {"output": output}}
    made = client.post("/v1/reservations", json=asked_for).json()
    done = client.post(f"/v1/reservations/{made['id']}/settle", json={"usage": {"output": output}})
    assert done.status_code == 200, done.text


def test_usage_with_the_source_of_settlements_disturbs_none_of_them(api: Api, admin: httpx.Client) -> None:
    account = with_package(api)
    target = partition_of(account, PARTITIONS)
    place = "SELECT count(*) FROM suspense WHERE account = %s AND reason = 'invalid_event'"
    for number in (1, 2**62):
        forged = event(account, number, source="urn:tokenbill:reservations")
        produce(api, USAGE_TOPIC, target, forged)
        produce(api, USAGE_TOPIC, 1 - target, forged)
    until(lambda: asked(api, place, account) == [(4,)])
    settle(admin, account, 1_000)
    until(lambda: remaining(api, account) != "10000000")
    settle(admin, account, 1_000)
    before = remaining(api, account)
    until(lambda: remaining(api, account) != before)
    assert asked(api, place, account) == [(4,)]


def test_a_rotated_key_is_used_by_every_process(api: Api, admin: httpx.Client) -> None:
    """The worker verifies a record of the former key, and one of a key that it has not read yet."""
    account = with_package(api)
    keys = json.loads(run(api, "key", "list", "--json"))
    assert keys[-1]["state"] == "signs"
    settle(admin, account, 1_000)
    run(api, "key", "rotate", "--keep-hours", "1")
    settle(admin, account, 1_000)
    api.kill()  # the new process signs with the new key at once
    settle(admin, account, 1_000)
    answer = order(admin, f"/v1/accounts/{account}/top-ups", {"amount": "5", "payment_ref": "r"}, f"rotated-{account}")
    assert answer.status_code == 201
    rated = "SELECT count(*) FROM suspense WHERE account = %s"
    until(lambda: remaining(api, account) != "10000000")
    used = 10_000_000 - int(remaining(api, account))
    until(lambda: (10_000_000 - int(remaining(api, account))) % 3 == 0 and used > 0)
    assert asked(api, rated, account) == [(0,)]
    listed = json.loads(run(api, "key", "list", "--json"))
    assert [one["state"] for one in listed[-2:]] == ["verifies", "signs"]
    assert listed[-1]["number"] == keys[-1]["number"] + 1
    moment = format_time_us(time.time_ns() // 1000)
    assert listed[-2]["verifies_until"] > moment


def test_a_settlement_in_suspense_is_billed_once_when_it_is_resubmitted(api: Api) -> None:
    """The product's own record gets a new digest, after the key that signed it was rotated; a forged one gets none."""
    account = api.name("late")
    target = partition_of(account, PARTITIONS)
    ours = event(account, 1, source="urn:tokenbill:reservations", id="rsv-1/final", sequence=None)
    value = json.dumps({name: field for name, field in ours.items() if field is not None}).encode()
    with closing(Database(api.database_url, 1)) as database:
        mark = own_header(read_record_keys(database), USAGE_TOPIC, None, value, ())
    produce(api, USAGE_TOPIC, target, value, (mark,))
    produce(api, USAGE_TOPIC, target, value.replace(b"final", b"forged"))
    reasons = "SELECT reason FROM suspense WHERE account = %s ORDER BY record_offset"
    until(lambda: len(asked(api, reasons, account)) == 2)
    assert asked(api, reasons, account) == [("unknown_account",), ("invalid_event",)]
    body = {"account": account, "currency": "CNY"}
    assert order(api.clients["admin"], "/v1/accounts", body, f"open-{account}").status_code == 201
    run(api, "key", "rotate")
    for rows in (3, 4):
        run(api, "suspense", "resubmit", "--account", account, "--reason", "unknown_account")
        run(api, "suspense", "resubmit", "--account", account, "--reason", "invalid_event")
        until(lambda rows=rows: len(asked(api, reasons, account)) == rows)
    until(lambda: balance(api, account)["wallet"] != "0")
    assert asked(api, reasons, account) == [("unknown_account",), *[("invalid_event",)] * 3]
    (place,) = asked(api, "SELECT max(record_offset) FROM suspense WHERE account = %s", account)
    with open(api.folder / "repaired.json", "wb") as file:
        file.write(value.replace(b"final", b"forged"))
    wrong = ["suspense", "resubmit", f"usage.events/{target}/{place[0]}", "--with", str(api.folder / "repaired.json")]
    done = CliRunner().invoke(cli, [*wrong, "--data-dir", str(api.folder)])
    assert done.exit_code != 0 and "is the product's own, and it has no digest" in str(done.exception)


ODD = [
    (b"", ()),
    (None, ()),
    (b"\xff\x00", ()),
    (b"k", (("e", b""), ("n", None), ("e", b"twice"))),
    (b"k", (("a\0b", b"\0"), ("", b"no name"), ("名", b"\xff"))),
    (b"k", (("tb_forward_digest", b"1:0"), ("tb_forward_number", b"7"), ("tb_own_digest", b"x"))),
]


def test_odd_keys_and_headers_are_forwarded_unchanged(api: Api) -> None:
    """Keys and headers that some clients cannot write do not make a genuine forward foreign."""
    account, kept = with_package(api), foreign(api)
    origin = 1 - partition_of(account, PARTITIONS)

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=api.kafka) as producer:
            for number, (key, headers) in enumerate(ODD, 1):
                value = json.dumps(event(account, number)).encode()
                kept_mode = [*headers, ("content-type", b"application/cloudevents+json")]
                await producer.send_and_wait(USAGE_TOPIC, value, key, origin, headers=kept_mode)

    asyncio.run(send())
    until(lambda: remaining(api, account) == str(10_000_000 - 1030 * len(ODD)))
    assert foreign(api) == kept


def test_a_report_cannot_read_the_keys(api: Api) -> None:
    rights = "SELECT has_table_privilege(%s, 'tokenbill.record_key', 'SELECT')"
    assert asked(api, rights, "tokenbill_report") == [(False,)]
    assert asked(api, rights, "tokenbill_app") == [(True,)]
