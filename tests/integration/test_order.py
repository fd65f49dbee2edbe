"""Order of commands and later usage, and the price in force at an event's time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pipeline_rig import Pipeline, Traffic

from billing.catalog import load_folder
from billing.errors import CatalogConflict
from schemas.times import format_time_us

BOOK = """
kind: price_book
name: moving-{name}
version: {version}
currency: CNY
effective_from: "{begins}"
standard_token_price: "4"
rows:
  - model: "*"
    per_million: {{input: "{price}", cache_read: "{price}", output: "{price}"}}
"""


def test_a_command_acknowledged_before_usage_is_applied_first(pipeline: Pipeline, traffic: Traffic) -> None:
    """Every account is opened, topped up and used at once; an event decided before its commands would be rejected."""

    def open_and_use(number: int) -> None:
        one = Traffic(pipeline, f"race{number}")
        for _ in range(15):
            one.open_one(one.account(len(one.accounts)))
            one.flush()  # acknowledged
            one.use(1)
        one.flush()
        mine.append(one)

    mine: list[Traffic] = []
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_and_use, range(8)))
    traffic.settle()
    counts = traffic.books.counts()
    assert (counts.rated, counts.rejected, counts.commands_rejected) == (120, 0, 0)
    for one in mine:
        expected = one.expected()["accounts"]
        assert len(expected) == 15
        one.close()


def test_the_catalogue_changes_mid_stream(
    pipeline: Pipeline, make_traffic: Callable[..., Traffic], tmp_path: Path
) -> None:
    name = f"{time.time_ns() // 1_000_000}"

    def publish(version: int, begins_us: int, price: str) -> None:
        text = BOOK.format(name=name, version=version, begins=format_time_us(begins_us), price=price)
        (tmp_path / f"{version}.yaml").write_text(text, encoding="utf-8")
        pipeline.publish(load_folder(tmp_path))

    now_us = time.time_ns() // 1000
    publish(1, now_us - 86_400_000_000, "2")
    traffic = make_traffic("moving", f"moving-{name}")
    traffic.open(12, plan="pack-1-yuan")
    with traffic.streaming(300):
        time.sleep(1)
        publish(2, time.time_ns() // 1000 + 3_000_000, "7.5")
        time.sleep(1)
        publish(3, time.time_ns() // 1000 + 4_000_000, "0.3")
        time.sleep(6)
    ended_us = time.time_ns() // 1000
    traffic.check()
    with pipeline.admin() as connection:
        rows = connection.execute(
            "SELECT price_book, sum(events) FROM rollup WHERE strpos(price_book, %s) > 0 GROUP BY 1", (name,)
        ).fetchall()
    assert {label.rpartition("@")[2] for label, _ in rows} == {"1", "2", "3"}
    with pytest.raises(CatalogConflict, match="begins"):
        publish(4, ended_us - 2_000_000, "1")
