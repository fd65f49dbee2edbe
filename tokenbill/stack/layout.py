"""Where the local stack keeps its files: one folder, every name in one place. Never touches anything outside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tokenbill.errors import UserError

DATA_DIR_VARIABLE = "TOKENBILL_DATA_DIR"


def default_data_dir() -> Path:
    """The folder of `TOKENBILL_DATA_DIR`, else `.tokenbill` in the project that contains the working directory."""
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
    """The files of one stack. `root` is absolute and resolved, so that two spellings of a path are one stack."""

    root: Path

    @classmethod
    def of(cls, data_dir: Path | str | None) -> Layout:
        return cls((default_data_dir() if data_dir is None else Path(data_dir)).expanduser().resolve())

    @property
    def command_lock(self) -> Path:
        """Held by the `up` or `down` that is at work."""
        return self.root / "run" / "command.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor that is in charge."""
        return self.root / "run" / "supervisor.lock"

    @property
    def standby_lock(self) -> Path:
        """Held by the supervisor that waits for the first one to die."""
        return self.root / "run" / "standby.lock"

    @property
    def config(self) -> Path:
        """What the first `up` chose and later ones reuse: ports, passwords, placement."""
        return self.root / "stack.json"

    @property
    def desired(self) -> Path:
        """What should run; written by `up` and `down`, read by the supervisor."""
        return self.root / "run" / "desired.json"

    @property
    def state(self) -> Path:
        """What runs; written by the supervisor."""
        return self.root / "run" / "state.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def postgresql_pointer(self) -> Path:
        """Names the folder of the database's files where they cannot lie in `root`."""
        return self.root / "postgresql.path"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def record(self, name: str) -> Path:
        """Written by a process about itself before it becomes the program it is to run."""
        return self.root / "run" / f"{name}.process.json"

    def create(self) -> None:
        """Make the folders; a folder that another user owns is refused with the way out."""
        try:
            for folder in (self.root, self.root / "run", self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            if self.root.stat().st_uid == os.getuid():
                # Another user (the one PostgreSQL runs as) may pass through, and read nothing that is private.
                self.root.chmod(0o711)
                (self.root / "run").chmod(0o700)
            if not os.access(self.root / "run", os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"{self.root / 'run'} belongs to another user")
        except OSError as error:
            fix = f"Name a folder of your own with --data-dir or {DATA_DIR_VARIABLE}."
            raise UserError(f"The data folder {self.root} cannot be used", str(error), fix) from error
