"""`tokenbill audit`: verifies that the stored figures agree with each other; exit code 1 if a check fails."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from billing.store.proofs.audit import AuditResult
from billing.store.proofs.audit import audit as run_audit
from tokenbill.command_database import database_url, explained


@click.command(epilog="Exit codes: 0 every check holds (findings may be listed), 1 a check failed.")
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the stack's data and logs."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def audit(data_dir: Path | None, as_json: bool) -> None:
    """Verify sums, digest chain, gaps and sub-ledgers of the database.

    Findings are listed separately and do not make the audit fail.

    \b
    Example:
      tokenbill audit --json
    """
    with explained():
        outcome = run_audit(database_url(data_dir))
    if as_json:
        document = {"passed": outcome.passed} | asdict(outcome)
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        for result in outcome.checks:
            click.echo(f"{'ok  ' if result.count == 0 else 'FAIL'}  {result.name}: {result.sentence}")
            _list(result)
        for result in outcome.findings:
            if result.count:
                click.echo(f"look  {result.name}: {result.sentence}")
                _list(result)
        failed = [result.name for result in outcome.checks if result.count]
        click.echo(f"{len(failed)} of {len(outcome.checks)} checks failed" if failed else "everything adds up")
    if not outcome.passed:
        sys.exit(1)


def _list(result: AuditResult) -> None:
    for text in result.shown:
        click.echo(f"        {text}")
    if result.count > len(result.shown):
        click.echo(f"        … and {result.count - len(result.shown)} more")
