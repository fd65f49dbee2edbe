"""Builder of consistent commit records: accounts opened, topped up and granted by commands, then burned by usage."""

import hashlib
from collections.abc import Sequence

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.commits.commit_record import AccountChanges, CommitCounts, CommitRecord, OutboxRow, RollupRow
from billing.commits.copy_text import account_row, bucket_row
from billing.commits.identities import DedupeChange, RecentNumbers, SourceState
from billing.commits.input_batch import PositionMove
from billing.ledger import Posting

WALLET_PICO = 20 * 10**12
FEE_PICO = 934 * 10**10
QUOTA_MICRO = 10**13
LIMITS = {"future_limit_us": 600_000_000, "past_limit_us": 3_024_000_000_000}


def account(name: str, wallet_pico: int = WALLET_PICO) -> Account:
    return Account(name, "CNY", "retail-cn", "prepaid", 0, wallet_pico=wallet_pico, next_due_us=900)


def bucket(liability_pico: int = FEE_PICO, amount_micro: int = QUOTA_MICRO) -> Bucket:
    return Bucket(
        "g1/1",
        "token-9.9",
        1,
        1,
        "STD_TOKEN",
        amount_micro,
        amount_micro,
        liability_pico,
        5,
        NO_END_US,
        900,
        0,
        "active",
    )


class Books:
    """State of one partition after its commits so far; builds the next commit records."""

    def __init__(self, partition: int = 0) -> None:
        self.partition = partition
        self.catalog_epoch = 0
        self.commit_no = 0
        self.offsets = {"account.commands": 0, "usage.events": 0}
        self.sequences = {"account.events": 1, "usage.rated": 1}
        self.accounts: dict[str, Account] = {}

    def _record(self, topic: str, records: int, output: str) -> CommitRecord:
        self.commit_no += 1
        start = self.offsets[topic]
        self.offsets[topic] += records
        first = self.sequences[output]
        self.sequences[output] += records
        return CommitRecord(
            partition=self.partition,
            commit_no=self.commit_no,
            catalog_epoch=self.catalog_epoch,
            log_time_us=self.commit_no * 100,
            positions=[PositionMove(topic, start, start + records)],
            counts=CommitCounts(),
            changes=AccountChanges(),
            postings=[],
            rollups=[],
            dedupe=DedupeChange(),
            commands_seen=[],
            payments=[],
            outbox=[OutboxRow(output, records, first, hashlib.sha256(output.encode()).digest() * 4)],
            next_sequences={output: self.sequences[output]},
            forward_next={},
            forward_cursors={},
            findings=[],
            book_times={},
            limits=LIMITS,
        )

    def opening(
        self,
        names: Sequence[str],
        wallet_pico: int = WALLET_PICO,
        liability_pico: int = FEE_PICO,
        quota_micro: int = QUOTA_MICRO,
    ) -> CommitRecord:
        """Return a commit of three commands per account: open, top up, purchase."""
        record = self._record("account.commands", 3 * len(names), "account.events")
        record.counts = CommitCounts(commands_accepted=3 * len(names))
        for name in names:
            opened = account(name, wallet_pico)
            opened.buckets.append(bucket(liability_pico, quota_micro))
            self.accounts[name] = opened
            record.commands_seen += [("urn:crm", f"{kind}-{name}", "accepted") for kind in ("open", "pay", "buy")]
            record.payments.append((name, "p-1"))
        total, fee = wallet_pico * len(names), liability_pico * len(names)
        record.postings = [
            Posting("cash", "CNY", "", total + fee),
            Posting("contract_liability", "CNY", "token-9.9@1", -fee),
            Posting("customer_deposits", "CNY", "", -total),
        ]
        record.changes.accounts_new = b"".join(account_row(self.accounts[name]) for name in names)
        record.changes.buckets_new = b"".join(bucket_row(n, b) for n in names for b in self.accounts[n].buckets)
        return record

    def burning(self, names: Sequence[str], micro: int = 10**9, revenue_pico: int = 10**9) -> CommitRecord:
        """Return a commit of one usage event per account, paid from its bucket."""
        count = len(names)
        record = self._record("usage.events", count, "usage.rated")
        record.counts = CommitCounts(rated=count)
        for name in names:
            spent = self.accounts[name].buckets[0]
            spent.remaining_micro -= micro
            spent.liability_pico -= revenue_pico
        record.changes.buckets_changed = b"".join(bucket_row(n, self.accounts[n].buckets[0]) for n in names)
        record.postings = [
            Posting("contract_liability", "CNY", "token-9.9@1", revenue_pico * count),
            Posting("revenue_usage", "CNY", "token-9.9@1", -revenue_pico * count),
        ]
        record.rollups = [rollup(count, micro, revenue_pico)]
        end = self.offsets["usage.events"]
        record.dedupe = DedupeChange(
            sources=[SourceState("urn:node-1", True, ((1, end),))],
            recent=[RecentNumbers("urn:node-1", end, b"r" * 16 * count)],
        )
        record.book_times = {"retail-cn": self.commit_no * 1000}
        return record

    def undo(self) -> None:
        """Take back the number of the last record, which was not committed."""
        self.commit_no -= 1


def rollup(count: int, micro: int, revenue_pico: int) -> RollupRow:
    return RollupRow(
        hour_us=3_600_000_000,
        price_book="retail-cn@1",
        currency="CNY",
        model="deepseek-v3.2",
        hardware_tier="ascend",
        energy_source="solar",
        site="wuxi",
        channel="cloud",
        service_tier="standard",
        outcome="completed",
        events=count,
        tokens=1_000 * count,
        standard_micro=micro * count,
        amount_pico=2 * 10**9 * count,
        net_pico=10**9 * count,
        burned_micro=micro * count,
        charged_pico=0,
        absorbed_micro=0,
        absorbed_pico=0,
        revenue_pico=revenue_pico * count,
    )
