"""A database with rows in every table: two partitions of consistent commits, and what the API and operators store."""

from dataclasses import replace

from own_database import PreparedDatabase
from store_records import Books

from billing.accounts.extras import Bill, Extras, Subscription
from billing.accounts.held import Held, HeldAmounts
from billing.commits.commit_record import ConflictRecord, Finding, ForeignRecord, SuspenseRecord
from billing.commits.copy_text import account_row, bucket_row
from billing.commits.identities import HashHour, RecentNumbers, SourceState
from billing.commits.input_batch import PlainRecord
from billing.ledger import Posting
from billing.store.store import Store
from schemas.refusals import record_refusal
from schemas.times import HOUR_US

_HOUR_US = 500_000 * HOUR_US
OTHER_ROWS = """
SET ROLE tokenbill_owner;
INSERT INTO api_key (key_id, name, secret_sha256, role, account) VALUES
    ('k1', 'crm', '\\x01', 'operator', 'a1'), ('k2', 'meter', '\\x02', 'ingest', NULL);
INSERT INTO api_idempotency (caller, key, request_sha256, account, type, record, partition, record_offset, outcome)
    VALUES ('k1', 'o1', '\\x01', 'a1', 'wallet.topped_up.v1', '\\x01', 0, 1, 'accepted'),
    ('k1', 'o2', '\\x02', 'a2', 'wallet.topped_up.v1', '\\x02', 1, NULL, NULL);
INSERT INTO api_position VALUES (0, 3), (1, 4);
INSERT INTO webhook (webhook_id, url, secret, account, types) VALUES
    ('w1', 'https://a.example/', 's1', 'a1', '{a}'), ('w2', 'https://b.example/', 's2', NULL, '{b}');
INSERT INTO webhook_position VALUES (0, 3), (1, 4);
INSERT INTO webhook_delivery (webhook_id, partition, record_offset, account, type, event_id, body) VALUES
    ('w1', 0, 1, 'a1', 'a', 'e1', '\\x01'), ('w2', 1, 2, 'a2', 'b', 'e2', '\\x02');
INSERT INTO charging_notice (session, account, uri, kind, groups, cause) VALUES
    ('s1', 'a1', 'http://a.example/n', 'REAUTHORIZATION', '[1]', 'e1'),
    ('s2', 'a2', 'http://b.example/n', 'ABORT_CHARGING', '[]', 'abort');
INSERT INTO hold_head VALUES ('a1'), ('a2');
INSERT INTO hold (reservation_id, account, kind, state, held_micro, wallet_pico, terms, steps, created_us, expires_us)
    VALUES ('r1', 'a1', 'reservation', 'open', '{}', 5, '{}', '[]', 1, 2),
    ('r2', 'a2', 'settlement', 'closed', '{"g1/1": "4"}', 0, '{}', '[1]', 3, 4);
INSERT INTO rating_group VALUES (1, '{"model": "a"}'), (2, '{"model": "b"}');
INSERT INTO record_key (number, secret, until_us) VALUES (8, sha256('8'), 8), (9, sha256('9'), 9);
INSERT INTO unsigned_forward VALUES ('usage.forwarded', 0, 1, 2), ('usage.forwarded', 1, 0, 3);
INSERT INTO partition_resume (partition, kind, stop_reason, worker, stopped_at, reason, requested_key, requested_by,
    approved_key, approved_by)
    VALUES (0, 'hole', 'a', 'w-1', now(), 'c', 'k1', 'ann', 'k2', 'bob'),
    (1, 'data', 'b', 'w-2', now(), 'd', 'k2', 'bob', 'k1', 'ann');
INSERT INTO row_acceptance (partition, commit_no, table_name, rows_before, total_before, rows_after, total_after, marks,
    reason, requested_key, requested_by, approved_key, approved_by)
    VALUES (0, 3, 'account', 2, '\\x01', 3, '\\x02', 0, 'a repair', 'k1', 'ann', 'k2', 'bob'),
    (1, 3, 'bucket', 4, '\\x03', 5, '\\x04', 1, 'restored', 'k2', 'bob', 'k1', 'ann');
INSERT INTO worker VALUES ('w-1', 1, now()), ('w-2', 1, now() - interval '1 second');
INSERT INTO suspense_resolution (partition, commit_no, row_no, how, resolved_by, sent_topic, sent_partition,
    sent_offset, repaired) VALUES (0, 3, 1, 'as_it_was', 'ann', 'usage.events', 0, 9, NULL),
    (1, 3, 2, 'repaired', 'bob', 'usage.events', 1, 8, '\\x01');
INSERT INTO conflict_resolution (partition, commit_no, row_no, outcome, reason, resolved_by)
    VALUES (0, 3, 1, 'keep', 'a retry', 'ann'), (1, 3, 2, 'correct', 'measured again', 'bob');
INSERT INTO output_history (partition, history, after_commit_no, common_commit_no, published_commit_no,
    published_digest, begun_by) VALUES (0, 1, 2, 1, 3, '\\x01', 'ann'), (1, 2, 3, 2, 4, '\\x02', 'bob');
"""


def fill(database: PreparedDatabase, store: Store) -> None:
    """Commit accounts, usage, rejections, forwards and findings in partitions 0 and 1, and store the other rows."""
    for partition in (0, 1):
        books = Books(partition)
        books.catalog_epoch = store.catalog_epoch()
        epoch, _ = store.acquire(partition)
        names = [f"a{2 * partition + n}" for n in (1, 2)]
        store.commit(epoch, books.opening(names))
        _change_terms(books, store, epoch, names)
        _use(books, store, epoch, names)
        store.commit(epoch, replace(books.burning(names[:1]), log_time_us=_HOUR_US + 3 * HOUR_US))
        store.outbox_delete(partition, 1)
    database.run(OTHER_ROWS)


def _change_terms(books: Books, store: Store, epoch: int, names: list[str]) -> None:
    """Commit other money, terms and extras, different for each account, as commands would."""
    record = books._record("account.commands", 2, "account.events")
    record.counts.commands_accepted = 2
    for number, name in enumerate(names, 1):
        account = books.accounts[name]
        added_pico = number * 10**12
        account.wallet_pico += added_pico
        account.credit_limit_pico = number
        account.extras = Extras(
            subscriptions=[Subscription(f"s{number}", "token-9.9", 1, "wallet", 5)],
            bills=[Bill(f"bill-{number}", number, 1, 2, 3, number)],
        )
        account.buckets[0].carried_cycles = number
        account.buckets[0].valid_until_us = 10**15 + number
        record.commands_seen.append(("urn:crm", f"adjust-{name}", "accepted"))
    record.postings = [
        line
        for number, name in enumerate(names, 1)
        for line in (
            Posting("cash", "CNY", "", number * 10**12, account=name),
            Posting("customer_deposits", "CNY", "", -number * 10**12, account=name),
        )
    ]
    record.changes.accounts_replaced = b"".join(account_row(books.accounts[name]) for name in names)
    record.changes.buckets_replaced = b"".join(bucket_row(name, books.accounts[name].buckets[0]) for name in names)
    store.commit(epoch, record)


def _use(books: Books, store: Store, epoch: int, names: list[str]) -> None:
    """Commit usage, with two rejected records, two forwarded ones, findings, and identities of both kinds."""
    record = books.burning(names, revenue_pico=10**9 + books.partition)
    other = 1 - books.partition
    record.positions = [
        replace(record.positions[0], end=record.positions[0].end + 5),
        replace(record.positions[0], topic="usage.forwarded", start=0, end=2),
    ]
    record.counts.foreign = 2
    record.foreign = [
        ForeignRecord(
            "usage.forwarded", PlainRecord(n, 5 + n, b"a%d" % n, b"forged %d" % n, (("h", b"%d" % n),)), f"f{n}"
        )
        for n in (0, 1)
    ]
    record.held = [(name, Held(HeldAmounts({"g1/1": n}, 5 + n), n, 7 + n)) for n, name in enumerate(names, 1)]
    books.offsets["usage.events"] += 5
    record.counts.rejected, record.counts.forwarded = 2, 3
    record.suspense = [
        SuspenseRecord(
            "usage.events",
            PlainRecord(number, 7 + number, b"a%d" % number, b"value %d" % number, (("h", b"%d" % number),)),
            record_refusal("no_price", f"nothing for it: {number}", "urn:node-1", f"e{number}", number, f"a{number}"),
        )
        for number in (2, 3)
    ]
    record.dedupe.sources.append(SourceState("urn:other", True, ((1, 3), (7, 9)), (2,)))
    record.dedupe.sources.append(SourceState("urn:plain", False))
    record.dedupe.recent.append(RecentNumbers("urn:other", 9, b"o" * 16))
    record.dedupe.hours = [HashHour(_HOUR_US, b"x" * 20), HashHour(_HOUR_US + HOUR_US, b"y" * 20)]
    record.log_time_us = _HOUR_US + 2 * HOUR_US
    record.forward_next = {("usage.forwarded", other): 2, ("usage.forwarded", 3): 1}
    for number, (code, sign) in enumerate((("contract_liability", 1), ("revenue_usage", -1)), 1):
        for usage in ('["urn:node-1","e1"]', '["urn:node-1","e2"]'):
            record.postings.append(Posting(code, "CNY", "token-9.9@1", sign * number, usage))
            record.postings.append(Posting(code, "CNY", "token-9.9@1", -sign * number, usage))
    record.findings = [Finding("identity_conflict", f"urn:node-1 {number}") for number in (4, 5)]
    record.findings.append(Finding("rows_accepted", f"account of partition {books.partition}"))
    record.conflicts = [
        ConflictRecord("usage.events", PlainRecord(n, 9 + n, b"a%d" % n, b"again %d" % n, ()), f"a{n}", "s", f"e{n}", n)
        for n in (4, 5)
    ]
    record.book_times = {"retail-cn": 1_000, "retail-us": 2_000}
    store.commit(epoch, record)
    if books.partition:
        applied = books.burning(names)
        applied.positions = [replace(applied.positions[0], topic="usage.forwarded", start=2, end=4)]
        books.offsets["usage.events"] -= 2
        applied.dedupe.sources, applied.dedupe.recent = [], []
        applied.forward_cursors = {("usage.forwarded", 0): 2}
        applied.log_time_us = record.log_time_us + 1
        store.commit(epoch, applied)
