"""Small files shared between processes: JSON that is never seen half written, and locks that die with their holder."""

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
    """Replace `path` in one step; readable by its owner alone, as passwords pass through here."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: Path) -> Any | None:
    """The content of `path`; None where it does not exist or is empty (a process was about to write it)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return json.loads(text) if text.strip() else None


def open_lock(path: Path) -> int:
    """Open a lock file; the handle is closed in programs we start, else they would hold the lock too."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(handle: int) -> bool:
    """Take the lock if nobody holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock at this moment."""
    if not path.exists():
        return False
    handle = open_lock(path)
    try:
        # A shared lock, so that two who ask at once do not take each other for the holder.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def locked(path: Path, timeout_seconds: float, on_wait: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock inside the block; yields False, without it, when `timeout_seconds` pass first."""
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
