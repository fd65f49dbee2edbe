"""The emitter processes as the demo runs them: each gets a task, reports its progress, and at the end its totals."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tokenbill.demo.emitting import EmitterTask, SentCounts
from tokenbill.stack.control import python_environment
from tokenbill.user_errors import UserError

_TAIL_LINES = 15


class Emitters:
    """Running emitter processes. Leaving the ``with`` block kills those that still run."""

    def __init__(self, orders: Sequence[EmitterTask], logs: Path) -> None:
        self.first_sent_at: float | None = None
        """Monotonic time of the first progress report; None before it."""
        self._sent = [0] * len(orders)
        self._done: dict[int, SentCounts] = {}
        self._logs = [logs / f"demo-emitter-{order.number}.log" for order in orders]
        self._processes = [_start(log) for log in self._logs]
        self._readers = [
            threading.Thread(target=self._listen, args=(place, process, order), daemon=True)
            for place, (process, order) in enumerate(zip(self._processes, orders, strict=True))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def sent(self) -> int:
        """Events passed to Kafka's client so far."""
        return sum(self._sent)

    @property
    def finished(self) -> bool:
        """True if every emitter has reported its totals.

        Raises:
            UserError: an emitter ended without reporting them.
        """
        for place, process in enumerate(self._processes):
            code = process.poll()
            if code is None:
                continue
            self._readers[place].join()
            if place not in self._done:
                log = self._logs[place]
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
                why = f"exit code {code}\n" + "\n".join(f"  {line}" for line in tail)
                raise UserError(f"an emitter (pid {process.pid}) failed", why, f"Its log is {log}.")
        return len(self._done) == len(self._processes)

    def totals(self) -> SentCounts:
        """Return the totals of all emitters together."""
        rejected: Counter[str] = Counter()
        usage: Counter[tuple[int, int]] = Counter()
        for sent in self._done.values():
            rejected.update(sent.rejected)
            for minute, shape, events in sent.usage:
                usage[minute, shape] += events
        return SentCounts(
            sent=sum(sent.sent for sent in self._done.values()),
            rated=sum(sent.rated for sent in self._done.values()),
            duplicate=sum(sent.duplicate for sent in self._done.values()),
            astray=sum(sent.astray for sent in self._done.values()),
            rejected=dict(sorted(rejected.items())),
            usage=[(minute, shape, events) for (minute, shape), events in sorted(usage.items())],
        )

    def _listen(self, place: int, process: subprocess.Popen[str], order: EmitterTask) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("an emitter was started without pipes")
        with process.stdin as orders:
            orders.write(json.dumps(dataclasses.asdict(order)))
        for line in process.stdout:
            said = json.loads(line)
            if "done" in said:
                self._done[place] = SentCounts(**said["done"])
                self._sent[place] = self._done[place].sent
            else:
                self._sent[place] = said["sent"]
            self.first_sent_at = self.first_sent_at or time.monotonic()

    def __enter__(self) -> Emitters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(log: Path) -> subprocess.Popen[str]:
    with log.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tokenbill.demo.emitting"],
            env={**os.environ, **python_environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
