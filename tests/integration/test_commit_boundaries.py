"""Commit boundaries never change a balance: workers with different commit sizes give the same result as simulate."""

import random
import sys
from pathlib import Path

import pytest
from pipeline_rig import Pipeline, Traffic, until

SEED = 20_261_122
SCRIPT = Path(__file__).with_name("small_commits_worker.py")


@pytest.mark.parametrize("records", sorted(random.Random(SEED).sample(range(2, 400), 3)))
def test_commits_of_at_most(pipeline: Pipeline, traffic: Traffic, records: int) -> None:
    pipeline.start(0)
    try:
        # Small packages, so that events are split at their end and wallets and absorption take over.
        traffic.open(6, plan="pack-1-yuan")
        traffic.open(6, plan="pack-30-days")
        traffic.use(3_000)
        traffic.flush()
        before = traffic.books.commits()
        with pipeline.own_worker(f"cut-{records}", 19_872, argv=[sys.executable, str(SCRIPT)], extra=[str(records)]):
            until("all is decided", lambda: traffic.books.counts().decided >= 3_000)
        assert traffic.books.commits() - before >= 3_000 // records // 2
    finally:
        pipeline.start(2)
    expected = traffic.check()
    assert any(account["absorbed"] != "0" for account in expected["accounts"].values())
