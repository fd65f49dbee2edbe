"""Records of any kind are read as their attributes say, wherever the interpreter keeps them."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord
from test_decode_parity import COMMON

from billing.commits.input_batch import PlainRecord
from cython_ext.decode import Decoder


def value(number: int) -> bytes:
    return COMMON.replace(b"call-01JD9Z6N", b"call-%d" % number)


class Straight:
    def __init__(self, number: int) -> None:
        self.offset, self.timestamp, self.headers, self.value = number, 10**12 + number, (), value(number)


class Turned(Straight):
    """Its attributes are set in another order from record to record."""

    def __init__(self, number: int) -> None:
        if number % 2:
            self.value = value(number)
            self.headers: Any = ()
        super().__init__(number)


class Computed:
    """Its value is no attribute of the instance, which holds the same object under another name."""

    def __init__(self, number: int) -> None:
        self.offset, self.timestamp, self.headers, self.kept = number, 10**12, (), value(number)
        self.number = number

    @property
    def value(self) -> bytes:
        return self.kept if self.number == 0 else value(self.number + 1000)


class Asked:
    """It finds its attributes in a way of its own."""

    def __init__(self, number: int) -> None:
        self.offset, self.timestamp, self.headers, self.value = number, 10**12, (), value(number)

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return found.replace(b"call-", b"asked-") if name == "value" else found


class Defaulted:
    """The type has what some instances lack."""

    value = value(77)
    headers = ()

    def __init__(self, number: int) -> None:
        self.offset, self.timestamp = number, 10**12
        if number % 3 == 0:
            self.value = value(number)


def opened(number: int) -> Straight:
    """Make a record whose attributes a reader has moved to a dictionary."""
    record = Straight(number)
    if number % 2:
        vars(record)["more"] = 1
    return record


def emptied(number: int) -> Straight:
    record = Straight(number)
    del record.value
    record.value = value(number + 5)
    return record


def consumed(number: int) -> Any:
    return ConsumerRecord("t", 0, number, 10**12, 1, None, value(number), None, 0, 0, ())


def same_object_twice(number: int) -> Straight:
    record = Straight(number)
    record.key = record.value if number == 0 else b"no event"  # type: ignore[attr-defined]
    return record


MAKERS: list[Any] = [
    Straight,
    Turned,
    Computed,
    Asked,
    Defaulted,
    opened,
    emptied,
    consumed,
    same_object_twice,
    lambda number: SimpleNamespace(offset=number, timestamp=1, headers=(), value=value(number)),
    lambda number: PlainRecord(number, 10**12, None, value(number)),
]


@pytest.mark.parametrize("maker", MAKERS)
def test_records_are_read_by_their_attributes(maker: Any) -> None:
    records = [maker(number) for number in range(50)]
    columns = Decoder().decode(records)
    expected = [record.value.partition(b'"id":"')[2].partition(b'"')[0].decode() for record in records]
    assert [columns.id_of(row) for row in range(len(records))] == expected


def test_records_of_several_kinds_are_read_together() -> None:
    records = [maker(number) for number, maker in enumerate(MAKERS * 4)]
    columns = Decoder().decode(records)
    expected = [record.value.partition(b'"id":"')[2].partition(b'"')[0].decode() for record in records]
    assert [columns.id_of(row) for row in range(len(records))] == expected
