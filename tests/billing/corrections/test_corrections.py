"""Void and correction of usage: the account ends as if the usage had been so from the beginning."""

from typing import Any

from billing_samples import BOOK, Line, MakeCalculator, buy, catalog, encode, line, opened, plan, subscribe, top_up, use
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation, published
from simulation_steps import BILLED, CATALOG, COMMANDS, ENTRIES, OPENED, PLANS, POSTPAID, TIMES, accounts, control

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from schemas.times import parse_time_us
from schemas.units import format_pico

PROPERTY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
END = "28 23:59"
REFUSED_RIGHTLY = {"no_price", "unknown_account", "unknown_usage", "usage_voided", "correction_conflict"}


def void(source: str, id: str, at: str = END, account: str = "a") -> Line:
    return line("usage.voided.v1", account, at, {"source": source, "id": id, "reason": "r"})


def correct(source: str, id: str, usage: dict[str, int], at: str = END, account: str = "a") -> Line:
    return line("usage.corrected.v1", account, at, {"source": source, "id": id, "usage": usage, "reason": "r"})


USED = st.builds(
    lambda account, at, tokens, model, edge, member: use(
        tokens,
        at,
        account,
        model=model,
        data={"channel": "edge" if edge else "cloud", "member": member},
        source="unnumbered",
    ),
    account=st.sampled_from(["a", "a", "b"]),
    at=TIMES,
    tokens=st.integers(1, 60),
    model=st.sampled_from(["m", "m", "half", "third", "uncounted", "free", "credit"]),
    edge=st.booleans(),
    member=st.sampled_from([None, "x", "y", "z"]),
)
BOUGHT = st.builds(
    lambda name, grant, pay: buy(name, grant, "01 00:00", "a", pay_from=pay),
    st.sampled_from(PLANS),
    st.sampled_from(["g1", "g2", "g3"]),
    st.sampled_from(["external", "wallet"]),
)


def stories(begun: list[Line], *kinds: st.SearchStrategy[Line]) -> st.SearchStrategy[list[Line]]:
    """Return a strategy for commands and mostly ratable usage; every identity is used once."""
    steps = st.lists(st.one_of(USED, USED, USED, USED, *kinds), min_size=3, max_size=40)
    return st.tuples(st.lists(BOUGHT, max_size=3), steps).map(
        lambda parts: [
            {"id": f"s{number}"} | step
            for number, step in enumerate([*begun, top_up("60", "p0", "01 00:00"), *parts[0], *parts[1]])
        ]
    )


STORIES = stories(OPENED, COMMANDS)
BILLED_STORIES = stories([{"id": "open-a"} | opened("a", **POSTPAID), OPENED[1]], COMMANDS, BILLED)
"""Account ``a`` is postpaid and receives bills."""
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.integers(1, 40),
        TIMES | st.just(END),
        st.none() | st.dictionaries(st.sampled_from(["input", "input", "output"]), st.integers(0, 90), max_size=2),
    ),
    max_size=5,
)
"""Corrections: (index of the usage, lines until the correction, time, correct counts or None for a void)."""


def with_changes(steps: list[Any], changes: list[Any]) -> list[Any]:
    """Return the steps with corrections of usage inserted."""
    used = [n for n, step in enumerate(steps) if not isinstance(step, bytes) and step["type"] == "token.usage.v1"]
    after: dict[int, list[Line]] = {}
    for number, (which, later, at, usage) in enumerate(changes):
        if used:
            place = used[which % len(used)]
            event = steps[place]
            named = (event["source"], event["id"])
            made = void(*named, at) if usage is None else correct(*named, usage, at)
            made |= {"id": f"correction-{number}", "subject": event["subject"]}
            after.setdefault(min(place + later, len(steps) - 1), []).append(made)
    return [one for n, step in enumerate(steps) for one in (step, *after.get(n, ()))]


def unmetered(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a catalogue entry whose rows rate usage that counts nothing: a correction may say that nothing was used,
    but an event that says so is rejected as ``usage_missing``."""
    return entry | {"rows": [row | {"unmetered": True} for row in entry["rows"]]} if "rows" in entry else entry


WITH_KNOWN_ZEROS = catalog(*map(unmetered, ENTRIES))


def replies(run: RecordedSimulation) -> list[dict[str, Any]]:
    found = [body for record in run.records for body, _ in published(record, "account.events")]
    return [body["data"] for body in found if body["data"].get("command_type", "").startswith("usage.")]


@PROPERTY
@given(steps=STORIES | BILLED_STORIES, changes=CHANGES)
def test_every_yuan_is_somewhere_and_both_calculators_agree(steps: list[Any], changes: list[Any]) -> None:
    lines = encode(with_changes(steps, changes))
    plain, compiled = RecordedSimulation(CATALOG, PlainCalculator()), RecordedSimulation(CATALOG, CompiledCalculator())
    plain.feed(lines)
    compiled.feed(lines)
    document: dict[str, Any] = plain.document()
    assert compiled.document() == document
    assert {reply["reason"] for reply in replies(plain) if "detail" in reply} <= REFUSED_RIGHTLY
    assert document["ledger"]["sum"] == "0"
    buckets = [bucket for account in accounts(plain) for bucket in account.buckets]
    assert sum(bucket.liability_pico for bucket in buckets) == -control(document, "contract_liability")
    assert sum(account.wallet_pico for account in accounts(plain)) == -control(document, "customer_deposits")
    assert control(document, "transfer_clearing") == 0
    owed = sum(bill.open_pico for account in accounts(plain) for bill in account.extras.bills)
    assert owed == control(document, "receivables")
    assert all(0 <= bucket.remaining_micro <= bucket.amount_micro for bucket in buckets)


def lasting(document: dict[str, Any]) -> dict[str, Any]:
    """Return the values that must be as if the usage had always been so.

    Published buckets are not removed but cancelled. Cash paid out is not returned, so the wallet takes the difference.
    """
    found: dict[str, Any] = {name: document[name] for name in ("revenue_net", "breakage")}
    found["money"] = control(document, "customer_deposits") + control(document, "cash")
    for name, account in document["accounts"].items():
        buckets = [one for one in account["buckets"] if one["valid_from"] != one["valid_until"]]
        found[name] = {"absorbed": account["absorbed"], "amount": account["absorbed_amount"], "buckets": buckets}
    return found


def decided(run: RecordedSimulation) -> list[tuple[str, str]]:
    """Return the id and outcome type of each command except corrections."""
    events = [event for event in run.published("account.events") if event["type"].startswith("command.")]
    return [
        (event["data"]["command_id"], event["type"])
        for event in events
        if event["data"]["command_type"] not in ("usage.voided.v1", "usage.corrected.v1", "time.passed.v1")
    ]


@settings(PROPERTY, max_examples=120)
@given(steps=STORIES, changes=CHANGES)
def test_corrected_usage_is_as_if_it_had_always_been_so(
    calculator: MakeCalculator, steps: list[Any], changes: list[Any]
) -> None:
    story = with_changes(steps, changes)
    run = RecordedSimulation(CATALOG, calculator())
    run.feed(encode(story))
    made = {reply["command_id"] for reply in replies(run) if "part" in reply}
    right: dict[str, Any] = {}
    for step in story:
        if step["id"] in made:
            right[step["data"]["id"]] = step["data"].get("usage")
    assume(right)
    others: list[Line] = []
    for step in story:
        if step["type"] == "token.usage.v1" and step["id"] in right:
            usage = right[step["id"]]
            # Voided usage still moves the clock.
            nothing = line("time.passed.v1", step["subject"], END, {}, id=step["id"]) | {"time": step["time"]}
            others.append(nothing if usage is None else step | {"data": step["data"] | {"usage": usage}})
        elif step["type"].startswith("usage."):
            others.append(line("time.passed.v1", step["subject"], END, {}, id=step["id"]) | {"time": step["time"]})
        else:
            others.append(step)
    oracle = RecordedSimulation(WITH_KNOWN_ZEROS, calculator())
    oracle.feed(encode(others))
    assume(decided(run) == decided(oracle))
    assert lasting(run.document()) == lasting(oracle.document())


def test_a_bill_that_was_issued_stays_and_the_next_one_is_smaller(calculator: MakeCalculator) -> None:
    """Usage of 30 tokens at 1.06 was billed on 5 November (31.80); after its void, the amount pays for 40 more."""
    run = RecordedSimulation(CATALOG, calculator())
    run.feed(
        encode(
            [
                opened("a", "01 00:00", payment="postpaid", bill_day=5, due_days=60),
                use(30, "02 00:00", id="u", source="s"),
                use(40, "06 00:00"),
                void("s", "u", "07 00:00"),
            ]
        )
    )
    document: Any = run.document(parse_time_us("2026-12-05T12:00:00+08:00"))
    [account] = accounts(run)
    assert [format_pico(bill.amount_pico) for bill in account.extras.bills] == ["31.8", "10.6"]
    assert (account.wallet_pico, document["revenue_net"]) == (0, "40")
    assert document["ledger"]["trial_balance"]["receivables"] == "42.4"


def test_cash_that_was_paid_back_stays_paid_and_the_wallet_gets_the_difference(calculator: MakeCalculator) -> None:
    """100 tokens for 106.00, paid externally; 40 are used and 63.60 is refunded in cash; the void makes it 106.00."""
    run = RecordedSimulation(catalog(BOOK, plan("whole", "100", "106.00")), calculator())
    run.feed(
        encode(
            [
                opened("a", "01 00:00"),
                buy("whole", "g", "01 00:00"),
                use(40, "02 00:00", id="u", source="s"),
                line("package.refunded.v1", "a", "03 00:00", {"grant_id": "g", "reason": "r"}),
                void("s", "u", "05 00:00"),
            ]
        )
    )
    document: Any = run.document()
    assert document["ledger"]["trial_balance"] == {"cash": "42.4", "customer_deposits": "-42.4"}
    assert document["accounts"]["a"]["wallet"] == "42.4"
    assert len([event for event in run.published("account.events") if event["type"] == "refund.paid.v1"]) == 1


def test_an_alert_is_told_once_whatever_is_corrected(calculator: MakeCalculator) -> None:
    """Alerts at half and at all of 40: a correction sends alerts not sent before, and a void withdraws none."""
    run = RecordedSimulation(CATALOG, calculator())
    steps = [opened("a", "01 00:00"), buy("small", "g", "01 00:00"), use(10, "02 00:00", id="u", source="s")]
    steps += [use(5, "02 01:00"), correct("s", "u", {"input": 25}, "02 02:00"), void("s", "u", "02 03:00")]
    steps += [use(20, "02 04:00"), use(15, "02 05:00")]
    run.feed(encode(steps))
    told = [event["data"] for event in run.published("account.events") if event["type"] == "threshold.reached.v1"]
    assert [(alert["threshold"], alert["remaining"]) for alert in told] == [("0.5", "15"), ("1", "0")]


def test_each_entry_names_the_usage(calculator: MakeCalculator) -> None:
    run = RecordedSimulation(CATALOG, calculator())
    steps = [opened("a", "01 00:00"), buy("small", "g", "01 00:00"), use(10, "02 00:00", id="u", source="s")]
    run.feed(encode([*steps, void("s", "u", "03 00:00")]))
    lines = [line for record in run.records for line in record.postings if line.concerns]
    # 10 of 40 tokens of 9.34 without tax
    assert {(line.account_code, line.concerns, format_pico(line.amount_pico)) for line in lines} == {
        ("contract_liability", '["a","s","u"]', "-2.335"),
        ("revenue_usage", '["a","s","u"]', "2.335"),
    }
    [posted] = [event["data"] for event in run.published("account.events") if event["type"] == "correction.posted.v1"]
    assert posted["events"] == [{"source": "s", "id": "u", "voided": True}]


def test_a_run_that_keeps_no_history_says_so(calculator: MakeCalculator) -> None:
    run = RecordedSimulation(CATALOG, calculator(), keep_history=False)
    run.feed(encode([opened("a"), use(1, id="u", source="s"), void("s", "u")]))
    assert replies(run)[-1]["reason"] == "history_not_kept"


def test_a_rejected_event_of_the_same_identity_is_not_taken_for_the_one_that_was_repaired(
    calculator: MakeCalculator,
) -> None:
    """In one commit: usage of an unpriced meter is rejected, repaired, and sent again under the same identity."""
    wrong, right = use(40, id="u", meter="images"), use(40, id="u")
    wallets = []
    for voided in ([], [void("test", "u")]):
        simulation = RecordedSimulation(CATALOG, calculator())
        simulation.feed(encode([*OPENED, top_up("60", "p0", "01 00:00"), wrong, right, *voided]))
        document = simulation.document()
        assert (document["events"]["rated"], document["rejections"]) == (1, {"no_price": 1})
        wallets.append(document["accounts"]["a"]["wallet"])
    assert wallets[0] != wallets[1] == "60"


def test_cycles_that_the_wallet_could_not_pay_are_not_paid_in_a_replay(calculator: MakeCalculator) -> None:
    """A subscription starts 11 days in the past, and the wallet pays one cycle; a replay makes it pay no more."""
    run = RecordedSimulation(CATALOG, calculator())
    steps = [opened("a", "01 00:00"), top_up("60", "p", "01 00:00")]
    steps += [subscribe("two", "s", "13 11:00", pay_from="wallet", starts_at="02 08:00"), use(10, id="u", source="s")]
    run.feed(encode([*steps, void("s", "u")]))
    assert [reply.get("reason", "accepted") for reply in replies(run)] == ["accepted", "r"]
    assert run.document()["accounts"]["a"]["wallet"] == "10.1"


CLIPS: dict[str, Any] = {
    "kind": "price_book",
    "name": "clips",
    "version": 1,
    "currency": "CNY",
    "tax_rate": "0",
    "effective_from": "2020-01-01T00:00:00+08:00",
    "dimensions": {"size": "attributes.resolution"},
    "rows": [
        {"per_million": {"milliseconds": "1000"}, "increments": {"milliseconds": {"minimum": 5000, "step": 1000}}},
        {"size": "1080p", "per_million": {"milliseconds": "3000"}},
        {"size": "1080p", "output_context": [9, None], "per_million": {"milliseconds": "3000", "output": "1000000"}},
    ],
}


def test_a_correction_prices_by_the_attributes_the_lengths_and_the_increments_of_its_row(
    calculator: MakeCalculator,
) -> None:
    def clip(size: str | None, **counts: int) -> Line:
        attributes = {} if size is None else {"attributes": {"resolution": size, "trace": [1]}}
        return use(0, data={"model": "v", "usage": counts} | attributes)

    used = [clip("1080p", milliseconds=2_000), clip(None, milliseconds=2_500), clip("720p", milliseconds=5_001)]
    steps = [opened(), *({"id": f"u{number}"} | step for number, step in enumerate(used))]
    run = RecordedSimulation(catalog(CLIPS), calculator())
    run.feed(encode(steps))
    assert run.document()["accounts"]["a"]["wallet"] == "-17"  # 6 + 5 + 6
    corrected = [
        correct("test", "u0", {"milliseconds": 1_000, "output": 10}),
        correct("test", "u1", {"milliseconds": 7_500}),
        void("test", "u2"),
    ]
    again = RecordedSimulation(catalog(CLIPS), calculator())
    again.feed(encode([*steps, *corrected]))
    assert again.document()["accounts"]["a"]["wallet"] == "-21"  # 3 + 10, and 8
