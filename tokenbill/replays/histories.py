"""Histories of accounts whose usage is to be corrected: ``python -m tokenbill.replays.histories PARTITION``.

The program decides all records of the partition again, which takes seconds of processor time. Therefore a worker runs
it in a process of its own (:class:`LogStore`). The accounts are a JSON list on standard input, and the addresses of the
servers are in TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL. Standard output is pickled: the histories by account, or a
reason and a detail if they are unavailable.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing

from confluent_kafka import KafkaException

from billing.calculator.compiled import CompiledCalculator
from billing.commits.commit_record import PartitionState
from billing.corrections.history import AccountHistory
from billing.engine.past_account import PartitionHistory, histories_of
from billing.errors import StoreError
from billing.store.database import Database
from billing.store.past_commits import decisions
from billing.store.record_key_rows import read_record_keys
from billing.store.store import Store
from schemas.refusals import Refusal
from streams.read.input_log import InputLog
from streams.stream_errors import BrokerDown, LogTooLong, LogTooShort
from streams.topic_setup import partition_count
from tokenbill.replays import MAX_RECORDS

HISTORIES_READ_SECONDS = 25.0
HISTORIES_SECONDS = 30.0
"""Time limit of one replay; the partition waits for the result."""


class LogStore(Store):
    """Store of a worker that obtains the histories of accounts by replaying the log."""

    def __init__(self, kafka: str, database_url: str, pool_size: int) -> None:
        super().__init__(database_url, pool_size=pool_size)
        self._servers = {"TOKENBILL_KAFKA": kafka, "TOKENBILL_DATABASE_URL": database_url}

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory] | Refusal:
        command = (sys.executable, "-m", "tokenbill.replays.histories", str(state.partition))
        try:
            done = subprocess.run(
                command,
                input=json.dumps(list(accounts)).encode(),
                stdout=subprocess.PIPE,
                env={**os.environ, **self._servers},
                timeout=HISTORIES_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            detail = f"deciding partition {state.partition} again took more than {HISTORIES_SECONDS:g} s; send it again"
            return Refusal("history_too_long", detail)
        except subprocess.CalledProcessError as error:
            detail = f"the history could not be read (its process ended with {error.returncode}); send it again"
            return Refusal("history_unavailable", detail)
        answer: dict[str, AccountHistory] | Refusal = pickle.loads(done.stdout)
        return answer


def read_histories(
    kafka: str, database_url: str, partition: int, accounts: Sequence[str]
) -> dict[str, AccountHistory] | Refusal:
    """Return the history of each account up to the partition's last commit; refused if the log cannot be read."""
    with closing(Database(database_url, pool_size=1, application_name="tokenbill histories")) as database:
        commits, catalogs = decisions(database, partition)
        record_keys = read_record_keys(database)
    ends: dict[str, int] = {}
    for commit in commits:
        ends |= {move.topic: move.end for move in commit.moves}
    try:
        with InputLog(kafka, partition, ends, max_records=MAX_RECORDS, timeout_seconds=HISTORIES_READ_SECONDS) as log:
            history = PartitionHistory(partition, partition_count(kafka), commits, catalogs, log.read, record_keys)
            return histories_of(history, accounts, CompiledCalculator())
    except LogTooShort as error:
        return Refusal("history_not_kept", f"{error}")
    except LogTooLong as error:
        return Refusal("history_too_long", f"{error}; at most {MAX_RECORDS} are decided again")


def main() -> None:
    """Replay the partition in the arguments for the accounts on standard input, and write the result."""
    servers = os.environ["TOKENBILL_KAFKA"], os.environ["TOKENBILL_DATABASE_URL"]
    answer: dict[str, AccountHistory] | Refusal
    try:
        answer = read_histories(*servers, int(sys.argv[1]), json.load(sys.stdin))
    except (KafkaException, BrokerDown) as error:
        answer = Refusal("history_unavailable", f"Kafka does not answer: {error.args[0]}; send it again")
    except StoreError as error:
        answer = Refusal("history_unavailable", f"the database does not answer: {error}; send it again")
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
