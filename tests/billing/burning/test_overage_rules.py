"""Overage rules (packs, caps, consent) and shared plans. Expected values are computed by hand."""

from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, clock, encode, line, opened, plan, simulate, top_up, use
from burn_cases import Case, check_case
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC

PAYG = "pay_as_you_go"
DAY = {"kind": "days", "days": 1}


def packs(name: str, block: str = "10", price: str = "10.60", most: int = 3, **rest: Any) -> dict[str, Any]:
    overage = {"mode": "auto_pack", "block": block, "price": price, "max_packs": most}
    return plan(name, "100", "106.00", overage=overage, **rest)


def payg(name: str, **overage: Any) -> dict[str, Any]:
    return plan(name, "10", "10.60", overage={"mode": PAYG} | overage)


def consented(plan_name: str, at: str = "02 09:30", **data: Any) -> Line:
    if "until" in data:
        data["until"] = clock(data["until"])
    return line("overage.consented.v1", "a", at, {"plan": plan_name} | data)


def by(member: str | None, tokens: int, at: str = "02 10:00", model: str = "m") -> Line:
    return use(tokens, at, model=model, data={"member": member})


def shared(name: str, seats: int = 0, cap: str = "", amount: str = "100", **rest: Any) -> dict[str, Any]:
    members = ({"seats": seats} if seats else {}) | ({"cap": cap} if cap else {})
    return plan(name, amount, "106.00", members=members, **rest)


CASES = [
    # Packs
    Case("a pack is bought when something is uncovered", [packs("A")],
         [top_up("50", "p"), buy("A", "G"), use(104)],
         {"G/1": "0 used_up", "G/pack-1": "6 active"}, wallet="39.4", revenue="104"),
    Case("as many as are needed", [packs("A")],
         [top_up("50", "p"), buy("A", "G"), use(125)],
         {"G/1": "0 used_up", "G/pack-1": "0 used_up", "G/pack-2": "0 used_up", "G/pack-3": "5 active"},
         wallet="18.2", revenue="125"),
    Case("a pack pays for later events", [packs("A")],
         [top_up("50", "p"), buy("A", "G"), use(104), use(5)],
         {"G/1": "0 used_up", "G/pack-1": "1 active"}, wallet="39.4", revenue="109"),
    Case("no more than max_packs in a cycle of the grant; the rest is absorbed", [packs("A", most=2)],
         [top_up("50", "p"), buy("A", "G"), use(104), use(20)],
         {"G/1": "0 used_up", "G/pack-1": "0 used_up", "G/pack-2": "0 used_up"},
         wallet="28.8", absorbed="4", absorbed_amount="4.24", revenue="120"),
    Case("another grant has packs of its own", [packs("A", most=1)],
         [top_up("50", "p"), buy("A", "G"), buy("A", "H"), use(205), use(10)],
         {"G/1": "0 used_up", "H/1": "0 used_up", "H/pack-1": "0 used_up"},
         wallet="39.4", absorbed="5", absorbed_amount="5.3", revenue="210"),
    Case("a wallet that cannot pay buys nothing", [packs("A")],
         [top_up("21.19", "p"), buy("A", "G"), use(125)],
         {"G/1": "0 used_up", "G/pack-1": "0 used_up"}, wallet="10.59",
         absorbed="15", absorbed_amount="15.9", revenue="110"),
    Case("a credit limit counts", [packs("A", most=1)], [buy("A", "G"), use(103)],
         {"G/1": "0 used_up", "G/pack-1": "7 active"}, wallet="-10.6", revenue="103",
         opened={"credit_limit": "10.60"}),
    Case("a pack's price is split to fen, and what lapses is breakage", [packs("A", price="0.99", cycle=DAY)],
         [top_up("1", "p"), buy("A", "G"), use(105)],  # 0.93 net
         {"G/1": "0 used_up", "G/pack-1": "5 expired"}, wallet="0.01", revenue="100.465", breakage="0.465",
         as_of="04 09:00"),
    Case("a lapsed bucket buys no pack", [packs("A", cycle=DAY)],
         [top_up("50", "p"), buy("A", "G"), use(1, "04 09:00"), use(104, "03 08:00")],
         {"G/1": "100 expired"}, wallet="48.94", absorbed="104", absorbed_amount="110.24", revenue="1",
         breakage="100"),
    Case("a pack obeys its plan's windows: what they leave buys none",
         [packs("A", windows=[{"kind": "rolling", "hours": 5, "cap": "105"}])],
         [top_up("50", "p"), buy("A", "G"), use(120)],
         {"G/1": "0 used_up", "G/pack-1": "5 active"}, wallet="39.4",
         absorbed="15", absorbed_amount="15.9", revenue="105"),
    Case("the scope of a pack is that of the bucket it extends", [packs("A", scope={"channel": "edge"})],
         [top_up("50", "p"), buy("A", "G"), use(105, data={"channel": "edge"}), use(1)],
         {"G/1": "0 used_up", "G/pack-1": "5 active"}, wallet="38.34", revenue="106"),
    Case("a pack extends credits with standard tokens",
         [packs("A", buckets=[{"unit": "CREDIT", "amount": "5", "kind": "periodic"}])],
         [top_up("50", "p"), buy("A", "G"), use(16, model="credit"), use(1)],
         {"G/1": "0 used_up", "G/pack-1": "3 active"}, wallet="39.4", revenue="107"),
    # Cap of pay_as_you_go
    Case("over the cap it is absorbed", [payg("A", cap="5.30")], [buy("A", "G"), use(13), use(4)],
         {"G/1": "0 used_up"}, wallet="-5.3", absorbed="2", absorbed_amount="2.12", revenue="15"),
    Case("a cap is of each grant", [payg("A", cap="5.30")],
         [buy("A", "G"), use(17), buy("A", "H"), use(17)],
         {"G/1": "0 used_up", "H/1": "0 used_up"}, wallet="-10.6", absorbed="4", absorbed_amount="4.24", revenue="30"),
    Case("free usage beyond the quota stays free", [payg("A", cap="5.30")], [buy("A", "G"), use(17, model="free")],
         {"G/1": "0 used_up"}, revenue="10"),
    # Consent
    Case("without consent it is absorbed", [payg("A", consent="required")], [buy("A", "G"), use(13)],
         {"G/1": "0 used_up"}, absorbed="3", absorbed_amount="3.18", revenue="10"),
    Case("with consent the wallet pays", [payg("A", consent="required")],
         [buy("A", "G"), consented("A"), use(13)], {"G/1": "0 used_up"}, wallet="-3.18", revenue="13"),
    Case("consent is for usage from then on, until it ends", [payg("A", consent="required")],
         [buy("A", "G"), consented("A", until="02 12:00"), use(10), use(1, "02 09:29"), use(2, "02 09:30"),
          use(3, "02 12:00"), use(4, "02 11:59")],
         {"G/1": "0 used_up"}, wallet="-6.36", absorbed="4", absorbed_amount="4.24", revenue="16"),
    Case("consent is taken back by an end that has come", [payg("A", consent="required")],
         [buy("A", "G"), consented("A"), use(12), consented("A", "02 11:00", until="02 11:00"),
          use(1, "02 10:59"), use(5, "02 11:00")],
         {"G/1": "0 used_up"}, wallet="-3.18", absorbed="5", absorbed_amount="5.3", revenue="13"),
    Case("consent for another plan is none", [payg("A", consent="required"), payg("B")],
         [buy("A", "G"), consented("B"), use(13)],
         {"G/1": "0 used_up"}, absorbed="3", absorbed_amount="3.18", revenue="10"),
    Case("consent and cap", [payg("A", consent="required", cap="1.06")],
         [buy("A", "G"), consented("A"), use(13)],
         {"G/1": "0 used_up"}, wallet="-1.06", absorbed="2", absorbed_amount="2.12", revenue="11"),
    # Shared plans
    Case("each member has a cap in a cycle of a grant", [shared("A", cap="30")],
         [buy("A", "G"), by("x", 25), by("y", 30), by("x", 9)],
         {"G/1": "40 active"}, absorbed="4", absorbed_amount="4.24", revenue="60"),
    Case("beyond the seats a member uses nothing of the grant", [shared("A", seats=2)],
         [buy("A", "G"), by("x", 5), by("y", 5), by("z", 5), by("x", 5)],
         {"G/1": "85 active"}, absorbed="5", absorbed_amount="5.3", revenue="15"),
    Case("the excess goes to the next bucket that matches", [shared("A", seats=1, cap="30", priority=1), plan("B")],
         [buy("A", "A"), buy("B", "B"), by("x", 35), by("y", 7)],
         {"A/1": "70 active", "B/1": "88 active"}, revenue="42"),
    Case("another grant of the plan has seats and caps of its own", [shared("A", seats=1, cap="30")],
         [buy("A", "A"), buy("A", "B"), by("x", 35), by("y", 7)],
         {"A/1": "70 active", "B/1": "95 active"}, absorbed="7", absorbed_amount="7.42", revenue="35"),
    Case("usage that names no member is one member", [shared("A", seats=1)],
         [buy("A", "G"), by(None, 5), by("x", 5), use(5)],
         {"G/1": "90 active"}, absorbed="5", absorbed_amount="5.3", revenue="10"),
    Case("who used nothing of a grant has no seat", [shared("A", seats=1)],
         [buy("A", "G"), by("x", 5, model="uncounted"), by("y", 5)],
         {"G/1": "95 active"}, wallet="-5.3", revenue="10"),
    Case("a seat is of every unit, a cap of standard tokens",
         [shared("A", seats=1, cap="3", buckets=[
             {"unit": "CREDIT", "amount": "10", "kind": "periodic", "fee_share": "0.5", "priority": 1},
             {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "fee_share": "0.5"}])],
         [buy("A", "G"), by("x", 10, model="credit"), by("x", 5), by("y", 1, model="credit")],
         {"G/1": "5 active", "G/2": "97 active"}, absorbed="3", absorbed_amount="3.18", revenue="26.5"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_happens_beyond_the_quota(case: Case, calculator: MakeCalculator) -> None:
    check_case(case, calculator)


def events(calculator: MakeCalculator, entry: dict[str, Any], *steps: Line) -> list[tuple[str, dict[str, Any]]]:
    """Return type and data of the account's events, without accepted commands."""
    simulation = RecordedSimulation(catalog(entry), calculator(), lines_per_commit=2)
    simulation.feed(encode([opened(), *steps]))
    told = [(event["type"], event["data"]) for event in simulation.published(ACCOUNT_EVENT_TOPIC)]
    return [(type_name, data) for type_name, data in told if not type_name.startswith("command.accepted")]


@pytest.mark.parametrize(("at", "packs_bought"), [("04 08:59", 1), ("04 09:00", 0)])
def test_no_pack_is_bought_that_would_have_lapsed(calculator: MakeCalculator, at: str, packs_bought: int) -> None:
    """The grant ends at 03 09:00 and has a grace of one day; after that no bucket burns, whether used up or not."""
    steps = [opened(), top_up("50", "p"), buy("A", "G"), use(100), use(1, at), use(4, "03 08:00")]
    account = simulate(calculator(), catalog(packs("A", cycle=DAY)), encode(steps))["accounts"]["a"]
    assert len(account["buckets"]) == 1 + packs_bought
    assert account["absorbed"] == ("0" if packs_bought else "4")


def test_a_pack_is_told_and_alerts_stay_once_a_cycle(calculator: MakeCalculator) -> None:
    entry = packs("A", alerts=["0.8", "1.0"])
    told = events(calculator, entry, top_up("50", "p"), buy("A", "G"), use(85), use(25), use(9))
    assert [type_name for type_name, _ in told] == [
        "threshold.reached.v1",
        "threshold.reached.v1",
        "pack.bought.v1",
        "pack.bought.v1",
    ]
    bought = dict(told[-1][1])
    paid, granted = bought.pop("movements")
    assert bought == {"account": "a", "grant_id": "G/pack-2", "plan": "A", "amount": "10", "price": "10.6"}
    assert (paid["wallet"], paid["net"], paid["tax"], granted["quantity"]) == ("-10.6", "-10", "-0.6", "10")


def test_alerts_of_credits_name_their_unit(calculator: MakeCalculator) -> None:
    entry = plan("A", buckets=[{"unit": "CREDIT", "amount": "10", "kind": "total"}], alerts=["0.8", "1.0"])
    told = events(calculator, entry, buy("A", "G"), use(16, model="credit"), use(1, model="credit"), use(9))
    assert [(data["unit"], data["threshold"], data["remaining"]) for _, data in told] == [("CREDIT", "0.8", "2")]


def test_consent_for_a_plan_that_does_not_exist_is_refused(calculator: MakeCalculator) -> None:
    ((type_name, data),) = events(calculator, payg("A"), consented("Z"))
    assert (type_name, data["reason"]) == ("command.rejected.v1", "unknown_plan")


def test_counts_of_members_end_with_their_grant(calculator: MakeCalculator) -> None:
    made = calculator()
    steps = [opened(), buy("A", "G"), by("x", 5), buy("A", "H", "09 10:00"), by("y", 6, "10 12:00")]
    simulate(made, catalog(shared("A", seats=5, grace_hours=0)), steps)
    account = made.account("a")
    assert account is not None and account.extras.members == {"H": {"y": 6_000_000}}


def test_a_pack_is_refunded_to_the_wallet_that_paid_it(calculator: MakeCalculator) -> None:
    """The grant's fee was paid elsewhere. Of the pack for 10.60, paid with gift money, 6 of 10 tokens are unused."""
    asked = line("package.refunded.v1", "a", "02 11:00", {"grant_id": "G", "reason": "asked"})
    steps = [opened(), top_up("20", "p", gift=True), buy("A", "G"), use(104), asked]
    made = calculator()
    document = simulate(made, catalog(packs("A")), steps, parse_time_us(clock("10 00:00")))
    account = made.account("a")
    assert account is not None and account.extras.gift_pico == account.wallet_pico
    assert document["accounts"]["a"]["wallet"] == "15.76"
    assert [bucket["status"] for bucket in document["accounts"]["a"]["buckets"]] == ["used_up", "refunded"]
    assert document["ledger"]["trial_balance"]["cash"] == "106"
