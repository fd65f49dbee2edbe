"""Start of a stack: the servers, their preparation by `tokenbill.prepare_servers`, then Tokenbill's own processes.

The same steps continue from any state that a crash left: living processes are adopted, dead ones are started. If a
start fails, it stops the processes that it started.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.topics import DEFAULT_PARTITIONS
from tokenbill.stack import servers
from tokenbill.stack.config import StackConfig
from tokenbill.stack.control import python_environment, read_desired
from tokenbill.stack.down import COMMAND_SECONDS, stop_locked
from tokenbill.stack.files import locked
from tokenbill.stack.info import StackInfo, info, specs_of_living
from tokenbill.stack.layout import Layout
from tokenbill.stack.password_file import PasswordFile
from tokenbill.stack.progress import Progress, Silent
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.stack.waiting import supervise, supervisor_runs, wait_ended, wait_ready
from tokenbill.user_errors import UserError

if TYPE_CHECKING:
    from tokenbill.prepare_servers import PreparedStack

DEFAULT_WORKERS = 1
WORKER_READY_SECONDS = 180.0


@dataclass(frozen=True)
class UpOptions:
    """Options of `up`; None keeps the stack's present value, or takes the default on the first start."""

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
    """Start the stack of `data_dir`, unless it runs already, and return when every process is ready.

    `workers` is the number of Faust workers (default 1 on the first start; another number changes a running stack).
    With fewer workers than before, the others have ended when this function returns.
    `partitions` is fixed by the first start (default 4). `only_servers` starts only broker and database.

    Raises:
        UserError: a problem that the user can correct.
        NotReady: a process did not become ready.
    """
    layout = Layout.of(data_dir)
    layout.create()
    reporter = progress or Silent()
    waiting = lambda: reporter.waiting("waiting for another `tokenbill up` or `down` to finish")  # noqa: E731
    with locked(layout.command_lock, COMMAND_SECONDS, waiting) as held:
        if not held:
            raise UserError(f"The stack in {layout.root} is busy", "another `up` or `down` is at work", "Try later.")
        _up(layout, UpOptions(workers, partitions, only_servers, docker), reporter)
    return info(layout.root)


def _up(layout: Layout, wish: UpOptions, progress: Progress) -> None:
    config = StackConfig.load(layout) or StackConfig.new()
    config.save(layout)
    found = supervisor_runs(layout)
    with contextlib.ExitStack() as undo:
        if not found:
            undo.callback(stop_locked, layout, Silent())
        embedded = _start_servers(layout, config, wish, found, progress)
        servers.create_database(layout, config)
        if not wish.only_servers:
            _start_applications(layout, config, wish, embedded, progress)
        undo.pop_all()


def _start_servers(
    layout: Layout, config: StackConfig, wish: UpOptions, found: bool, progress: Progress
) -> list[ProcessSpec]:
    living = specs_of_living(layout)
    if not found:
        for name in config.drop_taken_ports(owners_alive=set(living)):
            progress.done(f"the port of {name} is taken by another program: a new one is chosen")
    servers.choose(layout, config, wish.docker, found)
    specs = servers.embedded_specs(layout, config, living, progress)
    config.save(layout)
    servers.start_containers(layout, config, progress)
    others = [spec for spec in (read_desired(layout) or {}).values() if spec.phase > 0] if found else []
    supervise(layout, [*specs, *others])
    wait_ready(layout, specs, progress)
    servers.check_external(config)
    return specs


def _start_applications(
    layout: Layout, config: StackConfig, wish: UpOptions, embedded: list[ProcessSpec], progress: Progress
) -> None:
    if config.workers is None:
        config.workers = DEFAULT_WORKERS
    if wish.workers is not None:
        config.workers = wish.workers
    running = set(info(layout.root).pids)
    names = ["relay", "scheduler", "api", "webhooks", *(f"worker-{number}" for number in range(1, config.workers + 1))]
    if config.database_url is None or wish.partitions not in (None, config.partitions) or not running.issuperset(names):
        prepared = _prepare(config, wish, progress)
        passwords = PasswordFile(layout)
        config.database_url = passwords.without_password(prepared.database_url)
        passwords.without_password(prepared.report_url)
        passwords.save()
        config.partitions = prepared.partitions
    wanted = read_desired(layout) or {}
    applications = [wanted.get(name) or application_spec(layout, config, name) for name in names]
    config.save(layout)
    wished = [*embedded, *applications]
    supervise(layout, wished)
    wait_ended(layout, wished)
    wait_ready(layout, applications, progress)


def _prepare(config: StackConfig, wish: UpOptions, progress: Progress) -> PreparedStack:
    from tokenbill.prepare_servers import prepare

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
    """Return the process spec of the relay, the scheduler, the API, the webhook sender or a worker of this stack."""
    port = config.port(name)
    roles = {
        "relay": ("relay", "--web-port", str(port)),
        "scheduler": ("scheduler", "--web-port", str(port)),
        "api": ("serve", "--port", str(port), "--web-port", str(config.port("api-web"))),
        "webhooks": ("webhooks", "--web-port", str(port)),
    }
    role = roles.get(name, ("worker", "--name", name, "--web-port", str(port)))
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "tokenbill", *role, "--data-dir", str(layout.root)),
        cwd=str(layout.root),
        env={
            "TOKENBILL_KAFKA": str(config.kafka),
            "TOKENBILL_DATABASE_URL": str(config.database_url),
            "PYTHONUNBUFFERED": "1",
            **python_environment(),
        },
        ready=ReadyCheck("http", f"http://127.0.0.1:{port}/readyz", WORKER_READY_SECONDS),
    )
