"""The help of every command has an example, and every documented call is accepted by the command line."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tokenbill.cli import cli

ROOT = Path(__file__).resolve().parents[2]
CALL = re.compile(r"^ *(?:Example: )?tokenbill ((?:.*\\\n)*.*)$", re.MULTILINE)
FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
IN_PAGE = re.compile(r"^(?:.*\| )?(?:\.venv/bin/)?tokenbill (.*?)(?: *#.*)?$", re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def parse(words: list[str]) -> None:
    """Parse a call without running it.

    Raises:
        click.UsageError: the command line does not accept the call.
    """
    command: click.Command = cli
    context, path = click.Context(cli), "tokenbill"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"{path} has no command {words[0]!r}")
        command, path, words = found, f"{path} {words[0]}", words[1:]
    if isinstance(command, click.Group):
        return
    command.make_context(path, words)


def words_of(call: str) -> list[str]:
    """Return the words of a call as the shell passes them, without redirections."""
    text = call.replace("\\\n", " ")
    return shlex.split(re.split(r"\s(?:>|\||&&)\s", text)[0])


@pytest.mark.parametrize("path", list(commands(cli)), ids=" ".join)
def test_help_has_an_example_that_the_command_line_takes(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    shown = CliRunner().invoke(cli, [*path, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    calls = [call for call in CALL.findall(shown.output.partition("\n")[2]) if not call.startswith("[")]
    own = [call for call in calls if words_of(call)[: len(path)] == list(path)]
    assert own, f"`tokenbill {' '.join(path)} --help` has no example of its own"
    (tmp_path / "event.json").touch()
    for call in calls:
        given = [str(tmp_path / word) if word == "event.json" else word for word in words_of(call)]
        parse(given)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_are_calls_that_the_command_line_takes(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "event.json").touch()
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for call in IN_PAGE.findall(block.replace("\\\n", " ")):
            parse([str(tmp_path / word) if word == "event.json" else word for word in words_of(call.rstrip(")"))])


@pytest.mark.parametrize(
    "wrong", ["report balance --acount x", "raport", "bench kernel --events 0", "suspense list --reason no"]
)
def test_a_wrong_call_is_found(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        parse(words_of(wrong))
