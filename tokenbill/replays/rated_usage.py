"""Usage that was rated under an identity: ``python -m tokenbill.replays.rated_usage ACCOUNT SOURCE ID``.

A commit stores only hashes of what it rated, so the partition's log is replayed, which takes seconds of processor time.
The HTTP API therefore runs it in a process of its own. The addresses of the servers are in TOKENBILL_KAFKA and
TOKENBILL_DATABASE_URL. Standard output is one JSON document: the usage, or ``{"problem", "detail"}``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from confluent_kafka import KafkaException

from billing.conflicts import usage_object
from billing.corrections.history import AccountHistory
from billing.errors import StoreError
from schemas.commands import Command, CorrectUsage, VoidUsage
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.times import format_time_us
from schemas.usage import UsageEvent
from streams.topic_setup import partition_count
from tokenbill.replays.histories import read_histories


def rated_usage(kafka: str, database_url: str, account: str, source: str, id: str) -> dict[str, Any]:
    """Return what was rated under an identity, or a problem with the keys ``problem`` and ``detail``.

    The result has the usage as it was sent (``usage``), its ``offset``, the log time at which it was decided (``time``)
    and the voids and corrections that followed (``corrections``).
    """
    try:
        partition = partition_of(account, partition_count(kafka))
        found = read_histories(kafka, database_url, partition, [account])
    except KafkaException as error:
        return {"problem": "kafka_down", "detail": f"Kafka does not answer: {error.args[0]}."}
    except StoreError as error:
        return {"problem": "database_down", "detail": f"The database does not answer: {error}."}
    if isinstance(found, Refusal):
        return {"problem": found.code, "detail": f"{found.detail}."}
    return usage_in(found[account], source, id)


def usage_in(history: AccountHistory, source: str, id: str) -> dict[str, Any]:
    """Return what a history has of one usage; see :func:`rated_usage`."""
    rated: dict[str, Any] | None = None
    corrections: list[dict[str, Any]] = []
    for step in history.steps:
        item = step.item
        if isinstance(item, UsageEvent) and (item.source, item.id) == (source, id):
            rated = {"usage": usage_object(item), "offset": step.offset, "time": format_time_us(step.at.now_us)}
        elif isinstance(item, Command) and isinstance(data := item.data, VoidUsage | CorrectUsage):
            if (data.source, data.id) != (source, id):
                continue
            counts = dict(data.usage) if isinstance(data, CorrectUsage) else {}
            made = {"type": item.type, "id": item.id, "source": item.source, "reason": data.reason}
            corrections.append(made | {"usage": counts})
    if rated is None:
        detail = f"no usage {id!r} of {source!r} is in the history of the account."
        return {"problem": "history_not_kept", "detail": detail}
    return rated | {"corrections": corrections}


def main() -> None:
    """Write what was rated under the identity in the arguments to standard output."""
    account, source, id = sys.argv[1:4]
    servers = os.environ["TOKENBILL_KAFKA"], os.environ["TOKENBILL_DATABASE_URL"]
    sys.stdout.buffer.write(dump_json(rated_usage(*servers, account, source, id)))


if __name__ == "__main__":
    main()
