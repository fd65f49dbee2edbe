"""The compiled hashes and sums of rows equal the plain ones, which are those of hashlib, for any text."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.calculator import core_row_hashes as core
from billing.commits import row_hashes as plain
from billing.commits.copy_text import copy_rows
from cython_ext import row_hashes as compiled

TABLES = st.sampled_from(["account", "bucket", "partition_state"])
PARTITIONS = st.integers(-(2**31), 2**31 - 1)
ROWS = st.lists(st.binary(max_size=600).map(lambda row: b"k\t" + row.replace(b"\n", b"")), max_size=9)


def lines(rows: list[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)


@given(TABLES, PARTITIONS, ROWS)
def test_rows_get_the_same_hashes_and_sums(table: str, partition: int, rows: list[bytes]) -> None:
    text = lines(rows)
    assert core.with_hashes(table, partition, text) == plain.with_hashes(table, partition, text)
    hashed, total = core.with_hashes(table, partition, text)
    assert core.check_hashes(table, partition, hashed) == plain.check_hashes(table, partition, hashed) == (total, [])


@given(TABLES, PARTITIONS, ROWS, st.integers(0, 8), st.integers(0, 10_000))
def test_a_changed_byte_is_found_in_its_row(
    table: str, partition: int, rows: list[bytes], changed: int, place: int
) -> None:
    if changed >= len(rows):
        return
    hashed = [line + b"\n" for line in core.with_hashes(table, partition, lines(rows))[0].split(b"\n")[:-1]]
    line = bytearray(hashed[changed])
    at = place % (len(line) - 1)
    line[at] ^= 1
    if line[at] in b"\t\n":
        line[at] ^= 4
    hashed[changed] = bytes(line)
    text = b"".join(hashed)
    found = core.check_hashes(table, partition, text)
    assert found == plain.check_hashes(table, partition, text)
    assert found[1] == [changed]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 255, 256, 257, 100_000])
def test_every_length_is_hashed_as_hashlib_does(size: int) -> None:
    row = bytes(b"0123456789"[n % 10] for n in range(size))
    [line] = core.with_hashes("bucket", 7, row + b"\n")[0].splitlines()
    salt = (7).to_bytes(16, "little")
    assert line.removeprefix(row + b"\t\\\\x") == (
        blake2b(row, digest_size=32, person=b"bucket", salt=salt).hexdigest().encode()
    )


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=9), st.randoms())
def test_a_sum_counts_each_row_once_in_any_order(hashes: list[bytes], chance) -> None:
    total = core.sum_of_hashes(b"".join(hashes))
    assert total == plain.sum_of_hashes(b"".join(hashes))
    shuffled = hashes[:]
    chance.shuffle(shuffled)
    assert core.sum_of_hashes(b"".join(shuffled)) == total
    taken = plain.RowSum()
    for hashed in hashes:
        taken += core.sum_of_hashes(hashed)
    assert taken == total
    assert total - taken == plain.RowSum()
    assert plain.RowSum.read(total.rows, total.to_bytes()) == total


VALUES = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_characters="\0", codec="utf-8"))
)


@given(TABLES, st.lists(st.tuples(PARTITIONS, st.lists(VALUES, min_size=1, max_size=5), st.booleans()), max_size=5))
def test_values_are_compared_as_their_text(table: str, rows: list[tuple[int, list[object], bool]]) -> None:
    given_rows = [
        (*values, partition, plain.row_hash(table, partition, copy_rows([values])[:-1]) if right else b"x" * 32)
        for partition, values, right in rows
    ]
    differ = [index for index, (_, _, right) in enumerate(rows) if not right]
    assert core.check_values(table, given_rows) == plain.check_values(table, given_rows) == differ


def test_places_and_tables_have_hashes_of_their_own() -> None:
    hashes = {plain.row_hash(table, partition, b"a") for table in ("account", "bucket") for partition in (0, 1, 2)}
    assert len(hashes) == 6


def test_what_is_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="newline"):
        compiled.with_hashes("bucket", 0, b"a\tb")
    with pytest.raises(ValueError, match="newline"):
        compiled.check_hashes("bucket", 0, b"a\tb")
    with pytest.raises(ValueError, match="no column"):
        compiled.check_hashes("bucket", 0, b"a\n")
    with pytest.raises(ValueError, match="2 values"):
        compiled.check_values("bucket", [(0, None)])
    with pytest.raises(TypeError):
        compiled.check_values("bucket", [(b"x", 0, None)])
    with pytest.raises(OverflowError):
        compiled.check_values("bucket", [(2**64, 0, None)])
    with pytest.raises(ValueError, match="16 bytes"):
        compiled.with_hashes("a_name_of_many_bytes", 0, b"a\n")
    for module in (core, plain):
        with pytest.raises(ValueError, match="not hashes"):
            module.sum_of_hashes(b"a")
