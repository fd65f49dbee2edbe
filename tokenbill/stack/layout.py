"""Paths of the local stack's files, all in one data folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def record(self, name: str) -> Path:
        """File with the identity of a process, written by the process itself between fork and exec."""
        return self.root / "run" / f"{name}.process.json"

    def create(self) -> None:
        """Create the folders.

        Raises:
            UserError: the folder cannot be used, for example because it belongs to another user.
        """
        try:
            for folder in (self.root, self.root / "run", self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            if self.root.stat().st_uid == os.getuid():
                # The user that PostgreSQL runs as may traverse the folder, but read nothing private in it.
                self.root.chmod(0o711)
                (self.root / "run").chmod(0o700)
            if not os.access(self.root / "run", os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"{self.root / 'run'} belongs to another user")
        except OSError as error:
            fix = f"Name a folder of your own with --data-dir or {DATA_DIR_VARIABLE}."
            raise UserError(f"The data folder {self.root} cannot be used", str(error), fix) from error
