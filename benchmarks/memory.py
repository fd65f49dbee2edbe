"""Benchmark of a worker's memory per account, without servers.

It measures the growth of this process's resident memory while accounts are loaded into compiled calculators, one per
partition, as a worker loads them from SQL. Accounts that bought a package are loaded first, then subscribers who pay
from their wallets; the first accounts stay in memory while the second are loaded.
"""

import gc
from collections.abc import Callable, Iterator

import psutil

from benchmarks import workload
from benchmarks.result import Result, WrongWork, machine
from billing.accounts.account import Account
from billing.calculator.compiled import CompiledCalculator
from billing.catalog import Catalog
from billing.commits.commit_record import PartitionState
from schemas.routing import partition_of

GOAL_BYTES = 400
_AT_ONCE = 20_000


def run(accounts: int = 1_000_000) -> list[Result]:
    """Load ``accounts`` accounts of each kind; the value is bytes of resident memory per account."""
    loads = [_Load("memory.account", workload.accounts), _Load("memory.subscriber", workload.subscribers)]
    for load in loads:
        _Load(load.metric, load.kind).put(_AT_ONCE)  # warm-up: memory that Python keeps does not count
    return [_grown(load, accounts) for load in loads]


def _grown(load: "_Load", accounts: int) -> Result:
    before = _resident()
    load.put(accounts)
    grown = _resident() - before
    if load.last(accounts) is None:
        raise WrongWork("an account that was loaded is not there")
    value = grown / accounts
    conditions = machine() | {
        "accounts": accounts,
        "buckets_an_account": 1,
        "partitions": workload.PARTITIONS,
        "grown_mb": round(grown / 1e6),
        "baseline": f"the goal, {GOAL_BYTES} bytes, divided by the value",
    }
    return Result(load.metric, round(value), "bytes", round(GOAL_BYTES / value, 2), conditions)


class _Load:
    """The calculators of all partitions, and the accounts that are loaded into them."""

    def __init__(self, metric: str, kind: Callable[[list[str], Catalog], Iterator[Account]]) -> None:
        self.metric, self.kind = metric, kind
        self._plans = workload.catalog()
        self._calculators = [CompiledCalculator() for _ in range(workload.PARTITIONS)]
        for partition, calculator in enumerate(self._calculators):
            calculator.load(PartitionState(partition, workload.PARTITIONS))
            calculator.set_catalog(self._plans)

    def put(self, accounts: int) -> None:
        """Load ``accounts`` accounts."""
        for start in range(0, accounts, _AT_ONCE):
            names = workload.account_names(min(_AT_ONCE, accounts - start), start)
            for account in self.kind(names, self._plans):
                self._of(account.account).put_account(account, stored=True)

    def last(self, accounts: int) -> Account | None:
        """Return the last of ``accounts`` accounts, as the calculator holds it."""
        [name] = workload.account_names(1, accounts - 1)
        return self._of(name).account(name)

    def _of(self, name: str) -> CompiledCalculator:
        return self._calculators[partition_of(name, workload.PARTITIONS)]


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss
