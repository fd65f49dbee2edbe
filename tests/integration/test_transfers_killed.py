"""Workers killed between the two halves of transfers: each transfer is received or returned, and none is lost."""

import time

from pipeline_rig import PARTITIONS, Pipeline, Traffic, until

from billing.store.proofs import reports
from billing.store.store import Store
from schemas.routing import partition_of
from tokenbill import stack


def test_transfers_survive_kills_between_their_halves(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(12)
    traffic.settle()
    names = list(traffic.accounts)
    granted_micro = 12 * 10_000_000 * 10**6
    assert {partition_of(name, PARTITIONS) for name in names} != {partition_of(names[0], PARTITIONS)}
    before = _sent(pipeline)
    for round_no in range(3):
        for at, name in enumerate(names):
            to = f"{traffic.name}-nobody" if at % 4 == 3 else names[(at + 1 + round_no) % len(names)]
            traffic.command("package.transferred.v1", name, {"grant_id": "g", "amount": "1000.5", "to": to})
        traffic.flush()
        # The first halves are committed and their messages are sent; the workers are killed before they receive them.
        wanted = before + 12 * round_no + 1
        until("a transfer is on its way", lambda at_least=wanted: _sent(pipeline) >= at_least)  # type: ignore[misc]
        for name in ("worker-1", "worker-2", "relay"):
            dead = pipeline.kill(name)
            until(f"{name} runs again", lambda n=name, d=dead: stack.info(pipeline.folder).pids.get(n, d) != d, 60)  # type: ignore[misc]
        time.sleep(0.5)
    traffic.settle()
    with Store(pipeline.database_url) as store:
        accounts = store.load_accounts(names)
    buckets = [bucket for account in accounts for bucket in account.buckets]
    assert sum(bucket.amount_micro for bucket in buckets) == granted_micro
    assert sum(bucket.remaining_micro for bucket in buckets) == granted_micro
    received = [bucket for bucket in buckets if bucket.grant_id.startswith("transfer-")]
    assert len(received) == 27
    assert {bucket.amount_micro for bucket in received} == {1_000_500_000}
    assert "transfer_clearing" not in reports.trial_balance(pipeline.database_url)[0]
    assert pipeline.audit_problems() == []


def _sent(pipeline: Pipeline) -> int:
    with pipeline.admin() as connection:
        found = connection.execute("SELECT coalesce(sum(messages_sent), 0) FROM commit").fetchone()
    return int(found[0]) if found else 0
