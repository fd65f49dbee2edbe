"""``tokenbill catalog publish`` on a database: new entries, refusals with reasons, and workers that lag behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from own_database import PreparedDatabase
from store_records import Books

from billing.catalog import Catalog
from billing.store.store import Store
from schemas.times import parse_time_us
from tokenbill.commands import catalog as command
from tokenbill.stack.config import DATABASE_VARIABLE
from tokenbill.user_errors import UserError

FIRST, USED, LATER = "2026-11-01T00:00:00Z", "2026-11-20T10:00:00Z", "2026-12-01T00:00:00Z"
Make = Callable[..., Catalog]


@pytest.fixture(autouse=True)
def command_uses_the_database(database: PreparedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, database.app_url)


def publish(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(command.catalog, ["publish", str(folder), *options], catch_exceptions=False)


def use_book(store: Store) -> None:
    """Commit usage under the price book, in November."""
    epoch, _ = store.acquire(0)
    books = Books(0)
    books.catalog_epoch = store.catalog_epoch()
    record = books.opening(["a"])
    record.book_times = {"retail-cn": parse_time_us(USED)}
    store.commit(epoch, record)


def test_what_is_new_is_published_once(store: Store, catalog_of: Make, tmp_path: Path) -> None:
    catalog_of((1, FIRST, "2"))
    result = publish(tmp_path)
    assert (result.exit_code, result.stdout) == (
        0,
        "published price_book retail-cn@1\n1 new entry: every running worker uses the catalogue (epoch 1)\n",
    )
    assert publish(tmp_path).stdout == "0 new entries: every running worker uses the catalogue (epoch 1)\n"
    assert store.catalog_epoch() == 1


def test_a_catalogue_with_errors_is_not_published(store: Store, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("kind: price_book\n", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be used"):
        publish(tmp_path)
    assert store.catalog_epoch() == 0


def test_a_worker_that_does_not_follow_in_time_is_named(
    store: Store, catalog_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "WORKERS_SECONDS", 0.3)
    catalog_of((1, FIRST, "2"))
    store.worker_seen("worker-1", 0)
    store.worker_seen("worker-2", 1)
    result = publish(tmp_path)
    assert result.exit_code == command.NOT_IN_USE
    assert result.stderr == "1 new entry; after 0 s not in use yet by worker-1\n"
    assert store.catalog_epoch() == 1


def test_other_content_of_a_published_version_is_refused(store: Store, catalog_of: Make, tmp_path: Path) -> None:
    catalog_of((1, FIRST, "2"))
    publish(tmp_path)
    catalog_of((1, FIRST, "3"))
    with pytest.raises(UserError, match="retail-cn@1 is published with other content"):
        publish(tmp_path)


def test_a_version_before_usage_names_that_usage_with_and_without_rerate(
    store: Store, catalog_of: Make, tmp_path: Path
) -> None:
    catalog_of((1, FIRST, "2"))
    publish(tmp_path)
    use_book(store)
    catalog_of((2, "2026-11-10T00:00:00+08:00", "3"))
    with pytest.raises(UserError) as refused:
        publish(tmp_path)
    concerned = "price_book retail-cn@2 begins 2026-11-09T16:00:00Z, and usage from then to 2026-11-20T10:00:00Z"
    assert concerned in str(refused.value)
    assert "begin later, or say --rerate" in str(refused.value)
    assert store.catalog_epoch() == 1
    done = publish(tmp_path, "--rerate")
    assert done.stdout.startswith("published price_book retail-cn@2\n")
    assert done.stderr.startswith(concerned)
    assert store.catalog_epoch() == 2


@pytest.mark.parametrize("options", [(), ("--rerate",)])
def test_a_version_after_all_usage_is_published(
    store: Store, catalog_of: Make, tmp_path: Path, options: tuple[str, ...]
) -> None:
    catalog_of((1, FIRST, "2"))
    publish(tmp_path)
    use_book(store)
    catalog_of((2, LATER, "3"))
    assert publish(tmp_path, *options).stdout.startswith("published price_book retail-cn@2\n")
