"""``tokenbill prepare``: prepares existing servers for Tokenbill. `tokenbill up` does this for the local stack."""

from pathlib import Path

import click

from tokenbill.commands.catalog import open_catalog
from tokenbill.prepare_servers import prepare as prepare_servers
from tokenbill.stack.config import checked_database_url

_EXAMPLE = """
\b
Example:
  tokenbill prepare --kafka kafka:9092 --partitions 8 --catalog /etc/tokenbill/catalog \\
    --app-password PASSWORD --report-password PASSWORD \\
    --admin-database-url postgresql://postgres:PASSWORD@postgresql:5432/postgres
"""


@click.command(epilog=_EXAMPLE)
@click.option("--kafka", envvar="TOKENBILL_KAFKA", required=True, help="Kafka's address [TOKENBILL_KAFKA].")
@click.option(
    "--admin-database-url",
    envvar="TOKENBILL_ADMIN_DATABASE_URL",
    required=True,
    help="URL of the PostgreSQL database, with an administrator's login [TOKENBILL_ADMIN_DATABASE_URL].",
)
@click.option(
    "--app-password",
    envvar="TOKENBILL_APP_PASSWORD",
    required=True,
    help="Password of the database role of workers, relay and API [TOKENBILL_APP_PASSWORD].",
)
@click.option(
    "--report-password",
    envvar="TOKENBILL_REPORT_PASSWORD",
    required=True,
    help="Password of the read-only database role for reports [TOKENBILL_REPORT_PASSWORD].",
)
@click.option(
    "--partitions", type=click.IntRange(min=1), help="Number of partitions; fixed by the first run, then only checked."
)
@click.option("--catalog", "catalog_dir", type=click.Path(path_type=Path), help="Also publish this catalogue folder.")
def prepare(
    kafka: str,
    admin_database_url: str,
    app_password: str,
    report_password: str,
    partitions: int | None,
    catalog_dir: Path | None,
) -> None:
    """Create or upgrade the database schema, the database roles and the Kafka topics.

    The command may be repeated, and two runs at the same time do no harm. `tokenbill up` does the same for the local
    stack.
    """
    checked_database_url(admin_database_url, "--admin-database-url (TOKENBILL_ADMIN_DATABASE_URL)")
    prepared = prepare_servers(kafka, admin_database_url, partitions, app_password, report_password)
    click.echo(f"ready: {prepared.partitions} partitions")
    if catalog_dir is not None:
        from billing.store.store import Store

        entries = open_catalog(catalog_dir)
        with Store(prepared.database_url) as store:
            done = store.publish(entries)
        click.echo("\n".join(f"published {label}" for label in done.published) or "the catalogue was there already")
