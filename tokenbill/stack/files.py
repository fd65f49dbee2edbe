"""Small files of the stack: private to the user, replaced atomically, and locks that end with the process holding them.

Every file is created with mode 0600 and every folder with 0700, whatever the umask is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
PRIVATE_UMASK = 0o077
"""Mask of the processes of a stack: what they create is private too."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by a JSON document, as `write_text` does."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically, readable only by its owner; after an error the former content is still there.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(open_private(draft, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def open_private(path: Path, flags: int) -> int:
    """Open a file, creating it if it does not exist; a file of ours that others may read becomes private.

    Processes started meanwhile do not inherit the handle.
    """
    handle = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    found = os.fstat(handle)
    if stat.S_IMODE(found.st_mode) & OTHERS and found.st_uid == os.geteuid():
        os.fchmod(handle, PRIVATE_FILE)
    return handle


def make_private_folder(path: Path) -> None:
    """Create a folder that only its owner can enter; an existing one of ours becomes private."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    found = path.stat()
    if stat.S_IMODE(found.st_mode) != PRIVATE_FOLDER and found.st_uid == os.geteuid():
        path.chmod(PRIVATE_FOLDER)


def make_private(folder: Path) -> None:
    """Take every right of group and others from a folder and all that is in it; symbolic links are not followed.

    Files that disappear meanwhile, or that belong to another user, are left out.
    """
    for parent, names, files in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in (*names, *files))):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                mode = path.lstat().st_mode
                if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and mode & OTHERS:
                    path.chmod(stat.S_IMODE(mode) & ~OTHERS)


def read_json(path: Path) -> Any | None:
    """Return the content of `path`; None if it does not exist or is empty (a process is about to write it)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    text = text.strip("\0 \n")  # NUL: space taken for a text that its writer is about to write.
    return json.loads(text) if text else None


def open_lock(path: Path) -> int:
    """Open a lock file; child processes do not inherit the handle, or they would hold the lock too."""
    return open_private(path, os.O_RDWR)


def write_holder(handle: int, text: str, width: int) -> None:
    """Write who holds a lock into its file, over the former text, because a full disk has no space for new bytes."""
    os.pwrite(handle, text.ljust(width).encode(), 0)


def try_lock(handle: int) -> bool:
    """Take the lock if it is free; return True if it was taken."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """True if some process holds the lock at this moment."""
    if not path.exists():
        return False
    handle = open_lock(path)
    try:
        # A shared lock, so that two concurrent checks do not take each other for the holder.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def locked(path: Path, timeout_seconds: float, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock inside the block; yield False, without the lock, if it is not free within `timeout_seconds`.

    `on_wait` is called once if the lock is not free at once.
    """
    handle = open_lock(path)
    try:
        held = try_lock(handle)
        deadline = time.monotonic() + timeout_seconds
        if not held and timeout_seconds > 0:
            on_wait()
        while not held and time.monotonic() < deadline:
            time.sleep(0.05)
            held = try_lock(handle)
        yield held
    finally:
        os.close(handle)
