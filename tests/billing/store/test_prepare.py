"""Preparing the servers fixes the partition count and is idempotent."""

import pytest
from own_database import PreparedDatabase

from streams import topic_setup as topics
from tokenbill.prepare_servers import prepare
from tokenbill.user_errors import UserError


@pytest.fixture(autouse=True)
def topics_made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The (broker address, partition count) of each call that would create the topics."""
    made: list[tuple[str, int]] = []
    monkeypatch.setattr(topics, "ensure_topics", lambda kafka, partitions: made.append((kafka, partitions)))
    return made


def test_the_first_preparation_fixes_the_partition_count(new_database: str, topics_made: list[tuple[str, int]]) -> None:
    first = prepare("broker:1", new_database, 3, None, None)
    assert first.partitions == 3
    assert first.database_url.startswith("postgresql://tokenbill_app@")
    assert prepare("broker:1", new_database, None, None, None) == first
    assert prepare("broker:1", new_database, 3, None, None) == first
    assert topics_made == [("broker:1", 3)] * 3
    with pytest.raises(UserError, match="has 3 partitions, not 4"):
        prepare("broker:1", new_database, 4, None, None)
    assert len(topics_made) == 3
    found = PreparedDatabase(new_database).run("SELECT partition FROM partition_state ORDER BY 1")
    assert found == [(0,), (1,), (2,)]


def test_without_a_count_the_first_time_it_says_what_to_do(new_database: str) -> None:
    with pytest.raises(UserError, match="--partitions"):
        prepare("broker:1", new_database, None, None, None)


def test_a_database_that_is_not_there_is_an_error_for_a_person() -> None:
    with pytest.raises(UserError, match="could not be prepared"):
        prepare("broker:1", "postgresql://nobody@127.0.0.1:1/nothing", 3, None, None)
