"""Checks of the demo's outcome, each with its figures. Compares gathered evidence and reads nothing itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.store.proofs.committed_sums import Balances, DecidedCounts, UsageSums
from schemas.units import format_micro, format_pico, parse_pico
from tokenbill.demo.consumer import RatedView
from tokenbill.demo.emitting import SentCounts
from tokenbill.demo.expected import Expected
from tokenbill.demo.traffic import TOP_UP_AMOUNT, TOP_UP_EACH

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class DemoCheck:
    """A statement, its result, and the figures behind it."""

    statement: str
    holds: bool
    figures: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The figures that the checks compare, each gathered independently."""

    sent: SentCounts
    arrived: int
    """Records in the usage log: more than were sent if Kafka's client repeated some (after the broker was killed)."""
    expected: Expected
    accounts: int
    commands: int
    counts: DecidedCounts
    usage: UsageSums
    balances: Balances
    trial_balance_pico: Mapping[str, int]
    audit_findings: Sequence[str]
    database_balances: Mapping[str, Mapping[str, Any]]
    topic_balances: Mapping[str, Mapping[str, Any]]
    rated_view: RatedView
    rejected_view: Mapping[str, int]
    unpublished: int
    killed: str | None
    restarts: Mapping[str, int]

    @property
    def balances_equal(self) -> bool:
        """True if the topic and the database have the same balance for every account of the run."""
        return len(self.database_balances) == self.accounts and self.topic_balances == self.database_balances


def check_all(found: Evidence) -> list[DemoCheck]:
    """Return all checks in the order in which they are shown."""
    return [*_counts(found), *_money(found), *_views(found), *_survival(found)]


def _counts(found: Evidence) -> list[DemoCheck]:
    sent, counts, rejected = found.sent, found.counts, sum(found.sent.rejected.values())
    repeated = found.arrived - sent.sent
    # A bad event that arrived twice is rejected twice, because only rated events occupy an identity.
    repeated_bad = min(max(counts.rejected - rejected, 0), max(repeated, 0))
    said = f" and {repeated:,} repeated by Kafka's client" if repeated else ""
    return [
        DemoCheck(
            "accounts opened, packages sold 开户与售包",
            counts.commands_accepted == found.commands and counts.commands_rejected == 0,
            f"{counts.commands_accepted:,} of {found.commands:,} commands accepted, {counts.commands_rejected} refused",
        ),
        DemoCheck(
            "events in = rated + duplicate + rejected 事件守恒",
            repeated >= 0 and found.arrived == counts.decided,
            f"{found.arrived:,} = {counts.rated:,} + {counts.duplicate:,} + {counts.rejected:,}",
        ),
        DemoCheck(
            "each as the emitters sent them",
            (sent.rated, rejected) == (counts.rated, counts.rejected - repeated_bad)
            and sent.duplicate + repeated == counts.duplicate + repeated_bad,
            f"sent to be rated {sent.rated:,}, duplicate {sent.duplicate:,}, rejected {rejected:,}{said}",
        ),
        DemoCheck(
            "events on a wrong partition found their owner",
            sent.astray <= counts.forwarded <= sent.astray + repeated,
            f"{sent.astray:,} sent astray, {counts.forwarded:,} forwarded",
        ),
        DemoCheck(
            "each rejected event came back with its reason 拒收原因",
            Counter(sent.rejected) <= Counter(found.rejected_view)
            and sum(found.rejected_view.values()) == counts.rejected,
            ", ".join(f"{reason} {number}" for reason, number in sorted(found.rejected_view.items())) or "none",
        ),
    ]


def _money(found: Evidence) -> list[DemoCheck]:
    expected, usage, balances = found.expected, found.usage, found.balances
    topped_up_pico = (found.accounts + TOP_UP_EACH - 1) // TOP_UP_EACH * parse_pico(TOP_UP_AMOUNT)
    burned_micro = balances.granted_micro - balances.remaining_micro
    return [
        DemoCheck(
            "tokens billed = tokens the emitters counted 词元",
            usage.tokens == expected.tokens,
            f"{usage.tokens:,} = {expected.tokens:,}",
        ),
        DemoCheck(
            "yuan billed = counts × price list 元",
            usage.amount_pico == expected.amount_pico,
            f"{format_pico(usage.amount_pico)} = {format_pico(expected.amount_pico)}",
        ),
        DemoCheck(
            "standard tokens = counts × coefficients 标准词元",
            usage.standard_micro == expected.standard_micro,
            f"{format_micro(usage.standard_micro)} = {format_micro(expected.standard_micro)}",
        ),
        DemoCheck(
            "packages: granted − remaining = burned 词元包",
            burned_micro == usage.burned_micro,
            f"{format_micro(balances.granted_micro)} − {format_micro(balances.remaining_micro)} = "
            f"{format_micro(usage.burned_micro)}",
        ),
        DemoCheck(
            "wallets: topped up − charged = what is left 钱包",
            topped_up_pico - usage.charged_pico == balances.wallet_pico,
            f"{format_pico(topped_up_pico)} − {format_pico(usage.charged_pico)} = {format_pico(balances.wallet_pico)}",
        ),
        DemoCheck(
            "absorbed beyond blocked packages, on accounts = in usage",
            (balances.absorbed_micro, balances.absorbed_pico) == (usage.absorbed_micro, usage.absorbed_pico),
            f"{format_micro(usage.absorbed_micro)} standard tokens, {format_pico(usage.absorbed_pico)} 元",
        ),
        DemoCheck(
            "trial balance is 0 试算平衡",
            bool(found.trial_balance_pico) and not any(found.trial_balance_pico.values()),
            ", ".join(f"{code} {format_pico(amount)}" for code, amount in found.trial_balance_pico.items()) or "empty",
        ),
        DemoCheck(
            "audit is clean 审计",
            not found.audit_findings,
            "no findings" if not found.audit_findings else "; ".join(found.audit_findings[:_SHOWN]),
        ),
    ]


def _views(found: Evidence) -> list[DemoCheck]:
    view = found.rated_view
    differing = sum(found.topic_balances.get(name) != value for name, value in found.database_balances.items())
    return [
        DemoCheck(
            "package.balance as an independent consumer sees it = database 余额",
            found.balances_equal,
            f"{len(found.topic_balances):,} accounts in the topic, {len(found.database_balances):,} in the database, "
            f"{differing} differ",
        ),
        DemoCheck(
            "usage.rated has every event once, and no hole 话单",
            view.events == found.sent.rated and not view.holes,
            f"{view.events:,} events; {view.records:,} records, {len(view.holes)} holes"
            + "".join(f"; {hole}" for hole in view.holes[:_SHOWN]),
        ),
        DemoCheck("everything is published", found.unpublished == 0, f"{found.unpublished} rows left in the outbox"),
    ]


def _survival(found: Evidence) -> list[DemoCheck]:
    times = ", ".join(f"{name} {number}×" for name, number in found.restarts.items() if number) or "nothing"
    return [
        DemoCheck(
            "a worker was killed with -9 and came back",
            found.killed is not None and found.restarts.get(found.killed, 0) > 0,
            f"killed {found.killed or 'nobody'}; restarted: {times}",
        )
    ]
