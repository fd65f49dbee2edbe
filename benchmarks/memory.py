"""What a worker's memory holds for each account: the growth of this process's resident memory while accounts with a
package each are loaded into compiled calculators, one for each partition, as a worker loads them from SQL. No servers.
"""

import gc

import psutil

from benchmarks import workload
from benchmarks.result import Result, WrongWork, machine
from billing.commit import PartitionState
from billing.core import CompiledCalculator
from schemas.routing import partition_of

PARTITIONS = 4
GOAL_BYTES = 400
_AT_ONCE = 20_000


def run(accounts: int = 1_000_000) -> list[Result]:
    """Load so many accounts; bytes of resident memory for each."""
    _loaded(_AT_ONCE)  # what Python keeps of objects that came and went is not the accounts'
    before = _resident()
    calculators = _loaded(accounts)
    grown = _resident() - before
    [last] = workload.account_names(1, accounts - 1)
    if _of(calculators, last).account(last) is None:
        raise WrongWork("an account that was loaded is not there")
    value = grown / accounts
    conditions = machine() | {
        "accounts": accounts,
        "buckets_an_account": 1,
        "partitions": PARTITIONS,
        "grown_mb": round(grown / 1e6),
        "baseline": f"the goal, {GOAL_BYTES} bytes, divided by the value",
    }
    return [Result("memory.account", round(value), "bytes", round(GOAL_BYTES / value, 2), conditions)]


def _loaded(accounts: int) -> list[CompiledCalculator]:
    plans = workload.catalog()
    calculators = []
    for partition in range(PARTITIONS):
        calculator = CompiledCalculator()
        calculator.load(PartitionState(partition, PARTITIONS))
        calculator.set_catalog(plans)
        calculators.append(calculator)
    for start in range(0, accounts, _AT_ONCE):
        names = workload.account_names(min(_AT_ONCE, accounts - start), start)
        for account in workload.accounts(names, plans):
            _of(calculators, account.account).put_account(account, stored=True)
    return calculators


def _of(calculators: list[CompiledCalculator], name: str) -> CompiledCalculator:
    return calculators[partition_of(name, PARTITIONS)]


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss
