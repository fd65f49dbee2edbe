"""Output of the demo: progress while it runs, and at the end the checks and figures. Decides nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from schemas.units import MILLION, format_pico
from tokenbill.demo.demo_checks import DemoCheck, Evidence
from tokenbill.stack.progress import PLAIN_INTERVAL_SECONDS

_FEN_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds from the first event sent until all events were committed, and until all output was published."""

    committed_seconds: float
    published_seconds: float

    def events_per_second(self, events: int) -> int:
        """Return the number of events committed per second."""
        return round(events / self.committed_seconds) if self.committed_seconds > 0 else 0


class Bar:
    """Progress of the events: a bar on a terminal, otherwise a line every few seconds."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._next = 0.0
        self._shown = 0
        self._began = time.monotonic()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=console,
            )
            self._task = self._progress.add_task("events committed 已计费", total=total, note="")

    def show(self, sent: int, committed: int) -> None:
        """Show how many events were sent and committed. May be called often."""
        note = f"{committed:,} of {self._total:,} committed, {sent:,} sent"
        if self._progress is not None:
            self._progress.update(self._task, completed=committed, note=note)
        elif time.monotonic() >= self._next or committed >= self._total > self._shown:
            self._next = time.monotonic() + PLAIN_INTERVAL_SECONDS
            self._shown = committed
            seconds = time.monotonic() - self._began
            say(self._console, f"  {seconds:4.0f} s  {100 * committed // self._total:3d} %  {note}")

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


def say(console: Console, text: str) -> None:
    """Print one line of text without markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def show(
    console: Console, found: Evidence, checks: Sequence[DemoCheck], speed: Speed, data_dir: Path, run: str
) -> None:
    """Print the checks with their figures, the totals, and where to look next."""
    say(console, "")
    for check in checks:
        console.print("[green]✓[/]" if check.holds else "[bold red]✗[/]", end=" ")
        say(console, f"{check.statement}: {check.figures}")
    say(console, "")
    console.print(_figures(found, speed))
    failed = sum(not check.holds for check in checks)
    say(console, "")
    say(console, f"All {len(checks)} checks hold." if not failed else f"{failed} of {len(checks)} checks DO NOT hold.")
    for line in _next_steps(data_dir, run):
        say(console, line)


def _figures(found: Evidence, speed: Speed) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    events = found.sent.sent
    balances, usage = found.balances, found.usage
    rows = (
        ("events 事件", f"{events:,}"),
        ("tokens 词元", f"{usage.tokens:,}"),
        ("standard tokens 标准词元", f"{usage.standard_micro // MILLION:,}"),
        ("value of the usage 用量金额", f"{_yuan(usage.amount_pico)} 元 yuan"),
        ("of it charged to wallets 钱包扣费", f"{_yuan(usage.charged_pico)} 元 yuan"),
        ("accounts 账户", f"{balances.accounts:,}"),
        ("packages 词元包", f"{balances.buckets:,}, of them {balances.used_up:,} used up 用完"),
        ("left in packages 剩余标准词元", f"{balances.remaining_micro // MILLION:,}"),
        ("commits 提交", f"{found.counts.commits:,}"),
        ("speed 速度", f"{speed.events_per_second(events):,} events/s committed"),
        ("time 用时", f"committed after {speed.committed_seconds:.1f} s, published {speed.published_seconds:.1f} s"),
    )
    for name, value in rows:
        table.add_row(name, value)
    return table


def _yuan(amount_pico: int) -> str:
    """Return an amount cut to fen for display; the checks show the exact amount."""
    whole, _, fraction = format_pico(amount_pico).partition(".")
    return f"{int(whole):,}.{fraction[:_FEN_DIGITS].ljust(_FEN_DIGITS, '0')}"


def _next_steps(data_dir: Path, run: str) -> list[str]:
    where = f"--data-dir {data_dir}"
    return [
        "Where to look next 接下来:",
        f"  tokenbill up {where}              the stack again, with what is in it",
        f"  tokenbill status {where}          what runs, and how far behind it is",
        f"  tokenbill report balance {where}  every package and wallet (this run's accounts: demo-{run}-…)",
        f"  tokenbill audit {where}           the same proof again",
        f"  ls {data_dir / 'logs'}            what every process said",
    ]


def json_line(found: Evidence, speed: Speed) -> str:
    """Return the last line of ``tokenbill demo --json`` (docs/reference/command-line.md)."""
    return json.dumps(
        {
            "events": {
                "sent": found.arrived,
                "rated": found.counts.rated,
                "duplicate": found.counts.duplicate,
                "rejected": found.counts.rejected,
            },
            "trial_balance_sum": format_pico(sum(found.trial_balance_pico.values())),
            "balance_topic_equals_database": found.balances_equal,
            "events_per_second": speed.events_per_second(found.sent.sent),
        }
    )
