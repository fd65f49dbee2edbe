"""Sixteen clients reserve on two API processes while usage is burned, and never hold more than there is.

The same load on processes without the lock overspends, so this test fails if the lock is removed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
from api_rig import Api, until
from test_reservations import balance, opened

CLIENTS = 16
TURNS = 50
LOADS = 4
"""Maximum number of loads without the lock. Most loads overspend within thirty grants; all 16 that were tried did."""
MONEY = Decimal(20)
MODEL = "deepseek-v3.2"
WITHOUT_LOCK = "SELECT FROM hold_head WHERE account = ANY ($1::text[])"
SERVE = """
import sys
from billing.store.holds.hold_book import HoldBook
from tokenbill.cli import main
if sys.argv[1] != "locked":
    HoldBook.LOCK_HEADS = sys.argv[1]
sys.argv[1:] = ["serve", "--port", sys.argv[2]]
main()
"""
FREE = """
SELECT a.account, least(
    a.wallet_pico - (SELECT coalesce(sum(h.wallet_pico), 0) FROM hold AS h WHERE h.account = a.account AND OPEN),
    (SELECT min(b.remaining_micro - (
        SELECT coalesce(sum((h.held_micro ->> b.grant_id)::numeric), 0) FROM hold AS h
        WHERE h.account = a.account AND OPEN)) FROM bucket AS b WHERE b.account = a.account))
FROM account AS a WHERE a.account = ANY (%s)
""".replace("OPEN", "h.state = 'open' AND h.expires_us > extract(epoch FROM clock_timestamp()) * 1000000")
"""Free amount of each account at one moment: wallet or bucket minus what is held, whichever is less."""


@contextmanager
def two_processes(api: Api, locked: bool) -> Iterator[list[str]]:
    """Start two API processes on the servers of the stack, and yield their addresses."""
    ports = []
    for _ in range(2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            ports.append(str(found.getsockname()[1]))
    servers = {"TOKENBILL_KAFKA": api.kafka, "TOKENBILL_DATABASE_URL": api.database_url}
    lock = "locked" if locked else WITHOUT_LOCK
    started = [
        subprocess.Popen([sys.executable, "-c", SERVE, lock, port], env={**os.environ, **servers}) for port in ports
    ]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        for url in urls:
            until(lambda url=url: serves(url))
        yield urls
    finally:
        for one in started:
            one.send_signal(signal.SIGTERM)
        for one in started:
            one.wait(30)


def serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Line:
    """A minimal HTTP connection of one client, because sixteen clients share a processor with all the servers."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url)
        self._head = f"host: {self._address.netloc}\r\nauthorization: Bearer {token}\r\n"

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._address.hostname, self._address.port)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\n{self._head}content-type: application/json\r\ncontent-length: {len(data)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + data)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(answer.split(b" ", 2)[1]), json.loads(await self._reader.readexactly(length))


def value_of(hold: dict[str, Any]) -> Decimal:
    """Return what a hold keeps: money, or quota of its only bucket."""
    held = hold["reserved"]
    return Decimal(held["wallet"]) + sum((Decimal(one["reserved"]) for one in held["buckets"]), Decimal(0))


@dataclass
class Load:
    """State of a load, as its clients see it.

    A hold counts from its answer until its end is requested; settled usage counts for ever. The sum is therefore never
    more than what is really held and burned, and a sum above the balance proves that the account was overspent.
    """

    urls: list[str]
    token: str
    balances: dict[str, Decimal]
    tokens: dict[str, int]
    """Number of output tokens that the balance of each account pays for."""
    taken: dict[str, Decimal] = field(default_factory=dict)
    settled: dict[str, Decimal] = field(default_factory=dict)
    left_open: list[tuple[str, str, Decimal]] = field(default_factory=list)
    granted: int = 0
    refused: int = 0
    overspent: set[str] = field(default_factory=set)

    def take(self, account: str, value: Decimal) -> None:
        self.taken[account] = self.taken.get(account, Decimal(0)) + value
        if self.taken[account] > self.balances[account]:
            self.overspent.add(account)

    @property
    def proven(self) -> bool:
        """True if money was overspent. Excess holds on a bucket prove nothing: they are decided anew first."""
        return any(self.balances[account] == MONEY for account in self.overspent)

    async def run(self) -> None:
        """Run all clients. Once money was overspent, they stop early and leave their holds open."""
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        chance = random.Random(number)
        line = Line(self.urls[number % len(self.urls)], self.token)
        await line.open()
        accounts = list(self.balances)
        for _ in range(TURNS):
            # Most turns use the same account, and two large parts exceed its balance.
            account = accounts[0] if chance.random() < 0.6 else chance.choice(accounts)
            part = chance.choice((0.002, 0.05, 0.4, 0.6, 0.7))
            asked = max(2, int(self.tokens[account] * part) // 2 * 2)
            body = {"account": account, "model": MODEL, "usage": {"output": asked}, "accept_partial": part == 0.7}
            status, hold = await line.post("/v1/reservations", body)
            assert status in (201, 402), hold
            self.refused += status == 402
            if status == 201:
                self.granted += 1
                self.take(account, value_of(hold))
                if self.proven:
                    return
                await self._end(line, chance, account, hold)
            if self.proven:
                return

    async def _end(self, line: Line, chance: random.Random, account: str, hold: dict[str, Any]) -> None:
        path, value, tokens = f"/v1/reservations/{hold['id']}", value_of(hold), hold["usage"]["output"]
        choice = chance.random()
        if choice < 0.1 and value < self.balances[account] / 50:
            self.left_open.append((account, path, value))
            return
        if choice < 0.3:
            status, more = await line.post(f"{path}/extend", {"usage": {"output": tokens}})
            assert status in (200, 402), more
            if status == 200:
                self.take(account, value_of(more) - value)
                value, tokens = value_of(more), 2 * tokens
        if self.proven:
            return
        if choice < 0.5 and value < self.balances[account] / 20:
            used = value / 2 if tokens % 2 == 0 else value
            self.take(account, used - value)
            self.settled[account] = self.settled.get(account, Decimal(0)) + used
            counted = tokens // 2 if tokens % 2 == 0 else tokens
            status, done = await line.post(f"{path}/settle", {"usage": {"output": counted}})
            assert status == 200, done
        else:
            self.take(account, -value)
            status, done = await line.post(f"{path}/release")
            assert status == 200, done


def seen_in_sql(api: Api, accounts: list[str]) -> dict[str, Decimal]:
    """Return the free amount of each account."""
    assert api.info.admin_database_url is not None
    with psycopg.connect(api.info.admin_database_url, autocommit=True) as connection:
        connection.execute("SET search_path = tokenbill")
        return dict(connection.execute(FREE, (accounts,)).fetchall())


def loaded(api: Api, admin: httpx.Client, urls: list[str]) -> tuple[Load, dict[str, Decimal]]:
    """Run the load on two accounts with money and one with a package; return it and the least free amounts in SQL."""
    wallets, package = [opened(api, admin, str(MONEY)) for _ in range(2)], opened(api, admin, "0", "token-9.9")
    balances = dict.fromkeys(wallets, MONEY) | {package: Decimal(10_000_000)}
    tokens = {}
    for account in balances:
        asked = {"account": account, "model": MODEL, "usage": {"output": 1_000}}
        one = admin.post("/v1/reservations", json=asked).json()
        tokens[account] = int(balances[account] / value_of(one) * 1_000)
        assert admin.post(f"/v1/reservations/{one['id']}/release").status_code == 200
    load = Load(urls, api.tokens["ingest"], balances, tokens)
    least = dict[str, Decimal]()

    async def everything() -> None:
        running = asyncio.create_task(load.run())
        while not running.done():
            for account, free in (await asyncio.to_thread(seen_in_sql, api, list(balances))).items():
                least[account] = min(free, least.get(account, free))
            await asyncio.sleep(0.02)
        await running

    asyncio.run(everything())
    return load, least


def test_nobody_holds_what_is_not_there(api: Api, admin: httpx.Client) -> None:
    with two_processes(api, locked=True) as urls:
        load, least = loaded(api, admin, urls)
    assert not load.overspent and min(least.values()) >= 0
    assert load.granted > 100 and load.refused > 20 and set(load.settled) == set(load.balances)
    for account, path, value in load.left_open:
        load.take(account, -value)
        assert admin.post(f"{path}/release").status_code == 200
    for account, before in load.balances.items():
        # Nothing was lost either: once all settled usage is burned, the rest of the balance is there and free.
        rest = before - load.settled[account]

        def burned(account: str = account, rest: Decimal = rest) -> bool:
            seen = balance(admin, account)
            [left] = [Decimal(one["remaining"]) for one in seen["buckets"]] or [Decimal(seen["wallet"])]
            return left == rest

        until(burned)
        assert load.taken[account] == load.settled[account]


def test_the_same_load_overspends_without_the_lock(api: Api, admin: httpx.Client) -> None:
    with two_processes(api, locked=False) as urls:
        for _ in range(LOADS):
            load, _ = loaded(api, admin, urls)
            if load.proven:
                break
    assert load.proven, f"{load.granted} grants and none too many: the load proves nothing about the lock"
    assert min(seen_in_sql(api, list(load.balances)).values()) < 0
