"""Sizes of Kafka records, derived from the largest input record: what topics and broker take and what clients send.

A record never outgrows the topic it goes to: a forwarded record is an input record with the headers of a forward, and a
rejected one is an input or forwarded record with the headers of a rejection. All sizes are in bytes.
"""

from typing import Final

from schemas.topics import COMMAND_FORWARDED_TOPIC, INPUT_TOPICS, OUTPUT_TOPICS, USAGE_FORWARDED_TOPIC

LARGEST_INPUT: Final = 16 << 20
"""Largest record of an input topic, uncompressed: key, value, headers and framing. Also the largest record batch that
the input topics take, so that a broker refuses a larger uncompressed record when it is sent."""
ADDED_HEADERS: Final = 64 << 10
"""Room for the headers that a forward or a rejection adds to a record."""
LARGEST_FORWARDED: Final = LARGEST_INPUT + ADDED_HEADERS
LARGEST_OUTPUT: Final = LARGEST_FORWARDED + ADDED_HEADERS
"""Largest record of an output topic: a rejected forwarded record. A larger one goes out without its value."""
BATCH_BYTES: Final = 1 << 20
"""Uncompressed size of an output batch: the record that reaches it is the last of its batch."""


def packed(size: int) -> int:
    """Return the size of a record batch with ``size`` bytes of records that no codec can compress."""
    return size + (size >> 8) + 1024


BROKER_BYTES: Final = packed(LARGEST_OUTPUT + BATCH_BYTES)
"""Largest record batch of all topics: ``message.max.bytes`` and ``replica.fetch.max.bytes`` of a broker."""

TOPIC_BYTES: Final = {
    **dict.fromkeys(INPUT_TOPICS, LARGEST_INPUT),
    USAGE_FORWARDED_TOPIC: packed(LARGEST_FORWARDED),
    COMMAND_FORWARDED_TOPIC: packed(LARGEST_FORWARDED),
    **dict.fromkeys(OUTPUT_TOPICS, BROKER_BYTES),
}
"""Largest record batch by topic: ``max.message.bytes`` of the topic."""
LARGEST_RECORD: Final = {
    **dict.fromkeys(INPUT_TOPICS, LARGEST_INPUT),
    USAGE_FORWARDED_TOPIC: LARGEST_FORWARDED,
    COMMAND_FORWARDED_TOPIC: LARGEST_FORWARDED,
}
"""Largest record by input topic, uncompressed. The bytes of a larger one are not read: it is rejected."""
