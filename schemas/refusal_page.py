"""Page of refusal codes: ``python -m schemas.refusal_page`` writes docs/reference/refusals.md from the table."""

from collections.abc import Iterator
from pathlib import Path

from schemas.refusal_codes import TABLE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "refusals.md"

_HEAD = """# Refusal codes

<!-- Written by `python -m schemas.refusal_page` from schemas/refusal_codes.py; change that file. -->

A refused record, command or request is answered with a code for programs and a sentence for people. The code, its
status and its title do not change once published.

- **record**: a record of `usage.events`; the code is the header `reason` on `usage.rejected`, and the reason in
  suspense.
- **command**: an account command; the code is the `reason` of `command.rejected.v1` on `account.events`, and the code
  of the problem document where the command came over HTTP. A reason that is not listed is answered with the status 409.
- **request**: a request to the HTTP API; the code and the status are those of the problem document (RFC 9457).

"""


def lines() -> Iterator[str]:
    """Yield the lines of the table, without end of line."""
    yield "| code | status | refused | title | example |"
    yield "|---|---|---|---|---|"
    for row in TABLE:
        uses = ", ".join(str(use.name).lower() for use in row.uses)
        yield f"| `{row.code}` | {row.status} | {uses} | {row.title} | {row.example} |"


def page() -> str:
    """Return the text of the page."""
    return _HEAD + "\n".join(lines()) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
