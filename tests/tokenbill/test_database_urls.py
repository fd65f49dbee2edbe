"""A database address that is none is an error for a person, in every command: which setting, why, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from billing.store.database import why_no_database_url
from tokenbill.cli import cli

NEEDS_NO_DATABASE = {
    ("down",),
    ("status",),
    ("catalog", "check"),
    ("catalog", "import-litellm"),
    ("catalog", "import-sheet"),
    ("dialects",),
    ("rate",),
    ("explain",),
    ("simulate",),
    ("bench", "kernel"),
    ("bench", "kinds"),
    ("bench", "memory"),
}
CATALOG = str(Path(__file__).resolve().parents[2] / "examples" / "catalog")
ARGUMENTS = {
    ("prepare",): ["--kafka", "127.0.0.1:1", "--app-password", "a", "--report-password", "b"],
    ("api-key", "create"): ["shop", "--role", "read"],
    ("api-key", "revoke"): ["0"],
    ("webhook", "add"): ["https://crm.example/hooks"],
    ("webhook", "remove"): ["0"],
    ("webhook", "replay"): ["0"],
    ("webhook", "allow-private"): ["0"],
    ("catalog", "publish"): [CATALOG],
    ("suspense", "show"): ["usage.events/0/1"],
    ("suspense", "resubmit"): ["usage.events/0/1"],
    ("conflict", "show"): ["usage.events/0/1"],
    ("conflict", "resolve"): ["usage.events/0/1", "--outcome", "keep", "--reason", "a retry"],
    ("foreign", "show"): ["usage.forwarded/0/1"],
    ("partition", "resume"): ["0", "--reason", "restored"],
    ("audit", "accept"): ["--table", "account", "--partition", "0", "--reason", "restored"],
}
BAD = {
    "nonsense": "form",
    "postgresql:/u@h/x": "form",
    "postgresql://u:hush@h:abc/x": "form",
    "postgresql://u:hush@[::1/x": "form",
    "postgresql://u:hush@h:99999/x": "port",
    "postgresql://u:hush@h:0/x": "port",
    "mysql://u:hush@h/x": "mysql",
    "sqlite:///x": "sqlite",
    "postgresql://u:hush@h/x?nonsense=1": "nonsense",
    "postgresql://u:hush@h/x\n": "control",
    "postgresql://u: hush@h/x": "spaces",
}


def commands(one: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(one, click.Group):
        yield path
        return
    context = click.Context(one)
    for name in one.list_commands(context):
        inner = one.get_command(context, name)
        assert inner is not None
        yield from commands(inner, (*path, name))


def test_every_command_says_that_the_address_is_none(tmp_path: Path) -> None:
    bad = "postgresql://u:hush@h:abc/x"
    names = ("TOKENBILL_DATABASE_URL", "TOKENBILL_ADMIN_DATABASE_URL")
    servers = {**dict.fromkeys(names, bad), "TOKENBILL_DATA_DIR": str(tmp_path), "TOKENBILL_KAFKA": "127.0.0.1:1"}

    def run(path: tuple[str, ...]) -> tuple[tuple[str, ...], subprocess.CompletedProcess[str]]:
        argv = [sys.executable, "-m", "tokenbill", *path, *ARGUMENTS.get(path, [])]
        return path, subprocess.run(
            argv, env={**os.environ, **servers}, capture_output=True, text=True, timeout=120, check=False
        )

    wanted = [path for path in commands(cli) if path not in NEEDS_NO_DATABASE]
    assert len(wanted) > 20
    with ThreadPoolExecutor(2) as pool:
        for path, done in pool.map(run, wanted):
            text = done.stdout + done.stderr
            assert done.returncode == 2, (path, text)
            assert "DATABASE_URL" in text and "is not the URL of a PostgreSQL database" in text, (path, text)
            assert "what to do: Set " in text and "Traceback" not in text and "hush" not in text, (path, text)


@pytest.mark.parametrize("text", BAD)
def test_a_reason_is_given_without_the_password(text: str) -> None:
    why = why_no_database_url(text)
    assert why is not None and BAD[text] in why and "hush" not in why


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p@127.0.0.1:5432/x",
        "postgres://h/x",
        "postgresql+psycopg://u:p%40@[::1]/x?sslmode=require",
        "postgresql://u@/x?host=/run/postgresql",
        "postgresql://u:p@h/x?options=-c%20role%3Da",
    ],
)
def test_an_address_is_an_address(text: str) -> None:
    assert why_no_database_url(text) is None


def test_a_database_that_does_not_answer_is_no_traceback(tmp_path: Path) -> None:
    url = "postgresql://u:hush@127.0.0.1:1/x"
    for argv in (["catalog", "publish", CATALOG], ["audit"], ["prepare", *ARGUMENTS[("prepare",)]], ["up"]):
        done = subprocess.run(
            [sys.executable, "-m", "tokenbill", *argv],
            env={**os.environ, "TOKENBILL_DATABASE_URL": url, "TOKENBILL_ADMIN_DATABASE_URL": url,
                 "TOKENBILL_KAFKA": "127.0.0.1:1", "TOKENBILL_DATA_DIR": str(tmp_path)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        text = done.stdout + done.stderr
        assert done.returncode == 2 and "Traceback" not in text and "hush" not in text, (argv, text)
