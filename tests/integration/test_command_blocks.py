"""Every block of shell commands on every page is run as a reader pastes it: as one block, on a running stack.

What a block needs beforehand is prepared here, and only names of an installation that a page cannot know (a position in
Kafka, the id of a key) are put into its text. Blocks that cannot be run are listed with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_blocks import CommandBlock, command_blocks
from pipeline_rig import Pipeline, until

from schemas.routing import partition_of
from schemas.times import format_time_us
from schemas.topics import USAGE_TOPIC
from streams.kafka_clients import input_producer
from tokenbill import stack

ROOT = Path(__file__).resolve().parents[2]
_BUILDS = "sets up, tests or builds the whole checkout, with make or uv"
_STOPPED = "needs a stopped partition; tests/integration/test_stopped_partitions.py resumes one"
NOT_RUN: dict[tuple[str, str], str] = {
    ("CONTRIBUTING.md", "make build"): _BUILDS,
    ("CONTRIBUTING.md", "make check"): _BUILDS,
    ("CONTRIBUTING.md", "uv pip compile --generate-hashes --no-header --python-version 3.11 --extra dev pyproject.toml "
     "-o requirements/dev.txt"): "asks the package index and rewrites the locked requirements",
    ("README.md", "make demo"): _BUILDS + "; tests/integration/test_demo.py runs the demo",
    ("docs/OPERATIONS.md", "tokenbill partition list"): _STOPPED,
    ("docs/reference/command-line.md", 'tokenbill partition resume 3 --reason "disk restored" --requested-key '
     "wang.key --approved-key li.key"): _STOPPED,
    ("tests/README.md", "make test"): _BUILDS,
}  # fmt: skip
"""(page, first command) of each block that is not run, and why."""
WITHOUT = ("make up", "make down")
"""Commands that are left out: the stack runs already, and goes on running."""


def _command(pipeline: Pipeline, *arguments: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "tokenbill", *arguments, "--data-dir", str(pipeline.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout


def _key(pipeline: Pipeline) -> str:
    return _command(pipeline, "api-key", "create", f"pages-{time.time_ns()}", "--role", "admin").split()[-1]


def _with_account(pipeline: Pipeline, text: str, environment: dict[str, str]) -> str:
    """Open the account that a page takes for granted."""
    headers = {"Authorization": f"Bearer {environment['KEY']}", "Idempotency-Key": "open-acct-1"}
    body = {"account": "acct-1", "currency": "CNY", "price_book": "retail-cn"}
    answer = httpx.post(f"{environment['API']}/v1/accounts", json=body, headers=headers)
    if answer.status_code != httpx.codes.CONFLICT:  # the block of another page opened it
        answer.raise_for_status()
    return text


def _with_suspense(pipeline: Pipeline, text: str, environment: dict[str, str]) -> str:
    """Have two events rejected, and name the place of the first."""
    account = "acct-000123"
    producer = input_producer(pipeline.kafka, lambda error, _: None)
    for number in range(2):
        event = {
            "specversion": "1.0", "type": "token.usage.v1", "source": "urn:pages", "id": f"suspended-{number}",
            "time": format_time_us(time.time_ns() // 1000), "subject": account,
            "data": {"model": "deepseek-v3.2", "usage": {"output": 1}},
        }  # fmt: skip
        where = partition_of(account, pipeline.info.partitions or 0)
        producer.produce(USAGE_TOPIC, json.dumps(event), account.encode(), where)
    assert producer.flush(30) == 0

    def places() -> list[str]:
        listed = _command(pipeline, "suspense", "list", "--account", account).split()
        return [word for word in listed if word.startswith(f"{USAGE_TOPIC}/")]

    until("two events are in suspense", lambda: len(places()) >= 2)
    return text.replace("usage.events/3/1042", places()[0])


def _with_key_id(pipeline: Pipeline, text: str, environment: dict[str, str]) -> str:
    """Name a key that exists."""
    return text.replace("1f0c2d3e4a5b", environment["KEY"].split("_")[1])


PREPARED: dict[tuple[str, str], Callable[[Pipeline, str, dict[str, str]], str]] = {
    ("docs/OPERATIONS.md", "tokenbill suspense list"): _with_suspense,
    ("docs/http-api.md", "tokenbill api-key create shop --role operator"): _with_key_id,
    ("docs/http-api.md", "curl -X POST $API/v1/accounts/acct-1/top-ups -H \"Authorization: Bearer $KEY\" -H "
     "'Idempotency-Key: payment-77' \\"): _with_account,
    ("docs/reference/command-line.md", "tokenbill report balance --account acct-1 --format json"): _with_account,
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout, in which blocks may write files; curl fails on a refusal."""
    folder = tmp_path_factory.mktemp("pages")
    for name in (".venv", "examples", "benchmarks", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n", encoding="utf-8")
    return folder


def run(pipeline: Pipeline, block: CommandBlock, desk: Path) -> subprocess.CompletedProcess[str]:
    """Run a block as one script that ends at its first failure."""
    environment = {
        **os.environ,
        "TOKENBILL_DATA_DIR": str(pipeline.folder),
        "HOME": str(desk),
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "API": str(stack.info(pipeline.folder).api),
        "KEY": _key(pipeline),
    }
    prepare = PREPARED.get((block.page, block.first))
    text = block.text if prepare is None else prepare(pipeline, block.text, environment)
    kept = [line for line in text.splitlines() if not line.startswith(WITHOUT)]
    script = "set -euo pipefail\n" + "\n".join(kept)
    return subprocess.run(
        ["bash", "-c", script], cwd=desk, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


BLOCKS = list(command_blocks())


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if (block.page, block.first) not in NOT_RUN],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_a_block_runs_as_it_is_pasted(block: CommandBlock, pipeline: Pipeline, desk: Path) -> None:
    done = run(pipeline, block, desk)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_the_lists_name_blocks_that_exist() -> None:
    named = {(block.page, block.first) for block in BLOCKS}
    assert NOT_RUN.keys() | PREPARED.keys() <= named
    assert len(named) == len(BLOCKS) > 10


def test_a_block_that_fails_is_a_canary(pipeline: Pipeline, desk: Path) -> None:
    for text in ("false\ntrue", 'curl $API/v1/accounts/nobody -H "Authorization: Bearer $KEY"', "tokenbill nothing"):
        assert run(pipeline, CommandBlock("page.md", 1, text), desk).returncode != 0


def test_the_plan_of_the_example_covers_the_usage_that_follows_it(pipeline: Pipeline, desk: Path) -> None:
    """The usage is timed in whole seconds, the command before it in microseconds of the same second."""
    [block] = [one for one in BLOCKS if one.page == "docs/customer-life.md" and "/v1/accounts/li/" in one.text]
    for number in range(7):
        name = f"li-{time.time_ns()}"
        text = block.text.replace('"li"', f'"{name}"').replace("/li/", f"/{name}/").replace("-li'", f"-{name}'")
        text = text.replace("'li-9.9'", f"'{name}-9.9'").replace("'Idempotency-Key: li-", f"'Idempotency-Key: {name}-")
        text = text.replace('"id": "1"', f'"id": "{name}"').replace("--account li", f"--account {name}")
        done = run(pipeline, CommandBlock("page.md", number, text), desk)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

        def left(name: str = name) -> Any:
            rows = json.loads(_command(pipeline, "report", "balance", "--account", name, "--format", "json"))
            return [(row["wallet"], row["remaining"]) for row in rows]

        until("the usage is billed", lambda: left() != [("0", "10000000")])
        assert left() == [("0", "9998500")]
