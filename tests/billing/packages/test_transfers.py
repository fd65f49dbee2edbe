"""Transfers: each is received or returned exactly once, and nothing is lost (docs/reference/account-commands.md)."""

from typing import Any

import pytest
from billing_samples import (
    BOOK,
    DOLLARS,
    Line,
    MakeCalculator,
    buy,
    catalog,
    closed,
    encode,
    line,
    opened,
    plan,
    simulate,
    use,
)
from cluster import Cluster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation, published

from schemas.routing import partition_of
from schemas.topics import ACCOUNT_EVENT_TOPIC, COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, USAGE_TOPIC

TWO = [
    {"unit": "STD_TOKEN", "amount": "10", "kind": "periodic", "fee_share": "0.4"},
    {"unit": "STD_TOKEN", "amount": "60", "kind": "periodic", "fee_share": "0.6", "priority": 200},
]
CATALOG = catalog(
    BOOK,
    DOLLARS,
    plan("A", alerts=["0.5"]),
    plan("THIRD", "3", "106.00"),
    plan("TWO", buckets=TWO),
    plan("E", scope={"channel": "edge"}),
    plan("LAZY", activation="first_use"),
)


def given_to(to: str, amount: str, grant: str = "G", at: str = "03 12:00", account: str = "a", **more: Any) -> Line:
    return line("package.transferred.v1", account, at, {"grant_id": grant, "amount": amount, "to": to}, **more)


def refunded(grant: str, account: str = "a", at: str = "03 00:00") -> Line:
    return line("package.refunded.v1", account, at, {"grant_id": grant, "reason": "r"})


def bucket_of(document: dict[str, Any], account: str, place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = document["accounts"][account]["buckets"][place]
    return found


def run(calculator: MakeCalculator, *steps: Line) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the document and the account events."""
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode(steps))
    return simulation.document(), simulation.published(ACCOUNT_EVENT_TOPIC)


BASE = (opened(), opened("b"), buy("A", "G"), use(40))


def test_quota_and_liability_move_and_what_was_used_stays(calculator: MakeCalculator) -> None:
    """60 of 100 tokens with a liability of 60 yuan are left; 15 tokens take 15 yuan of it to the other account."""
    document, events = run(calculator, *BASE, given_to("b", "15"))
    mine, theirs = bucket_of(document, "a"), bucket_of(document, "b")
    assert (mine["amount"], mine["remaining"], mine["status"]) == ("85", "45", "active")
    assert (theirs["amount"], theirs["remaining"], theirs["status"]) == ("15", "15", "active")
    assert {name: theirs[name] for name in ("plan", "unit", "valid_from", "valid_until")} == {
        name: mine[name] for name in ("plan", "unit", "valid_from", "valid_until")
    }
    assert document["ledger"]["trial_balance"] == {
        "cash": "106", "contract_liability": "-60", "output_vat_pending": "-6", "revenue_usage": "-40",
    }  # fmt: skip
    (told,) = (event["data"] for event in events if event["type"] == "transfer.received.v1")
    assert theirs["grant_id"] == told["grant_id"] == f"{told['transfer_id']}/1"
    assert (told["account"], told["sender"], told["amount"]) == ("b", "a", "15")
    document, _ = run(calculator, *BASE, given_to("b", "15"), use(15, "04 00:00", "b"))
    assert (bucket_of(document, "b")["status"], document["revenue_net"]) == ("used_up", "55")


def test_the_last_quota_takes_the_rest_of_the_liability(calculator: MakeCalculator) -> None:
    """A net fee of 100 for 3 tokens: one token takes 33.333333333333, the last two take the rest."""
    base = (opened(), opened("b"), opened("c"), buy("THIRD", "G"))
    document, _ = run(calculator, *base, given_to("b", "1"), given_to("c", "2"), use(1, "04 00:00", "b"))
    assert document["revenue_net"] == "33.333333333333"
    assert document["ledger"]["trial_balance"]["contract_liability"] == "-66.666666666667"
    assert (bucket_of(document, "a")["status"], bucket_of(document, "a")["amount"]) == ("used_up", "0")


def test_scope_alerts_and_end_go_along(calculator: MakeCalculator) -> None:
    document, _ = run(
        calculator, opened(), opened("b"), buy("E", "G"), given_to("b", "10"), use(4, "04 00:00", "b"),
        use(4, "04 00:00", "b", data={"channel": "edge"}),
    )  # fmt: skip
    assert (bucket_of(document, "b")["remaining"], document["accounts"]["b"]["wallet"]) == ("6", "-4.24")
    _, events = run(calculator, *BASE, given_to("b", "10"), use(5, "04 00:00", "b"), use(1, "29 00:00", "b"))
    mine = [event["data"] for event in events if event["data"]["account"] == "b"]
    assert [event["threshold"] for event in mine if "threshold" in event] == ["0.5"]
    assert [event["breakage"] for event in mine if "breakage" in event] == ["5"]


def test_what_was_received_can_be_given_on_but_not_refunded(calculator: MakeCalculator) -> None:
    base = (*BASE, opened("c"), given_to("b", "15", id="first"))
    document, _ = run(calculator, *base)
    received = bucket_of(document, "b")["grant_id"]
    document, _ = run(calculator, *base, given_to("c", "5", received, account="b"))
    assert (bucket_of(document, "b")["remaining"], bucket_of(document, "c")["remaining"]) == ("10", "5")
    _, events = run(calculator, *base, refunded(received, "b", "04 00:00"))
    assert events[-1]["data"]["reason"] == "not_refundable"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([given_to("a", "1")], "same_account"),
        ([given_to("b", "1", "nobody's")], "unknown_grant"),
        ([buy("TWO", "T"), given_to("b", "1", "T")], "ambiguous_grant"),
        ([given_to("b", "0.0000001")], "invalid_amount"),
        ([given_to("b", "60.000001")], "insufficient_balance"),
        ([given_to("b", "1", at="09 09:00")], "bucket_ended"),
        ([use(60), given_to("b", "1")], "bucket_ended"),
        ([refunded("G"), given_to("b", "1")],
         "bucket_ended"),
        ([line("package.received.v1", "b", "03 00:00", {})], "invalid_event"),
        ([line("package.returned.v1", "a", "03 00:00", {})], "invalid_event"),
    ],
)  # fmt: skip
def test_what_cannot_be_transferred(steps: list[Line], reason: str, calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode([*BASE, *steps]))
    document = simulation.document()
    assert len(document["accounts"]["b"]["buckets"]) == 0
    if reason == "invalid_event":  # a line of unknown type in a file is read as usage
        assert document["rejections"] == {"invalid_event": 1}
    else:
        assert simulation.published(ACCOUNT_EVENT_TOPIC)[-1]["data"]["reason"] == reason


@pytest.mark.parametrize(
    ("before", "to", "reason"),
    [
        ([], "nobody", "unknown_account"),
        ([closed(account="b")], "b", "account_closed"),
        ([opened("d", currency="USD")], "d", "currency_mismatch"),
    ],
)
def test_what_cannot_be_received_comes_back(
    before: list[Line], to: str, reason: str, calculator: MakeCalculator
) -> None:
    without, _ = run(calculator, *BASE, *before)
    document, events = run(calculator, *BASE, *before, given_to(to, "15"))
    assert document["accounts"]["a"] == without["accounts"]["a"]
    assert document["ledger"] == without["ledger"]
    (told,) = (event["data"] for event in events if event["type"] == "transfer.returned.v1")
    assert (told["account"], told["to"], told["grant_id"], told["amount"], told["reason"]) == (
        "a", to, "G/1", "15", reason,
    )  # fmt: skip
    assert [event["type"] for event in events].count("command.rejected.v1") == 0


def test_the_whole_of_a_bucket_comes_back_too(calculator: MakeCalculator) -> None:
    document, _ = run(calculator, *BASE, given_to("nobody", "60"))
    assert (bucket_of(document, "a")["status"], bucket_of(document, "a")["remaining"]) == ("active", "60")


def test_a_transfer_sent_again_is_carried_out_once(calculator: MakeCalculator) -> None:
    once = given_to("b", "15", id="x")
    document, _ = run(calculator, *BASE, once, once)
    assert [bucket["amount"] for bucket in document["accounts"]["b"]["buckets"]] == ["15"]


def test_the_next_line_of_a_file_finds_what_was_received(calculator: MakeCalculator) -> None:
    steps = [*BASE, given_to("b", "15"), use(15, "04 00:00", "b"), given_to("b", "5")]
    documents = [simulate(calculator(), CATALOG, steps, lines_per_commit=size) for size in (1, 2, 100)]
    assert documents[0] == documents[1] == documents[2]
    assert documents[0]["accounts"]["b"]["wallet"] == "0"


# Transfers between partitions

NAMES = sorted("abcdef", key=lambda name: (partition_of(name, 2), name))
HERE, ALSO_HERE, THERE = NAMES[0], NAMES[1], NAMES[-1]


def two_partitions(calculator: MakeCalculator, *steps: Line) -> Cluster:
    """Return two partitions after some commands, each produced to its account's partition; only partition 0 has
    decided its commands."""
    cluster = Cluster(2, calculator, CATALOG)
    for name in NAMES:
        cluster.produce(COMMAND_TOPIC, partition_of(name, 2), *encode([{"id": f"open-{name}"} | opened(name)]))
    cluster.drain()
    for step, value in zip(steps, encode(steps), strict=True):
        cluster.produce(COMMAND_TOPIC, partition_of(step["subject"], 2), value)
    cluster.step(0, 100)
    return cluster


@pytest.mark.parametrize("target", [THERE, ALSO_HERE], ids=["another partition", "the same partition"])
def test_between_the_halves_clearing_holds_what_is_on_its_way(target: str, calculator: MakeCalculator) -> None:
    cluster = two_partitions(calculator, buy("A", "G", account=HERE), given_to(target, "15", account=HERE))
    assert cluster.balances["transfer_clearing"] == -15 * 10**12
    assert cluster.balances["contract_liability"] == -85 * 10**12
    assert (cluster.counts.messages_sent, cluster.counts.commands_forwarded) == (1, 0)
    cluster.drain()
    assert (cluster.balances["transfer_clearing"], cluster.balances["contract_liability"]) == (0, -100 * 10**12)
    assert cluster.accounts[target].buckets[0].remaining_micro == 15_000_000


@pytest.mark.parametrize("lose", [False, True])
def test_a_message_sent_twice_or_lost_by_a_worker_is_applied_once(lose: bool, calculator: MakeCalculator) -> None:
    cluster = two_partitions(calculator, buy("A", "G", account=HERE))
    cluster.produce(COMMAND_TOPIC, 0, *encode([given_to(THERE, "15", account=HERE, id="t")]))
    if lose:
        cluster.step(0, 100, lose=True)
    cluster.step(0, 100, resend=True)
    if lose:
        cluster.step(1, 100, lose=True)
    cluster.drain()
    assert [bucket.remaining_micro for bucket in cluster.accounts[THERE].buckets] == [15_000_000]
    assert cluster.balances["transfer_clearing"] == 0
    assert cluster.counts.commands_dropped == 1


@pytest.mark.parametrize(
    ("meanwhile", "status", "remaining", "balances"),
    [
        (None, "expired", 100, {"revenue_breakage": -100}),
        (
            refunded("G", HERE, "03 13:00"),
            "refunded",
            100,
            {"cash": 0, "output_vat_pending": 0},
        ),
        (use(85, "03 13:00", HERE), "expired", 15, {"revenue_usage": -85, "revenue_breakage": -15}),
    ],
    ids=["lapsed", "refunded", "used up"],
)
def test_what_comes_back_late_ends_like_the_rest(
    meanwhile: Line | None, status: str, remaining: int, balances: dict[str, int], calculator: MakeCalculator
) -> None:
    """The sender's bucket ends while the transfer is in transit to an account that cannot receive it."""
    bought = buy("A", "G", account=HERE)
    cluster = two_partitions(calculator, closed(account=THERE), bought, given_to(THERE, "15", account=HERE))
    if meanwhile is not None:
        topic = USAGE_TOPIC if meanwhile["type"] == "token.usage.v1" else COMMAND_TOPIC
        cluster.produce(topic, 0, *encode([{"id": "meanwhile"} | meanwhile]))
        cluster.step(0, 100)
    cluster.produce(USAGE_TOPIC, 0, *encode([use(1, "29 00:00", HERE, id="later")]))
    cluster.step(0, 100)
    cluster.drain()
    bucket = cluster.accounts[HERE].buckets[0]
    assert (bucket.status, bucket.liability_pico) == (status, 0)
    assert bucket.remaining_micro == remaining * 10**6
    assert cluster.balances["transfer_clearing"] == cluster.balances["contract_liability"] == 0
    for code, yuan in balances.items():
        later = 10**12 if code == "revenue_usage" else 0  # the wallet paid 1 yuan net for the last event
        assert cluster.balances[code] + later == yuan * 10**12, code


def test_what_comes_back_to_a_closed_account_is_there(calculator: MakeCalculator) -> None:
    bought = buy("A", "G", account=HERE)
    transfer = given_to(THERE, "15", account=HERE)
    cluster = two_partitions(calculator, closed(account=THERE), bought, transfer, closed("03 13:00", HERE))
    cluster.drain()
    account = cluster.accounts[HERE]
    assert (account.status, account.buckets[0].remaining_micro) == ("closed", 100_000_000)
    assert cluster.balances["transfer_clearing"] == 0


def test_a_message_that_no_partition_sent_is_refused(calculator: MakeCalculator) -> None:
    """The message arrives on the commands topic, and on the forwarded topic without a digest."""
    body = {"transfer_id": "transfer-1", "sender": "z", "grant_id": "G/1", "plan": "A", "plan_version": 1,
            "bucket_no": 1, "unit": "STD_TOKEN", "amount": "5", "liability": "5", "currency": "CNY",
            "valid_from": "2026-11-01T00:00:00Z", "carried_cycles": 0}  # fmt: skip
    forged = encode([line("package.received.v1", HERE, "02 00:00", body)])
    cluster = two_partitions(calculator)
    cluster.produce(COMMAND_TOPIC, 0, *forged)
    cluster.produce(COMMAND_FORWARDED_TOPIC, 0, *forged)
    cluster.step(0, 100)
    assert (cluster.counts.commands_rejected, cluster.counts.commands_foreign) == (1, 1)
    told = [event["data"]["reason"] for event, _ in published(cluster.commits[-1], ACCOUNT_EVENT_TOPIC)]
    assert told == ["invalid_event"]
    assert cluster.accounts[HERE].buckets == []


TRANSFER = st.builds(
    lambda account, to, grant, amount, at: given_to(to, amount, grant, at, account),
    st.sampled_from(NAMES),
    st.sampled_from([*NAMES, "nobody"]),
    st.sampled_from("GH"),
    st.sampled_from(["0.000001", "1", "33.3", "100"]),
    st.sampled_from(["03 00:00", "04 00:00", "12 00:00"]),
)
OTHERS = st.one_of(
    st.builds(lambda account, plan_, grant: buy(plan_, grant, account=account), st.sampled_from(NAMES),
              st.sampled_from(["A", "THIRD"]), st.sampled_from("GH")),
    st.builds(lambda account: closed(account=account), st.just(THERE)),
    st.builds(lambda account, grant: refunded(grant, account),
              st.sampled_from(NAMES), st.sampled_from("GH")),
    st.builds(lambda account, tokens: use(tokens, "03 00:00", account), st.sampled_from(NAMES), st.integers(1, 90)),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    partitions=st.integers(1, 3),
    steps=st.lists(st.one_of(TRANSFER, TRANSFER, OTHERS), max_size=30),
    dice=st.randoms(use_true_random=False),
)
def test_whatever_fails_on_the_way_no_quota_and_no_yuan_is_lost(
    calculator: MakeCalculator, partitions: int, steps: list[Line], dice: Any
) -> None:
    cluster = Cluster(partitions, calculator, CATALOG)
    lines = [opened(name) for name in NAMES] + steps
    for step, value in zip(lines, encode(lines), strict=True):
        topic = USAGE_TOPIC if step["type"] == "token.usage.v1" else COMMAND_TOPIC
        cluster.produce(topic, partition_of(step["subject"], partitions), value)
        if dice.random() < 0.3:
            cluster.step(
                dice.randrange(partitions), dice.choice((1, 5)), lose=dice.random() < 0.3, resend=dice.random() < 0.3
            )
    cluster.drain()
    buckets = [bucket for account in cluster.accounts.values() for bucket in account.buckets]
    assert cluster.balances["transfer_clearing"] == 0
    assert sum(cluster.balances.values()) == 0
    assert sum(bucket.liability_pico for bucket in buckets) == -cluster.balances["contract_liability"]
    sold = sum({"A": 100, "THIRD": 3}[bucket.plan] for bucket in buckets if not bucket.grant_id.startswith("transfer-"))
    assert sum(bucket.amount_micro for bucket in buckets) == sold * 10**6
    for bucket in buckets:
        assert 0 <= bucket.remaining_micro <= bucket.amount_micro
        assert bucket.liability_pico >= 0


def test_what_waits_for_its_first_use_goes_on_waiting_when_it_comes_back(calculator: MakeCalculator) -> None:
    """Regression test: the returned bucket had become active without an end, so it never expired."""
    steps = [opened(), buy("LAZY", "G"), given_to("nobody", "100"), given_to("nobody", "40")]
    waiting = bucket_of(run(calculator, *steps)[0], "a")
    assert (waiting["status"], waiting["remaining"], waiting["valid_until"]) == ("pending", "100", None)
    begun = bucket_of(run(calculator, *steps, use(5, "05 10:00"))[0], "a")
    assert (begun["status"], begun["remaining"]) == ("active", "95")
    assert (begun["valid_from"], begun["valid_until"]) == ("2026-11-05T02:00:00Z", "2026-11-12T02:00:00Z")


def test_what_is_given_away_before_its_first_use_absorbs_nothing(calculator: MakeCalculator) -> None:
    steps = [opened(), opened("b"), buy("LAZY", "G"), given_to("b", "100"), use(5, "2026-12-25 10:00")]
    account = run(calculator, *steps)[0]["accounts"]["a"]
    assert (account["buckets"][0]["status"], account["wallet"], account["absorbed"]) == ("used_up", "-5.3", "0")
