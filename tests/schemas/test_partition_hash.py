"""Accounts are assigned to the same partitions as by Kafka's Java client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.routing import murmur2, partition_of


@pytest.mark.parametrize(
    ("text", "value"),  # the vectors of Kafka's own UtilsTest
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(text: bytes, value: int) -> None:
    assert murmur2(text) == value


def test_a_partition_is_the_positive_hash_modulo_the_count() -> None:
    assert partition_of("foobar", 7) == (-790332482 & 0x7FFFFFFF) % 7


@given(st.text(), st.integers(1, 1000))
def test_a_partition_exists(account: str, partitions: int) -> None:
    assert 0 <= partition_of(account, partitions) < partitions


def test_there_is_at_least_one_partition() -> None:
    with pytest.raises(ValueError, match="0 is not"):
        partition_of("a", 0)
