"""Benchmark of the core on different kinds of accounts: CPU time per event, compared with an account with one package.

``kernel.json`` is measured on accounts with one package, which the compiled loop decides completely. Other products are
harder: old subscribers, gift money, shared plans, windows, prices by period. A kind whose events leave the compiled
loop costs about a hundred times as much; this benchmark shows which kinds do. It measures decoding, deciding and
rendering together, without servers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import workload
from benchmarks.kernel import measure, record_of
from benchmarks.result import Result, machine
from billing.accounts.account import Account
from billing.accounts.extras import Extras, Subscription
from billing.calculator.compiled import CompiledCalculator
from billing.catalog import Catalog, load_folder
from billing.commits.commit_record import PartitionState
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings
from schemas.times import DAY_US

KINDS_CATALOG_DIR = Path(__file__).resolve().parent / "kinds_catalog"
BATCH_RECORDS = 10_000
_MUCH_PICO = 10**17


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of account, and the data that its events add to those of the workload."""

    metric: str
    make: Callable[[str, Catalog], Account]
    data: bytes = b'"reservation":null'
    """Text that replaces ``"reservation":null`` in the data of an event."""


def _package(name: str, plans: Catalog, book: str = "bench") -> Account:
    [account] = workload.accounts([name], plans)
    account.price_book = book
    return account


def _wallet(name: str, plans: Catalog, gift_pico: int = 0) -> Account:
    return Account(name, "CNY", "bench", "prepaid", 0, wallet_pico=_MUCH_PICO, extras=Extras(gift_pico=gift_pico))


def _subscriber(name: str, plans: Catalog, plan: str = "monthly", ended: int = 0, gift_pico: int = 0) -> Account:
    """Return a subscriber with ``ended`` cycles that have ended."""
    by_key = plans.plans_by_key().__getitem__
    begun_us = workload.START_US - (ended * 31 * DAY_US if ended else 0)
    account = workload.subscriber(name, Subscription("s", plan, 1, "wallet", begun_us), _MUCH_PICO, by_key)
    roll_forward(account, workload.START_US, by_key, Postings(), plans)
    account.extras.gift_pico = gift_pico
    return account


WORKLOAD_KINDS = (
    Kind("kinds.package", _package),
    Kind("kinds.reserved", _package, b'"reservation":"rsv-0123456789abcdef"'),
    Kind("kinds.subscriber", _subscriber),
    Kind("kinds.subscriber.12_ended", partial(_subscriber, ended=12)),
    Kind("kinds.subscriber.36_ended", partial(_subscriber, ended=36)),
    Kind("kinds.subscriber.gift", partial(_subscriber, gift_pico=10**14)),
    Kind("kinds.four_scopes", partial(_subscriber, plan="scopes")),
    Kind("kinds.prepaid", _wallet),
    Kind("kinds.prepaid.gift", partial(_wallet, gift_pico=_MUCH_PICO)),
    Kind("kinds.family", partial(_subscriber, plan="family"), b'"member":"mother"'),
    Kind("kinds.windows", partial(_subscriber, plan="windows")),
    Kind("kinds.money", partial(_subscriber, plan="money")),
    Kind("kinds.capped_overage", partial(_subscriber, plan="capped")),
    Kind("kinds.period_prices", partial(_package, book="bench-tiers")),
)


def run(events: int = 40_000, accounts: int = 4_000) -> list[Result]:
    """Measure each kind: microseconds of CPU time per event. The ratio is the package account's time divided by it."""
    base, more = workload.catalog(), load_folder(KINDS_CATALOG_DIR)
    plans = Catalog((*base.price_books, *more.price_books), (*base.plans, *more.plans))
    names = workload.account_names(accounts)
    values = workload.events(events, names, 0, 1)
    results: list[Result] = []
    for kind in WORKLOAD_KINDS:
        took = _microseconds(kind, plans, names, values)
        first = results[0].value if results else took
        conditions = machine() | {"events": events, "accounts": accounts, "baseline": "kinds.package of the same run"}
        results.append(Result(kind.metric, round(took, 2), "us/event", round(first / took, 3), conditions))
    return results


def _microseconds(kind: Kind, plans: Catalog, names: list[str], values: list[bytes]) -> float:
    calculator = CompiledCalculator()
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(plans)
    for name in names:
        calculator.put_account(kind.make(name, plans), stored=True)
    changed = (value.replace(b'"reservation":null', kind.data) for value in values)
    records = [record_of(offset, value) for offset, value in enumerate(changed)]
    measured = measure(calculator, records, BATCH_RECORDS)
    return 1e6 / measured.rate(measured.decode, measured.apply, measured.effects)
