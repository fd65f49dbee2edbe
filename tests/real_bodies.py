"""Real usage objects of each dialect, with the meters that are right for them: ``tests/schemas/dialects/bodies``.

Each body has the address of the document, the thread or the repository where it stands.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "schemas" / "dialects" / "bodies"


@dataclass(frozen=True)
class Body:
    """One usage object of a dialect and its disjoint counts."""

    dialect: str
    name: str
    usage: dict[str, Any]
    counts: dict[str, int]

    def __str__(self) -> str:
        return f"{self.dialect}: {self.name}"


BODIES = tuple(
    Body(path.stem, one["name"], one["usage"], one["counts"])
    for path in sorted(FOLDER.glob("*.json"))
    for one in json.loads(path.read_text(encoding="utf-8"))
)
