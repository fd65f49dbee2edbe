"""Request sizes, from a trace of a real inference service or from a generator with the same distribution."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from tokenbill.user_errors import UserError

Size = tuple[int, int]
"""Context tokens and generated tokens of one request."""

TRACE = Path("shared/data/azure-llm-inference-2023/AzureLLMInferenceTrace_conv.csv")
"""Path of the trace, relative to the folder that contains the project."""
CONTEXT_COLUMN, GENERATED_COLUMN = "ContextTokens", "GeneratedTokens"

BUILT_IN_SIZES = 20_000
# Fitted to the 19,366 requests of the Azure conversation trace of 2023-11-16: mean and standard deviation of the
# natural logarithm of each column, clipped to its smallest and greatest value. The two columns are drawn independently.
CONTEXT_LOG_NORMAL = (6.633, 0.985)
CONTEXT_RANGE = (2, 14_050)
GENERATED_LOG_NORMAL = (5.019, 0.859)
GENERATED_RANGE = (7, 1_000)


def default_trace() -> Path | None:
    """Return the path of the trace beside this project; None if it is not there."""
    path = Path(__file__).resolve().parents[3] / TRACE
    return path if path.exists() else None


def read_trace(path: Path) -> list[Size]:
    """Return the sizes of a CSV file with the columns TIMESTAMP, ContextTokens, GeneratedTokens, in file order.

    Raises:
        UserError: the file cannot be read, a column is missing, or a line has no whole number; names file and line.
    """
    fix = f"give a CSV file with the columns {CONTEXT_COLUMN} and {GENERATED_COLUMN}, or none for the built-in sizes"
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if not {CONTEXT_COLUMN, GENERATED_COLUMN} <= set(rows.fieldnames or ()):
                raise UserError(f"{path}:1", f"columns {rows.fieldnames or 'missing'}", fix)
            sizes = [_size(path, rows.line_num, row, fix) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the trace {path} cannot be read", str(error), fix) from error
    if not sizes:
        raise UserError(f"the trace {path} is empty", "no line follows the header", fix)
    return sizes


def _size(path: Path, line: int, row: dict[str, str | None], fix: str) -> Size:
    try:
        context, generated = int(row[CONTEXT_COLUMN] or ""), int(row[GENERATED_COLUMN] or "")
    except ValueError:
        raise UserError(
            f"{path}:{line}", f"no whole numbers: {row[CONTEXT_COLUMN]}, {row[GENERATED_COLUMN]}", fix
        ) from None
    if context < 0 or generated < 0 or context + generated == 0:
        raise UserError(f"{path}:{line}", f"not a request of {context} and {generated} tokens", fix)
    return context, generated


def built_in_sizes(seed: int = 2023) -> list[Size]:
    """Return sizes distributed as in the trace: two log-normal columns. The same seed gives the same sizes."""
    chance = random.Random(seed)

    def draw(log_normal: tuple[float, float], between: tuple[int, int]) -> int:
        return min(max(round(chance.lognormvariate(*log_normal)), between[0]), between[1])

    return [
        (draw(CONTEXT_LOG_NORMAL, CONTEXT_RANGE), draw(GENERATED_LOG_NORMAL, GENERATED_RANGE))
        for _ in range(BUILT_IN_SIZES)
    ]
