"""Names and settings of the Kafka topics, and the headers of forwarded records."""

from typing import NamedTuple

USAGE_TOPIC = "usage.events"


USAGE_FORWARDED_TOPIC = "usage.forwarded"


COMMAND_TOPIC = "account.commands"


COMMAND_FORWARDED_TOPIC = "commands.forwarded"


INPUT_TOPICS = (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC, USAGE_TOPIC, USAGE_FORWARDED_TOPIC)
"""Input topics in the order in which a commit applies them (docs/reference/principles.md, "Commit")."""


FORWARD_TOPIC = {
    USAGE_TOPIC: USAGE_FORWARDED_TOPIC,
    USAGE_FORWARDED_TOPIC: USAGE_FORWARDED_TOPIC,
    COMMAND_TOPIC: COMMAND_FORWARDED_TOPIC,
    COMMAND_FORWARDED_TOPIC: COMMAND_FORWARDED_TOPIC,
}


RATED_TOPIC = "usage.rated"


BALANCE_TOPIC = "package.balance"


ACCOUNT_EVENT_TOPIC = "account.events"


SETTLEMENT_TOPIC = "settlement.entries"


REJECTED_TOPIC = "usage.rejected"


OUTPUT_TOPICS = (RATED_TOPIC, BALANCE_TOPIC, ACCOUNT_EVENT_TOPIC, SETTLEMENT_TOPIC, REJECTED_TOPIC)


FORWARD_ORIGIN_HEADER = "tb_origin_partition"


FORWARD_NUMBER_HEADER = "tb_forward_number"
"""Headers of a forwarded record, in decimal digits; numbers rise by one per (forward topic, origin, target)."""


FORWARD_FROM_HEADER = "tb_forward_from"
"""Header of a forwarded record: topic and offset, on the origin partition, of the record that it comes from."""


FORWARD_DIGEST_HEADER = "tb_forward_digest"
"""Header of a forwarded record: number of the record key, ``:``, and the keyed digest (:mod:`billing.record_keys`)."""


FORWARD_HEADERS = frozenset((FORWARD_ORIGIN_HEADER, FORWARD_NUMBER_HEADER, FORWARD_FROM_HEADER, FORWARD_DIGEST_HEADER))
"""Headers that a forward adds; a record that already has one loses it."""


OWN_DIGEST_HEADER = "tb_own_digest"
"""Header of the product's own records on the input topics: number of the record key, ``:``, and the keyed digest."""


RECORD_SIZE_HEADER = "tb_record_bytes"
"""Header of a record without value that stands for one larger than :data:`schemas.record_sizes.LARGEST_RECORD`: its
size in bytes, in decimal digits. The record itself is only in the log."""


class TopicSettings(NamedTuple):
    """Settings with which a topic is created; ``retention_ms`` None: the newest record of each key stays for good."""

    cleanup: str
    retention_ms: int | None


DEFAULT_PARTITIONS = 4
"""Number of partitions of every topic, unless an installation chooses another when it is prepared."""
WEEK_MS = 7 * 24 * 3600 * 1000
KEPT_FOR_GOOD_MS = -1
_A_WEEK = TopicSettings("delete", WEEK_MS)

TOPIC_SETTINGS: dict[str, TopicSettings] = {
    **dict.fromkeys((*INPUT_TOPICS, *OUTPUT_TOPICS), _A_WEEK),
    COMMAND_TOPIC: TopicSettings("delete", KEPT_FOR_GOOD_MS),
    BALANCE_TOPIC: TopicSettings("compact", None),
}
"""Settings of each topic (docs/reference/topics.md)."""
