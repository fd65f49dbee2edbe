"""Holds for usage whose price depends on attributes that a price book declares."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from billing_samples import BOOK, catalog, plan
from hold_samples import MINUTE_US, NOW_US, YUAN, account, bucket, context, wanted

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import Calculator, UsageBatch
from billing.calculator.plain import PlainCalculator
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import PlainRecord
from billing.commits.output_documents import Stamp
from billing.log_time import TimeLimits
from billing.reservations.hold import Hold, hold_object
from billing.reservations.operations import HoldContext, Settled, extend, reserve, settle
from schemas.refusals import Refusal

DEAR = BOOK["rows"][0] | {"resolution": "1080p", "per_million": {"input": "4240000"}}
PRICES = catalog(
    BOOK | {"dimensions": {"resolution": "attributes.resolution"}, "rows": [*BOOK["rows"], DEAR]}, plan("blocked")
)


def held(stage: HoldContext, attributes: Mapping[str, Any], tokens: int = 10) -> Hold | Refusal:
    asked = wanted()
    terms = replace(asked.terms, attributes=attributes)
    return reserve(stage, replace(asked, terms=terms), (("input", tokens),), MINUTE_US, "body", False)


@pytest.mark.parametrize("make", [PlainCalculator, CompiledCalculator])
@pytest.mark.parametrize(
    ("attributes", "price"), [({}, 106), ({"resolution": "720p"}, 106), ({"resolution": "1080p"}, 424)]
)
def test_a_hold_has_the_price_of_its_usage(make: type[Calculator], attributes: dict[str, Any], price: int) -> None:
    of = account(1000)
    stage = context(of, prices=PRICES)
    hold = held(stage, attributes)
    assert isinstance(hold, Hold) and hold.held.wallet_pico == hold.terms.amount_pico == 10 * price * YUAN // 100
    more = extend(stage, "r", (("input", 10),), None, None, "body")
    assert isinstance(more, Hold) and more.held.wallet_pico == 20 * price * YUAN // 100
    settled = settle(stage, "r", (("input", 5),), "1", "body", final=False)
    assert isinstance(settled, Settled)
    assert stage.holds["r"].held.wallet_pico == 15 * price * YUAN // 100
    calculator = make()
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(PRICES)
    calculator.put_account(of, stored=True)
    record = PlainRecord(0, NOW_US // 1000, None, settled.event.encode())
    decoded = calculator.decode(UsageBatch(0, 1, [record], 0, TimeLimits()))
    for hour_us in calculator.missing_hours(decoded):
        calculator.put_hour(hour_us, [])
    assert calculator.apply(decoded).rejected == []
    calculator.take_effects(Stamp(0, 1, 0))
    billed = calculator.account("a")
    assert billed is not None and billed.wallet_pico == 1000 * YUAN - 5 * price * YUAN // 100


def test_a_hold_that_is_decided_again_keeps_its_price() -> None:
    stage = context(account(1000, bucket("blocked", 5)), prices=PRICES)
    hold = held(stage, {"resolution": "1080p"}, tokens=5)
    assert isinstance(hold, Hold) and hold.held.buckets_micro
    stage.allot([hold])
    assert stage.holds["r"].held == hold.held


def test_an_attribute_that_cannot_be_read_is_refused_when_it_is_declared() -> None:
    stage = context(account(1000), prices=PRICES)
    refused = held(stage, {"resolution": ["1080p"]})
    assert isinstance(refused, Refusal) and refused.code == "invalid_data"
    assert refused.detail.startswith('attributes."resolution" is a list') and stage.changed == {}
    undeclared = held(stage, {"shots": ["wide"]})
    assert isinstance(undeclared, Hold) and hold_object(undeclared, NOW_US)["attributes"] == {"shots": ["wide"]}


def test_an_attribute_that_is_declared_later_and_cannot_be_read_refuses_the_usage_only() -> None:
    of = account(1000)
    before = context(of)
    hold = held(before, {"resolution": ["1080p"]})
    assert isinstance(hold, Hold)
    later = context(of, NOW_US, hold, prices=PRICES)
    assert isinstance(extend(later, "r", (("input", 10),), None, None, "body"), Hold)
    refused = settle(later, "r", (("input", 5),), "1", "body", final=True)
    assert isinstance(refused, Refusal) and refused.code == "invalid_event"
    assert later.holds["r"].state == "open"
