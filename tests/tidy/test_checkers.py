"""The checkers of ``make check``, each run once on the whole repository, so that ``make test`` includes them."""

import subprocess
import sys
from pathlib import Path

import pytest
from house_rules import ROOT

BIN = Path(sys.executable).parent
CHECKERS = {
    "ruff check": [str(BIN / "ruff"), "check", "."],
    "ruff format": [str(BIN / "ruff"), "format", "--check", "."],
    "mypy": [str(BIN / "mypy")],
    "import contracts": [str(BIN / "lint-imports")],
}


@pytest.mark.parametrize("name", CHECKERS)
def test_checker_is_content(name: str) -> None:
    done = subprocess.run(CHECKERS[name], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{' '.join(CHECKERS[name])}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
