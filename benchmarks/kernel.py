"""Benchmark of the core alone: one processor core, no servers, records as the consumer delivers them.

``kernel.json`` measures decode and apply: JSON decoded, routed, deduplicated, rated, burned, aggregated.
``kernel.json.dialects`` is the same with the usage in dialects, as providers write it (:mod:`schemas.dialects`).
``kernel.json.outputs`` measures the same work as ``kernel.json`` and the effects of each batch: rated lines and balance
events rendered and framed, rows ready for ``COPY``, postings and rollups. ``rate.json`` (:mod:`benchmarks.rate`) runs
last, over the same events.

The kernel figures are CPU time, because a busy machine stretches wall-clock time; the wall-clock figure is in the
conditions. The baseline is the plain reference calculator on the first events of the same list: the same calls in the
same order, timed in the same way. The reference renders rated lines in apply, the core when effects are taken.
Therefore only ``kernel.json.outputs`` compares equal work.
"""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.structs import ConsumerRecord

from benchmarks import rate, workload
from benchmarks.result import Result, WrongWork, machine
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import Calculator, UsageBatch
from billing.calculator.plain import PlainCalculator
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import Record
from billing.commits.output_documents import Stamp
from billing.log_time import TimeLimits

LOG_TIME_MS = workload.START_US // 1000 + 3_600_000


@dataclass(slots=True)
class KernelSeconds:
    """Accumulated CPU time of this process, and wall-clock time, of one part of the work."""

    cpu: float = 0.0
    wall: float = 0.0

    def begin(self) -> None:
        """Start both clocks."""
        self.cpu -= time.process_time()
        self.wall -= time.perf_counter()

    def end(self) -> None:
        """Stop both clocks."""
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


@dataclass(slots=True)
class KernelMeasured:
    """The times of the three parts of a run."""

    events: int
    decode: KernelSeconds
    apply: KernelSeconds
    effects: KernelSeconds

    def rate(self, *parts: KernelSeconds, wall: bool = False) -> float:
        """Return events per second of these parts together, by CPU time or by wall-clock time."""
        return self.events / sum(part.wall if wall else part.cpu for part in parts)


def run(
    events: int = 1_000_000, accounts: int = 100_000, batch: int = 20_000, baseline_events: int = 20_000
) -> list[Result]:
    """Measure ``events`` events on ``accounts`` accounts, in batches of ``batch``."""
    names = workload.account_names(accounts)
    values = workload.events(events, names, 0, 1)
    records = [record_of(offset, value) for offset, value in enumerate(values)]
    compiled = _prepared(CompiledCalculator(), names)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    core = measure(compiled, records, batch)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    plain = measure(_prepared(PlainCalculator(), names), records[:baseline_events], batch)
    conditions = machine() | {
        "events": events,
        "accounts": accounts,
        "combinations": len(workload.COMBINATIONS),
        "sources": "numbered",
        "bytes_per_event": sum(map(len, values)) // len(values),
        "batch": batch,
        "clock": "CPU time of one thread",
        "baseline": "plain reference calculator, the same calls on the first events",
        "baseline_events": baseline_events,
        "decode_events_per_second": round(core.rate(core.decode)),
        "peak_memory_grown_mib": grown_kib // 1024,
    }
    provided = workload.in_dialects(values)
    there = [record_of(offset, value) for offset, value in enumerate(provided)]
    dialects = measure(_prepared(CompiledCalculator(), names), there, batch)
    plain_dialects = measure(_prepared(PlainCalculator(), names), there[:baseline_events], batch)
    unrendered = "; nothing rendered (by the baseline, lines)"
    work = "decode, route, dedupe, rate, burn, aggregate"
    rendered = "; then rated lines and balances rendered and framed, COPY rows, postings, rollups"
    return [
        _result(
            "kernel.json",
            core,
            plain,
            False,
            conditions | {"work": work + unrendered},
        ),
        _result(
            "kernel.json.dialects",
            dialects,
            plain_dialects,
            False,
            conditions
            | {
                "work": work + unrendered,
                "dialects": "openai.chat, anthropic, deepseek by turns",
                "bytes_per_event": sum(map(len, provided)) // len(provided),
                "decode_events_per_second": round(dialects.rate(dialects.decode)),
            },
        ),
        _result("kernel.json.outputs", core, plain, True, conditions | {"work": work + rendered}),
        rate.measure(values, baseline_events),
    ]


def _result(
    metric: str, core: KernelMeasured, plain: KernelMeasured, outputs: bool, conditions: dict[str, object]
) -> Result:
    parts = [core.decode, core.apply, core.effects] if outputs else [core.decode, core.apply]
    plain_parts = [plain.decode, plain.apply, plain.effects] if outputs else [plain.decode, plain.apply]
    speed, plain_speed = core.rate(*parts), plain.rate(*plain_parts)
    more = {
        "wall_events_per_second": round(core.rate(*parts, wall=True)),
        "baseline_events_per_second": round(plain_speed),
        "baseline_wall_events_per_second": round(plain.rate(*plain_parts, wall=True)),
    }
    return Result(metric, round(speed), "events/s", round(speed / plain_speed, 1), conditions | more)


def record_of(offset: int, value: bytes) -> Record:
    """Return a record as the consumer delivers it."""
    record: Record = ConsumerRecord(
        topic="usage.events",
        partition=0,
        offset=offset,
        timestamp=LOG_TIME_MS,
        timestamp_type=1,
        key=None,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=len(value),
        headers=(),
    )
    return record


def _prepared(calculator: Calculator, names: list[str]) -> Calculator:
    plans = workload.catalog()
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(plans)
    for account in workload.accounts(names, plans):
        calculator.put_account(account, stored=True)
    return calculator


def measure(calculator: Calculator, records: Sequence[Record], batch: int) -> KernelMeasured:
    """Decode, decide and render all records, in batches of ``batch``.

    Raises:
        WrongWork: not every event was rated.
    """
    rated = 0
    measured = KernelMeasured(len(records), KernelSeconds(), KernelSeconds(), KernelSeconds())
    for commit_no, start in enumerate(range(0, len(records), batch), start=1):
        usage = UsageBatch(0, 1, records[start : start + batch], 0, TimeLimits())
        measured.decode.begin()
        decoded = calculator.decode(usage)
        measured.decode.end()
        measured.apply.begin()
        calculator.missing_accounts(decoded)
        for hour_us in calculator.missing_hours(decoded):
            calculator.put_hour(hour_us, [])
        rated += calculator.apply(decoded).rated
        measured.apply.end()
        measured.effects.begin()
        calculator.take_effects(Stamp(0, commit_no, workload.START_US))
        measured.effects.end()
    if rated != len(records):
        raise WrongWork(f"{rated} of {len(records)} events were rated")
    return measured
