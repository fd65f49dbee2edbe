"""Preparation of Kafka and PostgreSQL for Tokenbill: schema, roles, partition count and topics. Idempotent.

The first preparation fixes the partition count and stores it in the database (docs/reference/principles.md,
"Log and writer").
"""

from dataclasses import dataclass

from billing.errors import DatabaseDown
from billing.store.migrate import APP, REPORT, migrate, role_url
from billing.store.seed import seed
from tokenbill.user_errors import UserError


@dataclass(frozen=True, slots=True)
class PreparedStack:
    """Result of a preparation: the partition count, and the database URLs of the application and of reports."""

    partitions: int
    database_url: str
    report_url: str


def prepare(
    kafka: str,
    admin_database_url: str,
    partitions: int | None,
    app_password: str | None,
    report_password: str | None,
) -> PreparedStack:
    """Prepare the database, then the topics; with ``partitions`` None the stored count is used.

    Raises:
        UserError: another partition count is stored, none is known, a server cannot be reached, or the existing topics
            do not fit.
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
    return PreparedStack(
        stored,
        role_url(admin_database_url, APP, app_password),
        role_url(admin_database_url, REPORT, report_password),
    )


def _prepare_topics(kafka: str, partitions: int) -> None:
    from confluent_kafka import KafkaException

    from streams.stream_errors import TopicMismatch
    from streams.topic_setup import ensure_topics

    try:
        ensure_topics(kafka, partitions)
    except TopicMismatch as error:
        raise UserError("The topics do not fit this installation", error.what, error.fix) from error
    except KafkaException as error:
        raise UserError("The topics could not be prepared", str(error), "Check the address of the broker.") from error
