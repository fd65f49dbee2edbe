"""Paths of the local stack's files, all in one data folder."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tokenbill.stack.files import make_private, make_private_folder
from tokenbill.user_errors import UserError

DATA_DIR_VARIABLE = "TOKENBILL_DATA_DIR"


def default_data_dir() -> Path:
    """Return the folder in `TOKENBILL_DATA_DIR`, else `.tokenbill` in the project around the working directory."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    if named:
        return Path(named)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").exists():
            return folder / ".tokenbill"
    return here / ".tokenbill"


@dataclass(frozen=True)
class Layout:
    """Paths of one stack; `root` is absolute and resolved, so that two spellings of a path name the same stack."""

    root: Path

    @classmethod
    def of(cls, data_dir: Path | str | None) -> Layout:
        return cls((default_data_dir() if data_dir is None else Path(data_dir)).expanduser().resolve())

    @property
    def command_lock(self) -> Path:
        """Lock held by a running `up` or `down`."""
        return self.root / "run" / "command.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Lock held by the supervisor in charge."""
        return self.root / "run" / "supervisor.lock"

    @property
    def standby_lock(self) -> Path:
        """Lock held by the standby supervisor, which contains its pid."""
        return self.root / "run" / "standby.lock"

    @property
    def config(self) -> Path:
        """File of the settings chosen by the first `up`: ports, passwords, server kinds."""
        return self.root / "stack.json"

    @property
    def password_file(self) -> Path:
        """File of the passwords of the database roles, in the format of libpq; database URLs name it."""
        return self.root / "database.passwords"

    @property
    def desired(self) -> Path:
        """File of the desired processes; written by `up` and `down`, read by the supervisor."""
        return self.root / "run" / "desired.json"

    @property
    def state(self) -> Path:
        """File of the running processes; written by the supervisor."""
        return self.root / "run" / "state.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def postgresql_pointer(self) -> Path:
        """File with the path of the database's data folder, which may be outside `root`."""
        return self.root / "postgresql.path"

    @property
    def _is_for_all_users(self) -> bool:
        """True for a folder such as /tmp, unless it is empty, as a file system of its own is at first."""
        return (
            self.root.exists()
            and bool(self.root.stat().st_mode & stat.S_ISVTX)
            and not self.config.exists()
            and (self.root == Path(tempfile.gettempdir()) or any(self.root.iterdir()))
        )

    @property
    def has_database_of_another_user(self) -> bool:
        """True if the database's data folder is in `root` and belongs to a user who is not the owner of `root`.

        Earlier versions put it there when they ran as root. The server's user must then be able to enter `root`.
        """
        if not self.postgresql_pointer.exists():
            return False
        data = Path(self.postgresql_pointer.read_text(encoding="utf-8").strip())
        return data.is_relative_to(self.root) and data.exists() and data.stat().st_uid != self.root.stat().st_uid

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def record(self, name: str) -> Path:
        """File with the identity of a process, written by the process itself between fork and exec."""
        return self.root / "run" / f"{name}.process.json"

    def create(self) -> None:
        """Create the folders, and make everything in them private: folders 0700, files 0600.

        Raises:
            UserError: the folder cannot be used, for example because it belongs to another user or is one for all.
        """
        try:
            if self._is_for_all_users:
                raise PermissionError(f"{self.root} is a folder for all users, and a data folder becomes private")
            for folder in (self.root, self.root / "run", self.logs):
                make_private_folder(folder)
            if self.root.stat().st_uid == os.getuid():
                make_private(self.root)
                if self.has_database_of_another_user:
                    self.root.chmod(0o711)  # Until the database is moved, which needs it to be stopped.
            if not os.access(self.root / "run", os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"{self.root / 'run'} belongs to another user")
        except OSError as error:
            fix = f"Name a folder of your own with --data-dir or {DATA_DIR_VARIABLE}."
            raise UserError(f"The data folder {self.root} cannot be used", str(error), fix) from error
