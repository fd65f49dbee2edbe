"""One measured figure, as ``tokenbill bench --json`` writes it (CONTRACT §5)."""

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any


class WrongWork(Exception):
    """The measured code did not do the work: its figure would mean nothing."""


@dataclass(frozen=True, slots=True)
class Result:
    """``value`` in ``unit``; ``ratio_to_baseline`` against the baseline measured in the same run."""

    metric: str
    value: float
    unit: str
    ratio_to_baseline: float
    conditions: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object of the JSON list."""
        return asdict(self)


def machine() -> dict[str, Any]:
    """What a figure means nothing without."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
