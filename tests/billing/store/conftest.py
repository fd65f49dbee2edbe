"""Fixtures of the store tests: a fresh database per test, copied from a template that is migrated once."""

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
    """Superuser URL of a PostgreSQL server: the one in the environment, or the one of the test session."""
    named = os.environ.get(SERVER_VARIABLE)
    return named or str(request.getfixturevalue("servers").admin_database_url)


@pytest.fixture
def new_database(server_url: str) -> Iterator[str]:
    """Superuser URL of a database that does not exist yet; it is dropped after the test."""
    with dropped_afterwards(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """Superuser URL of a prepared, empty database that other fixtures copy."""
    with prepared_database(server_url, PARTITIONS) as made:
        yield made.admin_url


@pytest.fixture
def database(new_database: str, template: str) -> PreparedDatabase:
    """A prepared, empty database for one test."""
    with psycopg.connect(in_database(template, "postgres"), autocommit=True) as connection:
        names = (make_url(url).database for url in (new_database, template))
        connection.execute("CREATE DATABASE {} TEMPLATE {}".format(*names))
    return PreparedDatabase(new_database)


@pytest.fixture
def untouched(template: str) -> PreparedDatabase:
    """The template database itself, for tests that change nothing."""
    return PreparedDatabase(template)


@pytest.fixture
def store(database: PreparedDatabase) -> Iterator[Store]:
    """A store in the application role, as a worker uses it."""
    with closing(Store(database.app_url)) as opened:
        yield opened


@pytest.fixture
def catalog_of(tmp_path: Path) -> Callable[..., Catalog]:
    """Factory of a catalogue with versions of one price book, each given as (version, begins, price)."""

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
    """Function that publishes one version of the price book ``retail-cn``."""
    return lambda store: store.publish(catalog_of((1, "2026-11-01T00:00:00+08:00", "2"))) and None
