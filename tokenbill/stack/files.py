"""Small files shared between processes: atomically replaced JSON, and locks that end with the process holding them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Replace `path` atomically, readable only by its owner, because the values include passwords."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: Path) -> Any | None:
    """Return the content of `path`; None if it does not exist or is empty (a process is about to write it)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return json.loads(text) if text.strip() else None


def open_lock(path: Path) -> int:
    """Open a lock file; child processes do not inherit the handle, or they would hold the lock too."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


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
