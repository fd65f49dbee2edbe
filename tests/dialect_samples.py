"""Random usage objects of every dialect, made of its table and of real bodies: right ones, and some with a fault."""

from copy import deepcopy
from random import Random
from typing import Any

from real_bodies import BODIES

from schemas.dialects import TABLES
from schemas.dialects.dialect_table import Dialect, LeafRow, path_steps

COUNTS = (0, 1, 5, 7, 40, 100, 1_000, 31_999, 8_000_001, 10**12, 2**53, 2**53 + 1, 10**17, 10**18, 2**63 - 1)
ODD = (None, -1, 1.5, 0.0, "5", True, [], {}, {"a": 1}, [1], 2**63, 10**40, 1e3, "词")


def put(usage: dict[str, Any], dialect: Dialect, row: LeafRow, value: object) -> None:
    """Write a value at the path of a row."""
    steps = path_steps(row.path, dialect.flat)
    here = usage
    for step in steps[:-1]:
        inner: dict[str, Any]
        if step.is_list:
            items = here.setdefault(step.name, [])
            if not isinstance(items, list):
                return
            found = [item for item in items if isinstance(item, dict) and item.get(step.key) == (step.value or None)]
            if found:
                inner = found[0]
            else:
                inner = {step.key: step.value} if step.key else {}
                items.append(inner)
        else:
            inner = here.setdefault(step.name, {})
        if not isinstance(inner, dict):
            return
        here = inner
    here[steps[-1].name] = [value] if steps[-1].is_list else value


def objects_in(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict) else []
    for one in inner:
        found += objects_in(one)
    return found


def shuffled(rng: Random, value: Any) -> Any:
    """Return a JSON value with the names of its objects in another order."""
    if isinstance(value, list):
        return [shuffled(rng, one) for one in value]
    if not isinstance(value, dict):
        return value
    names = list(value)
    rng.shuffle(names)
    return {name: shuffled(rng, value[name]) for name in names}


def dialect_usage(rng: Random) -> tuple[str, dict[str, Any]]:
    """Return a dialect and a usage object: real, of random rows, scaled, with a fault, or of another dialect."""
    if rng.random() < 0.6:
        body = rng.choice(BODIES)
        name, usage = body.dialect, deepcopy(body.usage)
    else:
        name, usage = rng.choice(list(TABLES)), {}
        table = TABLES[name]
        for needed in table.needs[: rng.randint(0, 2)]:
            usage[needed] = rng.choice(COUNTS[:9])
        for row in rng.sample(table.rows, min(len(table.rows), rng.randint(0, 6))):
            put(usage, table, row, rng.choice(COUNTS[: rng.choice((6, 10, 15))]))
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        target = rng.choice(objects_in(usage))
        key = rng.choice([*target, "mystery", "type", "total_tokens", "prompt_tokens", "input_tokens", "searches"])
        value = rng.choice((*ODD, *COUNTS))
        if rng.random() < 0.2:
            target.pop(key, None)
        elif isinstance(target.get(key), list) and target[key] and rng.random() < 0.7:
            target[key].append(deepcopy(rng.choice(target[key])))
        else:
            target[key] = deepcopy(value)
    if rng.random() < 0.05:
        name = rng.choice([*TABLES, "of nobody"])
    return name, shuffled(rng, usage) if rng.random() < 0.3 else usage


def dialect_data(rng: Random) -> dict[str, Any]:
    """Return fields of ``data`` with usage in a dialect, in any order, sometimes with meters beside it."""
    name, usage = dialect_usage(rng)
    fields: list[tuple[str, Any]] = [("usage", usage), ("usage_dialect", name)]
    if rng.random() < 0.2:
        meters = {rng.choice(["searches", "input", "requests", "tiles"]): rng.choice((*COUNTS, *ODD[:5]))}
        fields.append(("meters", rng.choice([meters, meters, {}, None])))
    rng.shuffle(fields)
    return dict(fields)
