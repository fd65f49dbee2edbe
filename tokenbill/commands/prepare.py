"""``tokenbill prepare``: makes servers that others run ready for Tokenbill. The local stack does this by itself."""

from pathlib import Path

import click

from tokenbill.commands.catalog import open_catalog
from tokenbill.prepare_servers import prepare as prepare_servers

EXAMPLE = """
\b
Example:
  tokenbill prepare --kafka kafka:9092 --partitions 8 --catalog /etc/tokenbill/catalog \\
    --app-password PASSWORD --report-password PASSWORD \\
    --admin-database-url postgresql://postgres:PASSWORD@postgresql:5432/postgres
"""


@click.command(epilog=EXAMPLE)
@click.option("--kafka", envvar="TOKENBILL_KAFKA", required=True, help="Bootstrap address [TOKENBILL_KAFKA].")
@click.option(
    "--admin-database-url",
    envvar="TOKENBILL_ADMIN_DATABASE_URL",
    required=True,
    help="PostgreSQL as an administrator [TOKENBILL_ADMIN_DATABASE_URL].",
)
@click.option(
    "--app-password",
    envvar="TOKENBILL_APP_PASSWORD",
    required=True,
    help="For workers and relay [TOKENBILL_APP_PASSWORD].",
)
@click.option(
    "--report-password",
    envvar="TOKENBILL_REPORT_PASSWORD",
    required=True,
    help="For readers [TOKENBILL_REPORT_PASSWORD].",
)
@click.option("--partitions", type=click.IntRange(min=1), help="Fixed by the first run; then only checked.")
@click.option("--catalog", "catalog_dir", type=click.Path(path_type=Path), help="Publish this catalogue too.")
def prepare(
    kafka: str,
    admin_database_url: str,
    app_password: str,
    report_password: str,
    partitions: int | None,
    catalog_dir: Path | None,
) -> None:
    """Create or upgrade schema, roles and topics. Safe to repeat, and to run twice at once."""
    prepared = prepare_servers(kafka, admin_database_url, partitions, app_password, report_password)
    click.echo(f"ready: {prepared.partitions} partitions")
    if catalog_dir is not None:
        from billing.store.store import Store

        entries = open_catalog(catalog_dir)
        with Store(prepared.database_url) as store:
            done = store.publish(entries)
        click.echo("\n".join(f"published {label}" for label in done.published) or "the catalogue was there already")
