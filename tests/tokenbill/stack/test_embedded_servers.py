"""Real Kafka and PostgreSQL started from the command line: found again, killed in many ways, run without privileges."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from stack_scripts import SERVER, eventually

from tokenbill.stack import StackInfo, info, postgresql, remove, start, stop, up
from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE, StackConfig
from tokenbill.stack.control import python_environment
from tokenbill.stack.jars import cache_folder
from tokenbill.stack.layout import Layout
from tokenbill.stack.processes import unprivileged_user
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.stack.status import status
from tokenbill.user_errors import UserError

SECONDS = 240


def command(name: str, data_dir: Path, *options: str) -> list[str]:
    program = f"from tokenbill.commands.stack import {name}; {name}()"
    return [sys.executable, "-c", program, "--data-dir", str(data_dir), *options]


def environment() -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if name not in (KAFKA_VARIABLE, DATABASE_VARIABLE)}
    return {**outside, **python_environment()}


@contextlib.contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """Create a data folder and remove it at the end, together with a database folder outside it."""
    path = Path(tempfile.mkdtemp(prefix="tokenbill-servers-", dir=parent))
    try:
        yield path
    finally:
        remove(path)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start a stack by two commands at the same time.

    If the tests run as root, PostgreSQL's user cannot enter pytest's folders, so the database is placed elsewhere.
    """
    with pytest.MonkeyPatch.context() as patch, folder(tmp_path_factory.mktemp("stack")) as data_dir:
        patch.delenv(KAFKA_VARIABLE, raising=False)
        patch.delenv(DATABASE_VARIABLE, raising=False)
        argv = command("up", data_dir, "--only-servers")
        both = [subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=SECONDS)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert said[0].splitlines()[-6:-2] == said[1].splitlines()[-6:-2]
        yield data_dir


def addresses(stack: StackInfo) -> tuple[str, str]:
    assert stack.kafka is not None
    assert stack.admin_database_url is not None
    return stack.kafka, stack.admin_database_url


def serves(stack: StackInfo) -> bool:
    kafka, database = addresses(stack)
    checks = ReadyCheck("kafka", kafka), ReadyCheck("postgresql", database)
    return all(why_not_ready(check) is None for check in checks)


def write_something(stack: StackInfo) -> None:
    kafka, database = addresses(stack)
    with psycopg.connect(database) as connection:
        connection.execute("create table if not exists kept (value int)")
        connection.execute("insert into kept values (1)")
    admin = AdminClient({"bootstrap.servers": kafka})
    if "kept" not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    producer.produce("kept", b"one")
    assert producer.flush(30) == 0


def written(stack: StackInfo) -> tuple[int, int]:
    """Return the numbers of rows and records written by `write_something`."""
    from confluent_kafka import Consumer, TopicPartition

    kafka, database = addresses(stack)
    with psycopg.connect(database) as connection:
        row = connection.execute("select count(*) from kept").fetchone()
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "kept"})
    _, end = consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=30)
    consumer.close()
    assert row is not None
    return int(row[0]), end


def test_a_second_up_finds_the_first_and_changes_nothing(servers: Path) -> None:
    before = info(servers)
    assert start(servers, only_servers=True).pids == before.pids
    assert serves(before)


def test_status_names_everything_and_its_exit_code_says_that_it_runs(servers: Path) -> None:
    result = subprocess.run(command("status", servers, "--json"), env=environment(), capture_output=True, text=True)
    value = json.loads(result.stdout)
    assert result.returncode == 0
    assert value["kafka"] == info(servers).kafka
    assert {one["name"] for one in value["processes"]} >= {"kafka", "postgresql", "supervisor"}
    assert set(value["lag"]) == {
        "usage.events",
        "usage.forwarded",
        "account.commands",
        "commands.forwarded",
        "outbox",
    }
    assert value["api"] is None


def test_killed_servers_are_back_on_the_same_address_with_their_data(servers: Path) -> None:
    before = info(servers)
    write_something(before)
    rows = written(before)
    for name in ("kafka", "postgresql"):
        os.kill(before.pids[name], signal.SIGKILL)
    eventually(lambda: {"kafka", "postgresql"} <= info(servers).pids.keys() - _same_pids(before, info(servers)), 60)
    eventually(lambda: serves(before), 60)
    assert addresses(info(servers)) == addresses(before)
    assert written(info(servers)) == rows
    assert info(servers).restarts["kafka"] == before.restarts["kafka"] + 1


def _same_pids(before: StackInfo, after: StackInfo) -> set[str]:
    return {name for name, pid in after.pids.items() if before.pids.get(name) == pid}


def test_after_a_kill_of_everything_and_with_a_busy_orphan_the_next_up_recovers(servers: Path) -> None:
    before = start(servers, only_servers=True)
    write_something(before)
    rows = written(before)
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(addresses(before)[1], autocommit=True) as busy:
        orphan = busy.info.backend_pid
        # Stopped, so that it does not notice the death of its server, like a process inside a long system call.
        os.kill(orphan, signal.SIGSTOP)
        eventually(lambda: "supervisor-standby" in info(servers).pids)
        for name in ("supervisor-standby", "supervisor", "postgresql", "kafka"):
            os.kill(info(servers).pids[name], signal.SIGKILL)
        eventually(lambda: not info(servers).pids)
        after = start(servers, only_servers=True)
        assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    assert addresses(after) == addresses(before)
    assert written(after) == rows


def test_down_and_up_again_keeps_addresses_and_data(servers: Path) -> None:
    before = start(servers, only_servers=True)
    rows = written(before)
    said = subprocess.run(command("down", servers), env=environment(), capture_output=True, text=True, check=True)
    assert "kafka (pid" in said.stdout
    assert "postgresql (pid" in said.stdout
    assert "killed" not in said.stdout
    assert subprocess.run(command("status", servers), env=environment(), capture_output=True).returncode == 3
    after = start(servers, only_servers=True)
    assert addresses(after) == addresses(before)
    assert written(after) == rows


def test_external_servers_are_used_and_nothing_is_started_for_them(
    servers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = start(servers, only_servers=True)
    kafka, database = addresses(theirs)
    monkeypatch.setenv(KAFKA_VARIABLE, kafka)
    monkeypatch.setenv(DATABASE_VARIABLE, database)
    with folder() as data_dir:
        ours = start(data_dir, only_servers=True)
        assert addresses(ours) == (kafka, database)
        assert ours.parts == {"kafka": "external", "postgresql": "external"}
        assert set(ours.pids) <= {"supervisor", "supervisor-standby"}
        monkeypatch.setenv(KAFKA_VARIABLE, "127.0.0.1:9")
        with pytest.raises(UserError, match="running stack uses other servers"):
            start(data_dir, only_servers=True)
        stop(data_dir)
        with pytest.raises(UserError, match="TOKENBILL_KAFKA does not answer"):
            start(data_dir, only_servers=True)


def test_an_ordinary_user_runs_everything_as_itself(servers: Path) -> None:
    """Commands run as `nobody` if the test runs as root, else as the current user, who has no privileges."""
    with folder(Path(tempfile.gettempdir())) as data_dir:
        prefix, env = [], environment()
        if os.getuid() == 0:
            prefix = _as_nobody()
            env |= {"HOME": str(data_dir), "M2_REPO": str(_own_copy_of_jars(data_dir))}
            _give_to_nobody(data_dir)
        kept = {"env": env, "cwd": data_dir, "capture_output": True, "text": True, "timeout": SECONDS}
        result = subprocess.run([*prefix, *command("up", data_dir, "--only-servers")], **kept, check=False)
        assert result.returncode == 0, result.stderr
        stack = info(data_dir)
        owner = data_dir.stat().st_uid
        assert {psutil.Process(pid).uids().effective for pid in stack.pids.values()} == {owner}
        assert serves(stack)
        result = subprocess.run([*prefix, *command("down", data_dir)], **kept, check=False)
        assert result.returncode == 0, result.stderr
        assert info(data_dir).processes == ()


def _as_nobody() -> list[str]:
    """Return the command prefix that switches to the user nobody.

    If nobody cannot enter the folder of this interpreter, the prefix grants the capability to read, and no other.
    """
    plain = ["setpriv", "--reuid=nobody", "--clear-groups", f"--regid={pwd.getpwnam('nobody').pw_gid}"]
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import encodings'], check=True)"
    if subprocess.run([*plain, sys.executable, "-c", again], capture_output=True).returncode == 0:
        return plain
    return [*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def _own_copy_of_jars(data_dir: Path) -> Path:
    copy = data_dir / "jars"
    shutil.copytree(cache_folder(), copy)
    return copy


def _give_to_nobody(data_dir: Path) -> None:
    for path in (data_dir, *data_dir.rglob("*")):
        shutil.chown(path, "nobody")


def test_binaries_that_the_servers_user_cannot_reach_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Path(tempfile.mkdtemp(prefix="tokenbill-shared-"))
    try:
        monkeypatch.setattr(postgresql, "SHARED_FOLDER", shared)
        package = postgresql.package_folder()
        postgresql.copy_binaries(package, shared / "copy")
        user, group = unprivileged_user() or (None, None)
        assert postgresql.runs(shared / "copy" / package.name / "pginstall18" / "bin", user, group)
        assert [path.name for path in shared.iterdir()] == ["copy"]
    finally:
        shutil.rmtree(shared)


def test_relay_and_workers_follow_the_number_asked_for(servers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers and their preparation are real; small scripts that answer on the ports replace relay and workers."""
    script = servers / "server.py"
    script.write_text(SERVER)
    original = up.application_spec

    def as_script(layout: Layout, config: StackConfig, name: str) -> ProcessSpec:
        spec = original(layout, config, name)
        return dataclasses.replace(spec, argv=(sys.executable, str(script), str(config.port(name))))

    monkeypatch.setattr(up, "application_spec", as_script)
    first = start(servers, workers=2, partitions=4)
    assert {"relay", "worker-1", "worker-2"} <= first.pids.keys()
    assert first.partitions == 4
    assert first.database_url is not None
    # The lag is known as soon as the database is prepared.
    lag = status(servers)["lag"]
    assert set(lag.values()) == {0}
    assert start(servers).pids == first.pids
    start(servers, workers=1)
    ended = first.pids["worker-2"]
    assert not psutil.pid_exists(ended) or psutil.Process(ended).status() == psutil.STATUS_ZOMBIE
    more = start(servers, workers=3)
    assert {"worker-1", "worker-2", "worker-3"} <= more.pids.keys()
    assert more.pids["worker-1"] == first.pids["worker-1"]
    with pytest.raises(UserError, match="4 partitions, not 8"):
        start(servers, partitions=8)
    assert info(servers).running
