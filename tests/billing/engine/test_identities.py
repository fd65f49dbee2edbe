"""Identity of usage is (account, source, id) on every partition (docs/reference/usage-events.md, "Identity")."""

import pytest
from billing_samples import MakeCalculator, catalog, encode, opened, use
from cluster import Cluster

from billing.engine.past_account import DecidedCommit, PartitionHistory, account_in_past
from billing.engine.simulation import Simulation
from billing.log_time import TimeLimits, limits_object, read_limits
from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

CATALOG = catalog()
NAMES = [f"acct-{n}" for n in range(40)]
ONE = next(name for name in NAMES if partition_of(name, 2) == 0)
SAME = next(name for name in NAMES if partition_of(name, 2) == 0 and name != ONE)
OTHER = next(name for name in NAMES if partition_of(name, 2) == 1)


@pytest.mark.parametrize("second", [SAME, OTHER], ids=["same partition", "another partition"])
def test_one_source_and_id_of_two_accounts_are_two_events_everywhere(second: str, calculator: MakeCalculator) -> None:
    commands = [opened(ONE), opened(second)]
    usage = [use(5, account=name, id="I", source="S") for name in (ONE, second, ONE, second)]
    cluster = Cluster(2, calculator, CATALOG, limits=TimeLimits())
    for name, command in zip((ONE, second), commands, strict=True):
        cluster.produce(COMMAND_TOPIC, partition_of(name, 2), *encode([command | {"id": f"open {name}"}]))
    cluster.produce(USAGE_TOPIC, 0, *encode(usage))  # those of the other partition are forwarded
    cluster.drain()
    simulation = Simulation(CATALOG, calculator())
    simulation.feed(encode([*commands, *usage]))
    document = simulation.document()
    assert document["events"] == {"rated": 2, "duplicate": 2, "rejected": 0}
    assert (cluster.counts.rated, cluster.counts.duplicate, cluster.counts.rejected) == (2, 2, 0)
    wallets = {name: account["wallet"] for name, account in cluster.documents().items()}  # type: ignore[index]
    assert wallets == dict.fromkeys((ONE, second), "-5.3")
    assert {name: account["wallet"] for name, account in document["accounts"].items()} == wallets  # type: ignore[attr-defined]


def test_a_number_above_the_limit_is_kept_in_suspense_and_leaves_no_gap(calculator: MakeCalculator) -> None:
    cluster = Cluster(1, calculator, CATALOG, limits=TimeLimits(sequence_jump=1_000))
    cluster.produce(COMMAND_TOPIC, 0, *encode([opened()]))
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, id=f"n{n}", number=n) for n in (1, 2**62, 2, 1_003, 1_002)]))
    cluster.drain()
    assert (cluster.counts.rated, cluster.counts.rejected) == (3, 2)
    rejected = [one.rejection for commit in cluster.commits for one in commit.suspense]
    assert [one.code for one in rejected] == ["invalid_event", "invalid_event"]
    assert "more than 1000 above 1, the highest number seen" in rejected[0].detail
    assert [source.seen_runs for source in cluster.states[0].sources] == [((1, 2), (1_002, 1_002))]
    assert all(commit.limits["sequence_jump_limit"] == 1_000 for commit in cluster.commits)


def test_limits_are_read_as_they_were_recorded() -> None:
    for limits in (TimeLimits(), TimeLimits(1, 2, 3), TimeLimits(sequence_jump=None)):
        assert read_limits(limits_object(limits)) == limits
    assert limits_object(None) == {}


def test_a_replay_of_commits_of_an_earlier_release_decides_as_that_release_did(calculator: MakeCalculator) -> None:
    """Then the account was no part of an identity, and the first event of a source decided its kind."""
    earlier = TimeLimits(sequence_jump=None)
    decided: list[tuple[str, str]] = []
    for limits in (earlier, TimeLimits()):
        cluster = Cluster(1, calculator, CATALOG, limits=limits)
        cluster.produce(COMMAND_TOPIC, 0, *encode([opened("a") | {"id": "1"}, opened("b") | {"id": "2"}]))
        usage = [use(5, account=name, id="I", source="S") for name in "ab"]
        late = [use(1, account="nobody", id="x", source="T", number=7), use(5, account="b", id="y", source="T")]
        cluster.produce(USAGE_TOPIC, 0, *encode([*usage, *late]))
        cluster.drain()
        commits = [DecidedCommit(0, read_limits(commit.limits), tuple(commit.positions)) for commit in cluster.commits]
        history = PartitionHistory(
            0,
            1,
            commits,
            {0: CATALOG},
            lambda move, log=cluster.log: log[move.topic, 0][move.start : move.end],
            cluster.keys,
        )
        again, _ = account_in_past(history, "b", calculator())
        assert again is not None and again.wallet_pico == cluster.accounts["b"].wallet_pico
        decided.append((str(cluster.counts.rated), str(again.wallet_pico // 10**10)))
    assert decided == [("1", "0"), ("3", "-1060")]
