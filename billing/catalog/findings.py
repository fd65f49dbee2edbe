"""Findings of a catalogue check: the place, the problem and its remedy. The caller decides whether findings stop it."""

from collections.abc import Sequence
from dataclasses import dataclass

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class CatalogFinding:
    """One problem to repair (``error``) or to review (``warning``), at a line (from 1) of a file."""

    file: str
    line: int
    key: str
    message: str
    severity: str = ERROR

    def __str__(self) -> str:
        mark = "" if self.severity == ERROR else f"{self.severity}: "
        return f"{self.file}:{self.line}: {mark}{self.key}: {self.message}"


class CatalogError(Exception):
    """Raised for a catalogue with errors; ``findings`` holds all of them, sorted by file and line."""

    def __init__(self, findings: Sequence[CatalogFinding]) -> None:
        self.findings: tuple[CatalogFinding, ...] = tuple(sorted(findings))
        super().__init__("\n".join(str(finding) for finding in self.findings))
