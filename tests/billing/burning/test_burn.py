"""Payment for usage events. Each case was computed by hand from docs/reference/plans.md; one token costs 1.06 yuan."""

from typing import Any

import pytest
from billing_samples import MakeCalculator, buy, catalog, clock, encode, opened, plan, simulate, top_up, use
from burn_cases import Case, check_case

from billing.engine.simulation import Simulation
from schemas.times import parse_time_us

PAYG = "pay_as_you_go"
MONTH = {"kind": "calendar_month", "timezone": "Asia/Shanghai"}
DAY = {"kind": "days", "days": 1}


CASES = [
    # Overage without a bucket
    Case("no bucket: the wallet pays and may fall below zero", [], [use(10)], wallet="-10.6", revenue="10"),
    Case("the wallet pays from what it holds", [], [top_up("20", "p"), use(10)], wallet="9.4", revenue="10"),
    Case("a gift counts like money", [], [top_up("20", "p", gift=True), use(10)], wallet="9.4", revenue="10"),
    Case(
        "postpaid falls below zero",
        [],
        [use(10), use(5, "03 10:00")],
        wallet="-15.9",
        revenue="15",
        opened={"payment": "postpaid"},
    ),
    Case("a free event costs nothing", [], [use(10, model="free")]),
    # One bucket
    Case("a bucket pays", [plan("A")], [buy("A", "G"), use(60)], {"G/1": "40 active"}, revenue="60"),
    Case("output burns by its own coefficient", [plan("A")], [buy("A", "G"), use(30, meter="output")],
         {"G/1": "40 active"}, revenue="60"),
    Case("reasoning burns like output", [plan("A")], [buy("A", "G"), use(30, meter="reasoning")],
         {"G/1": "40 active"}, revenue="60"),
    Case("emptied exactly", [plan("A")], [buy("A", "G"), use(60), use(40)], {"G/1": "0 used_up"}, revenue="100"),
    Case("emptied at once", [plan("A")], [buy("A", "G"), use(100)], {"G/1": "0 used_up"}, revenue="100"),
    Case("block absorbs the rest", [plan("A")], [buy("A", "G"), use(130)], {"G/1": "0 used_up"},
         absorbed="30", absorbed_amount="31.8", revenue="100"),
    Case("block absorbs all once it is empty", [plan("A")], [buy("A", "G"), use(100), use(7), use(3)],
         {"G/1": "0 used_up"}, absorbed="10", absorbed_amount="10.6", revenue="100"),
    Case("pay as you go charges the rest", [plan("A", overage=PAYG)], [buy("A", "G"), use(130)],
         {"G/1": "0 used_up"}, wallet="-31.8", revenue="130"),
    Case("a free event burns and earns", [plan("A")], [buy("A", "G"), use(10, model="free")],
         {"G/1": "90 active"}, revenue="10"),
    Case("no standard tokens: the wallet pays the whole price, whatever the rule",
         [plan("A")], [buy("A", "G"), use(10, model="uncounted")],
         {"G/1": "100 active"}, wallet="-10.6", revenue="10"),
    Case("half a standard token a unit: 10 of 50 uncovered is a fifth of the price",
         [plan("A", "40", "42.40")], [buy("A", "G"), use(100, model="half")],
         {"G/1": "0 used_up"}, absorbed="10", absorbed_amount="21.2", revenue="40"),
    Case("an uncovered part is rounded once, half even to 1e-12",  # 3.18 x 0.499999 / 0.999999
         [plan("A", "0.5", "1.06", overage=PAYG)], [buy("A", "G"), use(3, model="third")],
         {"G/1": "0 used_up"}, wallet="-1.589998409998", revenue="2.499998499998"),
    Case("revenue is rounded per burn and the last burn takes what is left",
         [plan("A", "3", "10.60")], [buy("A", "G"), use(1), use(1)],  # 3.333333333333, 3.3333333333335 to even
         {"G/1": "1 active"}, revenue="6.666666666667"),
    Case("the burn that empties takes the rest of the liability",
         [plan("A", "3", "10.60")], [buy("A", "G"), use(1), use(1), use(1)], {"G/1": "0 used_up"}, revenue="10"),
    Case("a plan for nothing earns nothing", [plan("A", price="0")], [buy("A", "G"), use(60)], {"G/1": "40 active"}),
    Case("a resent event burns once", [plan("A")], [buy("A", "G"), use(60, id="x"), use(60, id="x")],
         {"G/1": "40 active"}, revenue="60"),
    # Deduction order
    Case("lower priority number first", [plan("A", priority=200), plan("B", priority=50)],
         [buy("A", "A"), buy("B", "B"), use(30)], {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("priority beats expiry", [plan("A", priority=1, cycle={"kind": "once"}), plan("B", cycle=DAY)],
         [buy("B", "B"), buy("A", "A"), use(30)], {"A/1": "70 active", "B/1": "100 active"}, revenue="30"),
    Case("then earliest expiry", [plan("A"), plan("B", cycle={"kind": "days", "days": 6})],
         [buy("A", "A"), buy("B", "B"), use(30)], {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("what never expires comes last", [plan("A", cycle={"kind": "once"}), plan("B")],
         [buy("A", "A"), buy("B", "B"), use(30)], {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("expiry beats kind", [plan("A"), plan("B", cycle={"kind": "days", "days": 6}, kind="total")],
         [buy("A", "A"), buy("B", "B"), use(30)], {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("then periodic before total", [plan("A", kind="total"), plan("B", kind="periodic")],
         [buy("A", "A"), buy("B", "B"), use(30)], {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("kind beats start", [plan("A", kind="total", cycle=MONTH), plan("B", cycle=MONTH)],
         [buy("A", "A", starts_at="02 07:00"), buy("B", "B", starts_at="02 08:00"), use(30)],
         {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("then earliest start", [plan("A", cycle=MONTH)],
         [buy("A", "A", starts_at="02 08:00"), buy("A", "B", starts_at="02 07:00"), use(30)],
         {"A/1": "100 active", "B/1": "70 active"}, revenue="30"),
    Case("then the grant id", [plan("A")], [buy("A", "Z"), buy("A", "Y"), use(30)],
         {"Y/1": "70 active", "Z/1": "100 active"}, revenue="30"),
    Case("grant ids are compared as text", [plan("A")], [buy("A", "g9"), buy("A", "g10"), use(30)],
         {"g10/1": "70 active", "g9/1": "100 active"}, revenue="30"),
    # Splits
    Case("split over two", [plan("A"), plan("B", cycle={"kind": "days", "days": 8}, price="53.00")],
         [buy("A", "A"), buy("B", "B"), use(150)], {"A/1": "0 used_up", "B/1": "50 active"}, revenue="125"),
    Case("split over three and the wallet", [plan("A", "10", "10.60", overage=PAYG)],
         [buy("A", "1"), buy("A", "2"), buy("A", "3"), use(35)],
         {"1/1": "0 used_up", "2/1": "0 used_up", "3/1": "0 used_up"}, wallet="-5.3", revenue="35"),
    Case("two buckets of one plan share the fee",  # 7 of 10.00 on 10 tokens, 3 on 10
         [plan("A", price="10.60", buckets=[
             {"unit": "STD_TOKEN", "amount": "10", "kind": "periodic", "fee_share": "0.7"},
             {"unit": "STD_TOKEN", "amount": "10", "kind": "total", "fee_share": "0.3"}])],
         [buy("A", "G"), use(15)], {"G/1": "0 used_up", "G/2": "5 active"}, revenue="8.5"),
    Case("buckets of one plan with scopes",
         [plan("A", price="10.60", buckets=[
             {"unit": "STD_TOKEN", "amount": "10", "kind": "total", "fee_share": "0.7", "scope": {"channel": "edge"}},
             {"unit": "STD_TOKEN", "amount": "10", "kind": "periodic", "fee_share": "0.3"}])],
         [buy("A", "G"), use(5)], {"G/1": "10 active", "G/2": "5 active"}, revenue="1.5"),
    # Which rule decides overage
    Case("the last matching bucket rules: pay as you go",
         [plan("A", priority=1), plan("B", "10", "10.60", priority=2, overage=PAYG)],
         [buy("A", "A"), buy("B", "B"), use(120)], {"A/1": "0 used_up", "B/1": "0 used_up"},
         wallet="-10.6", revenue="120"),
    Case("the last matching bucket rules: block",
         [plan("A", priority=1, overage=PAYG), plan("B", "10", "10.60", priority=2)],
         [buy("A", "A"), buy("B", "B"), use(120)], {"A/1": "0 used_up", "B/1": "0 used_up"},
         absorbed="10", absorbed_amount="10.6", revenue="110"),
    Case("it rules when it is empty",
         [plan("A", priority=1), plan("B", "10", "10.60", priority=2, overage=PAYG)],
         [buy("A", "A"), buy("B", "B"), use(110), use(5)], {"A/1": "0 used_up", "B/1": "0 used_up"},
         wallet="-5.3", revenue="115"),
    Case("a bucket out of scope does not rule",
         [plan("A", priority=1), plan("B", priority=2, overage=PAYG, scope={"channel": "edge"})],
         [buy("A", "A"), buy("B", "B"), use(110)], {"A/1": "0 used_up", "B/1": "100 active"},
         absorbed="10", absorbed_amount="10.6", revenue="100"),
    Case("a bucket out of time does not rule",
         [plan("A", priority=2, cycle=DAY), plan("B", "10", "10.60", priority=1, overage=PAYG)],
         [buy("A", "A"), buy("B", "B"), use(12, "03 09:00")], {"A/1": "100 active", "B/1": "0 used_up"},
         wallet="-2.12", revenue="12"),
    Case("a bucket that has not begun does not rule",
         [plan("A", priority=2, overage=PAYG), plan("B", "10", "10.60", priority=1)],
         [buy("A", "A", starts_at="03 09:00"), buy("B", "B"), use(12)], {"A/1": "100 pending", "B/1": "0 used_up"},
         absorbed="2", absorbed_amount="2.12", revenue="10"),
    # Scope
    Case("out of scope: the wallet pays", [plan("A", scope={"channel": "edge"})], [buy("A", "G"), use(10)],
         {"G/1": "100 active"}, wallet="-10.6", revenue="10"),
    Case("a scope may list patterns", [plan("A", scope={"channel": ["edge", "clo*"]})], [buy("A", "G"), use(10)],
         {"G/1": "90 active"}, revenue="10"),
    Case("every dimension of a scope must match", [plan("A", scope={"channel": "cloud", "site": "wuxi*"})],
         [buy("A", "G"), use(10), use(20, data={"site": "wuxi-tf01"})],
         {"G/1": "80 active"}, wallet="-10.6", revenue="30"),
    Case("a scope of models", [plan("A", scope={"model": ["m", "half"]})],
         [buy("A", "G"), use(10), use(9, model="odd")],
         {"G/1": "90 active"}, wallet="-0.000011111103", revenue="10.000010482173"),
    # Time: valid from 02 09:00 for one day, grace 24 hours
    Case("the first instant belongs", [plan("A", cycle=DAY)], [buy("A", "G"), use(10, "02 09:00")],
         {"G/1": "90 active"}, revenue="10"),
    Case("the instant before does not", [plan("A", cycle=DAY)], [buy("A", "G"), use(10, "02 08:59:59.999999")],
         {"G/1": "100 active"}, wallet="-10.6", revenue="10"),
    Case("the last instant belongs", [plan("A", cycle=DAY)], [buy("A", "G"), use(10, "03 08:59:59.999999")],
         {"G/1": "90 active"}, revenue="10"),
    Case("the end does not", [plan("A", cycle=DAY)], [buy("A", "G"), use(10, "03 09:00")],
         {"G/1": "100 active"}, wallet="-10.6", revenue="10"),
    Case("late usage within grace burns the old bucket", [plan("A", cycle=DAY)],
         [buy("A", "G"), use(1, "04 08:59:59.999999"), use(10, "03 08:00")],
         {"G/1": "90 active"}, wallet="-1.06", revenue="11"),
    Case("late usage after grace meets a lapsed bucket: its rule absorbs", [plan("A", cycle=DAY)],
         [buy("A", "G"), use(1, "04 09:00"), use(10, "03 08:00")],
         {"G/1": "100 expired"}, wallet="-1.06", absorbed="10", absorbed_amount="10.6", revenue="1", breakage="100"),
    Case("late usage after grace meets a lapsed bucket: its rule charges", [plan("A", cycle=DAY, overage=PAYG)],
         [buy("A", "G"), use(1, "04 09:00"), use(10, "03 08:00")],
         {"G/1": "100 expired"}, wallet="-11.66", revenue="11", breakage="100"),
    Case("late usage after grace burns the next bucket that still stands", [plan("A", cycle=DAY), plan("B")],
         [buy("A", "A"), buy("B", "B"), use(1, "04 09:00"), use(10, "03 08:00")],
         {"A/1": "100 expired", "B/1": "89 active"}, revenue="11", breakage="100"),
    Case("a command moves the account's time too", [plan("A", cycle=DAY)],
         [buy("A", "G"), top_up("5", "p", "04 09:00"), use(10, "03 08:00")],
         {"G/1": "100 expired"}, wallet="5", absorbed="10", absorbed_amount="10.6", breakage="100"),
    Case("before the end of grace nothing lapses", [plan("A", cycle=DAY)], [buy("A", "G"), use(60)],
         {"G/1": "40 active"}, revenue="60", as_of="04 08:59:59.999999"),
    Case("at the end of grace what is left lapses", [plan("A", cycle=DAY)], [buy("A", "G"), use(60)],
         {"G/1": "40 expired"}, revenue="60", breakage="40", as_of="04 09:00"),
    Case("without grace it lapses at its end", [plan("A", cycle=DAY, grace_hours=0)], [buy("A", "G"), use(60)],
         {"G/1": "40 expired"}, revenue="60", breakage="40", as_of="03 09:00"),
    Case("nothing lapses twice", [plan("A", cycle=DAY)],
         [buy("A", "G"), use(1, "05 09:00"), use(1, "06 09:00")],
         {"G/1": "100 expired"}, wallet="-2.12", revenue="2", breakage="100", as_of="29 00:00"),
    Case("an emptied bucket stays used up", [plan("A", cycle=DAY)], [buy("A", "G"), use(100)],
         {"G/1": "0 used_up"}, revenue="100", as_of="29 00:00"),
    Case("what never expires never lapses", [plan("A", cycle={"kind": "once"})], [buy("A", "G"), use(60)],
         {"G/1": "40 active"}, revenue="60", as_of="2099-01-01 00:00"),
    # Pending and back-dated grants
    Case("a bucket waits for its start", [plan("A")], [buy("A", "G", starts_at="03 09:00"), use(10)],
         {"G/1": "100 pending"}, wallet="-10.6", revenue="10"),
    Case("a waiting bucket begins", [plan("A")], [buy("A", "G", starts_at="03 09:00"), use(10)],
         {"G/1": "100 active"}, wallet="-10.6", revenue="10", as_of="03 09:00"),
    Case("a bucket that begins and lapses while nobody looks", [plan("A")], [buy("A", "G", starts_at="03 09:00")],
         {"G/1": "100 expired"}, breakage="100", as_of="29 00:00"),
    Case("a grant may begin before it was bought", [plan("A")],
         [buy("A", "G", "02 12:00", starts_at="02 09:00"), use(10, "02 10:00")], {"G/1": "90 active"}, revenue="10"),
    Case("a grant bought for a time in grace serves late usage", [plan("A", cycle=DAY)],
         [buy("A", "G", "02 12:00", starts_at="01 00:00"), use(10, "01 10:00")], {"G/1": "90 active"}, revenue="10"),
    Case("a grant bought for a time after its grace lapses at once", [plan("A", cycle=DAY)],
         [buy("A", "G", "09 12:00", starts_at="01 00:00"), use(10, "01 10:00")],
         {"G/1": "100 expired"}, absorbed="10", absorbed_amount="10.6", breakage="100"),
    # Wallet purchases
    Case("the wallet buys", [plan("A")], [top_up("200", "p"), buy("A", "G", pay_from="wallet"), use(60)],
         {"G/1": "40 active"}, wallet="94", revenue="60"),
    Case("the wallet buys on credit", [plan("A")], [top_up("6", "p"), buy("A", "G", pay_from="wallet")],
         {"G/1": "100 active"}, wallet="-100", opened={"credit_limit": "100"}),
    # Magnitudes
    Case("a million million yuan and 1e18 tokens",  # net 943396226415.09, a millionth of it burned
         [plan("A", "1000000000000000000", "1000000000000.00")],
         [top_up("1000000000000", "p"), buy("A", "G", pay_from="wallet"), use(1_000_000_000_000, model="free")],
         {"G/1": "999999000000000000 active"}, revenue="943396.22641509"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_pays(case: Case, calculator: MakeCalculator) -> None:
    check_case(case, calculator)


CYCLES = [
    ({"kind": "subscription_month"}, "2026-01-31 10:00", "2026-02-28 00:00"),
    ({"kind": "subscription_month"}, "2028-01-31 10:00", "2028-02-29 00:00"),
    ({"kind": "subscription_month"}, "2026-01-30 10:00", "2026-02-28 00:00"),
    ({"kind": "subscription_month"}, "2026-01-29 10:00", "2026-02-28 00:00"),
    ({"kind": "subscription_month"}, "2028-01-29 10:00", "2028-02-29 00:00"),
    ({"kind": "subscription_month"}, "2026-01-28 10:00", "2026-02-28 00:00"),
    ({"kind": "subscription_month"}, "2026-02-28 10:00", "2026-03-28 00:00"),
    ({"kind": "subscription_month"}, "2028-02-29 10:00", "2028-03-29 00:00"),
    ({"kind": "subscription_month"}, "2026-03-31 10:00", "2026-04-30 00:00"),
    ({"kind": "subscription_month"}, "2026-12-31 10:00", "2027-01-31 00:00"),
    ({"kind": "subscription_month"}, "2026-11-22 00:00", "2026-12-22 00:00"),
    ({"kind": "subscription_month"}, "2026-11-22 23:59:59.999999", "2026-12-22 00:00"),
    ({"kind": "calendar_month"}, "2026-01-31 10:00", "2026-02-01 00:00"),
    ({"kind": "calendar_month"}, "2026-12-01 00:00", "2027-01-01 00:00"),
    ({"kind": "days", "days": 30}, "2028-02-29 10:00", "2028-03-30 10:00"),
    ({"kind": "days", "days": 36_500}, "2026-01-01 00:00", "2125-12-08 00:00"),
    # 15 February 10:00 in China is 14 February in New York. Daylight saving time begins there on 8 March, so the cycle
    # ends on 14 March 00:00 -04:00.
    ({"kind": "subscription_month", "timezone": "America/New_York"}, "2026-02-15 10:00", "2026-03-14 12:00"),
    ({"kind": "subscription_month", "timezone": "UTC"}, "2026-02-01 07:59", "2026-02-28 08:00"),
]


@pytest.mark.parametrize(("cycle", "starts", "ends"), CYCLES)
def test_when_a_cycle_ends(cycle: dict[str, Any], starts: str, ends: str, calculator: MakeCalculator) -> None:
    steps = [opened(at="2026-01-01 00:00"), buy("A", "G", "2026-01-01 00:00", starts_at=starts)]
    bucket = simulate(calculator(), catalog(plan("A", cycle=cycle)), steps)["accounts"]["a"]["buckets"][0]
    found = [parse_time_us(bucket[name]) for name in ("valid_from", "valid_until")]
    assert found == [parse_time_us(clock(starts)), parse_time_us(clock(ends))]


def test_a_grant_for_once_has_no_end(calculator: MakeCalculator) -> None:
    book = catalog(plan("A", cycle={"kind": "once"}))
    document = simulate(calculator(), book, [opened(), buy("A", "G")])
    assert document["accounts"]["a"]["buckets"] == [
        {
            "grant_id": "G/1",
            "plan": "A",
            "unit": "STD_TOKEN",
            "amount": "100",
            "remaining": "100",
            "reserved": "0",
            "valid_from": "2026-11-02T01:00:00Z",
            "valid_until": None,
            "status": "active",
        }
    ]


@pytest.mark.parametrize(
    ("fee", "net", "tax"),
    [("9.90", "9.34", "0.56"), ("29.90", "28.21", "1.69"), ("49.90", "47.08", "2.82"), ("1.00", "0.94", "0.06"),
     ("0.01", "0.01", "0"), ("0", "0", "0")],
)  # fmt: skip
@pytest.mark.parametrize("pay_from", ["external", "wallet"])
def test_a_fee_is_split_to_fen(fee: str, net: str, tax: str, pay_from: str, calculator: MakeCalculator) -> None:
    steps = [opened(), top_up("100", "p"), buy("A", "G", pay_from=pay_from)]
    balance = simulate(calculator(), catalog(plan("A", price=fee)), steps)["ledger"]["trial_balance"]
    assert balance.get("contract_liability", "0") == (f"-{net}" if net != "0" else "0")
    assert balance.get("output_vat_pending", "0") == (f"-{tax}" if tax != "0" else "0")
    rest = f"{(10_000 - round_fen(fee)) // 100}.{(10_000 - round_fen(fee)) % 100:02}"
    assert plain(balance["customer_deposits"]) == (f"-{rest}" if pay_from == "wallet" else "-100.00")


def round_fen(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


def plain(text: str) -> str:
    """Return an amount with two decimal places."""
    whole, _, part = text.partition(".")
    return f"{whole}.{part.ljust(2, '0')}"


def shared(*shares: str, price: str) -> dict[str, Any]:
    """Return a plan with one bucket of one token per share, each with the scope of its own channel."""
    return plan(
        "A",
        price=price,
        buckets=[
            {"unit": "STD_TOKEN", "amount": "1", "kind": "periodic", "fee_share": share, "scope": {"channel": f"c{n}"}}
            for n, share in enumerate(shares)
        ],
    )


@pytest.mark.parametrize(
    ("shares", "price", "parts"),
    [
        (("0.333333", "0.333333", "0.333334"), "10.60", ["3.33", "3.34", "3.33"]),
        (("0.5", "0.5"), "9.90", ["4.67", "4.67"]),
        (("0.25", "0.75"), "9.90", ["2.34", "7"]),  # 2.335 is rounded half away from zero
        (("1", "0"), "10.60", ["10", "0"]),
        (("0.25", "0.25", "0.25", "0.25"), "0.02", ["0.01", "0", "0.01", "0"]),  # never below zero
    ],
)
def test_buckets_share_the_fee_to_fen(
    shares: tuple[str, ...], price: str, parts: list[str], calculator: MakeCalculator
) -> None:
    """Each bucket has one token, so burning it earns the bucket's whole share of the fee."""
    simulation = Simulation(catalog(shared(*shares, price=price)), calculator())
    simulation.feed(encode([opened(), buy("A", "G")]))
    earned = []
    for number in range(len(shares)):
        event = use(1, model="free", data={"channel": f"c{number}"}, id=f"u{number}")
        before = int_of(simulation.document()["revenue_net"])
        simulation.feed(encode([event]))
        earned.append(int_of(simulation.document()["revenue_net"]) - before)
    assert earned == [int_of(part) for part in parts]


def int_of(amount: object) -> int:
    return round_fen(str(amount))
