"""The core's rows of accounts, buckets and sums have the columns of the Python values they mirror, in the same order.

Columns of one width keep the order of Python. In accounts and buckets, of which there are many, wide columns come
first, so that no padding lies between them. What the core holds otherwise, or beyond Python's columns, is listed with
the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from itertools import pairwise
from typing import Any

import pytest
from core_sources import CORE, structs

from billing.accounts.account import PENDING, Account, Bucket
from billing.accounts.extras import Extras
from billing.calculator.compiled import CompiledCalculator
from billing.catalog.model import Catalog, Cycle, Plan, PlanBucket
from billing.commits.commit_record import PartitionState, RollupRow
from billing.decide.bill_usage import ROLLUP_SUMS
from billing.pricing.match import Combination

WIDTH = {
    "i128": 16, "int64_t": 8, "Bucket*": 8, "int32_t": 4, "uint32_t": 4, "int16_t": 2, "uint16_t": 2, "int8_t": 1,
    "uint8_t": 1,
}  # fmt: skip
HELD_OTHERWISE: dict[str, dict[str, str]] = {
    "Account": {
        "account": "number, in the decoder's table of accounts",
        "buckets": "buckets and bucket_number",
        "extras": "packed behind the buckets, extras_size bytes",
    },
    "Bucket": {
        "grant_id": "grant_at and grant_size, in AccountStore.grants",
        "plan": "rule, in AccountStore.rules",
        "plan_version": "rule",
        "bucket_no": "rule",
    },
    "Sums": {
        "price_book": "version, of the price tables",
        "currency": "version",
        **dict.fromkeys(Combination._fields[:-1], "combination"),
    },
}
"""Columns of Python that the core has under another name."""
BEYOND: dict[str, dict[str, str]] = {
    "Account": {
        "number": "holds account",
        "bucket_number": "holds buckets",
        "extras_size": "holds extras",
        "wallet_floor_bits": "of extras, so that they need not be unpacked for an event",
        "told_extras": "of extras, so that most balances are written without unpacking them",
        "stored": "whether the row is in SQL",
        "dirty": "how the row differs from SQL",
        "touched": "whether the commit publishes a balance",
    },
    "Bucket": {
        "grant_at": "holds grant_id",
        "grant_size": "holds grant_id",
        "rule": "holds plan, plan_version and bucket_no",
        "floor_micro": "follows from amount_micro, alerts_fired and the plan",
        "stored": "whether the row is in SQL",
        "dirty": "how the row differs from SQL",
    },
    "Sums": {"version": "holds price_book and currency", "combination": "holds the seven dimensions"},
}
"""Fields of the core that are no column of Python."""
MIRRORED: dict[str, tuple[str, Sequence[Field[Any]]]] = {
    "Account": ("accounts.pxd", fields(Account)),
    "Bucket": ("accounts.pxd", fields(Bucket)),
    "Sums": ("sums.pxd", fields(RollupRow)),
}


def problems(struct: Sequence[tuple[str, str]], columns: Sequence[str], name: str) -> list[str]:
    """Return the differences between a struct and the columns that it mirrors."""
    otherwise, beyond = HELD_OTHERWISE[name], BEYOND[name]
    names = [field for _, field in struct]
    wanted = [column for column in columns if column not in otherwise or column in names]
    missing = [f"{name} has no {column}" for column in wanted if column not in names]
    extra = [
        f"{name}.{field} is no column of Python" for field in names if field not in columns and field not in beyond
    ]
    widths = [WIDTH[kind] for kind, _ in struct]
    unknown = [f"{name}.{field} is not in the core" for field in beyond if field not in names]
    found = missing + extra + unknown
    mirrored = [(WIDTH[kind], field) for kind, field in struct if field in wanted]
    for (width, field), (next_width, following) in pairwise(mirrored):
        if width == next_width and wanted.index(field) > wanted.index(following):
            found.append(f"{name}.{following} stands behind {field}")
    if name != "Sums":
        rising = [
            field for (_, field), (before, width) in zip(struct[1:], pairwise(widths), strict=True) if width > before
        ]
        found += [f"{name} may have padding before {field}" for field in rising]
    return found


def struct_of(name: str) -> list[tuple[str, str]]:
    path = CORE / MIRRORED[name][0]
    return structs(path.name, path.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("name", MIRRORED)
def test_a_row_of_the_core_has_the_columns_of_python_in_their_order(name: str) -> None:
    columns = [field.name for field in MIRRORED[name][1]]
    assert problems(struct_of(name), columns, name) == []
    assert HELD_OTHERWISE[name].keys() <= set(columns)


def test_a_row_takes_as_much_memory_as_the_module_says() -> None:
    sizes = {name: sum(WIDTH[kind] for kind, _ in struct_of(name)) for name in ("Account", "Bucket")}
    text = (CORE / "accounts.pyx").read_text(encoding="utf-8")
    assert "An account takes 112 bytes, a bucket 112" in text
    assert {name: -(-size // 16) * 16 for name, size in sizes.items()} == {"Account": 112, "Bucket": 112}


def test_a_column_that_moves_is_new_or_is_gone_is_a_canary() -> None:
    columns = [field.name for field in fields(Account)]
    struct = struct_of("Account")
    swapped = [struct[1], struct[0], *struct[2:]]
    assert problems(swapped, columns, "Account") == ["Account.credit_limit_pico stands behind wallet_pico"]
    assert problems(struct[1:], columns, "Account") == ["Account has no credit_limit_pico"]
    assert problems(struct, [*columns, "spare_us"], "Account") == ["Account has no spare_us"]
    assert problems([("i128", "spare"), *struct], columns, "Account") == ["Account.spare is no column of Python"]
    narrow_first = [("int16_t", "currency"), *(field for field in struct if field[1] != "currency")]
    assert problems(narrow_first, columns, "Account") == ["Account may have padding before credit_limit_pico"]


def test_the_sums_of_a_rollup_row_have_the_order_in_which_they_are_taken() -> None:
    names = [field for _, field in struct_of("Sums")]
    assert tuple(names[names.index("events") :]) == ROLLUP_SUMS


# Every column survives the core.

RULES = (PlanBucket("STD_TOKEN", 1, "total", 100, 0, {}, 10**6), PlanBucket("CREDIT", 1, "total", 100, 0, {}, 10**6))
CATALOG = Catalog(plans=(Plan("p", 3, {}, 0, "CNY", 0, Cycle("once", "UTC"), RULES),))
BUCKET = Bucket(
    grant_id="g/2", plan="p", plan_version=3, bucket_no=2, unit="CREDIT", amount_micro=2**100 + 1,
    remaining_micro=2**99 + 2, liability_pico=2**98 + 3, valid_from_us=4, valid_until_us=5, lapse_at_us=6,
    alerts_fired=7, status=PENDING, carried_cycles=8,
)  # fmt: skip
ACCOUNT = Account(
    account="a", currency="CNY", price_book="b", payment="postpaid", credit_limit_pico=2**97 + 1,
    wallet_pico=-(2**96) - 2, absorbed_micro=2**95 + 3, absorbed_pico=2**94 + 4, status="suspended", clock_us=9,
    next_due_us=10, buckets=[BUCKET], extras=Extras(gift_pico=11),
)  # fmt: skip


def held(account: Account) -> Account | None:
    calculator = CompiledCalculator()
    calculator.load(PartitionState(0, 1))
    calculator.set_catalog(CATALOG)
    calculator.put_account(account, stored=True)
    return calculator.account(account.account)


def defaults(value: object) -> Mapping[str, object]:
    """The fields of a dataclass that have a default, with that."""
    found = {}
    for field in fields(value):  # type: ignore[arg-type]
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


@pytest.mark.parametrize("value", [ACCOUNT, BUCKET], ids=["account", "bucket"])
def test_every_column_of_these_values_differs_from_its_default(value: object) -> None:
    """So that a column which is added later, and not here, fails."""
    for name, default in defaults(value).items():
        assert getattr(value, name) != default, name


def test_every_column_comes_back_from_the_core() -> None:
    assert held(ACCOUNT) == ACCOUNT
    assert held(replace(ACCOUNT, buckets=[])) == replace(ACCOUNT, buckets=[])
