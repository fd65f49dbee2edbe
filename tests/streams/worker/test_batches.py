"""The intake detects every record that is missing between two fetches."""

from billing.commits.input_batch import PlainRecord
from streams.worker.intake import Batch, Intake, Offered


def records(start: int, end: int, without: int | None = None) -> list[PlainRecord]:
    return [PlainRecord(offset, 0, None, b"%d" % offset) for offset in range(start, end) if offset != without]


def batch(start: int, end: int, seeks: int = 1) -> Batch:
    return Batch(records(start, end), seeks)


def offsets(intake: Intake, limit: int = 1000, until: int | None = None) -> list[int]:
    taken = intake.peek(limit, until)
    return [] if taken is None else [record.offset for record in taken.records]


def test_consecutive_batches_are_taken() -> None:
    intake = Intake("t", 10)
    assert intake.offer(batch(10, 13)) is Offered.TAKEN
    assert intake.offer(batch(13, 15)) is Offered.TAKEN
    assert offsets(intake) == [10, 11, 12, 13, 14]
    assert offsets(intake, limit=4) == [10, 11, 12, 13]
    assert offsets(intake, until=11) == [10]
    assert offsets(intake, until=10) == []


def test_a_batch_below_the_position_is_dropped_and_one_across_it_is_trimmed() -> None:
    intake = Intake("t", 10)
    assert intake.offer(batch(5, 10)) is Offered.STALE
    assert intake.offer(batch(8, 12)) is Offered.TAKEN
    assert offsets(intake) == [10, 11]
    assert (intake.records, intake.tail) == (2, 12)


def test_a_batch_committed_in_part_gives_the_rest() -> None:
    intake = Intake("t", 0)
    intake.offer(batch(0, 5))
    intake.offer(batch(5, 8))
    intake.committed(3)
    assert offsets(intake) == [3, 4, 5, 6, 7]
    intake.committed(6)
    assert offsets(intake) == [6, 7]
    assert intake.records == 3, "the batch that is still held"
    intake.committed(8)
    assert (intake.records, intake.size_bytes, intake.peek(10)) == (0, 0, None)


def test_a_gap_is_read_again_and_what_was_under_way_does_not_count() -> None:
    intake = Intake("t", 10)
    assert intake.offer(batch(12, 15, seeks=1)) is Offered.GAP
    assert intake.offer(batch(15, 18, seeks=1)) is Offered.STALE, "fetched before the rewind"
    assert intake.offer(batch(10, 14, seeks=2)) is Offered.TAKEN
    assert offsets(intake) == [10, 11, 12, 13]


def test_a_gap_that_survives_the_re_read_is_a_hole_in_the_log() -> None:
    intake = Intake("t", 10)
    assert intake.offer(batch(12, 15, seeks=1)) is Offered.GAP
    assert intake.offer(batch(12, 15, seeks=2)) is Offered.HOLE


def test_a_later_gap_is_read_again_too() -> None:
    intake = Intake("t", 10)
    assert intake.offer(batch(12, 15, seeks=1)) is Offered.GAP
    assert intake.offer(batch(10, 12, seeks=2)) is Offered.TAKEN
    assert intake.offer(batch(13, 15, seeks=2)) is Offered.GAP
    assert intake.offer(batch(12, 15, seeks=3)) is Offered.TAKEN


def test_an_offset_missing_inside_a_batch_is_a_hole() -> None:
    intake = Intake("t", 10)
    assert intake.offer(Batch(records(10, 15, without=12), 1)) is Offered.HOLE


def test_after_a_reset_the_position_of_sql_counts() -> None:
    intake = Intake("t", 10)
    intake.offer(batch(10, 20))
    intake.reset(15)
    assert intake.peek(100) is None
    assert intake.offer(batch(15, 20)) is Offered.TAKEN
