"""The journal names the account of each posting of a command or of time; usage's postings are sums over accounts."""

from collections import Counter

from billing_samples import Line, MakeCalculator, encode
from hypothesis import HealthCheck, given, settings
from recorded_simulation import RecordedSimulation
from simulation_steps import CATALOG, STEPS, accounts

from billing.ledger import CONTRACT_LIABILITY, CUSTOMER_DEPOSITS, RECEIVABLES


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_an_account_without_usage_has_what_the_journal_says_of_it(
    calculator: MakeCalculator, steps: list[Line | bytes]
) -> None:
    simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=3)
    simulation.feed(encode(steps))
    simulation.document()
    named: Counter[tuple[str, str]] = Counter()
    unnamed = 0
    for record in simulation.records:
        for line in record.postings:
            if line.account:
                named[line.account, line.account_code] += line.amount_pico
            else:
                unnamed += 1
        assert len({(p.concerns, p.account_code, p.currency, p.detail, p.account) for p in record.postings}) == len(
            record.postings
        )
    users = {step["subject"] for step in steps if not isinstance(step, bytes) and step["type"] == "token.usage.v1"}
    assert users or not unnamed
    for account in accounts(simulation):
        if account.account not in users:
            of_it = {
                code: named[account.account, code] for code in (CUSTOMER_DEPOSITS, CONTRACT_LIABILITY, RECEIVABLES)
            }
            assert of_it == {
                CUSTOMER_DEPOSITS: -account.wallet_pico,
                CONTRACT_LIABILITY: -sum(bucket.liability_pico for bucket in account.buckets),
                RECEIVABLES: sum(bill.open_pico for bill in account.extras.bills),
            }
