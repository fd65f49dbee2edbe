"""A fresh, prepared database for each test, copied from a template that is migrated once."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from own_database import PreparedDatabase, dropped_afterwards, in_database, prepared_database
from sqlalchemy import make_url

from billing.catalog import Catalog, load_folder
from billing.store.store import Store

PARTITIONS = 4
SERVER_VARIABLE = "TOKENBILL_TEST_ADMIN_DATABASE_URL"


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """A superuser's address of a real PostgreSQL: a named one, else the session's own."""
    named = os.environ.get(SERVER_VARIABLE)
    return named or str(request.getfixturevalue("servers").admin_database_url)


@pytest.fixture
def new_database(server_url: str) -> Iterator[str]:
    """The superuser's address of a database that does not exist yet."""
    with dropped_afterwards(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """A prepared database with nothing in it, to be copied."""
    with prepared_database(server_url, PARTITIONS) as made:
        yield made.admin_url


@pytest.fixture
def database(new_database: str, template: str) -> PreparedDatabase:
    """A prepared database of the test's own, with nothing in it."""
    with psycopg.connect(in_database(template, "postgres"), autocommit=True) as connection:
        names = (make_url(url).database for url in (new_database, template))
        connection.execute("CREATE DATABASE {} TEMPLATE {}".format(*names))
    return PreparedDatabase(new_database)


@pytest.fixture
def untouched(template: str) -> PreparedDatabase:
    """The prepared database that others are copied from: for tests that change nothing."""
    return PreparedDatabase(template)


@pytest.fixture
def store(database: PreparedDatabase) -> Iterator[Store]:
    """The store as a worker has it: in the application's role."""
    with closing(Store(database.app_url)) as opened:
        yield opened


@pytest.fixture
def catalog_of(tmp_path: Path) -> Callable[..., Catalog]:
    """Makes a catalogue of versions of a price book: (version, begins, price) each."""

    def make(*versions: tuple[int, str, str], name: str = "retail-cn") -> Catalog:
        for version, begins, price in versions:
            (tmp_path / f"{name}-{version}.yaml").write_text(
                f'kind: price_book\nname: {name}\nversion: {version}\ncurrency: CNY\neffective_from: "{begins}"\n'
                f'rows: [{{per_million: {{input: "{price}", output: "{price}"}}}}]\n'
            )
        return load_folder(tmp_path)

    return make


@pytest.fixture
def publish_samples(catalog_of: Callable[..., Catalog]) -> Callable[[Store], None]:
    """Publishes a price book."""
    return lambda store: store.publish(catalog_of((1, "2026-11-01T00:00:00+08:00", "2"))) and None
