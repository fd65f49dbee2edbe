"""``tokenbill prepare``: prepares existing servers for Tokenbill. `tokenbill up` does this for the local stack."""

from pathlib import Path

import click

from tokenbill.commands.catalog import open_catalog
from tokenbill.prepare_servers import prepare as prepare_servers
from tokenbill.stack.config import checked_database_url

_EXAMPLE = """
\b
Example:
  export TOKENBILL_ADMIN_DATABASE_URL=postgresql://postgres:PASSWORD@postgresql:5432/postgres
  export TOKENBILL_APP_PASSWORD=PASSWORD TOKENBILL_REPORT_PASSWORD=PASSWORD
  tokenbill prepare --kafka kafka:9092 --partitions 8 --catalog /etc/tokenbill/catalog
"""


@click.command(epilog=_EXAMPLE)
@click.option("--kafka", envvar="TOKENBILL_KAFKA", required=True, help="Kafka's address [TOKENBILL_KAFKA].")
@click.option(
    "--admin-database-url",
    envvar="TOKENBILL_ADMIN_DATABASE_URL",
    help="URL of the PostgreSQL database, with an administrator's login [TOKENBILL_ADMIN_DATABASE_URL].",
)
@click.option(
    "--app-password",
    envvar="TOKENBILL_APP_PASSWORD",
    help="Password of the database role of workers, relay and API [TOKENBILL_APP_PASSWORD].",
)
@click.option(
    "--report-password",
    envvar="TOKENBILL_REPORT_PASSWORD",
    help="Password of the read-only database role for reports [TOKENBILL_REPORT_PASSWORD].",
)
@click.option(
    "--partitions", type=click.IntRange(min=1), help="Number of partitions; fixed by the first run, then only checked."
)
@click.option("--catalog", "catalog_dir", type=click.Path(path_type=Path), help="Also publish this catalogue folder.")
def prepare(
    kafka: str,
    admin_database_url: str | None,
    app_password: str | None,
    report_password: str | None,
    partitions: int | None,
    catalog_dir: Path | None,
) -> None:
    """Create or upgrade the database schema, the database roles and the Kafka topics.

    The command may be repeated, and two runs at the same time do no harm. `tokenbill up` does the same for the local
    stack. Give passwords in the environment: options are visible to every user of the machine.
    """
    if admin_database_url is None or app_password is None or report_password is None:
        raise click.UsageError(
            "Missing a database address or a password: "
            "set TOKENBILL_ADMIN_DATABASE_URL, TOKENBILL_APP_PASSWORD and TOKENBILL_REPORT_PASSWORD."
        )
    checked_database_url(admin_database_url, "--admin-database-url (TOKENBILL_ADMIN_DATABASE_URL)")
    prepared = prepare_servers(kafka, admin_database_url, partitions, app_password, report_password)
    click.echo(f"ready: {prepared.partitions} partitions")
    if catalog_dir is not None:
        from billing.store.store import Store

        entries = open_catalog(catalog_dir)
        with Store(prepared.database_url) as store:
            done = store.publish(entries)
        click.echo("\n".join(f"published {label}" for label in done.published) or "the catalogue was there already")
