"""Copies rated usage and the movements of accounts into an SQL database, each exactly once.

``python examples/consume_topics.py 127.0.0.1:9092 copy.db [--once]`` follows the topics ``usage.rated`` and
``account.events``; with ``--once`` it ends where they end now. It may be killed at any moment and started again, even
twice at a time: what a record says and the position behind it are written in one transaction, and a record below the
position is skipped. docs/consuming-our-topics.md explains it.
"""

import json
import sqlite3
import sys
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

TOPICS = ("usage.rated", "account.events")
TABLES = """
CREATE TABLE IF NOT EXISTS position (topic, partition, next_offset, PRIMARY KEY (topic, partition));
CREATE TABLE IF NOT EXISTS rated (source, id, account, time, model, charged, line);
CREATE TABLE IF NOT EXISTS movement (event, account, purpose, wallet, movement);
"""


def rows(event: dict) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield an SQL statement and its values for each part of an event; unknown types and fields are ignored."""
    for line in event["data"].get("events", []) if event["type"] == "usage.rated.v1" else []:
        values = (line["source"], line["id"], line["account"], line["time"], line["model"], line["charged"])
        yield "INSERT INTO rated VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, json.dumps(line))
    for moved in event["data"].get("movements", []):
        values = (event["id"], event["data"]["account"], moved["purpose"], moved.get("wallet", "0"))
        yield "INSERT INTO movement VALUES (?, ?, ?, ?, ?)", (*values, json.dumps(moved))


def take(database: sqlite3.Connection, messages: list[Message]) -> None:
    """Write what some records say, and the positions behind them, in one transaction."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            place = (message.topic(), message.partition())
            known = database.execute("SELECT next_offset FROM position WHERE (topic, partition) = (?, ?)", place)
            if message.offset() < (known.fetchone() or (0,))[0]:
                continue  # another copy of this program was faster
            for statement, values in rows(json.loads(message.value())):
                database.execute(statement, values)
            database.execute("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", (*place, message.offset() + 1))


def main(kafka: str, path: str, once: bool) -> None:
    """Follow the topics from the positions in the database."""
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.executescript(TABLES)
    settings = {"bootstrap.servers": kafka, "group.id": "unused", "enable.auto.commit": False}
    consumer = Consumer(settings | {"isolation.level": "read_committed", "auto.offset.reset": "error"})
    known = {(topic, number): offset for topic, number, offset in database.execute("SELECT * FROM position")}
    starts, ends = {}, {}
    for topic in TOPICS:
        for number in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
            low, ends[topic, number] = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
            starts[topic, number] = known.get((topic, number), low)
    places = [TopicPartition(*place, offset) for place, offset in starts.items()]
    consumer.assign(places)
    left = set(ends)
    while not once or left:
        take(database, consumer.consume(1000, timeout=0.5))
        # The position also moves over what is not delivered: marks of transactions. It is negative before the first.
        reached = {(at.topic, at.partition): at.offset for at in consumer.position(places)}
        left = {place for place in ends if max(reached[place], starts[place]) < ends[place]}
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--once" in sys.argv[3:])
