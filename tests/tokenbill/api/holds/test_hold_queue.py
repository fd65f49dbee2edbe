"""Waiting hold operations are decided together, and a failing one fails alone. Also the signature of offline grants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from billing.errors import DatabaseDown
from billing.reservations.operations import Operation
from tokenbill.api.holds.hold_queue import AT_ONCE, HoldQueue
from tokenbill.api.holds.signing import sign, verify


class CountingBook:
    """A stand-in for the hold book that counts its transactions, because these tests are about the queue."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.down = False

    async def transact(self, operations: Sequence[Operation]) -> list[Any]:
        self.sizes.append(len(operations))
        if self.down:
            raise DatabaseDown("away")
        return [operation.decide(None) for operation in operations]  # type: ignore[arg-type]

    async def close(self) -> None:
        self.closed = True


def operation(decide: Callable[[Any], Any]) -> Operation:
    return Operation("a", (), decide)


def asked(book: CountingBook, *operations: Operation) -> list[Any]:
    async def ask() -> list[Any]:
        queue = HoldQueue(book)  # type: ignore[arg-type]
        answers = await asyncio.gather(*(queue.run(one) for one in operations), return_exceptions=True)
        await queue.close()
        return answers

    return asyncio.run(ask())


def test_what_waits_is_decided_together_in_order() -> None:
    book = CountingBook()
    seen: list[int] = []
    answers = asked(book, *(operation(lambda _, n=n: seen.append(n) or n) for n in range(AT_ONCE + 16)))
    assert answers == seen == list(range(AT_ONCE + 16))
    assert book.sizes == [AT_ONCE, 16] and book.closed


def test_one_that_fails_fails_alone() -> None:
    def fail(_: Any) -> Any:
        raise LookupError("a defect")

    answers = asked(CountingBook(), operation(lambda _: 1), operation(fail), operation(lambda _: 3))
    assert answers[0] == 1 and isinstance(answers[1], LookupError) and answers[2] == 3


def test_everybody_hears_that_the_database_is_away() -> None:
    book = CountingBook()
    book.down = True
    answers = asked(book, operation(lambda _: 1), operation(lambda _: 2))
    assert [type(answer) for answer in answers] == [DatabaseDown] * 2 and book.sizes == [2]


@pytest.mark.parametrize("change", ["", "x", "é", "..", "a.b.c", "{header}.e30.{mac}", "{claims}", "{other}"])
def test_only_what_was_signed_with_the_key_is_verified(change: str) -> None:
    token = sign({"sub": "a", "exp": 5}, b"key")
    header, claims, mac = token.split(".")
    forged = change.format(header=header, mac=mac, claims=claims, other=sign({"sub": "a"}, b"another key"))
    assert verify(token, b"key") == {"sub": "a", "exp": 5}
    assert verify(forged, b"key") is None
