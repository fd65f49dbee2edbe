"""What is wrong with a catalogue: where, what, and what to do about it. Never decides whether to go on."""

from collections.abc import Sequence
from dataclasses import dataclass

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing to repair (``error``) or to look at (``warning``), at a line (from 1) of a file."""

    file: str
    line: int
    key: str
    message: str
    severity: str = ERROR

    def __str__(self) -> str:
        mark = "" if self.severity == ERROR else f"{self.severity}: "
        return f"{self.file}:{self.line}: {mark}{self.key}: {self.message}"


class CatalogError(Exception):
    """A catalogue that cannot be used; ``findings`` holds every reason, in order of file and line."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings: tuple[Finding, ...] = tuple(sorted(findings))
        super().__init__("\n".join(str(finding) for finding in self.findings))
