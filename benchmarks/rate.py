"""Benchmark of ``tokenbill rate`` on one core: a file of JSON lines read and priced, and a file of rated lines written.

The file is in the page cache, in a temporary folder. The figure is CPU time, system calls included. The baseline is the
plain path of the same command on the first lines of the same file; the core must write the same bytes.
"""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import workload
from benchmarks.result import Result, WrongWork, machine
from billing.calculator.core_rater import CompiledRater
from billing.pricing.lines import BookRater, encode_line
from tokenbill.commands.rate import rate_lines

BENCH_BOOK = "bench"


def measure(values: list[bytes], baseline_events: int) -> Result:
    """Measure with one event per line.

    Raises:
        WrongWork: an event was not priced, or the two paths wrote different bytes.
    """
    catalog = workload.catalog()
    with TemporaryDirectory() as name:
        folder = Path(name)
        events, rated, plainly = folder / "events.jsonl", folder / "rated.jsonl", folder / "plainly.jsonl"
        events.write_bytes(b"\n".join(values) + b"\n")
        core, plain = CompiledRater(catalog, BENCH_BOOK), BookRater(catalog, BENCH_BOOK)

        def compiled_path() -> None:
            with events.open("rb") as source, rated.open("wb") as target:
                rate_lines(core, source, target)

        def plain_path() -> None:
            with events.open("rb") as source, plainly.open("wb") as target:
                for line in islice(source, baseline_events):
                    target.write(encode_line(plain.line(line)))

        cpu, wall = _seconds(compiled_path)
        plain_cpu, plain_wall = _seconds(plain_path)
        if core.rated != len(values):
            raise WrongWork(f"{core.rated} of {len(values)} events were priced")
        with rated.open("rb") as ours, plainly.open("rb") as theirs:
            if any(mine != other for mine, other in zip(ours, theirs, strict=False)):
                raise WrongWork("the core wrote other bytes than the plain path")
        baseline = min(baseline_events, len(values))
        conditions = machine() | {
            "events": len(values),
            "combinations": len(workload.COMBINATIONS),
            "bytes_read": events.stat().st_size,
            "bytes_written": rated.stat().st_size,
            "clock": "CPU time of one thread",
            "work": "file read, decode, rate, lines rendered, file written",
            "baseline": "the plain path of the same command on the first lines",
            "baseline_events": baseline,
            "wall_events_per_second": round(len(values) / wall),
            "baseline_events_per_second": round(baseline / plain_cpu),
            "baseline_wall_events_per_second": round(baseline / plain_wall),
        }
        rate, plain_rate = len(values) / cpu, baseline / plain_cpu
        return Result("rate.json", round(rate), "events/s", round(rate / plain_rate, 1), conditions)


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return the CPU time of this process and the wall-clock time that ``work`` took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall
