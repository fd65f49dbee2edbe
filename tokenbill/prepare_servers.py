"""Makes servers ready for Tokenbill: schema and roles, the partition count, the topics. Idempotent.

The partition count is fixed by the first preparation and stored in the database (DESIGN 2).
"""

from dataclasses import dataclass

from billing.errors import DatabaseDown
from billing.store.migrate import APP, migrate, role_url
from billing.store.seed import seed
from tokenbill.errors import UserError


@dataclass(frozen=True, slots=True)
class PreparedStack:
    """What is fixed once prepared: how many partitions, and the application's address of the database."""

    partitions: int
    database_url: str


def prepare(
    kafka: str,
    admin_database_url: str,
    partitions: int | None,
    app_password: str | None,
    report_password: str | None,
) -> PreparedStack:
    """Prepare database, then topics. ``partitions`` None takes the count that is stored.

    Raises:
        UserError: the stored count is another, none is stored, or the database cannot be reached.
    """
    try:
        migrate(admin_database_url, app_password, report_password)
        stored = seed(admin_database_url, partitions)
    except DatabaseDown as error:
        raise UserError(
            "The database could not be prepared", str(error), "Check the address, user and password of the database."
        ) from error
    except LookupError as error:
        raise UserError(
            "The number of partitions is not known", str(error), "Name it with --partitions the first time."
        ) from error
    if partitions is not None and stored != partitions:
        raise UserError(
            f"This installation has {stored} partitions, not {partitions}",
            "accounts are spread over partitions by their number, which is fixed by the first start",
            f"Start with --partitions {stored} or without the option, or use another database and Kafka.",
        )
    _prepare_topics(kafka, stored)
    return PreparedStack(stored, role_url(admin_database_url, APP, app_password))


def _prepare_topics(kafka: str, partitions: int) -> None:
    from confluent_kafka import KafkaException

    from streams.topic_setup import TopicMismatch, ensure_topics

    try:
        ensure_topics(kafka, partitions)
    except TopicMismatch as error:
        raise UserError("The topics do not fit this installation", error.what, error.fix) from error
    except KafkaException as error:
        raise UserError("The topics could not be prepared", str(error), "Check the address of the broker.") from error
