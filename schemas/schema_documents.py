"""Generator of the JSON Schema of every event and of one AsyncAPI document of all topics, from the models.

``python -m schemas.schema_documents [FOLDER]`` writes them, by default to ``docs/schemas`` of the checkout. A test
compares the files on disk with the models. Topics that only workers read (``*.forwarded``) are not described.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.cloudevents import Attributes
from schemas.commands import COMMANDS
from schemas.fields import DIGEST_PATTERN, SEQUENCE_PATTERN
from schemas.outputs import OUTPUTS, UsageRejectedHeaders
from schemas.topics import DEFAULT_PARTITIONS, TOPIC_SETTINGS
from schemas.usage import USAGE_TYPE, UsageData

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KAFKA_BINDING = "0.5.0"
_HEADERS_FILE = "usage.rejected.headers.json"

Schema = dict[str, Any]
_OUTPUT_ATTRIBUTES: Schema = {
    "sequence": {
        "type": "string",
        "pattern": SEQUENCE_PATTERN,
        "description": "+1 per topic and partition; only the compacted topic has holes",
    },
    "partition": {
        "type": "string",
        "pattern": "^(0|[1-9][0-9]*)$",
        "description": "partition of the commit that the event comes from",
    },
    "commit": {
        "type": "string",
        "pattern": SEQUENCE_PATTERN,
        "description": "number of that commit; rises within the partition",
    },
    "datacontenttype": {"const": "application/json"},
    "previousdigest": {
        "description": "digest of the commit before the one that wrote this event",
        "type": "string",
        "pattern": DIGEST_PATTERN,
    },
    "history": {
        "description": "number of the history of commits; absent in the first one",
        "type": "string",
        "pattern": SEQUENCE_PATTERN,
    },
    "comparedthrough": {
        "description": "in an event that a reconciliation published: the last commit that it compared",
        "type": "string",
        "pattern": SEQUENCE_PATTERN,
    },
}

_TOPICS: tuple[tuple[str, str, str, str], ...] = (
    ("usage.events", "receive", "the account", "Usage of AI tokens."),
    ("account.commands", "receive", "the account", "Commands for accounts, wallets, packages and usage."),
    ("usage.rated", "send", "the partition", "Usage that was rated and paid, in commit order."),
    ("package.balance", "send", "the account", "The complete state of an account; compacted."),
    (
        "account.events",
        "send",
        "the account",
        "Outcome of each command, thresholds reached, packs bought, buckets ended.",
    ),
    ("usage.rejected", "send", "as received", "Usage that is not billed, byte for byte, with the reason in headers."),
)


def _model_schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema(by_alias=True, mode="validation")


def event_schema(event_type: str, model: type[BaseModel], *, output: bool = False) -> Schema:
    """Return the JSON Schema of a complete structured CloudEvent of one type; ``output`` makes sequence required."""
    data = _model_schema(model)
    definitions = data.pop("$defs", None)
    envelope = _model_schema(Attributes)
    properties: Schema = dict(envelope["properties"])
    properties["type"] = {"const": event_type}
    required = [*envelope["required"], "data"]
    if output:
        properties |= _OUTPUT_ATTRIBUTES
        required.append("sequence")
    properties["data"] = data
    schema: Schema = {
        "title": event_type,
        "description": data.get("description", ""),
        "type": "object",
        "required": required,
        "properties": properties,
    }
    if definitions:
        schema["$defs"] = definitions
    return identified(event_type, schema)


def identified(name: str, schema: Schema) -> Schema:
    """Return a schema with its ``$id``, which names its content too: another content never has the same ``$id``."""
    digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
    return {"$schema": DIALECT, "$id": f"urn:tokenbill:schema:{name}:{digest[:16]}"} | schema


def event_schemas() -> dict[str, Schema]:
    """Return the JSON Schema of every event type, by type."""
    schemas = {USAGE_TYPE: event_schema(USAGE_TYPE, UsageData)}
    schemas |= {name: event_schema(name, model) for name, model in COMMANDS.items()}
    schemas |= {name: event_schema(name, model, output=True) for name, model in OUTPUTS.items()}
    return schemas


def _types_of(topic: str) -> list[str]:
    if topic == "usage.events":
        return [USAGE_TYPE]
    if topic == "account.commands":
        return list(COMMANDS)
    return [name for name, model in OUTPUTS.items() if topic == model.TOPIC]


_EVENT_HEADERS: Schema = {
    "type": "object",
    "properties": {
        "content-type": {"type": "string", "description": "application/cloudevents+json: structured mode"},
        "ce_type": {"type": "string", "description": "the type of the event"},
    },
}


def _key_binding(key: str) -> Schema:
    return {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": KAFKA_BINDING}}


def _topic_binding(topic: str) -> Schema:
    """Return the Kafka binding of a topic, with the default number of partitions."""
    cleanup, retention_ms = TOPIC_SETTINGS[topic]
    configuration: Schema = {"cleanup.policy": [cleanup]}
    if retention_ms is not None:
        configuration["retention.ms"] = retention_ms
    return {
        "topic": topic,
        "partitions": DEFAULT_PARTITIONS,
        "topicConfiguration": configuration,
        "bindingVersion": KAFKA_BINDING,
    }


def _message(event_type: str, key: str) -> Schema:
    return {
        "name": event_type,
        "contentType": "application/cloudevents+json",
        "headers": _EVENT_HEADERS,
        "bindings": _key_binding(key),
        "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": _reference(event_type)},
    }


def _reference(event_type: str) -> Schema:
    return {"$ref": f"./{event_type}.json"}


def asyncapi() -> Schema:
    """Return the AsyncAPI 3.0 document of all public topics; Tokenbill reads "receive" topics, writes "send" topics."""
    channels: Schema = {}
    operations: Schema = {}
    messages = {
        event_type: _message(event_type, key) for topic, _, key, _ in _TOPICS for event_type in _types_of(topic)
    }
    rejected = {
        "name": "usage.rejected",
        "contentType": "application/octet-stream",
        "bindings": _key_binding("as received"),
        "headers": {"$ref": f"./{_HEADERS_FILE}"},
        "payload": {"description": "The original value, unchanged; a header content-type is that of the original."},
    }
    messages["usage.rejected"] = rejected
    for topic, action, key, text in _TOPICS:
        names = [topic] if topic == "usage.rejected" else _types_of(topic)
        channels[topic] = {
            "address": topic,
            "description": f"{text} Record key: {key}.",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
            "bindings": {"kafka": _topic_binding(topic)},
        }
        operations[f"{action}.{topic}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic}"},
            "summary": text,
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tokenbill",
            "version": "1",
            "description": _INTRODUCTION,
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


_INTRODUCTION = (
    "Billing of AI tokens. Read outputs with isolation level read_committed. All topics have the same number of "
    "partitions, by default 4, fixed when the installation is prepared; what concerns an account is on the partition "
    "of its account, whichever the topic. Within v1, types of events and fields may be added, and texts that are no "
    "enum may get new values; nothing is removed or changes its meaning. Ignore what you do not know."
)


def documents() -> dict[str, str]:
    """Return every document by file name; the same models give the same text."""
    made: dict[str, Schema] = {f"{name}.json": schema for name, schema in event_schemas().items()}
    made[_HEADERS_FILE] = identified(_HEADERS_FILE.removesuffix(".json"), _model_schema(UsageRejectedHeaders))
    made["asyncapi.json"] = asyncapi()
    return {name: json.dumps(body, indent=2, ensure_ascii=False) + "\n" for name, body in sorted(made.items())}


def main(arguments: list[str]) -> None:
    """Write the documents to a folder."""
    folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1] / "docs" / "schemas"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
