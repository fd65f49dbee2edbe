"""``tokenbill dialects``: lists the dialects of usage objects, and the table of one, with the source of each row."""

import json
import sys
from typing import Any

import click

from schemas.dialects import TABLES
from schemas.dialects.dialect_table import Dialect, LeafRow, Role
from tokenbill.commands.table import write_rows
from tokenbill.user_errors import UserError

_EXAMPLE = """
\b
Examples:
  tokenbill dialects
  tokenbill dialects anthropic
  tokenbill dialects anthropic --json
"""
_LISTED = ("dialect", "version", "rows", "usage object of")
_ROW = ("number", "is", "source")


@click.command(epilog=_EXAMPLE)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def dialects(name: str | None, as_json: bool) -> None:
    """List the dialects in which usage may be sent (data.usage_dialect), or print the table of the dialect NAME.

    The table has a row for each number of the provider's usage object: its path, what it counts, and the address where
    the provider defines it. A number without a row refuses the event (usage_mismatch).
    """
    if name is None:
        listed = [_listed(table) for table in TABLES.values()]
        write_rows(listed, _LISTED, "json" if as_json else "table", sys.stdout)
        return
    table = TABLES.get(name)
    if table is None:
        raise UserError(f"There is no dialect {name!r}", f"there are {', '.join(TABLES)}", "Name one of them.")
    if as_json:
        click.echo(json.dumps(_document(table), ensure_ascii=False, indent=1))
        return
    click.echo(f"{table.name}, version {table.version}: {table.title}")
    click.echo(f"{table.notes}\n" if table.notes else "")
    for line in _rules(table):
        click.echo(line)
    click.echo("")
    rows: list[dict[str, str | int | None]] = [
        {"number": row.path, "is": _meaning(row), "source": row.source} for row in table.rows
    ]
    write_rows(rows, _ROW, "table", sys.stdout)


def _listed(table: Dialect) -> dict[str, str | int | None]:
    return dict(zip(_LISTED, (table.name, table.version, len(table.rows), table.title), strict=True))


def _rules(table: Dialect) -> list[str]:
    """Return the rules of inclusion as lines."""
    inside = [role for role in (Role.CACHED, Role.WRITTEN) if role in table.input_includes]
    included = " and ".join(inside) if inside else "nothing of the cache"
    totals = ", or ".join(" + ".join(names) for names in table.totals)
    rules = [
        f"input includes    {included}",
        f"output includes   {'reasoning' if table.output_includes_reasoning else 'no reasoning'}",
        f"total             {totals}",
        f"one must be there {', '.join(table.needs)}",
    ]
    if table.text_may_leave_out_cache:
        rules.append("text input        with or without the tokens of the cache")
    if table.total_is_input:
        rules.append("total alone       is the input")
    return rules


def _meaning(row: LeafRow) -> str:
    """Return what a row does with its number, in words."""
    if row.role is Role.NOT_BILLED:
        return f"not billed: {row.why}"
    meaning = f"meter {row.meter}" if row.role is Role.METER else str(row.role)
    if row.times != 1:
        meaning += f", times {row.times}"
    if row.group:
        meaning = f"{row.group}: {meaning}"
    return f"{meaning}, added" if row.add else meaning


def _document(table: Dialect) -> dict[str, Any]:
    """Return a table as JSON."""
    return {
        "dialect": table.name,
        "version": table.version,
        "title": table.title,
        "notes": table.notes,
        "needs": list(table.needs),
        "input_includes": sorted(table.input_includes),
        "output_includes_reasoning": table.output_includes_reasoning,
        "totals": [list(names) for names in table.totals],
        "text_may_leave_out_cache": table.text_may_leave_out_cache,
        "total_is_input": table.total_is_input,
        "rows": [
            {
                "path": row.path,
                "role": str(row.role),
                "group": row.group,
                "add": row.add,
                "meter": row.meter or None,
                "times": row.times,
                "why": row.why or None,
                "source": row.source,
            }
            for row in table.rows
        ],
    }
