"""Database of a command: that of ``--data-dir``, else ``TOKENBILL_DATABASE_URL``, else that of the default stack."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from billing.errors import DatabaseDown, NotPrepared
from billing.store.database import Database
from tokenbill.stack.config import DATABASE_VARIABLE, external_database
from tokenbill.user_errors import UserError


def database_url(data_dir: Path | None) -> str:
    """Return the URL of the database.

    Raises:
        UserError: no database is known, or the variable does not hold the URL of one.
    """
    named = external_database() if data_dir is None else None
    if named:
        return named
    from tokenbill.stack.info import info

    stack = info(data_dir)
    if stack.database_url is None:
        raise UserError(
            "No database is known",
            f"no stack was started in {stack.data_dir}",
            f"Run `tokenbill up`, name its folder with --data-dir, or set {DATABASE_VARIABLE}.",
        )
    return stack.database_url


@contextmanager
def opened(data_dir: Path | None) -> Iterator[Database]:
    """Open the database of a short command, with :func:`explained` around the body of the ``with`` statement."""
    with explained(), closing(Database(database_url(data_dir), pool_size=1)) as database:
        yield database


@contextmanager
def explained() -> Iterator[None]:
    """Convert errors of an unreachable or unprepared database into a UserError."""
    try:
        yield
    except DatabaseDown as error:
        raise UserError("The database does not answer", str(error), "Is the stack up? `tokenbill status`") from error
    except NotPrepared as error:
        raise UserError("The database is not prepared", str(error), "Run `tokenbill up` first.") from error
