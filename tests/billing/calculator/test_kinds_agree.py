"""The accounts of ``tokenbill bench kinds``: both calculators agree on each, and the core decides those it should."""

from typing import Any

import pytest

from benchmarks import workload
from benchmarks.kernel import LOG_TIME_MS, record_of
from benchmarks.kinds import KINDS_CATALOG_DIR, WORKLOAD_KINDS, Kind
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import UsageBatch, UsageOutcome
from billing.calculator.plain import PlainCalculator
from billing.catalog import Catalog, load_folder
from billing.commits.commit_record import PartitionState
from billing.commits.output_documents import Stamp
from billing.log_time import TimeLimits

LEAVE_THE_CORE = {"prepaid.gift", "family", "windows", "money", "capped_overage", "period_prices"}
EVENTS = 120


class Counting(CompiledCalculator):
    plainly = 0

    def _decide_plainly(self, decoded: Any, row: int, outcome: UsageOutcome, part: list[int] | None) -> None:
        self.plainly += 1
        super()._decide_plainly(decoded, row, outcome, part)


@pytest.mark.parametrize("kind", WORKLOAD_KINDS, ids=lambda kind: kind.metric)
def test_both_calculators_agree_on_a_kind(kind: Kind) -> None:
    base, more = workload.catalog(), load_folder(KINDS_CATALOG_DIR)
    plans = Catalog((*base.price_books, *more.price_books), (*base.plans, *more.plans))
    names = workload.account_names(6)
    values = [value.replace(b'"reservation":null', kind.data) for value in workload.events(EVENTS, names, 0, 1)]
    records = [record_of(offset, value) for offset, value in enumerate(values)]
    outcomes = []
    compiled = Counting()
    for calculator in (PlainCalculator(), compiled):
        calculator.load(PartitionState(0, 1))
        calculator.set_catalog(plans)
        for name in names:
            calculator.put_account(kind.make(name, plans), stored=True)
        batch = UsageBatch(0, 1, records, LOG_TIME_MS * 1000, TimeLimits())
        decoded = calculator.decode(batch)
        for hour_us in calculator.missing_hours(decoded):
            calculator.put_hour(hour_us, [])
        outcomes.append((calculator.apply(decoded), calculator.take_effects(Stamp(0, 1, LOG_TIME_MS * 1000))))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].rated == EVENTS
    leaves = kind.metric.removeprefix("kinds.") in LEAVE_THE_CORE
    assert (compiled.plainly > EVENTS // 2) == leaves, f"{compiled.plainly} of {EVENTS} events were decided plainly"
    assert leaves or compiled.plainly == 0
