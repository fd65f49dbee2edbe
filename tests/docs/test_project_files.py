"""The files that people and tools look for at the root: licence, type markers, hooks."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the text that the Apache Software Foundation publishes."""


def test_the_licence_is_the_unmodified_text_that_the_package_names() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert not [name for name in PYPROJECT["project"]["classifiers"] if name.startswith("License ::")]


@pytest.mark.parametrize("package", ["billing", "cython_ext", "schemas", "streams", "tokenbill"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["*"]


def test_the_hooks_run_the_checkers_of_make_check() -> None:
    recipe = re.search(r"^check:.*\n\t@(.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    checkers = recipe[1].replace("$(BIN)", ".venv/bin").split(" && ")
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [hook["entry"] for repo in settings["repos"] for hook in repo["hooks"]] == checkers
