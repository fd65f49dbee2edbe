"""Bringing a stack up: servers, then what `tokenbill.prepare` does in them, then relay and workers.

Whatever state a crash left, the same steps lead on from it: living processes are adopted, dead ones started. A start
that fails takes down what it started.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenbill.errors import UserError
from tokenbill.stack.config import StackConfig, external_database, external_kafka
from tokenbill.stack.control import python_environment, read_desired, spawn_supervisor, write_desired
from tokenbill.stack.down import COMMAND_SECONDS, kill_supervisors, stop_locked
from tokenbill.stack.files import is_locked, locked, read_json
from tokenbill.stack.info import StackInfo, info, specs_of_living, supervisor_in_charge
from tokenbill.stack.layout import Layout
from tokenbill.stack.progress import Progress, Silent
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ProcessSpec, ReadyCheck

if TYPE_CHECKING:
    from tokenbill.prepare import PreparedStack

DEFAULT_PARTITIONS = 4
DEFAULT_WORKERS = 1
SUPERVISOR_SECONDS = 30.0
WORKER_READY_SECONDS = 180.0
# A process that died this often while we waited will not come up by waiting longer.
TOO_MANY_RESTARTS = 5
LOG_TAIL_LINES = 20
POLL_SECONDS = 0.1


class NotReady(UserError):
    """A process did not begin to serve; carries the end of its log."""


@dataclass(frozen=True)
class Wish:
    """What the caller of `up` asked for; None keeps what the stack has, or its default the first time."""

    workers: int | None
    partitions: int | None
    only_servers: bool
    docker: bool


def start(
    data_dir: Path | str | None = None,
    workers: int | None = None,
    partitions: int | None = None,
    only_servers: bool = False,
    docker: bool = False,
    progress: Progress | None = None,
) -> StackInfo:
    """Bring the stack of `data_dir` up, or find it running, and return when everything serves.

    `workers` is the number of Faust workers (1 the first time; another number changes a running stack), `partitions`
    counts only the first time (4). `only_servers` starts broker and database alone. Raises `UserError` for what a
    person can put right, `NotReady` when a process does not come up.
    """
    layout = Layout.of(data_dir)
    layout.create()
    reporter = progress or Silent()
    waiting = lambda: reporter.waiting("waiting for another `tokenbill up` or `down` to finish")  # noqa: E731
    with locked(layout.command_lock, COMMAND_SECONDS, waiting) as held:
        if not held:
            raise UserError(f"The stack in {layout.root} is busy", "another `up` or `down` is at work", "Try later.")
        _up(layout, Wish(workers, partitions, only_servers, docker), reporter)
    return info(layout.root)


def _up(layout: Layout, wish: Wish, progress: Progress) -> None:
    config = StackConfig.load(layout) or StackConfig.new()
    config.save(layout)
    found = _running_supervisor(layout)
    with contextlib.ExitStack() as undo:
        if not found:
            undo.callback(stop_locked, layout, Silent())
        servers = _start_servers(layout, config, wish, found, progress)
        _create_database(config)
        if not wish.only_servers:
            _start_applications(layout, config, wish, servers, progress)
        undo.pop_all()


def _running_supervisor(layout: Layout) -> bool:
    """Whether the stack is up; a takeover by the standby is waited for."""
    if read_desired(layout) is None:
        return False
    deadline = time.monotonic() + SUPERVISOR_SECONDS
    while is_locked(layout.supervisor_lock) or is_locked(layout.standby_lock):
        if supervisor_in_charge(layout) is not None:
            return True
        if time.monotonic() > deadline:
            # For example stopped by SIGSTOP, or hung: it neither leads nor makes room.
            kill_supervisors(layout)
        time.sleep(POLL_SECONDS)
    return False


def _start_servers(
    layout: Layout, config: StackConfig, wish: Wish, found: bool, progress: Progress
) -> list[ProcessSpec]:
    living = specs_of_living(layout)
    if not found:
        for name in config.drop_taken_ports(owners_alive=set(living)):
            progress.done(f"the port of {name} is taken by another program: a new one is chosen")
    _choose_servers(config, wish, found)
    servers = _embedded_specs(layout, config, living, progress)
    config.save(layout)
    _start_containers(layout, config, progress)
    others = [spec for spec in (read_desired(layout) or {}).values() if spec.phase > 0] if found else []
    supervise(layout, [*servers, *others])
    wait_ready(layout, servers, progress)
    _check_external(config)
    return servers


def _choose_servers(config: StackConfig, wish: Wish, found: bool) -> None:
    """Write into `config` which servers are used and where; a running stack cannot change them."""
    from tokenbill.stack import postgresql

    before = config.kafka, config.admin_database_url, dict(config.parts)
    ours = "docker" if wish.docker or config.containers else "embedded"
    kafka, database = external_kafka(), external_database()
    config.parts = {"kafka": "external" if kafka else ours, "postgresql": "external" if database else ours}
    config.kafka = kafka or f"127.0.0.1:{config.port('kafka')}"
    config.admin_database_url = database or postgresql.url(config.port("postgresql"), config.admin_password)
    if before == (config.kafka, config.admin_database_url, config.parts):
        return
    if found:
        why = "--docker, TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL count when a stack starts"
        raise UserError("The running stack uses other servers", why, "End it first: tokenbill down")
    # Other servers: whether they are prepared, and with how many partitions, is not known.
    config.database_url, config.partitions = None, None


def _embedded_specs(
    layout: Layout, config: StackConfig, living: dict[str, ProcessSpec], progress: Progress
) -> list[ProcessSpec]:
    """How to run the embedded servers. One that lives keeps its spec: its files must not change under it."""
    from tokenbill.stack import kafka, postgresql

    specs: list[ProcessSpec] = []
    if config.parts["kafka"] == "embedded":
        report = lambda done, total: progress.waiting(f"kafka: {done} of {total} jars present")  # noqa: E731
        ports = config.port("kafka"), config.port("kafka-controller")
        specs.append(living.get("kafka") or kafka.spec(layout, *ports, report))
    if config.parts["postgresql"] == "embedded":
        progress.waiting("postgresql: looking after its folder")
        port = config.port("postgresql")
        specs.append(living.get("postgresql") or postgresql.spec(layout, port, config.admin_password))
    return specs


def _start_containers(layout: Layout, config: StackConfig, progress: Progress) -> None:
    names = [name for name, part in config.parts.items() if part == "docker"]
    if not names:
        return
    from tokenbill.stack import docker, postgresql

    known = dict(config.containers)
    config.containers = docker.start(
        known, {name: config.port(name) for name in names}, config.admin_password, progress
    )
    if config.containers != known:
        # New containers are empty.
        config.database_url, config.partitions = None, None
    config.save(layout)
    maintenance = postgresql.url(config.port("postgresql"), config.admin_password, "postgres")
    checks = {
        "kafka": ReadyCheck("kafka", str(config.kafka), WORKER_READY_SECONDS),
        "postgresql": ReadyCheck("postgresql", maintenance, WORKER_READY_SECONDS),
    }
    _wait(layout, {name: checks[name] for name in names}, progress, lambda: None)


def _check_external(config: StackConfig) -> None:
    """A server of somebody else is not waited for: it answers now, or its address is wrong."""
    checks = {
        "kafka": ReadyCheck("kafka", str(config.kafka)),
        "postgresql": ReadyCheck("postgresql", str(config.admin_database_url)),
    }
    variables = {"kafka": "TOKENBILL_KAFKA", "postgresql": "TOKENBILL_DATABASE_URL"}
    for name, check in checks.items():
        if config.parts[name] != "external":
            continue
        why = why_not_ready(check)
        if why is not None:
            variable = variables[name]
            raise UserError(
                f"The {name} server named by {variable} does not answer", why, f"Correct or unset {variable}."
            )


def supervise(layout: Layout, specs: list[ProcessSpec]) -> None:
    """Let exactly these processes run, under a supervisor that is running or started; does not wait for them."""
    write_desired(layout, specs)
    ensure_supervisor(layout)


def ensure_supervisor(layout: Layout) -> None:
    """Return with a supervisor in charge; one that takes over at this moment is waited for."""
    if _running_supervisor(layout):
        return
    spawn_supervisor(layout, detach=True).wait()
    deadline = time.monotonic() + SUPERVISOR_SECONDS
    while supervisor_in_charge(layout) is None:
        if time.monotonic() > deadline:
            raise _not_ready(layout, "supervisor", "it did not take charge")
        time.sleep(POLL_SECONDS)


def _create_database(config: StackConfig) -> None:
    if config.parts["postgresql"] == "external" or config.admin_database_url is None:
        return
    import psycopg

    from tokenbill.stack import postgresql

    maintenance = postgresql.url(config.port("postgresql"), config.admin_password, "postgres")
    with psycopg.connect(maintenance, autocommit=True) as connection:
        named = (postgresql.DATABASE,)
        if connection.execute("select 1 from pg_database where datname = %s", named).fetchone() is None:
            connection.execute(f"create database {postgresql.DATABASE}")


def _start_applications(
    layout: Layout, config: StackConfig, wish: Wish, servers: list[ProcessSpec], progress: Progress
) -> None:
    if config.workers is None:
        config.workers = DEFAULT_WORKERS
    if wish.workers is not None:
        config.workers = wish.workers
    running = set(info(layout.root).pids)
    names = ["relay", *(f"worker-{number}" for number in range(1, config.workers + 1))]
    if config.database_url is None or wish.partitions not in (None, config.partitions) or not running.issuperset(names):
        prepared = _prepare(config, wish, progress)
        config.database_url, config.partitions = prepared.database_url, prepared.partitions
    wanted = read_desired(layout) or {}
    applications = [wanted.get(name) or application_spec(layout, config, name) for name in names]
    config.save(layout)
    write_desired(layout, [*servers, *applications])
    wait_ready(layout, applications, progress)


def _prepare(config: StackConfig, wish: Wish, progress: Progress) -> PreparedStack:
    from tokenbill.prepare import prepare

    progress.waiting("database and topics: preparing")
    partitions = wish.partitions
    if partitions is None and config.partitions is None:
        partitions = DEFAULT_PARTITIONS
    prepared = prepare(
        kafka=str(config.kafka),
        admin_database_url=str(config.admin_database_url),
        partitions=partitions,
        app_password=config.app_password,
        report_password=config.report_password,
    )
    progress.done(f"{'prepared':<12} database and topics, {prepared.partitions} partitions")
    return prepared


def application_spec(layout: Layout, config: StackConfig, name: str) -> ProcessSpec:
    """How to run the relay or a worker of this stack."""
    port = config.port(name)
    role = ["relay"] if name == "relay" else ["worker", "--name", name]
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "tokenbill", *role, "--web-port", str(port), "--data-dir", str(layout.root)),
        cwd=str(layout.root),
        env={
            "TOKENBILL_KAFKA": str(config.kafka),
            "TOKENBILL_DATABASE_URL": str(config.database_url),
            "PYTHONUNBUFFERED": "1",
            **python_environment(),
        },
        ready=ReadyCheck("http", f"http://127.0.0.1:{port}/health", WORKER_READY_SECONDS),
    )


def wait_ready(layout: Layout, specs: Iterable[ProcessSpec], progress: Progress) -> None:
    """Return when every process serves; `NotReady` when one takes too long or keeps dying."""
    # A supervisor that was being killed while we looked for one is noticed here.
    _wait(layout, {spec.name: spec.ready for spec in specs}, progress, lambda: ensure_supervisor(layout))


def _wait(layout: Layout, checks: dict[str, ReadyCheck], progress: Progress, meanwhile: Callable[[], None]) -> None:
    began = time.monotonic()
    before = _restarts(layout)
    left = dict(checks)
    while left:
        for name, check in list(left.items()):
            why = why_not_ready(check)
            waited = time.monotonic() - began
            if why is None:
                del left[name]
                progress.done(f"{name:<12} ready after {waited:.1f} s")
                continue
            progress.waiting(f"{name}: {waited:.0f} s, {why}")
            if waited > check.timeout_seconds:
                raise _not_ready(layout, name, f"not within {check.timeout_seconds:.0f} s ({why})")
            if _restarts(layout).get(name, 0) - before.get(name, 0) >= TOO_MANY_RESTARTS:
                raise _not_ready(layout, name, "it keeps ending")
        meanwhile()
        if left:
            time.sleep(POLL_SECONDS)


def _restarts(layout: Layout) -> dict[str, int]:
    state = read_json(layout.state) or {"processes": {}}
    return {name: int(item["restarts"]) for name, item in state["processes"].items()}


def _not_ready(layout: Layout, name: str, why: str) -> NotReady:
    log = layout.log(name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
    return NotReady(f"{name} did not become ready", why, f"The end of {log}:\n{tail}" if tail else f"Its log: {log}")
