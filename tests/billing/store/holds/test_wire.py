"""Pipelined connection of holds: each answer, of any size, matches its request, and an error leaves no remains."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import psycopg
import pytest
from own_database import PreparedDatabase

from billing.errors import BrokenInvariant, DatabaseDown, NotPrepared
from billing.store.holds.wire import WireConnection, text_array

T = TypeVar("T")

STATEMENTS = {
    b"begin": "BEGIN",
    b"commit": "COMMIT",
    b"echo": "SELECT $1::text, NULL::text",
    b"each": "SELECT * FROM unnest($1::text[])",
    b"group": "INSERT INTO rating_group VALUES ($1, '{}')",
    b"groups": "SELECT rating_group FROM rating_group ORDER BY 1",
    b"die": "SELECT pg_terminate_backend(pg_backend_pid())",
}


def on(
    url: str, question: Callable[[WireConnection], Coroutine[Any, Any, T]], statements: dict[bytes, str] = STATEMENTS
) -> T:
    async def ask() -> T:
        wire = WireConnection(url, "test", statements)
        try:
            return await question(wire)
        finally:
            wire.drop()

    return asyncio.run(ask())


def test_many_megabytes_go_and_come(untouched: PreparedDatabase) -> None:
    large = [bytes([letter]) * 12_000_000 for letter in b"ab"]

    async def question(wire: WireConnection) -> list[Any]:
        return await wire.ask(*((b"echo", [value]) for value in large), (b"echo", [None]))

    assert on(untouched.app_url, question) == [[(large[0], None)], [(large[1], None)], [(None, None)]]


def test_an_array_of_texts_is_read_as_it_was_written(untouched: PreparedDatabase) -> None:
    texts = ["", "NULL", 'a"b', "back\\slash", "{x,y}", " 词 元 "]
    seen = on(untouched.app_url, lambda wire: wire.ask((b"each", [text_array(texts)])))
    assert [row[0].decode() for row in seen[0] if row[0] is not None] == texts


def test_what_fails_in_the_middle_leaves_nothing_and_the_next_question_is_answered(database: PreparedDatabase) -> None:
    async def question(wire: WireConnection) -> list[Any]:
        await wire.ask((b"group", [b"1"]))
        with pytest.raises(BrokenInvariant):
            await wire.ask((b"begin", ()), (b"group", [b"2"]), (b"group", [b"1"]), (b"group", [b"3"]), (b"commit", ()))
        return (await wire.ask((b"groups", ())))[0]

    assert on(database.app_url, question) == [(b"1",)]


def test_a_connection_that_broke_is_made_anew(untouched: PreparedDatabase) -> None:
    async def question(wire: WireConnection) -> list[Any]:
        with pytest.raises(DatabaseDown):
            await wire.ask((b"die", ()))
        return await wire.ask((b"echo", [b"here"]))

    assert on(untouched.admin_url, question) == [[(b"here", None)]]


def test_a_server_that_is_away_or_not_prepared_is_said_to_be(untouched: PreparedDatabase) -> None:
    with pytest.raises(DatabaseDown):
        on("postgresql://nobody@127.0.0.1:1/none", lambda wire: wire.ask((b"begin", ())))
    with pytest.raises(NotPrepared):
        on(untouched.app_url, lambda wire: wire.ask((b"gone", ())), {b"gone": "SELECT * FROM gone"})


def test_a_lost_connection_leaves_the_number_of_its_socket_to_whoever_gets_it_next(untouched: PreparedDatabase) -> None:
    """libpq closes the socket of a connection that the server ended, and the next socket may get its number.

    That can happen before the caller resumes. The event loop must still report when the new socket is readable.
    """

    class Overtaken(WireConnection):
        def _end(self, error: psycopg.Error | None) -> None:
            number = self._socket
            super()._end(error)
            if error is not None:
                os.dup2(theirs.fileno(), number)
                asyncio.get_running_loop().add_reader(number, told.set)

    async def question() -> None:
        wire = Overtaken(untouched.admin_url, "test", STATEMENTS)
        await wire.ask((b"echo", [b"a"]))
        number = wire._socket
        with pytest.raises(DatabaseDown):
            await wire.ask((b"die", ()))
        ours.send(b"x")
        await asyncio.wait_for(told.wait(), 5)
        asyncio.get_running_loop().remove_reader(number)
        os.close(number)
        assert await wire.ask((b"echo", [b"b"])) == [[(b"b", None)]]
        wire.drop()

    theirs, ours = socket.socketpair()
    told = asyncio.Event()
    with theirs, ours:
        asyncio.run(question())
