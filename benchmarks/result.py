"""One measured figure, as ``tokenbill bench --json`` writes it (docs/reference/command-line.md)."""

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any


class WrongWork(Exception):
    """Raised if the measured code did not do the work, so that its figure would mean nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """``value`` in ``unit``, and ``ratio_to_baseline`` against the baseline measured in the same run."""

    metric: str
    value: float
    unit: str
    ratio_to_baseline: float
    conditions: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the object of the JSON list."""
        return asdict(self)


def machine() -> dict[str, Any]:
    """Return the properties of the machine that every figure depends on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
