"""What a worker's memory holds for each account: the growth of this process's resident memory while accounts are loaded
into compiled calculators, one for each partition, as a worker loads them from SQL. No servers.

Twice: accounts that bought a package, and subscribers who pay from their wallets. The first stay while the second load.
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

PARTITIONS = 4
GOAL_BYTES = 400
_AT_ONCE = 20_000


def run(accounts: int = 1_000_000) -> list[Result]:
    """Load so many accounts of each kind; bytes of resident memory for each."""
    loads = [_Load("memory.account", workload.accounts), _Load("memory.subscriber", workload.subscribers)]
    for load in loads:
        _Load(load.metric, load.kind).put(
            _AT_ONCE
        )  # what Python keeps of objects that came and went is not the accounts'
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
        "partitions": PARTITIONS,
        "grown_mb": round(grown / 1e6),
        "baseline": f"the goal, {GOAL_BYTES} bytes, divided by the value",
    }
    return Result(load.metric, round(value), "bytes", round(GOAL_BYTES / value, 2), conditions)


class _Load:
    """The calculators of every partition, and what is put into them."""

    def __init__(self, metric: str, kind: Callable[[list[str], Catalog], Iterator[Account]]) -> None:
        self.metric, self.kind = metric, kind
        self._plans = workload.catalog()
        self._calculators = [CompiledCalculator() for _ in range(PARTITIONS)]
        for partition, calculator in enumerate(self._calculators):
            calculator.load(PartitionState(partition, PARTITIONS))
            calculator.set_catalog(self._plans)

    def put(self, accounts: int) -> None:
        """Load so many accounts."""
        for start in range(0, accounts, _AT_ONCE):
            names = workload.account_names(min(_AT_ONCE, accounts - start), start)
            for account in self.kind(names, self._plans):
                self._of(account.account).put_account(account, stored=True)

    def last(self, accounts: int) -> Account | None:
        """The last of so many accounts, as it is held."""
        [name] = workload.account_names(1, accounts - 1)
        return self._of(name).account(name)

    def _of(self, name: str) -> CompiledCalculator:
        return self._calculators[partition_of(name, PARTITIONS)]


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss
