"""Record keys in SQL, foreign records, and what the change to them takes over from an older database."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest
from click.testing import CliRunner
from own_database import PreparedDatabase
from store_records import Books

from billing.commits.commit_record import CommitCounts, CommitRecord, ForeignRecord
from billing.commits.input_batch import PlainRecord
from billing.errors import NotPrepared
from billing.record_keys import HeldRecordKeys, RecordKey, own_fault, own_header, resubmitted_headers
from billing.store import migrate as migration
from billing.store.database import Database
from billing.store.foreign_records import foreign_at, list_foreign
from billing.store.migrate import migrate
from billing.store.proofs.audit import CHAIN, audit
from billing.store.record_key_rows import (
    StoredRecordKeys,
    held_record_keys,
    list_record_keys,
    read_record_keys,
    rotate_record_key,
)
from billing.store.store import Store
from billing.suspense import RecordPlace
from schemas.topics import FORWARD_DIGEST_HEADER, OWN_DIGEST_HEADER, USAGE_FORWARDED_TOPIC, USAGE_TOPIC
from tokenbill.cli import cli


@pytest.fixture
def app(database: PreparedDatabase) -> Database:
    return Database(database.app_url, pool_size=2)


def test_a_new_database_has_a_key_of_its_own(app: Database, new_database: str) -> None:
    keys = read_record_keys(app)
    assert keys.signing() == keys.find(1)
    assert (len(keys.signing().secret), keys.own_from_us, keys.unsigned) == (32, 0, {})


def test_rotation_keeps_the_former_key_for_a_time(app: Database) -> None:
    first = read_record_keys(app).signing()
    made = rotate_record_key(app, 3_600)
    keys = read_record_keys(app)
    assert (made.number, made.until_us, keys.signing().number) == (2, None, 2)
    former = keys.find(1)
    assert former is not None and former.secret == first.secret != keys.signing().secret
    now_us = time.time_ns() // 1000
    assert former.until_us is not None and abs(former.until_us - now_us - 3_600_000_000) < 60_000_000
    rotate_record_key(app, 7_200)
    assert read_record_keys(app).find(1) == former
    assert [one.number for one in list_record_keys(app)] == [1, 2, 3]


def test_a_process_reads_a_new_key_when_it_meets_it(app: Database) -> None:
    reads = 0

    def read() -> HeldRecordKeys:
        nonlocal reads
        reads += 1
        return read_record_keys(app)

    stored = StoredRecordKeys(read)
    now = stored.now()
    assert (now.signing().number, now.find(1) is not None, reads) == (1, True, 1)
    rotate_record_key(app, 3_600)
    assert stored.now().signing().number == 1
    found = now.find(2)
    assert found is not None and found.number == 2
    assert [now.find(number) for number in (7, 8, 9)] == [None] * 3
    assert reads == 2
    assert [stored.now().find(number) for number in (0, 9)] == [None] * 2


def test_without_a_key_nothing_is_verified(database: PreparedDatabase) -> None:
    with pytest.raises(NotPrepared, match="no record key"):
        held_record_keys([])


def foreign_commit(books: Books, *foreign: ForeignRecord) -> CommitRecord:
    record = books.burning([next(iter(books.accounts))])
    start = record.positions[0].start
    books.offsets["usage.events"] = start + len(foreign)
    return replace(
        record,
        counts=CommitCounts(foreign=len(foreign)),
        positions=[replace(record.positions[0], end=start + len(foreign))],
        foreign=list(foreign),
        changes=type(record.changes)(),
        postings=[],
        rollups=[],
        dedupe=type(record.dedupe)(),
    )


def test_a_foreign_record_is_kept_in_the_digest_and_shown(
    database: PreparedDatabase, store: Store, app: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    headers = (("tb_forward_number", b"7"), ("null", None))
    value = bytes(range(256))
    odd = PlainRecord(3, 1_700_000_000_123, b"k\xff", value, headers)  # type: ignore[arg-type]
    none = PlainRecord(4, 1_700_000_000_000, None, None)
    store.commit(
        epoch,
        foreign_commit(
            books,
            ForeignRecord(USAGE_FORWARDED_TOPIC, odd, "no digest"),
            ForeignRecord(USAGE_FORWARDED_TOPIC, none, "no origin and number"),
        ),
    )
    outcome = audit(database.report_url)
    assert outcome.passed, outcome
    assert [(str(one.place), one.fault, one.size) for one in list_foreign(app)] == [
        ("usage.forwarded/0/4", "no origin and number", 0),
        ("usage.forwarded/0/3", "no digest", 256),
    ]
    about, content = foreign_at(app, RecordPlace(USAGE_FORWARDED_TOPIC, 0, 3)) or pytest.fail("not there")
    assert (about.log_time_us, content.key, content.value, content.headers) == (
        *(1_700_000_000_123_000, b"k\xff", value, headers),
    )
    assert foreign_at(app, RecordPlace(USAGE_FORWARDED_TOPIC, 0, 5)) is None
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", database.app_url)
    shown = CliRunner().invoke(cli, ["foreign", "show", "usage.forwarded/0/3"])
    assert json.loads(shown.stdout)["headers"][0] == {"name": "tb_forward_number", "content": {"text": "7"}}
    wrong = CliRunner().invoke(cli, ["foreign", "show", "usage.forwarded/0/3", "--bytes"])
    assert wrong.stdout_bytes == value
    with database.connect() as connection:
        connection.execute("ALTER TABLE foreign_record DISABLE TRIGGER append_only")
        connection.execute("UPDATE foreign_record SET value = 'x' WHERE record_offset = 3")
    assert [one.name for one in audit(database.report_url).checks if one.count] == [CHAIN]


def test_the_command_rotates_and_lists_without_secrets(
    database: PreparedDatabase, app: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", database.app_url)
    secret = read_record_keys(app).signing().secret
    done = CliRunner().invoke(cli, ["key", "rotate", "--keep-hours", "1"])
    assert (done.exit_code, done.stdout) == (0, "key 2 signs from now on; key 1 verifies for 1 hours more\n")
    listed = CliRunner().invoke(cli, ["key", "list", "--json"])
    assert [(one["number"], one["state"]) for one in json.loads(listed.stdout)] == [(1, "verifies"), (2, "signs")]
    assert secret.hex() not in listed.stdout
    assert CliRunner().invoke(cli, ["key", "rotate", "--keep-hours", "0"]).exit_code == 2


KEY = RecordKey(1, b"k" * 32)


@pytest.mark.parametrize("own_from_us", [0, 5_000_001])
def test_an_own_record_is_marked_anew_when_it_is_resubmitted(own_from_us: int) -> None:
    """A settlement that was ours, or was rejected before digests, gets a new digest; a forged one gets none."""
    keys = HeldRecordKeys({1: replace(KEY, until_us=9_000_000), 2: RecordKey(2, b"n" * 32)}, own_from_us)
    mark = own_header(HeldRecordKeys({1: KEY}), USAGE_TOPIC, b"a", b"v", ())
    ours = PlainRecord(7, 5_000, b"a", b"v", (mark, (FORWARD_DIGEST_HEADER, b"x")))
    headers = resubmitted_headers(keys, USAGE_TOPIC, ours, b"a", b"repaired", (mark, ("content-type", b"j")))
    assert not isinstance(headers, str)
    sent = PlainRecord(8, 20_000, b"a", b"repaired", headers)  # type: ignore[arg-type]
    assert own_fault(keys, USAGE_TOPIC, sent) is None
    assert [name for name, _ in headers] == ["content-type", OWN_DIGEST_HEADER]
    forged = replace(ours, headers=())
    again = resubmitted_headers(keys, USAGE_TOPIC, forged, b"a", b"v", ())
    assert again == "no digest" if own_from_us == 0 else isinstance(again, tuple)


def test_an_older_database_is_taken_over(
    new_database: str, monkeypatch: pytest.MonkeyPatch, publish_samples: Callable[[Store], None]
) -> None:
    """Forwards up to the numbers of then, and own records up to then, need no digest; scoped keys have no sources."""
    upgrade = migration.command.upgrade
    with monkeypatch.context() as older:
        older.setattr(migration.command, "upgrade", lambda config, _: upgrade(config, "0014"))
        migrate(new_database, None, None)
    old = PreparedDatabase(new_database)
    old.run(
        "INSERT INTO partition_state (partition, epoch, commit_no, log_time_us, digest, suspense_after)"
        " SELECT p, 0, 0, 0, sha256(''), 0 FROM generate_series(0, 1) AS p",
        "INSERT INTO forward_next VALUES ('usage.forwarded', 0, 1, 17)",
        "INSERT INTO forward_next VALUES ('commands.forwarded', 1, 0, 3)",
        "UPDATE partition_state SET commit_no = 5 WHERE partition = 0",
        "INSERT INTO api_key (key_id, name, secret_sha256, role, account)"
        " VALUES ('k', 'n', sha256('s'), 'ingest', 'a')",
    )
    migrate(new_database, None, None)
    with closing(Database(old.app_url)) as database:
        keys = read_record_keys(database)
    assert keys.unsigned == {(USAGE_FORWARDED_TOPIC, 0, 1): 17, ("commands.forwarded", 1, 0): 3}
    assert keys.unsigned_before(USAGE_FORWARDED_TOPIC, 1, 0) == 0
    assert abs(keys.own_from_us - time.time_ns() // 1000 - 60_000_000) < 60_000_000
    assert old.run("SELECT sources FROM api_key") == [([],)]
