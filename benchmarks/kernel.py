"""The core alone, one core, no servers: JSON events decoded, deduplicated, rated, burned, aggregated and rendered.

The baseline is the plain reference calculator on the first events of the same list. Both run the same calls in the
same order: decode, apply, and take the effects of each batch (rated lines, balances, rows, postings) as a commit would.
"""

import resource
import time
from collections.abc import Sequence

from billing.core import CompiledCalculator

from benchmarks import workload
from benchmarks.result import Result, machine
from billing.calculator import Calculator, UsageBatch
from billing.commit import PartitionState, PlainRecord
from billing.documents import Stamp
from billing.limits import TimeLimits
from billing.reference.calculator import PlainCalculator

LOG_TIME_MS = workload.START_US // 1000 + 3_600_000


class WrongWork(Exception):
    """The measured code did not do the work: its figure would mean nothing."""


def run(
    events: int = 1_000_000, accounts: int = 100_000, batch: int = 20_000, baseline_events: int = 20_000
) -> list[Result]:
    """Measure; ``events`` in batches of ``batch`` over ``accounts`` accounts."""
    names = workload.account_names(accounts)
    values = workload.events(events, names, 0, 1)
    records = [PlainRecord(number, LOG_TIME_MS, None, value) for number, value in enumerate(values)]
    compiled = _prepared(CompiledCalculator(), names)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, decode_seconds = _seconds(compiled, records, batch)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    plain_seconds, _ = _seconds(_prepared(PlainCalculator(), names), records[:baseline_events], batch)
    rate, plain_rate = events / seconds, baseline_events / plain_seconds
    conditions = machine() | {
        "events": events,
        "accounts": accounts,
        "combinations": len(workload.COMBINATIONS),
        "sources": "numbered",
        "bytes_per_event": sum(map(len, values)) // len(values),
        "batch": batch,
        "baseline": "plain reference calculator",
        "baseline_events_per_second": round(plain_rate),
        "decode_events_per_second": round(events / decode_seconds),
        "peak_memory_grown_mib": grown_kib // 1024,
    }
    return [Result("kernel.json", round(rate), "events/s", round(rate / plain_rate, 1), conditions)]


def _prepared(calculator: Calculator, names: list[str]) -> Calculator:
    plans = workload.catalog()
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(plans)
    for account in workload.accounts(names, plans):
        calculator.put_account(account, stored=True)
    return calculator


def _seconds(calculator: Calculator, records: Sequence[PlainRecord], batch: int) -> tuple[float, float]:
    begun, decode_seconds, rated = time.perf_counter(), 0.0, 0
    for commit_no, start in enumerate(range(0, len(records), batch), start=1):
        decode_begun = time.perf_counter()
        decoded = calculator.decode(UsageBatch(0, 1, records[start : start + batch], 0, TimeLimits()))
        decode_seconds += time.perf_counter() - decode_begun
        calculator.missing_accounts(decoded)
        for hour_us in calculator.missing_hours(decoded):
            calculator.put_hour(hour_us, [])
        rated += calculator.apply(decoded).rated
        calculator.take_effects(Stamp(0, commit_no, workload.START_US))
    seconds = time.perf_counter() - begun
    if rated != len(records):
        raise WrongWork(f"{rated} of {len(records)} events were rated")
    return seconds, decode_seconds
