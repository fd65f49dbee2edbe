"""Numbers, texts and times that the core writes are those of schemas and json, at every magnitude."""

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.account import ACTIVE, NO_END_US, Account, Bucket
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import UsageBatch
from billing.calculator.plain import PlainCalculator
from billing.catalog.model import Catalog, Cycle, Plan, PlanBucket
from billing.commits.commit_record import PartitionState
from billing.commits.output_documents import Stamp

RULE = PlanBucket("STD_TOKEN", 1, "total", 100, 0, {}, 10**6)
CATALOG = Catalog(plans=(Plan("p", 1, {}, 0, "CNY", 0, Cycle("once", "UTC"), (RULE,)),))
MOST = 10**38 - 1
wide = (
    st.integers(-MOST, MOST)
    | st.integers(-63, 126).map(lambda n: 2**n - 1 if n >= 0 else -(2**-n))
    | st.integers(0, 37).map(lambda n: 10**n)
)
texts = st.text(max_size=40).filter(lambda text: len(text.encode("utf-8", "replace")) <= 200 and text.isprintable()) | (
    st.text(alphabet='\x01\n\t\r\b\f\x1f"\\/a词\x7f', max_size=40)
)
times = st.integers(0, 253_402_300_799_999_999)


@settings(max_examples=300, deadline=None)
@given(numbers=st.tuples(*[wide] * 7), name=texts, grant=texts, starts=times, ends=times | st.just(NO_END_US))
def test_documents_and_rows_are_written_as_the_plain_calculator_writes_them(
    numbers: tuple[int, ...], name: str, grant: str, starts: int, ends: int
) -> None:
    wallet, absorbed, absorbed_pico, credit, amount, remaining, liability = numbers
    bucket = Bucket(grant, "p", 1, 1, "STD_TOKEN", amount, remaining, liability, starts, ends, ends, 0, ACTIVE)
    account = Account(name, "CNY", "b", "prepaid", credit, wallet, absorbed, absorbed_pico, buckets=[bucket])
    effects = []
    for calculator in (PlainCalculator(), CompiledCalculator()):
        calculator.load(PartitionState(0, 1))
        calculator.set_catalog(CATALOG)
        calculator.put_account(account, stored=False)
        assert calculator.account(name) == account
        calculator.apply(calculator.decode(UsageBatch(0, 1, [], 0, None)))  # type: ignore[arg-type]
        effects.append(calculator.take_effects(Stamp(3, 7, starts)))
    assert effects[0] == effects[1]
