"""The catalogue in SQL: immutable versions, one epoch, and no publication between a decision and its commit."""

import threading
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.catalog import Catalog
from billing.errors import CatalogConflict, CatalogMoved
from billing.store.published_catalog import PublishResult
from billing.store.store import Store
from schemas.times import parse_time_us

FIRST, LATER, LATEST = "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"
Make = Callable[..., Catalog]


def use_book_until(store: Store, moment: str, name: str = "retail-cn", partition: int = 0) -> None:
    """Commit usage rated under a price book at the event time ``moment``."""
    books = Books(partition)
    epoch, _ = store.acquire(partition)
    books.catalog_epoch = store.catalog_epoch()
    record = books.opening([f"a{partition}"])
    record.book_times = {name: parse_time_us(moment)}
    store.commit(epoch, record)


def test_what_was_published_is_read_back(store: Store, catalog_of: Make) -> None:
    assert store.catalog() == (0, Catalog())
    published = catalog_of((1, FIRST, "2"))
    result = store.publish(published)
    assert (result.epoch, result.published) == (1, ("price_book retail-cn@1",))
    assert store.catalog() == (1, published)
    assert store.catalog_epoch() == 1


def test_publishing_again_is_nothing_new(store: Store, catalog_of: Make) -> None:
    store.publish(catalog_of((1, FIRST, "2")))
    result = store.publish(catalog_of((1, FIRST, "2")))
    assert (result.epoch, result.published) == (1, ())


def test_a_version_never_changes(store: Store, catalog_of: Make) -> None:
    store.publish(catalog_of((1, FIRST, "2")))
    with pytest.raises(CatalogConflict, match="retail-cn@1 is published with other content"):
        store.publish(catalog_of((1, FIRST, "3")))
    assert store.catalog_epoch() == 1


def test_a_first_version_may_begin_at_any_time(store: Store, catalog_of: Make) -> None:
    use_book_until(store, LATER)
    assert store.publish(catalog_of((1, FIRST, "2"))).epoch == 1


@pytest.mark.parametrize(("begins", "refused"), [(FIRST, True), (LATER, True), ("2026-12-01T00:00:00.000001Z", False)])
def test_a_later_version_begins_after_the_usage_that_was_committed(
    store: Store, catalog_of: Make, begins: str, refused: bool
) -> None:
    store.publish(catalog_of((1, "2026-01-01T00:00:00Z", "2")))
    use_book_until(store, LATER, partition=1)
    use_book_until(store, FIRST, partition=2)
    later = catalog_of((1, "2026-01-01T00:00:00Z", "2"), (2, begins, "3"))
    if not refused:
        assert store.publish(later).published == ("price_book retail-cn@2",)
        return
    concerned = f"price_book retail-cn@2 begins {begins}, and usage from then to {LATER} is billed under retail-cn"
    with pytest.raises(CatalogConflict, match=f"{concerned}: begin later, or say --rerate"):
        store.publish(later)
    assert store.catalog_epoch() == 1
    assert store.publish(later, rerate=True) == PublishResult(2, ("price_book retail-cn@2",), (concerned,))


def test_rerate_publishes_what_concerns_no_usage(store: Store, catalog_of: Make) -> None:
    store.publish(catalog_of((1, FIRST, "2")))
    use_book_until(store, FIRST)
    assert store.publish(catalog_of((1, FIRST, "2"), (2, LATER, "3")), rerate=True).epoch == 2


def test_usage_under_another_name_refuses_nothing(store: Store, catalog_of: Make) -> None:
    store.publish(catalog_of((1, FIRST, "2")))
    use_book_until(store, LATEST, name="wholesale")
    assert store.publish(catalog_of((1, FIRST, "2"), (2, LATER, "3"))).epoch == 2


def test_old_and_new_entries_are_judged_together(store: Store, catalog_of: Make, tmp_path: object) -> None:
    store.publish(catalog_of((1, FIRST, "2")))
    both = catalog_of((1, FIRST, "2"), (2, LATER, "2"))
    only_second = Catalog(price_books=both.price_books[1:])
    assert store.publish(only_second).published == ("price_book retail-cn@2",)
    assert store.catalog() == (2, both)


def test_a_commit_decided_before_a_publication_is_refused(store: Store, catalog_of: Make) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    record = books.opening(["a1"])
    store.publish(catalog_of((1, FIRST, "2")))
    with pytest.raises(CatalogMoved):
        store.commit(epoch, record)


def test_commits_without_a_pause_do_not_starve_a_publication(
    database: PreparedDatabase, store: Store, catalog_of: Make
) -> None:
    stop = threading.Event()

    def commit_always(partition: int) -> None:
        books = Books(partition)
        with closing(Store(database.app_url, 1)) as own:
            epoch, _ = own.acquire(partition)
            own.commit(epoch, books.opening([f"a{partition}"]))
            while not stop.is_set():
                record = books.burning([f"a{partition}"], micro=1, revenue_pico=1)
                try:
                    own.commit(epoch, record)
                except CatalogMoved:
                    return

    writers = [threading.Thread(target=commit_always, args=(partition,)) for partition in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(0.5)
    began = time.monotonic()
    store.publish(catalog_of((1, FIRST, "2")))
    took_seconds = time.monotonic() - began
    stop.set()
    for writer in writers:
        writer.join(30)
    assert not any(writer.is_alive() for writer in writers)
    assert took_seconds < 10


def test_who_publishes_waits_for_living_workers_only(database: PreparedDatabase, store: Store) -> None:
    store.worker_seen("worker-1", 1)
    store.worker_seen("worker-2", 2)
    store.worker_seen("dead", 0)
    database.run("UPDATE worker SET seen_at = seen_at - interval '1 minute' WHERE name = 'dead'")
    assert store.wait_for_workers(1, 0) == []
    assert store.wait_for_workers(2, 0.3) == ["worker-1"]
    caught_up = threading.Timer(0.3, lambda: store.worker_seen("worker-1", 2))
    caught_up.start()
    assert store.wait_for_workers(2, 10) == []
    caught_up.join()
