"""Balance of an account at a past time: ``python -m tokenbill.replays.past_balance ACCOUNT TIME_US``.

A replay takes seconds of processor time, so the HTTP API, which must answer in milliseconds, runs it in a process of
its own. TIME_US is in microseconds UTC. The addresses of the servers are in TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL.
Standard output is one JSON document: the data of ``package.balance``, or ``{"problem", "detail"}``.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import Any

from confluent_kafka import KafkaException

from billing.calculator.compiled import CompiledCalculator
from billing.commits.output_documents import NOTHING_RESERVED, balance_object
from billing.engine.past_account import PartitionHistory, account_in_past
from billing.errors import StoreError
from billing.store.database import Database
from billing.store.past_commits import decisions
from billing.store.record_key_rows import read_record_keys
from schemas.json_text import dump_json
from schemas.routing import partition_of
from schemas.times import format_time_us
from streams.read.input_log import InputLog
from streams.stream_errors import BrokerDown, LogTooLong, LogTooShort
from streams.topic_setup import partition_count
from tokenbill.replays import MAX_RECORDS

PAST_READ_SECONDS = 50.0


def balance_in_past(kafka: str, database_url: str, account: str, at_us: int) -> dict[str, Any]:
    """Return the data of ``package.balance`` after every record with log time up to ``at_us``, or a problem.

    A problem has the keys ``problem`` and ``detail``.
    """
    partitions = partition_count(kafka)
    partition = partition_of(account, partitions)
    try:
        # The log is opened before the commits are read: a record may be decided after it was logged, never before.
        with (
            InputLog(kafka, partition, at_us, max_records=MAX_RECORDS, timeout_seconds=PAST_READ_SECONDS) as log,
            closing(Database(database_url, pool_size=1, application_name="tokenbill past")) as database,
        ):
            commits, catalogs = decisions(database, partition)
            record_keys = read_record_keys(database)
            history = PartitionHistory(partition, partitions, commits, catalogs, log.read, record_keys)
            found = account_in_past(history, account, CompiledCalculator())
    except LogTooShort as error:
        return {"problem": "history_not_kept", "detail": f"{error}."}
    except LogTooLong as error:
        return {"problem": "history_too_long", "detail": f"{error}; at most {MAX_RECORDS} are decided again."}
    if found is None:
        detail = f"Account {account!r} was not open at {format_time_us(at_us)}."
        return {"problem": "unknown_account", "detail": detail}
    past, commit_no = found
    return balance_object(past, NOTHING_RESERVED) | {"partition": partition, "commit": commit_no}


def main() -> None:
    """Write the balance of the account and time in the arguments to standard output."""
    account, at_us = sys.argv[1], int(sys.argv[2])
    try:
        answer = balance_in_past(os.environ["TOKENBILL_KAFKA"], os.environ["TOKENBILL_DATABASE_URL"], account, at_us)
    except (KafkaException, BrokerDown) as error:
        answer = {"problem": "kafka_down", "detail": f"Kafka does not answer: {error.args[0]}."}
    except StoreError as error:
        answer = {"problem": "database_down", "detail": f"The database does not answer: {error}."}
    sys.stdout.buffer.write(dump_json(answer))


if __name__ == "__main__":
    main()
